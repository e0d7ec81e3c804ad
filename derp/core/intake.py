"""
What stands between a connection's bytes and its session when there is a limit.

Without a limit :meth:`derp.core.session.Session.receive` is called directly and nothing here
runs. With one, an intake has the same signature and hands the session the frames that may
pass; what it leaves unconsumed is kept by the adapter, which stops reading that socket:

==========================  ===========================================================
:class:`MeteredIntake`      frames are paid for when their header is there: bytes per
                            second, per connection and of all together; none is dropped
:class:`RefusingIntake`     nothing is relayed: packets are thrown away, the rest passes
==========================  ===========================================================

Mesh peers are never metered. Source: tailscale ``derpserver`` ``rateLimit``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from derp.core.fair_share import FairShare, ShareMember
from derp.core.ratelimit import TokenBucket
from derp.core.session import Session
from derp.wire.frames import HEADER_LEN, KEY_LEN, LENGTH, MAX_PACKET, FrameType

MAX_COST = KEY_LEN + MAX_PACKET
"""Bytes a frame is charged at most, and the least a bucket must hold."""
WORTH_WAKING_S = 0.01
"""A client that must wait waits this long at least: several frames then pass per wake-up."""

_DATA = (int(FrameType.SEND_PACKET), int(FrameType.FORWARD_PACKET))


class Intake(Protocol):
    """Takes a turn's bytes in the session's place."""

    def receive(self, buf: bytearray, view: memoryview, end: int) -> int:
        """See :meth:`derp.core.session.Session.receive`."""

    def stop(self) -> None:
        """It is no longer used. Harmless twice."""


class MeteredIntake:
    """
    Lets frames pass as they are paid for.

    :param bucket: the connection's own limit, if it has one.
    :param share: the limit of all connections together, if there is one.
    :param hold: called when the next frame must wait: stop reading, and offer again what was
        left unconsumed after so many seconds; ``None`` is until the share serves
        :attr:`member`.
    """

    __slots__ = ("_bucket", "_hold", "_paid", "_session", "_share", "member")

    def __init__(
        self,
        session: Session,
        bucket: TokenBucket | None,
        share: FairShare | None,
        hold: Callable[[float | None], None],
    ) -> None:
        self._session = session
        self._bucket = bucket
        self._share = share
        self._hold = hold
        self._paid = session.begun
        """How many of the bytes to come belong to a frame that was paid for at its header."""
        self.member = ShareMember()

    def receive(self, buf: bytearray, view: memoryview, end: int) -> int:
        """See :meth:`Intake.receive`."""
        session = self._session
        start = 0
        if session.conn is None:
            start = _receive_login(session, buf, view, end)
            self._paid = 0
        conn = session.conn
        if conn is None or (start and start == end):
            return start
        if conn.is_mesh:
            return session.receive_from(buf, view, start, end)
        now = session.relay.now
        at = start + self._paid
        wait: float | None = 0.0
        while at + HEADER_LEN <= end:
            length: int = LENGTH(buf, at + 1)[0]
            wait = self._pay(length if length < MAX_COST else MAX_COST, end - at, now)
            if wait != 0.0:
                break
            at += HEADER_LEN + length
        stop = end if wait == 0.0 else at
        consumed = session.receive_from(buf, view, start, stop) if stop > start else start
        self._paid = max(0, at - consumed)
        if wait != 0.0:
            self._hold(wait)
        return consumed

    def _pay(self, cost: int, wish: int, now: float) -> float | None:
        """
        Pay for one frame.

        :return: 0 if that is done; else how long to wait, ``None`` being for the share.
        """
        bucket, share = self._bucket, self._share
        if bucket is not None and bucket.tokens(now) < cost:
            useful = min(WORTH_WAKING_S, bucket.burst / bucket.rate / 4)
            return max(bucket.wait_for(cost, now), useful)
        if share is not None and not share.take(self.member, cost, wish, now):
            return None
        if bucket is not None:
            bucket.take(cost, now)
        return 0.0

    def stop(self) -> None:
        """See :meth:`Intake.stop`."""
        if self._share is not None:
            self._share.leave(self.member)


class RefusingIntake:
    """
    Relays nothing: packets of clients and mesh peers are thrown away.

    :param refused: told of each packet's size.
    """

    __slots__ = ("_refused", "_session")

    def __init__(self, session: Session, refused: Callable[[int], None]) -> None:
        self._session = session
        self._refused = refused

    def receive(self, buf: bytearray, view: memoryview, end: int) -> int:
        """See :meth:`Intake.receive`."""
        session = self._session
        pos = 0
        if session.conn is None:
            pos = _receive_login(session, buf, view, end)
            if session.conn is None:
                return pos
        while True:
            packet = self._next_packet(buf, pos, end)
            stop = end if packet is None else packet
            if stop > pos:
                pos = session.receive_from(buf, view, pos, stop)
            if packet is None or pos < packet:
                return pos
            length: int = LENGTH(buf, packet + 1)[0]
            session.throw_away(HEADER_LEN + length)
            self._refused(length)

    def _next_packet(self, buf: bytearray, pos: int, end: int) -> int | None:
        """Where the next frame with a packet begins, if its header is there."""
        pos += self._session.skipping
        while pos + HEADER_LEN <= end:
            if buf[pos] in _DATA:
                return pos
            pos += HEADER_LEN + LENGTH(buf, pos + 1)[0]
        return None

    def stop(self) -> None:
        """See :meth:`Intake.stop`."""


def _receive_login(session: Session, buf: bytearray, view: memoryview, end: int) -> int:
    """Hand over the first frame and nothing behind it, which may be subject to a limit."""
    stop = end
    if end >= HEADER_LEN:
        stop = min(end, HEADER_LEN + LENGTH(buf, 1)[0])
    return session.receive(buf, view, stop)
