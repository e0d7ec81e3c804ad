"""
From a DERP map to the probes it asks for, and from those there are to those there should be.

=============================  ===========  ==============================================
name                           class        for each
=============================  ===========  ==============================================
``derp/<code>/<node>/tls``     tls          node
``derp/<code>/<node>/udp``     derp_udp     node that has an IPv4 address and answers STUN
``derp/<code>/<node>/udp6``    derp_udp     node that has an IPv6 address and answers STUN
``derp/<code>/<a>/<b>/mesh``   derp_mesh    ordered pair of nodes of a region, a = b as well
``derp/<code>/<a>/<b>/bw``     derp_bw      the same, if bandwidth is measured
``derp/<code>/<a>/<b>/qd``     derp_qd      the same, if queuing delay is measured
=============================  ===========  ==============================================

A node that is for STUN only is probed like any other. An ``IPv4`` or ``IPv6`` that is no such
address (``none``) says that the node has none, and gets no probe. Source: tailscale ``prober``,
where it gets one that always fails.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, Literal

from twisted.logger import Logger

from derp.prober.bandwidth_check import bandwidth_check
from derp.prober.check import Check, ProbeFailed
from derp.prober.map_source import MapKeeper
from derp.prober.mesh_check import mesh_check
from derp.prober.prober import Prober
from derp.prober.queue_delay_check import queue_delay_check
from derp.prober.targets import Targets
from derp.prober.tls_check import tls_check
from derp.prober.tolerance import Tolerance, within
from derp.prober.udp_check import udp_check
from derp.quoting import quoted
from derp.wire.derp_map import DERPMap, Node, Region

log = Logger(namespace="derp")

MAP_PROBE: Final = "derpmap-probe"
EVERYTHING: Final = Tolerance()
QD_RETRY_S: Final = 10.0
"""Seconds before the queuing delay is measured again after a failure."""
MAX_PROBES: Final = 10_000
"""Pairs grow with the square of a region's nodes; beyond this the map is a mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """Seconds between two runs of each class of probes; 0 or less is not at all."""

    mesh: float = 15.0
    stun: float = 15.0
    tls: float = 15.0
    bandwidth: float = 0.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A probe that the map asks for."""

    interval: float
    make: Callable[[], Check]
    origin: Hashable
    """What it was made of: a probe of another origin is another one, whatever its name."""


def checks_for(
    derp_map: DERPMap,
    targets: Targets,
    intervals: Intervals,
    region_code: str = "",
    tolerance: Tolerance = EVERYTHING,
) -> dict[str, Wanted]:
    """
    Say which probes a map asks for.

    :param region_code: code or number of the only regions that count; empty is all.
    :return: by name, in the map's order.
    :raises ProbeFailed: if there are none, or too many, or two of the same name.
    """
    found: dict[str, Wanted] = {}
    plan = _Plan(targets, intervals, tolerance)
    for region in _regions(derp_map, region_code):
        for name, wanted in plan.of_region(region):
            if name in found:
                raise ProbeFailed(
                    f"two probes would be called {quoted(name)}: leave the slashes out of region "
                    "codes and node names"
                )
            if len(found) == MAX_PROBES:
                raise ProbeFailed(
                    f"the DERP map asks for more than {MAX_PROBES} probes: choose a region with "
                    "--region-code"
                )
            found[name] = wanted
    return found


def _regions(derp_map: DERPMap, code: str) -> list[Region]:
    regions = list(derp_map.regions.values())
    if not code:
        return regions
    chosen = [each for each in regions if code in (each.code, str(each.region_id))]
    if not chosen:
        known = ", ".join(quoted(region.code) for region in regions[:20])
        raise ProbeFailed(
            f"no region of the DERP map has the code or the number {quoted(code)} "
            f"(--region-code); it has {known}"
        )
    return chosen


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to probe of any map."""

    targets: Targets
    intervals: Intervals
    tolerance: Tolerance

    def of_region(self, region: Region) -> Iterator[tuple[str, Wanted]]:
        for node in region.nodes:
            yield from self._tls(region, node)
            yield from self._stun(region, node)
            for other in region.nodes:
                yield from self._pair(region, node, other)

    def _tls(self, region: Region, node: Node) -> Iterator[tuple[str, Wanted]]:
        def make() -> Check:
            return tls_check(self.targets, region, node)

        if self.intervals.tls > 0:
            origin = ("tls", region.region_id, node)
            yield f"derp/{region.code}/{node.name}/tls", Wanted(self.intervals.tls, make, origin)

    def _stun(self, region: Region, node: Node) -> Iterator[tuple[str, Wanted]]:
        def make(family: Literal["ipv4", "ipv6"]) -> Check:
            return within(self.tolerance, udp_check(self.targets, region, node, family))

        if self.intervals.stun <= 0 or node.stun_port is None:
            return
        name = f"derp/{region.code}/{node.name}"
        if is_ipv4(node.ipv4):
            origin = ("udp", region.region_id, node)
            yield f"{name}/udp", Wanted(self.intervals.stun, lambda: make("ipv4"), origin)
        if is_ipv6(node.ipv6):
            origin = ("udp6", region.region_id, node)
            yield f"{name}/udp6", Wanted(self.intervals.stun, lambda: make("ipv6"), origin)

    def _pair(
        self, region: Region, source: Node, destination: Node
    ) -> Iterator[tuple[str, Wanted]]:
        """Probes of a pair look their nodes up at each run: only their labels are fixed."""

        def mesh() -> Check:
            return within(self.tolerance, mesh_check(self.targets, region, source, destination))

        def bandwidth() -> Check:
            return bandwidth_check(self.targets, region, source, destination)

        def queue_delay() -> Check:
            return queue_delay_check(self.targets, region, source, destination)

        name = f"derp/{region.code}/{source.name}/{destination.name}"
        labels = (region.region_id, source.host_name)
        if self.intervals.mesh > 0:
            yield f"{name}/mesh", Wanted(self.intervals.mesh, mesh, ("mesh", *labels))
        if self.intervals.bandwidth > 0 and self.targets.bandwidth_size > 0:
            yield f"{name}/bw", Wanted(self.intervals.bandwidth, bandwidth, ("bw", *labels))
        if self.targets.qd_rate > 0:
            yield f"{name}/qd", Wanted(-QD_RETRY_S, queue_delay, ("qd", *labels))


def is_ipv4(text: str) -> bool:
    """Whether this is an IPv4 address."""
    try:
        IPv4Address(text)
    except AddressValueError:
        return False
    return True


def is_ipv6(text: str) -> bool:
    """Whether this is an IPv6 address."""
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True


class MapProbe:
    """
    The probe that fetches the map, and makes the others what it says.

    :param keeper: fetches it, and has it for the checks.
    """

    def __init__(
        self,
        prober: Prober,
        keeper: MapKeeper,
        targets: Targets,
        intervals: Intervals,
        region_code: str = "",
        tolerance: Tolerance = EVERYTHING,
    ) -> None:
        self._prober = prober
        self._keeper = keeper
        self._targets = targets
        self._intervals = intervals
        self._region_code = region_code
        self._tolerance = tolerance
        self._origins: dict[str, Hashable] = {}
        self._map: DERPMap | None = None
        self.check = Check(probe_class="derp_map", labels={}, run=self.run, findings=self._findings)

    async def run(self) -> None:
        """Fetch the map and reconcile; if anything is wrong with it, all stays as it was."""
        derp_map = await self._keeper.refresh()
        if derp_map == self._map:
            return
        wanted = checks_for(
            derp_map, self._targets, self._intervals, self._region_code, self._tolerance
        )
        new = {
            name: each.make()
            for name, each in wanted.items()
            if self._origins.get(name) != each.origin
        }
        self._keeper.use(derp_map)
        self._map = derp_map
        for name in [name for name in self._origins if name not in wanted or name in new]:
            log.info("removing DERP probe {name}", name=name)
            del self._origins[name]
            self._prober.remove(name)
        for name, check in new.items():
            log.info("adding DERP probe {name}", name=name)
            self._origins[name] = wanted[name].origin
            self._prober.add(name, wanted[name].interval, check)

    def _findings(self) -> dict[str, str | int | float]:
        regions = self._keeper.current.regions.values()
        return {"regions": len(regions), "nodes": sum(len(region.nodes) for region in regions)}
