"""
What happens to a connection between ``accept`` and its protocol.

::

    door (limits) → PROXY header, from trusted proxies → TLS, or not → HTTP

It is *on its way* from the door to its first request; ``--max-handshakes`` bounds how many are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from derp.net.first_request import FirstRequest
from derp.net.on_their_way import OnTheirWay, Ticket
from derp.net.socket_address import address_of
from derp.net.tls_transport import TLSTransport
from derp.net.transport import StreamTransport

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from derp.core.listener_stats import ListenerStats
    from derp.core.occupancy import Door
    from derp.net.certificates import CertificateChooser
    from derp.net.hub import Hub
    from derp.net.port import Greeter
    from derp.net.proxy_greeting import ProxyGreeting
    from derp.net.timer_wheel import TimerWheel
    from derp.net.trusted_proxies import TrustedProxies
    from derp.net.web import WebSite


class Entrance:
    """
    Makes greeters for listening ports.

    :param door: counts those who are on their way.
    :param proxies: whose word about addresses is believed.
    """

    def __init__(self, hub: Hub, wheel: TimerWheel, door: Door, proxies: TrustedProxies) -> None:
        self._hub = hub
        self._wheel = wheel
        self._on_their_way = OnTheirWay(door)
        self._proxies = proxies
        self._greeting: type[ProxyGreeting] | None = None
        if proxies:
            from derp.net.proxy_greeting import ProxyGreeting

            self._greeting = ProxyGreeting

    @property
    def arriving(self) -> int:
        """How many are on their way."""
        return len(self._on_their_way)

    def opens(self) -> bool:
        """Whether one more connection may come in; to be asked at each ``accept``."""
        return self._on_their_way.admit(self._hub.reactor.seconds())

    def greeter(
        self, site: WebSite, stats: ListenerStats, chooser: CertificateChooser | None
    ) -> Greeter:
        """
        Make what takes a port's connections.

        :param chooser: of certificates; ``None`` is a port without TLS.
        """

        def greet(sock: socket.socket, peer: Any) -> None:
            ticket = self._on_their_way.ticket(self._hub.reactor.seconds())
            try:
                greeting = self._greeting
                if greeting is not None and self._proxies.trusts(address_of(peer)):
                    self._ask_proxy(greeting, sock, peer, ticket, enter)
                else:
                    enter(sock, peer, ticket)
            except Exception:
                ticket.give_back()
                raise

        def enter(sock: socket.socket, peer: Any, ticket: Ticket, *, named: bool = False) -> None:
            if chooser is None:
                plain = StreamTransport(self._hub, self._wheel, sock, peer)
                ticket.transport = plain
                plain.on_end = ticket.give_back
                plain.start(_protocol(site, ticket, named))
                return
            secure = TLSTransport(
                self._hub,
                self._wheel,
                sock,
                peer,
                chooser=chooser,
                build=lambda _: _protocol(site, ticket, named),
                stats=stats,
            )
            ticket.transport = secure
            secure.on_end = ticket.give_back
            secure.begin()

        return greet

    def _ask_proxy(
        self,
        greeting: type[ProxyGreeting],
        sock: socket.socket,
        peer: Any,
        ticket: Ticket,
        enter: Callable[..., None],
    ) -> None:
        greeting(
            self._hub,
            self._wheel,
            sock,
            peer,
            stats=self._proxies.stats,
            greet=lambda sock, client: enter(sock, client, ticket, named=client is not peer),
            closed=ticket.give_back,
        )


def _protocol(site: WebSite, ticket: Ticket, named: bool) -> Any:
    """Make a connection's first protocol; ``named``: by a PROXY header."""
    if site.derp is not None:
        return FirstRequest(site, site.derp, ticket.give_back, named=named)
    channel = site.buildProtocol(None)
    channel.arrived = ticket.give_back
    channel.client_named = named
    return channel
