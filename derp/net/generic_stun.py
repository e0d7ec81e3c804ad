"""
Sends what ``--stun-generic`` answers, one datagram at a time: it is rate-limited anyway, and the
ways that are fast are Tailscale's requests' own.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from derp.core.generic_stun import GenericSTUN
from derp.core.stun_stats import STUNStats


class GenericAnswers:
    """
    Deals with the datagrams that a responder has no answer to.

    :param seconds: the clock of the rate limit.
    """

    def __init__(
        self, generic: GenericSTUN, stats: STUNStats, seconds: Callable[[], float]
    ) -> None:
        self._generic = generic
        self._stats = stats
        self._seconds = seconds

    def answer(self, udp: socket.socket, packet: bytes, peer: Any) -> None:
        """
        Answer one, or do not; it is counted.

        :param peer: its sender, as ``recvfrom`` gives it.
        """
        packed = socket.inet_pton(udp.family, peer[0].partition("%")[0])
        reply = self._generic.answer(packet, packed, peer[1], self._seconds())
        if reply is None:
            return
        try:
            udp.sendto(reply, peer)
        except OSError:
            self._stats.generic_write_error += 1
