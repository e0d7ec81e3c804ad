"""Tests of :mod:`derp.net.lifecycle_metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from twisted.trial.unittest import SynchronousTestCase

from derp.core.lifecycle import Event, Lifecycle, Unfit
from derp.net.relay_metrics import RelayMetrics
from tests.shown_relay import make_sources


class LifecycleMetricsTests(SynchronousTestCase):
    """What a scrape reads of a relay's life."""

    def setUp(self) -> None:
        sources = make_sources()
        self.lifecycle = sources.lifecycle = Lifecycle()
        self.registry = CollectorRegistry(auto_describe=True)
        self.registry.register(RelayMetrics(sources))

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"derp_{name}", labels)

    def test_phases(self) -> None:
        """One at a time; ready is only one of them."""
        self.assertEqual((self.value("ready"), self.value("phase", phase="starting")), (0, 1))
        self.lifecycle.enter(Event.STARTED)
        self.assertEqual((self.value("ready"), self.value("phase", phase="ready")), (1, 1))
        self.lifecycle.enter(Event.DRAIN)
        self.assertEqual((self.value("ready"), self.value("phase", phase="draining")), (0, 1))
        self.assertEqual(self.value("phase", phase="ready"), 0)

    def test_reasons(self) -> None:
        """Whether each holds, and how often it began."""
        self.lifecycle.enter(Event.STARTED)
        for holds in (True, False, True):
            self.lifecycle.note(Unfit.OVERLOAD, holds)
        self.assertEqual(self.value("ready"), 0)
        self.assertEqual(self.value("unfit", reason="overloaded"), 1)
        self.assertEqual(self.value("unfit_periods_total", reason="overloaded"), 2)
        self.assertEqual(self.value("unfit", reason="over quota"), 0)
