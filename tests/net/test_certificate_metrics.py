"""What metrics and the debug page show of certificates."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from derp.net.certificate_status import CertificateStatus
from derp.net.debug import debug_resources
from derp.net.relay_metrics import RelayMetrics
from tests.shown_relay import make_sources

DAY = 86400.0


class CertificateMetricsTests(SynchronousTestCase):
    """One certificate, from wanted to nearly over."""

    def setUp(self) -> None:
        self.sources = make_sources()
        self.status = CertificateStatus("a.test", "acme")
        self.sources.certificates = lambda: [self.status]
        self.registry = CollectorRegistry(auto_describe=True)
        self.registry.register(RelayMetrics(self.sources))

    def value(self, name: str, **labels: str) -> float | None:
        """One sample."""
        labels |= {"name": "a.test", "source": "acme"}
        return self.registry.get_sample_value(f"derp_certificate_{name}", labels)

    def page(self) -> str:
        """The debug index."""
        request = DummyRequest([b""])
        return debug_resources(self.sources)["/debug/"].render(request).decode("utf-8")

    def test_wanted(self) -> None:
        """What never happened has no time."""
        self.assertEqual(self.value("attempts_total", result="success"), 0)
        for name in ("not_before", "not_after", "last_success", "last_failure"):
            self.assertIsNone(self.value(f"{name}_timestamp_seconds"), name)
        self.assertIn("<b>Certificate:</b> acme certificate for a.test; none yet", self.page())

    def test_served(self) -> None:
        """Dates, attempts, and the last error in words."""
        now = self.sources.wall_time()
        self.status.not_before, self.status.not_after = now - 89 * DAY, now + 3600.0
        self.status.succeeded(now - 89 * DAY)
        self.status.failed(now, "the CA <is> down")
        self.assertEqual(self.value("attempts_total", result="success"), 1)
        self.assertEqual(self.value("attempts_total", result="failure"), 1)
        self.assertEqual(self.value("not_after_timestamp_seconds"), now + 3600)
        self.assertEqual(self.value("last_success_timestamp_seconds"), now - 89 * DAY)
        self.assertEqual(self.value("last_failure_timestamp_seconds"), now)
        page = self.page()
        self.assertIn("2 attempts, 1 failed; last error: the CA &lt;is&gt; down", page)
        self.assertIn("(the TLS certificate of this relay (a.test) expires in 1 h", page)
