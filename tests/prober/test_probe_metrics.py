"""Tests for :mod:`derp.prober.probe_metrics`: names, labels, and when a series is there."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.prober.check import Check, ProbeFailed
from derp.prober.probe_metrics import SETTLED_S, ProbeMetrics
from derp.prober.prober import Prober
from tests.exposition import Exposition
from tests.prober.checks import FakeCheck, failing, nothing
from tests.wall_clock import WallClock

START = 1_700_000_000.5
COMMON = {"region": "zero", "region_id": "900", "hostname": "h"}


class MetricsTests(SynchronousTestCase):
    """What is exported of a probe."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.rightNow = START
        self.fake = FakeCheck(self.clock, "tls", **COMMON)
        self.wall = WallClock(self.clock, 1_700_000_000.0)
        self.prober = Prober(self.clock, spread=False, wall_time=self.wall.seconds)
        self.addCleanup(self.prober.stop)

    def scrape(self) -> dict[str, float]:
        """Each sample without ``derpprobe_``; labels only where they are the sample's own."""
        registry = CollectorRegistry()
        registry.register(ProbeMetrics(self.prober))
        self.shown = Exposition.parse(generate_latest(registry).decode())
        own = {"name", "class", *COMMON}
        found = {}
        for (name, labels), value in self.shown.samples.items():
            rest = [f"{label}={of}" for label, of in labels if label not in own]
            found[" ".join([name.removeprefix("derpprobe_"), *rest])] = value
        return found

    def test_life(self) -> None:
        """From before the first run to after a failure."""
        self.prober = Prober(self.clock, spread=True, wall_time=self.wall.seconds)
        self.addCleanup(self.prober.stop)
        probe = self.prober.add("derp/zero/1a/tls", 10.0, self.fake.check)
        self.assertEqual(self.scrape(), {"interval_secs": 10, "in_flight": 0})
        self.clock.advance(10)
        started = int(probe.history.started or 0)
        running = {"interval_secs": 10, "in_flight": 1, "start_secs": started}
        self.assertEqual(self.scrape(), running)
        self.clock.advance(0.25)
        self.fake.succeed()
        ended = int(probe.history.ended or 0)
        self.assertEqual(
            self.scrape(),
            {
                **running,
                "in_flight": 0,
                "end_secs": ended,
                "latency_millis": 250,
                "result": 1,
                "attempts_total status=ok": 1,
                "attempts_total status=fail": 0,
                "seconds_total status=ok": 0.25,
                "seconds_total status=fail": 0,
            },
        )
        self.clock.advance(10)
        self.clock.advance(0.5)
        self.fake.fail(ProbeFailed("no"))
        found = self.scrape()
        self.assertNotIn("latency_millis", found)
        self.assertEqual((found["result"], found["attempts_total status=fail"]), (0, 1))

    def test_labels(self) -> None:
        """Name, class, and all of the check's; counters are typed as such."""
        self.fake.at_once = nothing
        self.prober.add("derp/zero/1a/tls", 10.0, self.fake.check)
        self.scrape()
        labels = {"name": "derp/zero/1a/tls", "class": "tls", **COMMON}
        labels = dict(sorted(labels.items()))
        self.assertEqual(self.shown.value("derpprobe_result", **labels), 1)
        self.assertEqual(self.shown.value("derpprobe_attempts_total", **labels, status="ok"), 1)
        self.assertEqual(self.shown.types["derpprobe_attempts_total"], "counter")
        self.assertEqual(self.shown.types["derpprobe_latency_millis"], "gauge")

    def test_removed(self) -> None:
        """Of a hundred probes fifty are removed, and so are their series."""
        self.fake.at_once = nothing
        for number in range(100):
            self.prober.add(f"p{number}", 10.0, self.fake.check)
        for count in (100, 50):
            self.scrape()
            results = [name for name, _ in self.shown.samples if name == "derpprobe_result"]
            self.assertEqual(len(results), count)
            for name in list(self.prober.probes)[:50]:
                self.prober.remove(name)

    def test_continuous(self) -> None:
        """No end before there was one; working once it lasts, and not while it begins anew."""
        probe = self.prober.add("qd", -10.0, self.fake.check)
        self.assertNotIn("end_secs", self.scrape())
        self.assertNotIn("result", self.scrape())
        self.wall.set_by(3600.0)
        self.assertNotIn("result", self.scrape())
        self.wall.set_by(-7200.0)
        self.clock.advance(SETTLED_S)
        self.assertEqual((self.scrape()["result"], self.scrape()["interval_secs"]), (1, -10))
        self.fake.at_once = failing(ProbeFailed("cut"))
        self.fake.fail(ProbeFailed("cut"))
        self.assertEqual(self.scrape()["result"], 0)
        self.fake.at_once = None
        self.clock.advance(10)
        self.assertEqual((probe.in_flight, self.scrape()["result"]), (1, 0))
        self.clock.advance(SETTLED_S)
        self.assertEqual(self.scrape()["result"], 1)

    def test_bare_counter(self) -> None:
        """A counter without ``_total`` keeps its name, and has no type of another one."""

        def metrics() -> Iterable[Metric]:
            dropped = Metric("derpprobe_derp_qd_probe_dropped_packets", "Lost", "counter")
            dropped.add_sample(dropped.name, {}, 4)
            yield dropped

        check = Check(probe_class="derp_qd", labels={}, run=self.fake.run, metrics=metrics)
        self.prober.add("a", -10.0, check)
        self.scrape()
        name = "derpprobe_derp_qd_probe_dropped_packets"
        self.assertEqual(self.shown.value(name, **{"class": "derp_qd", "name": "a"}), 4)
        self.assertEqual(
            (self.shown.types[name], f"{name}_total" in self.shown.types), ("untyped", 0)
        )

    def test_own_metrics(self) -> None:
        """Metrics of checks are put together by name, with each probe's labels."""

        def metrics() -> Iterable[Metric]:
            delays = Metric("derpprobe_derp_qd_probe_delays_seconds", "Delays", "histogram")
            delays.add_sample(f"{delays.name}_bucket", {"le": "0.5"}, 2)
            delays.add_sample(f"{delays.name}_bucket", {"le": "+Inf"}, 3)
            yield delays

        for name in ("a", "b"):
            check = Check(probe_class="derp_qd", labels={}, run=self.fake.run, metrics=metrics)
            self.prober.add(name, -10.0, check)
        self.scrape()
        metric = "derpprobe_derp_qd_probe_delays_seconds"
        self.assertEqual(self.shown.types[metric], "histogram")
        for name in ("a", "b"):
            labels = {"class": "derp_qd", "le": "0.5", "name": name}
            self.assertEqual(self.shown.value(f"{metric}_bucket", **labels), 2)
