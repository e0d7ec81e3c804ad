"""The reference server's recorded HTTP answers, from our sites over loopback TCP."""

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.trial.unittest import TestCase

from derp.core.bootstrap_dns import BootstrapDNS, ResolvedNames
from derp.net.web import SiteParts, build_main_site, build_plain_site
from tests.net.http_exchange import Exchange
from tests.net.http_vectors import CONFIGS, HTTPVectorsMixin
from tests.net.sites import TextPage, site_parts

USAGE = (
    b"To set, use: curl -HSec-Debug:derp 'http://derp/debug/set-mutex-profile-fraction?rate=100'\n"
)
DEBUG_PAGES = {
    "/debug/": TextPage(b"index", b"text/html; charset=utf-8"),
    "/debug/vars": TextPage(b"{}", b"application/json; charset=utf-8"),
    "/debug/varz": TextPage(b"derp_accepts 0\n"),
    "/debug/check": TextPage(b"fine"),
    "/debug/gc": TextPage(b"done"),
    "/debug/set-mutex-profile-fraction": TextPage(USAGE, b"text/plain; charset=utf-8", 400),
}


class WebVectorTests(HTTPVectorsMixin, TestCase):
    """Our sites answer as the reference does."""

    def _parts(self, server: str) -> SiteParts:
        bootstrap = BootstrapDNS(coin=lambda: 0.0, shuffle=lambda found: None)
        if CONFIGS[server].bootstrap_dns_names:
            bootstrap.publish(ResolvedNames({"localhost": ["127.0.0.1"]}))
        return site_parts(reactor, CONFIGS[server], debug_pages=DEBUG_PAGES, bootstrap=bootstrap)

    def open_connection(self, server: str, listener: str) -> Deferred[Exchange]:
        parts = self._parts(server)
        site: Any = build_main_site(parts)
        if listener == "plain":
            site = build_plain_site(parts, site)
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(parts.wheel.stop)
        self.addCleanup(port.stopListening)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        return connectProtocol(endpoint, Exchange())
