"""Tests of :mod:`derp.prober.snapshot` and :mod:`derp.prober.probe_view`."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.prober.probe_view import (
    BUCKET_S,
    ViewMemory,
    changed_view,
    failing_since,
    nodes_of,
    probe_view,
    shown,
    spark,
    state_of,
    title_of,
)
from derp.prober.snapshot import Views, headline, snapshot
from tests.prober.shown_prober import INTERVAL, START, ShownProber

TLS = "derp/nyc/1a/tls"


class ViewTests(SynchronousTestCase):
    """One probe."""

    def setUp(self) -> None:
        """Probe one node."""
        self.shown = ShownProber()
        self.shown.add_node("nyc", 1, "1a", "derp1.example.com")

    def view(self, name: str = TLS) -> dict[str, Any]:
        return probe_view(self.shown.prober.probes[name])

    def test_before_the_first_run_ends(self) -> None:
        """Nothing is known yet, and nothing is claimed."""
        view = self.view()
        self.assertEqual((view["state"], view["running"], view["reason"]), ("pending", True, ""))
        self.assertEqual((view["latency"], view["p50"], view["spark"]), (None, None, []))

    def test_well(self) -> None:
        """What it is of, and its figures in milliseconds."""
        self.shown.pass_time(1)
        view = self.view()
        self.assertEqual(view["state"], "ok")
        self.assertFalse(view["running"])
        self.assertEqual((view["node"], view["to"]), ("1a", ""))
        self.assertEqual((view["region"], view["region_id"]), ("nyc", "1"))
        self.assertEqual((view["hostname"], view["title"]), ("derp1.example.com", "TLS"))
        self.assertAlmostEqual(view["latency"], 41.0)
        self.assertAlmostEqual(view["p95"], 41.0)
        self.assertEqual((view["runs"], view["failures"], view["results"]), (1, 0, [True]))
        self.assertEqual(view["findings"]["days_left"], 61)

    def test_failing(self) -> None:
        """Why it fails, and since when."""
        self.shown.pass_time(1)
        self.shown.checks[TLS].error = "the certificate has expired"
        self.shown.pass_time(3 * INTERVAL)
        view = self.view()
        self.assertEqual(
            (view["state"], view["reason"]), ("failing", "the certificate has expired")
        )
        self.assertAlmostEqual(view["since"], START + INTERVAL + 0.041, 3)
        self.assertEqual((view["runs"], view["failures"]), (4, 3))

    def test_runs_again(self) -> None:
        """While it runs again it is what it was, with its reason."""
        self.shown.checks[TLS].error = "nothing came back"
        self.shown.pass_time(INTERVAL + 0.01)
        view = self.view()
        self.assertTrue(view["running"])
        self.assertEqual((view["state"], view["reason"]), ("failing", "nothing came back"))

    def test_well_again(self) -> None:
        """A reason is not shown longer than it is true."""
        self.shown.checks[TLS].error = "nothing came back"
        self.shown.pass_time(1)
        self.shown.checks[TLS].error = ""
        self.shown.pass_time(INTERVAL)
        view = self.view()
        self.assertEqual((view["state"], view["reason"], view["since"]), ("ok", "", None))

    def test_continuous(self) -> None:
        """A continuous probe is well once it has gone on for a while."""
        fake = self.shown.add("derp/nyc/1a/1a/qd", "derp_qd", {"region": "nyc"}, interval=-10)
        fake.latency_s = 5
        fake.error = "the connection was lost"
        name = "derp/nyc/1a/1a/qd"
        self.assertEqual(self.view(name)["state"], "pending")
        self.shown.pass_time(6)
        self.assertEqual(self.view(name)["state"], "failing")
        fake.latency_s = 1e6
        self.shown.pass_time(20)
        self.assertEqual(self.view(name)["state"], "failing")
        self.shown.pass_time(30)
        view = self.view(name)
        self.assertEqual((view["state"], view["reason"]), ("ok", ""))
        self.assertTrue(view["continuous"])

    def test_for_json(self) -> None:
        """Whatever a check finds and a map names, the view is JSON of bounded size."""
        fake = self.shown.checks[TLS]
        fake.found = {f"{number}" + "k" * 1000: "v" * 100_000 for number in range(100)}
        fake.error = "e" * 100_000
        self.shown.pass_time(1)
        self.assertLess(len(json.dumps(self.view())), 8000)

    def test_changed(self) -> None:
        """A change carries the end of the sparkline only."""
        view = {"spark": [[0], [300], [600]], "name": "x"}
        self.assertEqual(changed_view(view), {"spark": [[300], [600]], "name": "x"})


class PartsTests(SynchronousTestCase):
    """What views are made of."""

    def test_nodes_of(self) -> None:
        """The nodes are read out of the probe's name."""
        cases = [
            ("derp/nyc/1a/tls", "tls", "nyc", ("1a", "")),
            ("derp/nyc/1a/udp", "derp_udp", "nyc", ("1a", "")),
            ("derp/nyc/1a/udp6", "derp_udp", "nyc", ("1a", "")),
            ("derp/nyc/1a/1b/mesh", "derp_mesh", "nyc", ("1a", "1b")),
            ("derp/n/y/c/1a/1b/bw", "derp_bw", "n/y/c", ("1a", "1b")),
            ("derp/nyc/a/b/a/b/qd", "derp_qd", "nyc", ("a/b", "a/b")),
            ("derpmap-probe", "derp_map", "", ("", "")),
            ("something", "else", "nyc", ("", "")),
        ]
        for name, probe_class, region, nodes in cases:
            self.assertEqual(nodes_of(name, probe_class, region), nodes, name)

    def test_titles(self) -> None:
        """STUN says which family; a class nobody knows keeps its name."""
        self.assertEqual(title_of("derp_udp", {"address_family": "ipv6"}), "STUN IPv6")
        self.assertEqual(title_of("derp_udp", {"address_family": "unknown"}), "STUN")
        self.assertEqual(title_of("new_class", {}), "new_class")

    def test_shown(self) -> None:
        """Control and direction characters are not passed on, and lines are short."""
        self.assertEqual(shown("a\x1b[31mb\u202ec\nd"), "a\ufffd[31mb\ufffdc d")
        self.assertEqual(shown("x" * 1000, 10), "x" * 9 + "…")
        self.assertEqual(shown("\ud800"), "\ufffd")

    @given(st.text(), st.integers(1, 50))
    def test_any_text(self, text: str, limit: int) -> None:
        """Whatever it is, it is short and can be written as UTF-8."""
        line = shown(text, limit)
        self.assertLessEqual(len(line), limit)
        line.encode("utf-8")

    def test_spark(self) -> None:
        """Five minutes are a point; one without a success has no latency."""
        minutes = [
            SimpleNamespace(start=0.0, runs=4, failures=1, latencies=[0.1, 0.2, 0.9]),
            SimpleNamespace(start=60.0, runs=4, failures=0, latencies=[0.3, 0.4]),
            SimpleNamespace(start=BUCKET_S + 60.0, runs=4, failures=4, latencies=[]),
        ]
        self.assertEqual(spark(minutes), [[0, 300.0, 900.0, 1, 8], [1, None, None, 4, 4]])
        self.assertEqual(spark(minutes[1:2]), [[0, 350.0, 400.0]])

    def test_memory(self) -> None:
        """What is kept between two views changes nothing of them, for a day of runs."""
        shown_prober = ShownProber()
        fake = shown_prober.add(TLS, "tls", {"region": "nyc"}, interval=120.0)
        history = shown_prober.prober.probes[TLS].history
        memory = ViewMemory()
        for hour in range(48):
            fake.latency_s = 0.01 + 0.001 * (hour % 7)
            fake.error = "no" if hour % 5 == 0 else ""
            shown_prober.pass_time(1800 + hour * 10)
            # The oldest point loses its minutes one by one, which changes nothing that is kept.
            self.assertEqual(memory.points(history)[1:], spark(history.minutes)[1:])
        self.assertLessEqual(len(memory.points(history)), 73)
        memory.note(history)
        exact = tuple(history.percentile(each) for each in (50, 95, 99))
        for kept, found in zip(memory.percentiles, exact, strict=True):
            self.assertApproximates(kept, found * 1000, 1.5)

    def test_failing_for_hours(self) -> None:
        """A row longer than what is remembered run by run is followed back by minutes."""
        shown_prober = ShownProber()
        fake = shown_prober.add(TLS, "tls", {"region": "nyc"})
        shown_prober.pass_time(600)
        fake.error = "nothing came back"
        shown_prober.pass_time(3 * 3600)
        since = failing_since(shown_prober.prober.probes[TLS].history)
        assert since is not None
        self.assertApproximates(since, START + 600, 61)

    def test_never_failed(self) -> None:
        """No row, no beginning."""
        shown_prober = ShownProber()
        shown_prober.add(TLS, "tls", {"region": "nyc"})
        self.assertIsNone(failing_since(shown_prober.prober.probes[TLS].history))
        self.assertEqual(state_of(shown_prober.prober.probes[TLS]), "pending")


class SnapshotTests(SynchronousTestCase):
    """All probes."""

    def setUp(self) -> None:
        """Probe two regions, one of them meshed, and the map."""
        self.shown = ShownProber()
        self.shown.add("derpmap-probe", "derp_map", {})
        self.shown.add_node("fra", 10, "10a", "derp10.example.com")
        self.shown.add_node("nyc", 2, "1b", "derp1b.example.com")
        self.shown.add_node("nyc", 2, "1a", "derp1a.example.com")
        self.shown.add_pair("nyc", 2, "1a", "1b", "derp1a.example.com")
        self.shown.add_pair("nyc", 2, "1b", "1a", "derp1b.example.com")

    def taken(self) -> dict[str, Any]:
        return snapshot(self.shown.prober, self.shown.clock.seconds())

    def test_regions(self) -> None:
        """Regions are in the order of their ids, nodes in that of their names."""
        regions = self.taken()["regions"]
        self.assertEqual([region["code"] for region in regions], ["nyc", "fra"])
        nodes = [(node["name"], node["hostname"]) for node in regions[0]["nodes"]]
        self.assertEqual(nodes, [("1a", "derp1a.example.com"), ("1b", "derp1b.example.com")])

    def test_nodes(self) -> None:
        """A node has what is of it alone: certificate, STUN by family, a packet to itself."""
        node = self.taken()["regions"][0]["nodes"][0]
        kinds = [name.rpartition("/")[2] for name in node["probes"]]
        self.assertEqual(kinds, ["tls", "udp", "udp6", "mesh"])

    def test_matrix(self) -> None:
        """Pairs are in a matrix, and there is none where nobody is meshed."""
        nyc, fra = self.taken()["regions"]
        self.assertEqual(fra["matrices"], [])
        (matrix,) = nyc["matrices"]
        self.assertEqual(matrix["nodes"], ["1a", "1b"])
        self.assertEqual(matrix["cells"]["1a"]["1b"], "derp/nyc/1a/1b/mesh")
        self.assertEqual(matrix["cells"]["1a"]["1a"], "derp/nyc/1a/1a/mesh")

    def test_headlines(self) -> None:
        """One sentence tells it all."""
        counts = self.taken()["summary"]
        self.assertEqual((counts["total"], headline(counts)), (15, "Waiting for first results"))
        self.shown.pass_time(1)
        self.assertEqual(headline(self.taken()["summary"]), "All healthy")
        self.shown.checks["derp/nyc/1a/1b/mesh"].error = "no packet came"
        self.shown.pass_time(INTERVAL)
        taken = self.taken()
        self.assertEqual(headline(taken["summary"]), "1 of 15 failing")
        states = [taken["summary"]["state"], *(region["state"] for region in taken["regions"])]
        self.assertEqual(states, ["failing", "failing", "ok"])
        nothing = snapshot(ShownProber().prober, START)
        self.assertEqual(headline(nothing["summary"]), "No probes yet")

    def test_last_failures(self) -> None:
        """The newest first; the same thing again and again is there once, and counted."""
        self.shown.checks["derp/nyc/1a/1b/mesh"].error = "no packet came"
        self.shown.pass_time(2 * INTERVAL + 1)
        self.shown.checks["derp/nyc/1a/1b/mesh"].error = ""
        self.shown.checks["derp/fra/10a/tls"].error = "it has expired"
        self.shown.pass_time(INTERVAL)
        first, second = self.taken()["failures"]
        self.assertEqual(
            (first["reason"], first["where"]), ("it has expired", "derp10.example.com (fra)")
        )
        self.assertEqual((second["reason"], second["where"]), ("no packet came", "1a → 1b (nyc)"))
        self.assertEqual((first["count"], second["count"]), (1, 3))
        self.assertAlmostEqual(second["at"] - second["first"], 2 * INTERVAL, 3)

    def test_same_failure(self) -> None:
        """What differs from run to run, as throw-away keys and times do, makes no other failure."""
        name = "derp/nyc/1a/1b/mesh"
        for words in (
            "[q3+Zk] to [/0aBc]: nothing after 12.0 s: still waiting for the packet (13 times)",
            "[AAAAA] to [BBBBB]: nothing after 12.1 s: still waiting for the packet (12 times)",
            "[AAAAA] to [BBBBB]: the relay answers 502",
            "[CCCCC] to [DDDDD]: the relay answers 503",
        ):
            self.shown.checks[name].error = words
            self.shown.pass_time(INTERVAL)
        found = [(each["count"], each["reason"]) for each in self.taken()["failures"]]
        self.assertEqual(
            found,
            [
                (1, "[CCCCC] to [DDDDD]: the relay answers 503"),
                (1, "[AAAAA] to [BBBBB]: the relay answers 502"),
                (
                    2,
                    "[AAAAA] to [BBBBB]: nothing after 12.1 s: still waiting for the packet "
                    "(12 times)",
                ),
            ],
        )

    def test_known_views(self) -> None:
        """Views that are still right are not made anew, and one that is not is."""
        views = Views()
        first = snapshot(self.shown.prober, START, views)
        self.shown.pass_time(1)
        views.spoil(self.shown.prober.probes[TLS])
        second = snapshot(self.shown.prober, START, views)
        self.assertIs(first["probes"]["derpmap-probe"], second["probes"]["derpmap-probe"])
        states = [each["probes"][TLS]["state"] for each in (first, second)]
        self.assertEqual(states, ["pending", "ok"])

    def test_json(self) -> None:
        """All of it can be sent."""
        self.shown.pass_time(1)
        self.assertEqual(json.loads(json.dumps(self.taken()))["map"], "derpmap-probe")
