"""Tests of :mod:`derp.net.metrics_site`: ``--metrics-addr``."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.config import Config
from derp.net.debug import debug_resources
from derp.net.metrics import MetricsPage, make_registry
from derp.net.metrics_site import build_metrics_site
from tests.net.sites import AbortableTransport, Visit, get, site_parts
from tests.shown_relay import make_sources


class MetricsSiteTests(SynchronousTestCase):
    """Two pages for everybody, and nothing else."""

    def setUp(self) -> None:
        sources = make_sources()
        self.clock = Clock()
        parts = site_parts(self.clock, Config(tls=False), debug_pages=debug_resources(sources))
        self.site = build_metrics_site(parts, MetricsPage(make_registry(sources)))
        self.sources = sources

    def ask(self, path: str, *, peer: str = "203.0.113.9", method: str = "GET") -> tuple[str, str]:
        """Status and body, for a stranger."""
        visit = Visit(self.site, AbortableTransport(peer))
        head, _, body = visit.send(get(path, method=method)).partition(b"\r\n\r\n")
        return head.split(b"\r\n")[0].decode("ascii"), body.decode("utf-8")

    def test_metrics(self) -> None:
        """A stranger may scrape."""
        status, body = self.ask("/metrics")
        self.assertEqual(status, "HTTP/1.1 200 OK")
        names = {family.name for family in text_string_to_metric_families(body)}
        self.assertIn("derp_packets_received", names)
        self.assertIn("process_open_fds", names)

    def test_health(self) -> None:
        """Who asks whether we live is told."""
        self.assertEqual(self.ask("/healthz"), ("HTTP/1.1 200 OK", "ok\n"))
        self.assertEqual(self.ask("/healthz", method="HEAD"), ("HTTP/1.1 200 OK", ""))

    def test_nothing_else(self) -> None:
        """No page of the main port is here, not even for those who may see it there."""
        for path in ("/", "/derp", "/debug/", "/debug/varz", "/metrics/", "/healthz/x", "/x"):
            for peer in ("203.0.113.9", "127.0.0.1"):
                self.assertEqual(
                    self.ask(path, peer=peer), ("HTTP/1.1 404 Not Found", "404 page not found\n")
                )

    def test_not_counted(self) -> None:
        """Scrapes are not among the relay's own requests."""
        self.ask("/metrics")
        self.assertEqual(self.sources.tls_requests.requests, {})

    def test_silence_ends(self) -> None:
        """Who connects and says nothing is cut off."""
        visit = Visit(self.site)
        self.clock.pump([1.0] * 40)
        self.assertTrue(visit.closing)
