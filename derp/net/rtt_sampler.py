"""
Round-trip times of clients' TCP, as the kernel measures them (``derp_tcp_rtt``).

The reference starts a timer per connection; here one walks all of them, a slice a second, so
that each is read every ten seconds and five thousand idle clients cost next to nothing.
"""

from __future__ import annotations

import socket
from bisect import bisect_left
from struct import Struct
from typing import TYPE_CHECKING, Any

from twisted.internet.task import LoopingCall

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from derp.core.stats import Stats
    from derp.net.relay_protocol import RelayProtocol, RelayServer

PERIOD_S = 10
"""Each connection is read this often."""
_BOUNDS_MS = (10, 20, 50, 100, 150, 250, 500)
_LABELS = (*(f"{bound}ms" for bound in _BOUNDS_MS), "inf")
_RTT_OFFSET = 68
"""Of ``tcpi_rtt`` (u32, microseconds) in struct tcp_info: 8 bytes, then the 16th u32."""
_RTT = Struct("=I")
_TCP_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def read_rtt_s(sock: socket.socket) -> float:
    """
    Read the smoothed round-trip time of a TCP socket, in seconds.

    :raises OSError: if it is no TCP socket, or gone.
    """
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT_OFFSET + _RTT.size)
    if len(info) < _RTT_OFFSET + _RTT.size:
        raise OSError("the kernel's TCP_INFO has no round-trip time")
    (microseconds,) = _RTT.unpack_from(info, _RTT_OFFSET)
    return float(microseconds) / 1e6


class RTTSampler:
    """
    Counts every connection's round-trip time once in ten seconds.

    A transport that is not TCP (WebSocket's stream, a unix socket) counts once as ``non-tcp``,
    one that cannot be read once as ``error``; neither is asked again.
    """

    def __init__(self, server: RelayServer, clock: IReactorTime) -> None:
        self._server = server
        self._stats: Stats = server.relay.stats
        self._loop = LoopingCall(self._sample_slice)
        self._loop.clock = clock
        self._given_up: set[RelayProtocol] = set()
        self._pending: list[RelayProtocol] = []
        self._slices_left = 0

    def start(self) -> None:
        """Sample from now on."""
        self._loop.start(1.0, now=False)

    def stop(self) -> None:
        """Sample no more."""
        if self._loop.running:
            self._loop.stop()

    def _sample_slice(self) -> None:
        protocols = self._server.protocols
        if not self._slices_left:
            self._slices_left = PERIOD_S
            self._given_up &= protocols
            self._pending = [p for p in protocols if p not in self._given_up]
        share = -(-len(self._pending) // self._slices_left)
        self._slices_left -= 1
        for _ in range(share):
            protocol = self._pending.pop()
            if protocol in protocols:
                self._sample(protocol)

    def _sample(self, protocol: RelayProtocol) -> None:
        get_handle = getattr(protocol.transport, "getHandle", None)
        sock: Any = get_handle() if get_handle is not None else None
        if getattr(sock, "family", None) not in _TCP_FAMILIES:
            self._give_up(protocol, "non-tcp")
            return
        try:
            rtt_s = read_rtt_s(sock)
        except OSError:
            self._give_up(protocol, "error")
            return
        self._count(_LABELS[bisect_left(_BOUNDS_MS, rtt_s * 1000)])

    def _give_up(self, protocol: RelayProtocol, label: str) -> None:
        self._given_up.add(protocol)
        self._count(label)

    def _count(self, label: str) -> None:
        counts = self._stats.tcp_rtt
        counts[label] = counts.get(label, 0) + 1
