"""
How many may be in: connections that have not come to a request yet, and logged-in clients.

A key that is connected already gets one more connection beyond the limits: a client whose
network changed reconnects before its old connection is known to be dead, and must not lose its
place to a stranger. Mesh peers are neither counted nor refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from derp.core.limits import Limits
from derp.core.ratelimit import TokenBucket
from derp.core.session import LoginRequest

IPV6_NETWORK_BITS = 64
"""One subscriber has at least this much of IPv6: addresses within it count as one."""


class Occupancy:
    """
    Counts clients, and judges newcomers by the limits of the moment.

    :param connections: how many connections a key has.
    """

    def __init__(self, limits: Limits, connections: Callable[[bytes], int]) -> None:
        self.limits = limits
        self.clients = 0
        self.refused_for_count = 0
        self.refused_for_address = 0
        self._by_network: Counter[int] = Counter()
        self._connections = connections

    @property
    def full(self) -> bool:
        """Whether there is no room for one more client (``--max-clients``)."""
        return bool(self.limits.max_clients) and self.clients >= self.limits.max_clients

    def judge(self, request: LoginRequest) -> str | None:
        """Say why a login is refused, if it is."""
        limits = self.limits
        if request.is_mesh or self._connections(request.key) == 1:
            return None
        if self.full:
            self.refused_for_count += 1
            return f"the relay is full: {self.clients} clients (--max-clients)"
        network = network_of(request.remote.ip)
        here = self._by_network[network] if network is not None else 0
        if limits.max_clients_per_ip and here >= limits.max_clients_per_ip:
            self.refused_for_address += 1
            return f"{here} clients from its address are here already (--max-clients-per-ip)"
        return None

    def enter(self, ip: IPv4Address | IPv6Address | None) -> None:
        """A client has logged in."""
        self.clients += 1
        network = network_of(ip)
        if network is not None:
            self._by_network[network] += 1

    def leave(self, ip: IPv4Address | IPv6Address | None) -> None:
        """It has gone."""
        self.clients -= 1
        network = network_of(ip)
        if network is not None:
            self._by_network[network] -= 1
            if not self._by_network[network]:
                del self._by_network[network]


def network_of(ip: IPv4Address | IPv6Address | None) -> int | None:
    """What counts as one address: all of IPv4's, the network part of IPv6's."""
    if ip is None:
        return None
    if ip.version == 4:
        return int(ip)
    return (int(ip) >> (128 - IPV6_NETWORK_BITS)) + (1 << 64)


class Door:
    """
    Judges connections before a byte of theirs is read.

    :param now: seconds.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self.handshakes = 0
        """How many are on their way in."""
        self.refused_for_rate = 0
        self.refused_for_handshakes = 0
        self.cut_for_silence = 0
        """Connections that had said nothing and made room for newcomers."""
        self._most = 0
        self._bucket: TokenBucket | None = None
        self.apply(limits, now)

    def apply(self, limits: Limits, now: float) -> None:
        """New limits hold from now on, with a full bucket."""
        self._most = limits.max_handshakes
        self._bucket = (
            TokenBucket(limits.accept_rate, limits.accept_burst, now)
            if limits.accept_rate
            else None
        )

    @property
    def crowded(self) -> bool:
        """Whether there is no room for one more (``--max-handshakes``)."""
        return bool(self._most) and self.handshakes >= self._most

    def opens(self, now: float) -> bool:
        """Whether one more connection is let in; it is then on its way."""
        if self.crowded:
            self.refused_for_handshakes += 1
            return False
        if self._bucket is not None and not self._bucket.take(1, now):
            self.refused_for_rate += 1
            return False
        self.handshakes += 1
        return True

    def passed(self) -> None:
        """One that was on its way is in, or gone."""
        self.handshakes -= 1
