"""
What a connection's first bytes are for: a stock client's upgrade, or the HTTP server.

Nearly every connection to a relay begins with the same few lines
(:mod:`derp.wire.stock_upgrade`). For those no HTTP connection, request, header list or resource
is made, which saves a tenth of what a new client costs. Anything else meets the HTTP server as if
nobody had looked, the bytes that were looked at included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from derp.net.http_deadlines import HTTPDeadlines
from derp.net.upgrade import watch_loss
from derp.wire.stock_upgrade import StockUpgrade, recognise_upgrade

if TYPE_CHECKING:
    from collections.abc import Callable

    from derp.net.derp_resource import DERPResource
    from derp.net.upgrade import UpgradableChannel
    from derp.net.web import WebSite


@implementer(IProtocol)
class FirstRequest:
    """
    Stands where the HTTP connection will, until the first bytes are there.

    :param site: whose connection it is.
    :param derp: makes relay connections.
    :param arrived: called at the first request.
    :param named: whether a PROXY header of a proxy we trust has said who the client is.
    """

    __slots__ = ("_arrived", "_deadlines", "_derp", "_named", "_site", "__weakref__", "transport")

    factory = None
    silent = True
    """It is replaced as soon as it hears anything."""

    def __init__(
        self, site: WebSite, derp: DERPResource, arrived: Callable[[], None], *, named: bool
    ) -> None:
        self._site = site
        self._derp = derp
        self._arrived = arrived
        self._named = named
        self._deadlines = HTTPDeadlines(site.timing, self._expire)
        self.transport: Any = None

    def makeConnection(self, transport: Any) -> None:
        """See ``IProtocol.makeConnection``."""
        self.transport = transport
        self._deadlines.await_request()

    def connectionMade(self) -> None:
        """See ``IProtocol.connectionMade``: all is done in :meth:`makeConnection`."""

    def logPrefix(self) -> str:
        """See ``ILoggingContext.logPrefix``."""
        return "HTTP"

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol.dataReceived``; it is called once."""
        upgrade = recognise_upgrade(data)
        if upgrade is None:
            self._become_http().dataReceived(data)
        else:
            self._become_derp(upgrade, data[upgrade.size :])

    def _become_derp(self, upgrade: StockUpgrade, behind: bytes) -> None:
        """What :class:`~derp.net.derp_resource.DERPResource` does for any other request."""
        self._deadlines.stop()
        site, transport = self._site, self.transport
        peer = transport.getPeer()
        if site.proxies is not None:
            site.proxies.judge_nameless_login(peer, named=self._named)
        self._arrived()
        label = transport.tls_version
        taker: Any = self._derp.accept(
            peer, fast_start=upgrade.fast_start, not_ideal=upgrade.ideal_node
        )
        if label is not None:
            taker = watch_loss(taker, site.tls_stats.count(label))
        taker.makeConnection(transport)
        transport.setProtocol(taker)
        if behind:
            taker.dataReceived(behind)

    def _become_http(self) -> UpgradableChannel:
        left_s = self._deadlines.left()
        self._deadlines.stop()
        channel = self._site.buildProtocol(None)
        channel.arrived = self._arrived
        channel.client_named = self._named
        self.transport.setProtocol(channel)
        channel.makeConnection(self.transport)
        channel.deadlines.await_request(left_s)
        return channel

    def _expire(self) -> None:
        """It never said a word: HTTP knows how to end that."""
        self._become_http().expire()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See ``IProtocol.connectionLost``."""
        self._deadlines.stop()
