"""
Proxies in front of us, and what they may say about who is behind them.

A header that names the client is believed only if who sent it is trusted; anybody else can
write one, so theirs are counted and otherwise treated as if they were not there. Of
``X-Forwarded-For`` the last address counts that is not a trusted proxy's own: what stands
before it came from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

from twisted.internet.address import IPv4Address as TCPv4
from twisted.internet.address import IPv6Address as TCPv6
from twisted.internet.address import UNIXAddress
from twisted.web.http_headers import Headers

from derp.errors import ConfigError
from derp.net.proxy_hints import ProxyHints
from derp.quoting import quoted

MAX_HOPS: Final = 32
"""Addresses of ``X-Forwarded-For`` looked at, from its end."""
UNIX: Final = "unix"
CLIENTS_AGENT: Final = b"Go-http-client/"
"""What clients call themselves when they log in (Go: ``defaultUserAgent``)."""

Network = IPv4Network | IPv6Network


def parse_proxies(flag: str, text: str) -> tuple[tuple[Network, ...], bool]:
    """
    Read networks and addresses, separated by commas; ``unix`` stands for unix sockets.

    :returns: the networks, and whether unix sockets are among them.
    :raises ConfigError: naming ``flag`` and the item that is none.
    """
    networks: list[Network] = []
    unix = False
    for item in (part.strip() for part in text.split(",")):
        if not item:
            continue
        if item == UNIX:
            unix = True
            continue
        try:
            networks.append(ip_network(item, strict=False))
        except ValueError:
            raise ConfigError(
                f"{flag}: {quoted(item)} is no network: write addresses or networks such as "
                "10.0.0.0/8,fd00::/8, or unix for unix sockets"
            ) from None
    return tuple(networks), unix


class ProxyStats:
    """What was said by proxies, and by those who only looked like one."""

    __slots__ = ("bad_proxy_headers", "believed", "ignored", "proxy_headers", "slow_proxy_headers")

    def __init__(self) -> None:
        self.proxy_headers = 0
        """PROXY headers read."""
        self.bad_proxy_headers = 0
        """Connections closed for one that made no sense."""
        self.slow_proxy_headers = 0
        """Connections closed for one that did not come in time."""
        self.believed = 0
        """Requests whose client a trusted proxy named."""
        self.ignored = 0
        """Requests in which somebody else did."""


class TrustedProxies:
    """
    Who is trusted, and what that makes of a request.

    :param unix: whether who connects to a unix socket is trusted, too.
    """

    def __init__(self, networks: Iterable[Network] = (), *, unix: bool = False) -> None:
        self.stats = ProxyStats()
        self.hints = ProxyHints()
        self._networks = tuple(networks)
        self._unix = unix

    def __bool__(self) -> bool:
        """Whether anybody is trusted."""
        return bool(self._networks) or self._unix

    def trusts(self, address: Any) -> bool:
        """Whether this peer is a proxy of ours."""
        if isinstance(address, UNIXAddress):
            return self._unix
        return self._trusts_host(getattr(address, "host", ""))

    def _trusts_host(self, host: str) -> bool:
        if not self._networks:
            return False
        try:
            ip = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
            ip = ip.ipv4_mapped
        return any(ip in network for network in self._networks)

    def client_of(self, headers: Headers, peer: Any) -> Any:
        """
        Say who sent a request: ``peer`` itself, or whom it stands for.

        :param peer: who connected.
        """
        forwarded: Sequence[bytes] = headers.getRawHeaders(b"X-Forwarded-For") or ()
        real: Sequence[bytes] = headers.getRawHeaders(b"X-Real-IP") or ()
        if not forwarded and not real:
            return peer
        if not self.trusts(peer):
            self.stats.ignored += 1
            return peer
        client = self._last_stranger(forwarded) if forwarded else _address(real[-1])
        if client is None:
            return peer
        self.stats.believed += 1
        return client

    def judge_login(self, headers: Headers, client: Any, *, named: bool) -> None:
        """
        Tell the operator if a client that logs in has a proxy's address, or may have.

        :param client: who it is taken for.
        :param named: whether a proxy we trust said so.
        """
        self.judge_nameless_login(client, named=named)
        if named or self.trusts(client):
            return
        if headers.hasHeader(b"X-Forwarded-For") or headers.hasHeader(b"X-Real-IP"):
            self.hints.unbelieved(client)

    def judge_nameless_login(self, client: Any, *, named: bool) -> None:
        """The same of a request whose header says nothing about its client."""
        if not named and self.trusts(client):
            self.hints.unnamed(client)

    def judge_plain_visit(self, headers: Headers, peer: Any) -> None:
        """
        Tell the operator if a request for ``/derp`` has lost its Upgrade header on the way.

        Tailscale's clients come with the name of Go's HTTP library; browsers look in, too.

        :param peer: who connected.
        """
        agent = (headers.getRawHeaders(b"User-Agent") or [b""])[0]
        if agent.startswith(CLIENTS_AGENT):
            self.hints.no_upgrade(peer)

    def _last_stranger(self, forwarded: Sequence[bytes]) -> TCPv4 | TCPv6 | None:
        client = None
        for item in b",".join(forwarded).split(b",")[: -MAX_HOPS - 1 : -1]:
            hop = _address(item)
            if hop is None:
                break
            client = hop
            if not self._trusts_host(hop.host):
                break
        return client


def _address(item: bytes) -> TCPv4 | TCPv6 | None:
    """Read ``1.2.3.4``, ``1.2.3.4:5``, ``2001:db8::1`` or ``[2001:db8::1]:5``."""
    text = item.strip(b" \t").decode("latin-1")
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        ip = ip_address(host)
    except ValueError:
        return None
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    made = TCPv6 if isinstance(ip, IPv6Address) else TCPv4
    return made("TCP", str(ip).partition("%")[0], number if number <= 65535 else 0)
