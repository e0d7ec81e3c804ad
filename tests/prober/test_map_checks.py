"""Tests for :mod:`derp.prober.map_checks`: which probes a map asks for."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.prober.check import ProbeFailed
from derp.prober.map_checks import (
    MAP_PROBE,
    MAX_PROBES,
    QD_RETRY_S,
    Intervals,
    MapProbe,
    Wanted,
    checks_for,
    is_ipv4,
    is_ipv6,
)
from derp.prober.map_source import MapKeeper, read_map
from derp.prober.prober import Prober
from derp.prober.targets import Targets
from tests.prober.maps import map_json, node, region


class FakeSource:
    """Gives what a test has put there."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.error: Exception | None = None
        self.hangs = False

    async def read(self) -> bytes:
        if self.hangs:
            await Deferred()
        if self.error is not None:
            raise self.error
        return self.data

    def close(self) -> None:
        """Nothing to do."""


def targets(**fields: Any) -> Targets:
    """Targets of checks that are made and not run."""
    clock = Clock()
    return Targets(reactor=clock, current_map=lambda: read_map(b""), **fields)


class ChecksTests(SynchronousTestCase):
    """:func:`checks_for`."""

    def wanted(self, *regions: Any, code: str = "", **options: Any) -> dict[str, Wanted]:
        """What a map asks for."""
        intervals = Intervals(**options.pop("intervals", {}))
        return checks_for(read_map(map_json(*regions)), targets(**options), intervals, code)

    def classes(self, *regions: Any, **options: Any) -> dict[str, int]:
        """How many checks of each class that are."""
        found = self.wanted(*regions, **options)
        return dict(Counter(each.make().probe_class for each in found.values()))

    def test_names_and_labels(self) -> None:
        """One node and every class: names, classes, labels and intervals."""
        found = self.wanted(
            region("zero", node("1a", HostName="h")),
            qd_rate=10,
            intervals={"mesh": 1.0, "stun": 2.0, "tls": 3.0, "bandwidth": 4.0},
        )
        common = {"region": "zero", "region_id": "0", "hostname": "h"}
        single = {**common, "derp_path": "single"}
        expected = {
            "derp/zero/1a/tls": ("tls", common, 3.0),
            "derp/zero/1a/udp": ("derp_udp", {**common, "address_family": "ipv4"}, 2.0),
            "derp/zero/1a/udp6": ("derp_udp", {**common, "address_family": "ipv6"}, 2.0),
            "derp/zero/1a/1a/mesh": ("derp_mesh", single, 1.0),
            "derp/zero/1a/1a/bw": ("derp_bw", {**single, "tcp_in_tcp": "false"}, 4.0),
            "derp/zero/1a/1a/qd": ("derp_qd", single, -QD_RETRY_S),
        }
        made = {name: (each.make(), each.interval) for name, each in found.items()}
        shown = {
            name: (check.probe_class, dict(check.labels), interval)
            for name, (check, interval) in made.items()
        }
        self.assertEqual(shown, expected)

    def test_pairs(self) -> None:
        """Every ordered pair of a region, and none across regions."""
        found = self.wanted(
            region("a", node("1a"), node("1b")), region("b", node("2a")), intervals={"tls": 0}
        )
        meshes = {name: found[name].make().labels for name in found if name.endswith("/mesh")}
        paths = {name: labels["derp_path"] for name, labels in meshes.items()}
        self.assertEqual(
            paths,
            {
                "derp/a/1a/1a/mesh": "single",
                "derp/a/1a/1b/mesh": "mesh",
                "derp/a/1b/1a/mesh": "mesh",
                "derp/a/1b/1b/mesh": "single",
                "derp/b/2a/2a/mesh": "single",
            },
        )
        self.assertEqual(meshes["derp/a/1a/1b/mesh"]["hostname"], "derp1a.example.com")

    def test_disabled(self) -> None:
        """An interval of zero or less, a rate or a size of zero: none of that class."""
        one = region("a", node("1a"))
        off = {"mesh": 0.0, "stun": -1.0, "tls": 0.0}
        self.assertEqual(self.classes(one, intervals=off), {})
        with_bandwidth = {**off, "bandwidth": 60.0}
        self.assertEqual(self.classes(one, intervals=with_bandwidth), {"derp_bw": 1})
        nothing = self.classes(one, intervals=with_bandwidth, bandwidth_size=0)
        self.assertEqual(nothing, {})

    def test_stun(self) -> None:
        """Only where the node has the family's address and answers STUN."""
        for fields, expected in (
            ({}, ["udp", "udp6"]),
            ({"STUNPort": -1}, []),
            ({"IPv4": "none"}, ["udp6"]),
            ({"IPv6": "none"}, ["udp"]),
            ({"IPv4": "", "IPv6": ""}, []),
            ({"IPv4": "2001:db8::1", "IPv6": "192.0.2.1"}, []),
            ({"IPv4": "192.0.2.1.", "IPv6": "2001:db8::1]"}, []),
        ):
            found = self.wanted(region("a", node("1a", **fields)), intervals={"mesh": 0, "tls": 0})
            self.assertEqual([name.split("/")[-1] for name in found], expected, fields)

    def test_stun_only(self) -> None:
        """A node that is for STUN only is probed as a whole one."""
        found = self.classes(region("a", node("1a", STUNOnly=True)))
        self.assertEqual(found, {"tls": 1, "derp_udp": 2, "derp_mesh": 1})

    def test_filter(self) -> None:
        """By code or number, in the same case; a region that is not there is an error."""
        regions = region("zero", node("1a")), region("one", node("2a"))
        for code, expected in (("zero", "zero"), ("1", "one")):
            found = self.wanted(*regions, code=code)
            self.assertEqual({name.split("/")[1] for name in found}, {expected})
        error = self.assertRaises(ProbeFailed, self.wanted, *regions, code="Zero")
        self.assertIn('"Zero" (--region-code); it has "zero", "one"', str(error))

    def test_same_names(self) -> None:
        """Slashes in names can make two probes one: refused before anything is changed."""
        alike = region("a", node("x"), node("x/x"))
        error = self.assertRaises(ProbeFailed, self.wanted, alike)
        self.assertIn("derp/a/x/x/x/mesh", str(error))

    def test_too_many(self) -> None:
        """A map cannot make us probe without end."""
        crowd = region("a", *(node(f"n{number}") for number in range(120)))
        error = self.assertRaises(ProbeFailed, self.wanted, crowd)
        self.assertIn(f"more than {MAX_PROBES} probes", str(error))

    def test_addresses(self) -> None:
        """What counts as an address."""
        self.assertTrue(is_ipv4("192.0.2.1") and is_ipv6("::1"))
        for text in ("", "none", "::1", "192.0.2", "192.0.2.01", "1"):
            self.assertFalse(is_ipv4(text), text)
        for text in ("", "none", "192.0.2.1", "[::1]", "1"):
            self.assertFalse(is_ipv6(text), text)


class ReconcileTests(SynchronousTestCase):
    """:class:`MapProbe`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.prober = Prober(self.clock, spread=True, wall_time=self.clock.seconds)
        self.addCleanup(self.prober.stop)
        self.source = FakeSource(b"")

    def begin(self, data: bytes, code: str = "zero") -> MapKeeper:
        """Begin to probe what a map says."""
        self.source.data = data
        keeper = MapKeeper(self.clock, self.source, 10.0)
        goals = Targets(reactor=self.clock, current_map=lambda: keeper.current)
        intervals = Intervals(mesh=1e6, stun=1e6, tls=1e6)
        self.map_probe = MapProbe(self.prober, keeper, goals, intervals, code)
        self.refresh()
        return keeper

    def refresh(self, data: bytes | None = None) -> None:
        """Let the map probe run once."""
        if data is not None:
            self.source.data = data
        self.successResultOf(Deferred.fromCoroutine(self.map_probe.run()))

    def refused(self, data: bytes) -> str:
        """Let it run, see it fail and nothing change; give what it said."""
        before = dict(self.prober.probes)
        self.source.data = data
        running = Deferred.fromCoroutine(self.map_probe.run())
        said = str(self.failureResultOf(running, ProbeFailed).value)
        self.assertEqual(self.prober.probes, before)
        return said

    def test_numbers(self) -> None:
        """Two nodes are 10 probes, three 18, one 4; without the filter 8."""
        one = region("one", node("9z"))
        nodes = [node("1a"), node("1b"), node("1c")]
        self.begin(map_json(region("zero", *nodes[:2]), one))
        self.assertEqual(len(self.prober.probes), 10)
        self.refresh(map_json(region("zero", *nodes), one))
        self.assertEqual(len(self.prober.probes), 18)
        self.refresh(map_json(region("zero", nodes[0]), one))
        self.assertEqual(len(self.prober.probes), 4)
        self.successResultOf(self.prober.stop())
        self.begin(map_json(region("zero", nodes[0]), one), code="")
        self.assertEqual(len(self.prober.probes), 8)

    def test_kept(self) -> None:
        """Probes whose node is the same stay, with their history."""
        self.begin(map_json(region("zero", node("1a"))))
        before = dict(self.prober.probes)
        self.refresh(map_json(region("zero", node("1a"), node("1b"))))
        for name, probe in before.items():
            self.assertIs(self.prober.probes[name], probe)
        self.refresh(map_json(region("zero", node("1a")), OmitDefaultRegions=True))
        self.assertEqual(self.prober.probes, before)

    def test_replaced(self) -> None:
        """A node's new address makes new probes of it; pairs look it up themselves."""
        self.begin(map_json(region("zero", node("1a"))))
        before = dict(self.prober.probes)
        self.refresh(map_json(region("zero", node("1a", IPv4="198.51.100.7"))))
        same = {name for name in before if self.prober.probes[name] is before[name]}
        self.assertEqual(same, {"derp/zero/1a/1a/mesh"})
        self.assertTrue(before["derp/zero/1a/tls"].removed)
        self.assertEqual(len(self.prober.probes), 4)

    def test_replaced_labels(self) -> None:
        """A new host name is in the labels of all, so that all are new."""
        self.begin(map_json(region("zero", node("1a"))))
        before = dict(self.prober.probes)
        self.refresh(map_json(region("zero", node("1a", HostName="new.example.com"))))
        for name, probe in self.prober.probes.items():
            self.assertIsNot(probe, before[name])
            self.assertEqual(probe.labels["hostname"], "new.example.com")

    def test_current_map(self) -> None:
        """Checks find the nodes of the map that is in use."""
        keeper = self.begin(map_json(region("zero", node("1a"))))
        self.refused(map_json(region("one", node("1a"))))
        self.assertIsNotNone(keeper.current.region("zero"))
        self.refresh(map_json(region("zero", node("1b"))))
        self.assertEqual((keeper.current.node("1a"), keeper.current.node("1b") is None), (None, 0))
        self.assertEqual(dict(self.map_probe.check.findings()), {"regions": 1, "nodes": 1})

    def test_bad_maps(self) -> None:
        """Each is said in words, and the probes there are stay."""
        self.begin(map_json(region("zero", node("1a"))))
        twice = map_json(region("zero", node("1a")), region("one", node("1a")))
        port = map_json(region("zero", node("1a", DERPPort=70000)))
        stun = map_json(region("zero", node("1a", STUNPort=-2)))
        for data, words in (
            (b"", "empty"),
            (b" \n", "empty"),
            (b"<html>", "no JSON"),
            (b"[]", "no JSON object"),
            (b"{}", "no node"),
            (b"null", "no node"),
            (map_json(region("zero")), "no node"),
            (twice, '"1a", in region 0 and in region 1'),
            (port, "no port: 70000"),
            (stun, "no port: -2"),
            (map_json(region("zero", {"Name": "1a"})), "has no HostName"),
            (map_json(region("other", node("1a"))), "--region-code"),
            (b'{"Regions":' + b"[" * 100_000, "no JSON"),
        ):
            self.assertIn(words, self.refused(data), data[:80])
        self.assertEqual(len(self.prober.probes), 4)

    def test_unknown_fields(self) -> None:
        """What we do not know does not matter, nor does case."""
        data = map_json(region("zero", node("1a", Future={"x": [1]})), Future=1)
        self.begin(data.replace(b"HostName", b"hostNAME"))
        self.assertEqual(len(self.prober.probes), 4)

    def test_goes_on(self) -> None:
        """After a bad map a good one counts, also if it is the one of before."""
        good = map_json(region("zero", node("1a")))
        self.begin(good)
        self.refused(b"")
        self.refresh(good)
        self.refresh(map_json(region("zero", node("1b"))))
        self.assertIn("derp/zero/1b/tls", self.prober.probes)

    def test_as_a_probe(self) -> None:
        """The map probe is one of the prober's, and none that a map could name."""
        self.begin(map_json(region("zero", node("1a"))))
        probe = self.prober.add(MAP_PROBE, 15.0, self.map_probe.check)
        self.assertEqual(probe.labels, {"name": "derpmap-probe", "class": "derp_map"})
