"""Does a packet go from one node to another, or through the one there is?"""

from __future__ import annotations

from collections.abc import Mapping

from derp.prober.check import Check
from derp.prober.first_packet import send_first_packet
from derp.prober.pair import Pair, run_pair
from derp.prober.targets import Targets, pair_labels
from derp.wire.derp_map import Node, Region


def mesh_check(targets: Targets, region: Region, source: Node, destination: Node) -> Check:
    """Make the check; findings: ``packet_ms``."""
    mesh = _MeshCheck(targets, source.name, destination.name)
    return Check(
        probe_class="derp_mesh",
        labels=pair_labels(region, source, destination),
        run=mesh.run,
        findings=lambda: mesh.findings,
    )


class _MeshCheck:
    def __init__(self, targets: Targets, source: str, destination: str) -> None:
        self.findings: Mapping[str, float] = {}
        self._targets = targets
        self._names = source, destination

    async def run(self) -> None:
        self.findings = {}
        await run_pair(self._targets, *self._names, self._exchange, is_prober=True)

    async def _exchange(self, pair: Pair) -> None:
        seconds = await send_first_packet(self._targets, pair)
        self.findings = {"packet_ms": round(seconds * 1000, 3)}
