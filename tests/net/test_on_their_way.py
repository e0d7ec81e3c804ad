"""Who makes room for newcomers, with sockets that are looked into and a clock of numbers."""

import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from derp.core.limits import Limits
from derp.core.occupancy import Door
from derp.net.on_their_way import LOOKED_AT, SILENCE_S, SLOW_S, OnTheirWay, Ticket


class Waiting:
    """A connection that waits for its first request."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.silent = True
        self.aborted = False

    def getHandle(self) -> socket.socket:
        return self.sock

    def abortConnection(self) -> None:
        self.aborted = True


class OnTheirWayTests(SynchronousTestCase):
    """Three places."""

    def setUp(self) -> None:
        self.door = Door(Limits(max_handshakes=3), 0.0)
        self.room = OnTheirWay(self.door)

    def arrive(self, now: float) -> tuple[Ticket, Waiting, socket.socket]:
        """One comes in; gives its ticket, its connection, and the client's end."""
        self.assertTrue(self.room.admit(now))
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        ours.setblocking(False)
        waiting = Waiting(ours)
        ticket = self.room.ticket(now)
        transport: Any = waiting
        ticket.transport = transport
        return ticket, waiting, theirs

    def fill(self) -> list[tuple[Ticket, Waiting, socket.socket]]:
        return [self.arrive(n / 10) for n in range(3)]

    def test_refused_while_all_are_young(self) -> None:
        """Nobody is cut before a client could have spoken."""
        there = self.fill()
        self.assertFalse(self.room.admit(SILENCE_S - 0.01))
        self.assertFalse(any(waiting.aborted for _, waiting, _ in there))
        self.assertEqual(self.door.refused_for_handshakes, 1)

    def test_oldest_silent_one(self) -> None:
        """One goes for one that comes, and its place is free at once."""
        there = self.fill()
        self.arrive(SILENCE_S + 5.0)
        self.assertEqual([waiting.aborted for _, waiting, _ in there], [True, False, False])
        self.assertEqual((self.door.handshakes, self.door.cut_for_silence), (3, 1))
        there[0][0].give_back()
        self.assertEqual(self.door.handshakes, 3, "harmless twice")

    def test_who_has_spoken(self) -> None:
        """Bytes read, or still to be read, are no silence; whoever is behind them goes."""
        there = self.fill()
        there[0][1].silent = False
        there[1][2].send(b"\x16")
        self.arrive(SILENCE_S + 5.0)
        self.assertEqual([waiting.aborted for _, waiting, _ in there], [False, False, True])

    def test_gone_is_silent(self) -> None:
        """A client that has left has nothing more to say."""
        there = self.fill()
        there[0][2].close()
        self.arrive(SILENCE_S + 5.0)
        self.assertTrue(there[0][1].aborted)

    def test_slow(self) -> None:
        """Who has spoken is given more time, but not for ever."""
        there = self.fill()
        for _, waiting, _ in there:
            waiting.silent = False
        self.assertFalse(self.room.admit(SLOW_S - 0.01))
        self.arrive(SLOW_S)
        self.assertEqual([waiting.aborted for _, waiting, _ in there], [True, False, False])

    def test_behind_a_proxy(self) -> None:
        """A connection of which the proxy has not told yet is the proxy's, and left alone."""
        there = self.fill()
        for ticket, _, _ in there:
            ticket.transport = None
        self.assertFalse(self.room.admit(100.0))

    def test_few_are_looked_at(self) -> None:
        """A crowd that has spoken does not make every newcomer dear."""
        self.door.apply(Limits(max_handshakes=3 * LOOKED_AT), 0.0)
        looks: list[None] = []

        class Looked(Waiting):
            @property  # type: ignore[override]
            def silent(self) -> bool:
                looks.append(None)
                return False

            @silent.setter
            def silent(self, value: bool) -> None:
                """Never."""

        for _ in range(3 * LOOKED_AT):
            ticket, waiting, _ = self.arrive(0.0)
            looked: Any = Looked(waiting.sock)
            ticket.transport = looked
        self.assertFalse(self.room.admit(SILENCE_S))
        self.assertEqual(len(looks), LOOKED_AT)

    def test_no_limit(self) -> None:
        """Without one nobody is looked at."""
        door = Door(Limits(), 0.0)
        room = OnTheirWay(door)
        for _ in range(50):
            self.assertTrue(room.admit(0.0))
            room.ticket(0.0)
        self.assertTrue(room.admit(100.0))
        self.assertEqual(door.cut_for_silence, 0)
