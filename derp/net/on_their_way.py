"""
Connections between ``accept`` and their first request, and who of them makes room.

``--max-handshakes`` bounds how many there are. Connections that are opened and then say nothing
cost their owner nothing, so a few hundred a second would keep everybody out for as long as they
are waited for. Therefore, when there is no room for a newcomer, one that has been silent for
longer than any client is silent makes room for it: a client's first bytes leave with its first
acknowledgment. One that has spoken, but takes its time, is given more of it.
"""

from __future__ import annotations

import socket
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from derp.core.occupancy import Door
    from derp.net.transport import StreamTransport

SILENCE_S = 1.0
"""How long one must have been silent to make room: a slow client's way there and back."""
SLOW_S = 10.0
"""The same for one that has begun to speak: a few ways there and back at their worst."""
LOOKED_AT = 8
"""How many, from the oldest on, are looked at for one newcomer."""


class Ticket:
    """One connection's place; given back once."""

    __slots__ = ("_room", "since", "transport")

    def __init__(self, room: OnTheirWay, since: float) -> None:
        self._room: OnTheirWay | None = room
        self.since = since
        """Seconds on the reactor's clock."""
        self.transport: StreamTransport | None = None
        """``None`` while a trusted proxy is to say whom it is for."""

    def give_back(self) -> None:
        """It has arrived, or is gone. Harmless twice."""
        room, self._room = self._room, None
        self.transport = None
        if room is not None:
            room.left(self)


class OnTheirWay:
    """
    All that one door counts.

    :param door: counts them, and judges newcomers.
    """

    def __init__(self, door: Door) -> None:
        self._door = door
        self._tickets: dict[Ticket, None] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    def admit(self, now: float) -> bool:
        """Whether one more connection may come in: to be asked at each ``accept``."""
        if self._door.crowded:
            self._make_room(now)
        return self._door.opens(now)

    def ticket(self, now: float) -> Ticket:
        """Give the connection that was admitted its place."""
        ticket = Ticket(self, now)
        self._tickets[ticket] = None
        return ticket

    def left(self, ticket: Ticket) -> None:
        """See :meth:`Ticket.give_back`."""
        del self._tickets[ticket]
        self._door.passed()

    def _make_room(self, now: float) -> None:
        for ticket in islice(self._tickets, LOOKED_AT):
            age = now - ticket.since
            if age < SILENCE_S:
                return  # those behind it are younger
            transport = ticket.transport
            if transport is None:
                continue
            if age >= SLOW_S or (transport.silent and not _has_spoken(transport)):
                self._door.cut_for_silence += 1
                ticket.give_back()
                transport.abortConnection()
                return


def _has_spoken(transport: StreamTransport) -> bool:
    """Whether there are bytes that we have not come to read yet."""
    try:
        return bool(transport.getHandle().recv(1, socket.MSG_PEEK))
    except OSError:
        return False
