"""Tests of :mod:`derp.net.metrics`: the page, and that scrapers can read it."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_plain
from prometheus_client.registry import Collector
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from derp.net.metrics import MetricsPage, make_registry
from derp.net.relay_metrics import RelayMetrics
from tests.shown_relay import exchange, make_sources

OPENMETRICS = b"application/openmetrics-text; version=1.0.0"


class MetricsPageTests(SynchronousTestCase):
    """``/metrics``."""

    def setUp(self) -> None:
        sources = make_sources()
        exchange(sources)
        self.page = MetricsPage(make_registry(sources))

    def scrape(self, accept: bytes | None = None) -> tuple[str, str]:
        """Content type and body."""
        request = DummyRequest([b""])
        if accept is not None:
            request.requestHeaders.setRawHeaders(b"Accept", [accept])
        body = self.page.render(request)
        (content_type,) = request.responseHeaders.getRawHeaders(b"Content-Type")
        return content_type.decode("ascii"), body.decode("utf-8")

    def test_plain(self) -> None:
        """Who asks for nothing gets the text format, readable and complete."""
        content_type, body = self.scrape()
        self.assertEqual(content_type, "text/plain; version=0.0.4; charset=utf-8")
        families = {family.name: family for family in parse_plain(body)}
        self.assertEqual(families["derp_packets_sent"].type, "counter")
        self.assertEqual(families["derp_packets_sent"].samples[0].value, 4)
        self.assertEqual(families["derp_write_frames"].type, "histogram")
        self.assertIn("process_resident_memory_bytes", families)

    def test_openmetrics(self) -> None:
        """Who asks for OpenMetrics gets it; its parser is a strict one."""
        content_type, body = self.scrape(OPENMETRICS)
        self.assertTrue(content_type.startswith("application/openmetrics-text"), content_type)
        families = {family.name: family for family in parse_openmetrics(body)}
        self.assertEqual(families["derp_received_bytes"].samples[0].value, 442)
        self.assertEqual(families["derp"].type, "info")

    def test_same_in_both(self) -> None:
        """Both formats have the same metrics."""
        plain = {family.name for family in parse_plain(self.scrape()[1])}
        strict = {family.name for family in parse_openmetrics(self.scrape(OPENMETRICS)[1])}
        self.assertEqual(plain - {"derp_info"}, strict - {"derp"})

    def test_prometheus(self) -> None:
        """What a Prometheus server sends as ``Accept`` is understood."""
        accept = (
            b"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
            b"text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        )
        content_type, _ = self.scrape(accept)
        self.assertTrue(content_type.startswith("application/openmetrics-text"), content_type)

    def test_strange_accept(self) -> None:
        """A header nobody understands gets the text format, not an error."""
        for accept in (
            b"application/openmetrics-text;version=x.y",
            b"application/openmetrics-text;version=\xff",
            b";;;,,,=",
            b"text/plain;version=",
            b"a/b," * 100_000,
        ):
            content_type, _ = self.scrape(accept)
            self.assertTrue(content_type.startswith("text/plain"), accept[:50])

    def test_names_are_unique(self) -> None:
        """The relay's names and the process' do not collide; a collision would be noticed."""
        sources = make_sources()
        registry = make_registry(sources)
        twice: Collector = RelayMetrics(sources)
        self.assertRaises(ValueError, registry.register, twice)
