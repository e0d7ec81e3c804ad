"""Tests of :mod:`derp.net.process_metrics`."""

import resource
from pathlib import Path

from prometheus_client.exposition import generate_latest
from twisted.trial.unittest import SynchronousTestCase

from derp.net.process_metrics import ProcessMetrics
from tests.exposition import Exposition
from tests.vectors import load


class ProcessMetricsTests(SynchronousTestCase):
    """The ``process_…`` metrics."""

    def test_as_derper(self) -> None:
        """Names, types and order are those of Go's client library."""
        shown = Exposition.parse(generate_latest(ProcessMetrics()).decode("ascii"))
        expected = Exposition.parse(load("varz-idle.txt"))
        types = {name: kind for name, kind in expected.types.items() if "process_" in name}
        self.assertEqual(list(shown.types.items()), list(types.items()))
        self.assertEqual(shown.described, list(types))

    def test_no_memory_limit(self) -> None:
        """No limit is shown as the same huge number as there."""
        shown = Exposition.parse(generate_latest(ProcessMetrics()).decode("ascii"))
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        self.assertEqual(
            shown.value("process_virtual_memory_max_bytes"),
            2.0**64 if limit == resource.RLIM_INFINITY else limit,
        )

    def test_no_proc(self) -> None:
        """Where there is no ``/proc`` there are none, and nothing fails."""
        self.assertEqual(list(ProcessMetrics(Path(self.mktemp())).collect()), [])
