"""
The sites of the main and the plain port, put together.

Both are twisted.web's :class:`~twisted.web.server.Site` with our channel and request; what
chooses the page is :mod:`derp.net.mux`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site

from derp.config import Config
from derp.core.bootstrap_dns import BootstrapDNS
from derp.core.lifecycle import Lifecycle, always_ready
from derp.core.tls_request_stats import TLSRequestStats
from derp.net.ace import ConnectDisabled, ConnectResource, EndpointFor
from derp.net.bootstrap_dns import BootstrapDNSResource
from derp.net.debug_access import DebugAccess, guard
from derp.net.derp_resource import DERPResource, RelayDoor, WebSocketStats
from derp.net.http_deadlines import MAIN_RESPONSE_S, PLAIN_RESPONSE_S, HTTPTiming
from derp.net.mux import Mux, Routes
from derp.net.pages import DERPDisabled, NoContent, Probe, Robots, home_for
from derp.net.plain_port import PlainRoutes
from derp.net.readiness import WhileMeasurable, readiness_pages
from derp.net.timer_wheel import TimerWheel
from derp.net.trusted_proxies import TrustedProxies
from derp.net.upgrade import UpgradableChannel
from derp.net.web_request import WebRequest

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress


@dataclass(frozen=True, kw_only=True)
class SiteParts:
    """What the sites are made of."""

    config: Config
    clock: IReactorTime
    wheel: TimerWheel
    relay: RelayDoor
    server_key: bytes
    """The relay's raw public key."""
    debug_pages: Mapping[str, IResource]
    """By path, each starting with ``/debug/``; they need not check access."""
    bootstrap: BootstrapDNS
    dial: EndpointFor | None = None
    """Where CONNECT goes with ``--ace``; see :func:`derp.net.ace.hostname_endpoints`."""
    tls_stats: TLSRequestStats = field(default_factory=TLSRequestStats)
    websocket_stats: WebSocketStats = field(default_factory=WebSocketStats)
    lifecycle: Lifecycle = field(default_factory=always_ready)
    proxies: TrustedProxies | None = None
    """Whose word about the client's address is believed."""


class MainRoutes(Mux):
    """
    Who answers on the main port.

    :param connect: what answers CONNECT, whatever its target; ``None`` on a port without TLS.
    :param derp: the page of ``/derp`` where it is more than a refusal.
    """

    def __init__(
        self,
        routes: Mapping[str, IResource],
        connect: IResource | None,
        derp: DERPResource | None = None,
    ) -> None:
        super().__init__(routes)
        self._connect = connect
        self.derp = derp

    def resource_for(self, request: WebRequest) -> IResource:
        if self._connect is not None and request.method == b"CONNECT":
            return self._connect
        return super().resource_for(request)


class WebSite(Site):
    """
    One port's HTTP.

    There is no access log (derper has none), so nothing ticks while nobody calls.
    """

    requestFactory = WebRequest
    noisy = False

    proxies: TrustedProxies | None = None
    derp: DERPResource | None = None
    """Who answers stock clients' upgrades (:mod:`derp.net.first_request`), if anybody does."""

    def __init__(self, routes: Routes, timing: HTTPTiming, tls_stats: TLSRequestStats) -> None:
        # twisted.web's own timeout is off: ours are absolute.
        super().__init__(
            Resource(), timeout=None, reactor=timing.clock, parsePOSTFormSubmission=False
        )
        self.routes = routes
        self.tls_stats = tls_stats
        self.timing = timing

    def buildProtocol(self, addr: IAddress | None) -> Any:
        channel = UpgradableChannel(self.timing)
        channel.factory = channel.site = self
        channel.requestFactory = self.requestFactory
        channel.timeOut = None
        return channel

    def resource_for(self, request: WebRequest) -> IResource:
        """Choose the resource that renders this request."""
        return self.routes.resource_for(request)

    def startFactory(self) -> None:
        """Open no log, start no clock."""

    def stopFactory(self) -> None:
        """Nothing was started."""

    def log(self, request: Any) -> None:
        """Keep no access log."""


def main_routes(parts: SiteParts) -> MainRoutes:
    """
    Lay out the main port.

    :raises ConfigError: if ``--home`` makes no sense.
    """
    config = parts.config
    access = DebugAccess(config.knobs)
    derp = None
    if config.derp:
        derp = DERPResource(parts.relay, parts.server_key, parts.wheel, parts.websocket_stats)
    connect: IResource | None = None
    if config.tls:
        connect = ConnectDisabled()
        if config.ace and parts.dial is not None:
            connect = ConnectResource(parts.clock, parts.wheel, parts.dial)
    probe = WhileMeasurable(Probe(), parts.lifecycle)
    routes = {
        "/derp": derp or DERPDisabled(),
        "/derp/probe": probe,
        "/derp/latency-check": probe,
        "/bootstrap-dns": BootstrapDNSResource(parts.bootstrap),
        "/generate_204": WhileMeasurable(NoContent(), parts.lifecycle),
        "/robots.txt": Robots(),
        "/": home_for(config, access),
        **readiness_pages(parts.lifecycle),
        **guard(parts.debug_pages, access, dev=config.dev),
    }
    return MainRoutes(routes, connect, derp)


def build_main_site(parts: SiteParts) -> WebSite:
    """
    Build what the main port serves, over TLS or not.

    :raises ConfigError: if ``--home`` makes no sense.
    """
    timing = HTTPTiming(parts.clock, parts.wheel, MAIN_RESPONSE_S)
    routes = main_routes(parts)
    site = WebSite(routes, timing, parts.tls_stats)
    site.proxies = parts.proxies
    site.derp = routes.derp
    return site


def build_plain_site(
    parts: SiteParts, main: WebSite, challenges: IResource | None = None
) -> WebSite:
    """
    Build what the plain port serves beside TLS.

    :param main: the main port's site, for its debug pages.
    :param challenges: answers ACME's HTTP challenges; the token is ``request.postpath[0]``.
    """
    timing = HTTPTiming(parts.clock, parts.wheel, PLAIN_RESPONSE_S)
    access = DebugAccess(parts.config.knobs)
    routes = PlainRoutes(main.routes, access, challenges, parts.lifecycle)
    site = WebSite(routes, timing, parts.tls_stats)
    site.proxies = parts.proxies
    return site
