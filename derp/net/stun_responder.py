"""
Take what a UDP socket has, answer the binding requests among it, count: the hot half of STUN.

Two ways with the same answers: :class:`BatchResponder` by many datagrams per system call,
:class:`SingleResponder` by Python's own socket calls where those are missing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from socket import inet_pton
from struct import Struct
from typing import Any, Protocol
from zlib import crc32

from derp.core.stun_stats import STUNStats
from derp.errors import ProtocolError
from derp.net.datagram_batch import REPLY_LEN, SLOT_LEN, SLOTS, DatagramBatch
from derp.wire import stun

BATCHES_PER_TURN = 4
"""256 datagrams, about 1 ms, then the reactor's other readers have their turn."""
LOOK_AGAIN_EVERY = 16
"""In quiet times, after how many wake-ups to look whether more than one datagram has come."""

# What the loops below compare and write, as globals of this module: they run per datagram.
_HEAD = stun.REQUEST_HEAD
_ATTRIBUTES = stun.REQUEST_ATTRIBUTES
_COOKIE = stun.MAGIC_COOKIE
_FINGERPRINT_XOR = stun.FINGERPRINT_XOR
_LEN = stun.REQUEST_LEN
_HEAD_IPV4, _HEAD_IPV6 = stun.RESPONSE_IPV4_HEAD, stun.RESPONSE_IPV6_HEAD
_XOR_IPV4, _XOR_IPV6 = stun.ATTRIBUTE_IPV4, stun.ATTRIBUTE_IPV6
_RESPONSE_IPV4_LEN = stun.RESPONSE_IPV4.size
_PORT = stun.PORT_XOR
_MAPPED = stun.MAPPED_PREFIX
_write_ipv4 = stun.RESPONSE_IPV4.pack_into
_write_ipv6 = stun.RESPONSE_IPV6.pack_into

_iter_requests = Struct(f"{stun.REQUEST.format}{SLOT_LEN - stun.REQUEST_LEN}x").iter_unpack
_iter_peers_ipv4 = Struct("!2xHI8x").iter_unpack  # sockaddr_in: port, address
_iter_peers_ipv6 = Struct("!2xH4xQQ4x").iter_unpack  # sockaddr_in6: port, address in two halves

Peer = tuple[int, ...]
"""A sender as numbers: port, address (IPv6: in two halves)."""

Others = Callable[[bytes, Any], None]
"""Is given each datagram without an answer and its sender, as ``recvfrom`` gives it; counts it."""


class Responder(Protocol):
    """Empties a bound, non-blocking UDP socket, a bounded number of datagrams at a time."""

    def respond(self, answering: bool) -> None:
        """
        Do one wake-up's work.

        :param answering: otherwise datagrams are thrown away and counted as withheld.
        :raises OSError: the socket failed to read.
        """


class SingleResponder:
    """``recvfrom`` and ``sendto``, one datagram each."""

    def __init__(self, udp: socket.socket, stats: STUNStats, others: Others | None = None) -> None:
        self._udp = udp
        self._others = others
        self._family = udp.family
        self._stats = stats

    def respond(self, answering: bool) -> None:
        """See :meth:`Responder.respond`."""
        for _ in range(SLOTS):
            if not self.respond_to_one(answering):
                break

    def respond_to_one(self, answering: bool) -> bool:
        """Take one datagram; see :meth:`Responder.respond`. Whether there was one."""
        stats = self._stats
        try:
            packet, peer = self._udp.recvfrom(SLOT_LEN + 1)
        except (BlockingIOError, InterruptedError):
            return False
        if not answering:
            stats.withheld += 1
            return True
        reply = None
        if len(packet) <= SLOT_LEN:
            reply = stun.answer(packet, inet_pton(self._family, peer[0]), peer[1])
        if reply is None:
            if self._others is None or len(packet) > SLOT_LEN:
                stats.not_stun += 1
            else:
                self._others(packet, peer)
            return True
        if len(reply) == _RESPONSE_IPV4_LEN:
            stats.ipv4 += 1
        else:
            stats.ipv6 += 1
        try:
            self._udp.sendto(reply, peer)
        except OSError:
            stats.write_error += 1
        else:
            stats.success += 1
        return True


class BatchResponder:
    """
    ``recvmmsg`` and ``sendmmsg``; while little comes, a :class:`SingleResponder`.

    A wake-up that finds a single datagram is the usual case, and looking for a second costs as
    much as reading one; so the socket is read until it is empty only while the last such look
    found several, and every ``LOOK_AGAIN_EVERY`` wake-ups.
    """

    def __init__(
        self,
        udp: socket.socket,
        batch: DatagramBatch,
        stats: STUNStats,
        others: Others | None = None,
    ) -> None:
        self._single = SingleResponder(udp, stats, others)
        self._others = others
        self._batch = batch
        self._stats = stats
        self._crowded = False
        self._quiet_turns = 0
        self._covered = [
            memoryview(batch.requests)[at : at + stun.FINGERPRINTED_LEN]
            for at in range(0, SLOTS * SLOT_LEN, SLOT_LEN)
        ]
        self._write_replies: Callable[[], tuple[int, int]] = (
            self._write_ipv4 if batch.family == socket.AF_INET else self._write_ipv6
        )

    def respond(self, answering: bool) -> None:
        """See :meth:`Responder.respond`."""
        if not self._crowded:
            self._single.respond_to_one(answering)
            self._quiet_turns += 1
            if self._quiet_turns % LOOK_AGAIN_EVERY:
                return
        batch = self._batch
        for _ in range(BATCHES_PER_TURN):
            count = batch.receive()
            if count:
                self._answer(count, answering)
            if count < SLOTS:
                break
        self._crowded = count > 1

    def _answer(self, count: int, answering: bool) -> None:
        """Answer the ``count`` datagrams received last."""
        stats = self._stats
        if not answering:
            stats.withheld += count
            return
        replies, ipv4 = self._write_replies()
        stats.not_stun += count - replies
        if replies:
            stats.ipv4 += ipv4
            stats.ipv6 += replies - ipv4
            sent = self._batch.send(replies)
            stats.success += sent
            stats.write_error += replies - sent

    def _requests(self, peers: Iterator[Peer]) -> Iterator[tuple[int, int, int, Peer]]:
        """
        Go through what was received and deserves an answer.

        :return: slot, the two halves of cookie | transaction id, peer.
        """
        batch = self._batch
        for slot, (length, (head, mask, low_mask, attributes, sent), covered, peer) in enumerate(
            zip(batch.lengths, _iter_requests(batch.requests), self._covered, peers, strict=False)
        ):
            if (
                length == _LEN
                and attributes == _ATTRIBUTES
                and head == _HEAD
                and mask >> 32 == _COOKIE
                and crc32(covered) ^ _FINGERPRINT_XOR == sent
            ) or self._is_unusual_request(slot, length):
                yield slot, mask, low_mask, peer

    def _is_unusual_request(self, slot: int, length: int) -> bool:
        """Whether a datagram other than Tailscale's usual 40 bytes deserves an answer."""
        if length > SLOT_LEN:
            return False
        start = slot * SLOT_LEN
        packet = bytes(self._batch.requests[start : start + length])
        try:
            stun.parse_binding_request(packet)
        except ProtocolError:
            if self._others is not None:
                self._others(packet, self._batch.peer(slot))
                self._stats.not_stun -= 1  # what every datagram without a reply is counted as
            return False
        return True

    def _write_ipv4(self) -> tuple[int, int]:
        """Write the replies of an IPv4 socket; tell how many, and how many of them are IPv4."""
        batch = self._batch
        replies, sizes = batch.replies, batch.reply_sizes
        reply = at = 0
        for slot, mask, low_mask, (port, ip) in self._requests(_iter_peers_ipv4(batch.peers)):
            _write_ipv4(
                replies, at, _HEAD_IPV4, mask, low_mask, _XOR_IPV4, 1, port ^ _PORT, ip ^ _COOKIE
            )
            if slot != reply or sizes[reply] != 32:
                batch.address_reply(reply, 32, slot)
            reply += 1
            at += REPLY_LEN
        return reply, reply

    def _write_ipv6(self) -> tuple[int, int]:
        """:meth:`_write_ipv4` of an IPv6 socket, which may have IPv4-mapped peers."""
        batch = self._batch
        replies, sizes = batch.replies, batch.reply_sizes
        reply = at = ipv4 = 0
        for slot, mask, low_mask, (port, high, low) in self._requests(
            _iter_peers_ipv6(batch.peers)
        ):
            port ^= _PORT
            if high or low >> 32 != _MAPPED:
                size = 44
                high ^= mask
                low ^= low_mask
                _write_ipv6(replies, at, _HEAD_IPV6, mask, low_mask, _XOR_IPV6, 2, port, high, low)
            else:
                size = 32
                ipv4 += 1
                ip = low & 0xFFFFFFFF ^ _COOKIE
                _write_ipv4(replies, at, _HEAD_IPV4, mask, low_mask, _XOR_IPV4, 1, port, ip)
            if slot != reply or sizes[reply] != size:
                batch.address_reply(reply, size, slot)
            reply += 1
            at += REPLY_LEN
        return reply, ipv4
