"""Clients behind an intake, in virtual time, always with more to send than they may."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count

from derp.core.fair_share import FairShare
from derp.core.intake import Intake, MeteredIntake
from derp.core.ratelimit import TokenBucket
from derp.core.relay import Relay
from derp.wire.frames import encode_send_packet
from tests.core.fakes import BUFFER_LEN, FakeClient, make_relay

TURN_BYTES = 64 << 10
"""What an adapter reads at once."""
_buffer = bytearray(BUFFER_LEN)
_view = memoryview(_buffer)


class MeteredClient:
    """
    A logged-in client, its intake, and what an adapter keeps for it.

    :ivar held: seconds it must wait, ``None`` for the share; absent while it may go on.
    """

    def __init__(
        self,
        relay: Relay,
        name: str,
        bucket: TokenBucket | None = None,
        share: FairShare | None = None,
        *,
        mesh: bool = False,
        log_in: bool = True,
    ) -> None:
        self.client = FakeClient(relay, name, mesh=mesh, log_in=log_in)
        self.holds: list[float | None] = []
        self.metered = MeteredIntake(self.client.session, bucket, share, self.holds.append)
        self.intake: Intake = self.metered
        self.unread = b""
        self.consumed = 0

    def offer(self, data: bytes = b"") -> int:
        """One turn: new bytes behind what was left; give how many are left now."""
        self.unread += data
        end = len(self.unread)
        _view[:end] = self.unread
        consumed = self.intake.receive(_buffer, _view, end)
        self.consumed += consumed
        self.unread = self.unread[consumed:]
        return len(self.unread)


class Flock:
    """
    Clients that keep sending equal frames to one destination.

    :param sizes: packet bytes per frame of each client.
    """

    def __init__(
        self,
        sizes: list[int],
        *,
        rate: float = 0.0,
        burst: float = 65568.0,
        share: FairShare | None = None,
    ) -> None:
        self.relay = make_relay()
        self.sink = FakeClient(self.relay, "sink")
        self.share = share
        self.members = [
            MeteredClient(
                self.relay, f"m{i}", TokenBucket(rate, burst, 0.0) if rate else None, share
            )
            for i in range(len(sizes))
        ]
        self.frames = [
            encode_send_packet(self.sink.key, b"x" * size) * (TURN_BYTES // size + 1)
            for size in sizes
        ]

    def run(self, seconds: float) -> list[int]:
        """Let time pass; give the bytes each had consumed, without frame headers."""
        numbers = count()
        due = [(0.0, next(numbers), i) for i in range(len(self.members))]
        by_member = {member.metered.member: i for i, member in enumerate(self.members)}
        while due and due[0][0] <= seconds:
            now, _, i = heappop(due)
            self.relay.now = max(self.relay.now, now)
            if i < 0:
                assert self.share is not None
                for served in self.share.serve(now):
                    heappush(due, (now, next(numbers), by_member[served]))
            else:
                self._turn(self.members[i], i, now, due, numbers)
            if self.share is not None and not any(entry[2] < 0 for entry in due[:1]):
                wait = self.share.wait(now)
                if wait is not None and not any(entry[2] < 0 for entry in due):
                    heappush(due, (now + max(wait, 0.002), next(numbers), -1))
        return [member.consumed for member in self.members]

    def _turn(self, member: MeteredClient, i: int, now: float, due, numbers) -> None:  # type: ignore[no-untyped-def]
        member.holds.clear()
        self.sink.sink.written.clear()
        frame = len(self.frames[i])
        member.offer(self.frames[i] if len(member.unread) < frame else b"")
        if not member.holds:
            heappush(due, (now, next(numbers), i))
        elif member.holds[-1] is not None:
            heappush(due, (now + member.holds[-1], next(numbers), i))


def fairness(amounts: list[int]) -> float:
    """Jain's index: 1 if all got the same, 1/n if one got everything."""
    return sum(amounts) ** 2 / (len(amounts) * sum(amount**2 for amount in amounts))
