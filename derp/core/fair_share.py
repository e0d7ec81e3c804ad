"""
One rate for all, shared fairly by those who want something of it now.

Start-time fair queueing (Goyal, Vin, Cheng 1996): each member has a tag that grows by what it
was given. While there is enough for everybody nobody waits. When there is not, those who wait
are served in the order of their tags, so that all who keep wanting get equal shares, and one
who wants little is served next, whoever hogs the rest.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from derp.core.ratelimit import TokenBucket

MOST_AT_ONCE = 16 << 10
"""
Bytes one member is given per turn, unless a single frame needs more. Small, because whoever
stands in line waits for one such portion of each one before it.
"""


class ShareMember:
    """One who takes part."""

    __slots__ = ("credit", "finish", "place")

    def __init__(self) -> None:
        self.finish = 0.0
        """The tag: where its next portion begins at the earliest, in bytes of virtual time."""
        self.credit = 0.0
        """Given and not used yet."""
        self.place: _Place | None = None
        """Its place in the line while it waits."""


class _Place:
    """A place in the line. One whose member has left stays, empty, until its turn comes."""

    __slots__ = ("amount", "member", "number", "start")

    def __init__(self, start: float, number: int, member: ShareMember, amount: float) -> None:
        self.start = start
        self.number = number
        self.member: ShareMember | None = member
        self.amount = amount

    def __lt__(self, other: _Place) -> bool:
        return (self.start, self.number) < (other.start, other.number)


class FairShare:
    """
    The rate, and the line of those who wait for it.

    :param rate: bytes per second, all members together.
    :param burst: bytes that may pass at once; at least as many as the longest request.
    """

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._bucket = TokenBucket(rate, burst, now)
        self._line: list[_Place] = []
        self._waiting = 0
        self._number = 0
        self._virtual = 0.0

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return self._waiting

    def take(self, member: ShareMember, count: float, wish: float, now: float) -> bool:
        """
        Use ``count`` bytes of what the member has or can get; else it stands in line.

        :param wish: what it could use altogether, so that it need not stand for each frame.
        """
        if member.credit >= count:
            member.credit -= count
            return True
        if member.place is not None:
            return False
        if not self._waiting and self._bucket.take(count, now):
            self._advance(self._reserve(member, count))
            return True
        amount = max(count, min(wish, MOST_AT_ONCE)) - member.credit
        self._number += 1
        member.place = _Place(self._reserve(member, amount), self._number, member, amount)
        heappush(self._line, member.place)
        self._waiting += 1
        return False

    def serve(self, now: float) -> list[ShareMember]:
        """Give those in front what they wait for, as far as it goes; say who got it."""
        served = []
        while (place := self._first()) is not None and self._bucket.take(place.amount, now):
            heappop(self._line)
            member = place.member
            assert member is not None
            self._advance(place.start)
            member.credit += place.amount
            member.place = None
            self._waiting -= 1
            served.append(member)
        return served

    def wait(self, now: float) -> float | None:
        """Seconds until the first in line can be served; ``None`` if nobody waits."""
        place = self._first()
        return None if place is None else self._bucket.wait_for(place.amount, now)

    def leave(self, member: ShareMember) -> None:
        """A member is gone, or wants nothing any more. Harmless if it did not wait."""
        member.credit = 0.0
        place, member.place = member.place, None
        if place is None:
            return
        place.member = None
        self._waiting -= 1
        if len(self._line) > 2 * self._waiting + 16:
            self._line = [place for place in self._line if place.member is not None]
            heapify(self._line)

    def members(self) -> list[ShareMember]:
        """Those who stand in line, in no order."""
        return [place.member for place in self._line if place.member is not None]

    def _first(self) -> _Place | None:
        line = self._line
        while line and line[0].member is None:
            heappop(line)
        return line[0] if line else None

    def _reserve(self, member: ShareMember, amount: float) -> float:
        start = max(self._virtual, member.finish)
        member.finish = start + amount
        return start

    def _advance(self, start: float) -> None:
        self._virtual = max(self._virtual, start)
