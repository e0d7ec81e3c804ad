"""
What a prober serves, over plain HTTP::

    /                                       everybody: the status page, and what it needs
    /healthz                                everybody: ok
    /metrics, /debug/…                      who may see a relay's debug pages
    /debug/probe-run, /debug/probe-all      the same: runs out of turn
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.interfaces import IAddress
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.resource import IResource

from derp.config import DebugKnobs
from derp.core.tls_request_stats import TLSRequestStats
from derp.net.debug_access import DebugAccess, guard
from derp.net.http_deadlines import PLAIN_RESPONSE_S, HTTPTiming
from derp.net.mux import Mux
from derp.net.port import TCPOptions, open_listener
from derp.net.readiness import HealthPage
from derp.net.socket_address import address_of, host_port
from derp.net.timer_wheel import TimerWheel
from derp.net.web import WebSite
from derp.net.web_request import WebRequest
from derp.prober.access_log import Logged
from derp.prober.debug_pages import ProcessFacts, debug_pages
from derp.prober.prober import Prober
from derp.prober.run_pages import ProbeAllPage, ProbeRunPage
from derp.prober.status_page import page_resource

FLAG: Final = "--listen"
MAX_CONNECTIONS: Final = 1000
MAX_RESPONSE_S: Final = 3600.0
"""A run out of turn may take as long as the longest interval, but no longer than this."""


class ProberRequest(WebRequest):
    """A request whose client is called by its IPv4 address, if it has come from one."""

    def process(self) -> None:
        """See :class:`WebRequest`."""
        address: Any = self.client
        if hasattr(address, "host"):
            self.client = address_of((address.host, address.port))
        super().process()


class ProberSite(WebSite):
    """The site."""

    requestFactory = ProberRequest


def prober_site(
    reactor: Any,
    wall_time: Callable[[], float],
    prober: Prober,
    knobs: DebugKnobs,
    wheel: TimerWheel,
    longest: float,
) -> ProberSite:
    """
    Build it.

    :param wall_time: Unix seconds.
    :param longest: seconds of the longest interval.
    """
    routes = Mux(_routes(reactor, wall_time, prober, knobs))
    response_s = min(max(PLAIN_RESPONSE_S, 2 * longest), MAX_RESPONSE_S)
    return ProberSite(routes, HTTPTiming(reactor, wheel, response_s), TLSRequestStats())


def _routes(
    reactor: Any, wall_time: Callable[[], float], prober: Prober, knobs: DebugKnobs
) -> Mapping[str, IResource]:
    access = DebugAccess(knobs)
    page = page_resource(prober, reactor=reactor, may_run=access.allows, wall_time=wall_time)
    pages = {
        **debug_pages(prober, ProcessFacts(clock=reactor, wall_time=wall_time)),
        "/debug/probe-run": ProbeRunPage(prober),
        "/debug/probe-all": ProbeAllPage(prober),
    }
    routes = {"/": page, **guard(pages, access, dev=False), "/healthz": HealthPage()}
    for path in ("/", "/debug/probe-run", "/debug/probe-all"):
        routes[path] = Logged(routes[path], reactor, wall_time)
    return routes


class Crowd(WrappingFactory):
    """So many connections and no more; none is left when it is sent away."""

    noisy = False

    def buildProtocol(  # type: ignore[override]  # None refuses, as in any factory
        self, addr: IAddress | None
    ) -> ProtocolWrapper | None:
        """See ``IProtocolFactory``."""
        if len(self.protocols) >= MAX_CONNECTIONS:
            return None
        built: ProtocolWrapper | None = super().buildProtocol(addr)
        return built

    def send_away(self) -> None:
        """Cut every connection."""
        for protocol in list(self.protocols):
            protocol.abortConnection()


@dataclass
class ProberPort:
    """
    Where a site is served.

    :param host: an address, or empty for all.
    """

    reactor: Any
    host: str
    port: int
    site: WebSite
    _crowd: Crowd | None = None
    _socket: Any = None
    _listening: Any = None

    def open(self) -> None:
        """
        Bind; nothing is accepted yet.

        :raises ConfigError: naming flag, address and cure.
        """
        if self._socket is None:
            self._socket = open_listener(self.host, self.port, TCPOptions(), flag=FLAG)

    def start(self) -> None:
        """Accept."""
        self.open()
        sock, self._socket = self._socket, None
        self._crowd = Crowd(self.site)
        self._listening = self.reactor.adoptStreamPort(sock.fileno(), sock.family, self._crowd)
        sock.close()

    def stop(self) -> Any:
        """Close the port and every connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        listening, self._listening = self._listening, None
        if listening is None:
            return None
        assert self._crowd is not None
        self._crowd.send_away()
        return listening.stopListening()

    def where(self) -> str:
        """The address, for people."""
        address = address_of(self._listening.socket.getsockname())
        host = getattr(address, "host", "")
        unspecified = host in ("::", "0.0.0.0")  # noqa: S104 - printed, not bound
        return host_port("*" if unspecified else host, getattr(address, "port", 0))
