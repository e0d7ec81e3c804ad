"""Tests for :mod:`derp.net.hub`."""

from __future__ import annotations

import socket
from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from derp.net.arena import RECV_SIZE, SMALL_SIZE
from derp.net.hub import (
    ALONE_TURNS,
    MAX_EVENTS,
    MAX_HANDSHAKES,
    MAX_LINGER_S,
    MAX_LINGER_TURNS,
    MAX_PASSED_OVER,
    READ,
    WRITE,
    Hub,
)
from tests.net.sockets import PumpedReactor


class Member:
    """Does what it is told, and remembers."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log = log
        self.name = name
        self.on: dict[str, Callable[[], object]] = {}
        self.events = 0

    def _do(self, what: str) -> None:
        self.log.append(f"{self.name} {what}")
        act = self.on.get(what)
        if act is not None:
            act()

    def ready(self, events: int) -> None:
        self.events = events
        self._do("ready")

    def flush(self) -> None:
        self._do("flush")

    def end(self) -> None:
        self._do("end")

    def failed(self) -> None:
        self._do("failed")


class Watch:
    """Notes when it is set."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    @property
    def now(self) -> float:
        return 0.0

    @now.setter
    def now(self, seconds: float) -> None:
        self.log.append("began")


class Boom(Exception):
    """Our own code's mistake."""


def boom() -> None:
    raise Boom


class HubCase(SynchronousTestCase):
    """A hub that does not linger, and members on socket pairs."""

    def setUp(self) -> None:
        self.reactor = PumpedReactor()
        self.hub = Hub(self.reactor, linger_s=0.0)
        self.addCleanup(self.hub.close)
        self.log: list[str] = []
        self.sockets: list[socket.socket] = []
        self.addCleanup(lambda: [sock.close() for sock in self.sockets])

    def member(self, name: str, *, ready: bool = True, at_door: bool = False) -> Member:
        """Add a member, with something to read or not."""
        ours, theirs = socket.socketpair()
        self.sockets += (ours, theirs)
        member = Member(self.log, name)
        self.hub.add(ours.fileno(), member, at_door=at_door)
        member.fd = ours.fileno()  # type: ignore[attr-defined]
        if ready:
            theirs.send(b"x")
        return member

    def fd(self, member: Member) -> int:
        fd: int = member.fd  # type: ignore[attr-defined]
        return fd


class HubTests(HubCase):
    """A turn: who is served, in which order, and what an error costs."""

    # -- order -----------------------------------------------------------------------------

    def test_order_of_a_turn(self) -> None:
        """First all that is ready, then all output, then the ends."""
        self.hub.timed = Watch(self.log)
        a, b = self.member("a"), self.member("b")
        a.on["ready"] = lambda: (self.hub.mark_dirty(b), self.hub.end_later(a))
        b.on["ready"] = lambda: self.hub.mark_dirty(a)
        self.hub.doRead()
        self.assertEqual(self.log[0], "began")
        self.assertEqual(set(self.log[1:3]), {"a ready", "b ready"})
        self.assertEqual(set(self.log[3:5]), {"a flush", "b flush"})
        self.assertEqual(self.log[5:], ["a end"])

    def test_what_the_end_writes_is_sent(self) -> None:
        """A connection's end tells others (PeerGone); that leaves in the same turn."""
        a, b = self.member("a"), self.member("b", ready=False)
        a.on["ready"] = lambda: self.hub.end_later(a)
        a.on["end"] = lambda: self.hub.mark_dirty(b)
        self.hub.doRead()
        self.assertEqual(self.log, ["a ready", "a end", "b flush"])

    def test_output_before_ends(self) -> None:
        """What a flush writes to somebody who is about to end still leaves before that."""
        a, b = self.member("a"), self.member("b", ready=False)
        a.on["ready"] = lambda: (self.hub.mark_dirty(a), self.hub.end_later(b))
        a.on["flush"] = lambda: self.hub.mark_dirty(b)
        self.hub.doRead()
        self.assertEqual(self.log, ["a ready", "a flush", "b flush", "b end"])

    def test_nobody_ready(self) -> None:
        """A turn for nothing serves nobody."""
        self.member("a", ready=False)
        self.hub.doRead()
        self.assertEqual(self.log, [])

    def test_bounded(self) -> None:
        """One turn serves a bounded number of sockets; the next one goes on with others."""
        members = [self.member(str(n)) for n in range(MAX_EVENTS + 10)]
        self.hub.doRead()
        self.assertEqual(len(self.log), MAX_EVENTS)
        self.hub.doRead()
        self.assertEqual(len(set(self.log)), len(members))

    def test_events(self) -> None:
        """A member is told what its socket is ready for, and only what it watches."""
        a = self.member("a")
        self.hub.doRead()
        self.assertEqual(a.events, READ)
        self.hub.watch(self.fd(a), READ | WRITE)
        self.hub.doRead()
        self.assertEqual(a.events, READ | WRITE)
        self.hub.watch(self.fd(a), 0)
        self.log.clear()
        self.hub.doRead()
        self.assertEqual(self.log, [])

    # -- outside of a turn -----------------------------------------------------------------

    def test_output_between_turns(self) -> None:
        """A timer's writing gets a turn of its own, one for all of it."""
        a, b = self.member("a", ready=False), self.member("b", ready=False)
        self.hub.mark_dirty(a)
        self.hub.mark_dirty(b)
        self.hub.end_later(b)
        self.assertEqual(self.log, [])
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)
        self.reactor.advance(0)
        self.assertEqual(self.log, ["a flush", "b flush", "b end"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_turn_serves_what_waits_for_one(self) -> None:
        """If a socket's turn comes first, nothing is flushed twice."""
        a = self.member("a", ready=False)
        self.hub.mark_dirty(a)
        self.hub.doRead()
        self.reactor.advance(0)
        self.assertEqual(self.log, ["a flush"])

    def test_call_soon(self) -> None:
        """A member can be served for a reason of its own: after the turn, in a new one."""
        self.hub.timed = Watch(self.log)
        a = self.member("a")

        def call() -> None:
            self.log.append("called")
            self.hub.mark_dirty(a)

        a.on["ready"] = lambda: self.hub.call_soon(a, call)
        self.hub.doRead()
        self.assertEqual(self.log, ["began", "a ready"])
        self.reactor.advance(0)
        self.assertEqual(self.log[2:], ["began", "called", "a flush"])

    # -- errors ----------------------------------------------------------------------------

    def test_failure_in_ready(self) -> None:
        """One member's error ends that member; the others are served, the buffers clean."""
        a, b = self.member("a"), self.member("b")

        def fail() -> None:
            self.hub.arena.incoming.write(b"left behind")
            self.hub.arena.outgoing.write(b"left behind")
            boom()

        for member in (a, b):
            member.on["ready"] = fail
        self.hub.doRead()
        self.assertEqual(sorted(self.log), ["a failed", "a ready", "b failed", "b ready"], self.log)
        self.hub.arena.assert_clean()
        self.assertEqual(len(self.flushLoggedErrors(Boom)), 2)

    def test_failure_in_flush(self) -> None:
        """The same for the end of the turn."""
        a, b = self.member("a", ready=False), self.member("b", ready=False)
        a.on["flush"] = boom
        a.on["failed"] = lambda: self.hub.end_later(a)
        self.hub.mark_dirty(a)
        self.hub.mark_dirty(b)
        self.reactor.advance(0)
        self.assertEqual(self.log, ["a flush", "a failed", "b flush", "a end"])
        self.assertEqual(len(self.flushLoggedErrors(Boom)), 1)

    def test_failure_in_end(self) -> None:
        """
        The same for an end; and the hub knows afterwards that the turn is over, or it would
        wait for ever for the end of it.
        """
        a, b = self.member("a", ready=False), self.member("b", ready=False)
        a.on["end"] = boom
        self.hub.end_later(a)
        self.hub.end_later(b)
        self.reactor.advance(0)
        self.assertEqual(self.log, ["a end", "b end"])
        self.assertEqual(len(self.flushLoggedErrors(Boom)), 1)
        a.on.clear()
        self.hub.mark_dirty(b)
        self.reactor.advance(0)
        self.assertEqual(self.log[2:], ["b flush"])

    def test_failure_of_the_failure(self) -> None:
        """Even giving up may fail: the member is ended all the same."""
        a = self.member("a")
        a.on["ready"] = a.on["failed"] = boom
        self.hub.doRead()
        self.assertEqual(self.log, ["a ready", "a failed", "a end"])
        self.assertEqual(len(self.flushLoggedErrors(Boom)), 2)

    def test_failure_in_a_call(self) -> None:
        """What was asked for later is guarded as well."""
        a, b = self.member("a", ready=False), self.member("b", ready=False)
        self.hub.call_soon(a, boom)
        self.hub.call_soon(b, lambda: self.log.append("b called"))
        self.reactor.advance(0)
        self.assertEqual(self.log, ["a failed", "b called"])
        self.assertEqual(len(self.flushLoggedErrors(Boom)), 1)

    def test_interrupted(self) -> None:
        """An interrupt passes through, and later writing still gets its turn."""

        def interrupt() -> None:
            raise KeyboardInterrupt

        a = self.member("a")
        a.on["ready"] = interrupt
        self.assertRaises(KeyboardInterrupt, self.hub.doRead)
        self.hub.mark_dirty(a)
        self.reactor.advance(0)
        self.assertEqual(self.log, ["a ready", "a flush"])

    # -- the door --------------------------------------------------------------------------

    def test_newcomers_are_rationed(self) -> None:
        """However many newcomers are ready, few are served per turn, and all in the end."""
        for n in range(3 * MAX_HANDSHAKES):
            self.member(f"new{n}", at_door=True)
        self.hub.doRead()
        self.assertEqual(len(self.log), MAX_HANDSHAKES)
        self.hub.doRead()
        self.hub.doRead()
        self.assertEqual(len(set(self.log)), 3 * MAX_HANDSHAKES)

    def test_newcomers_take_no_slot(self) -> None:
        """Who is in is served in every turn, first, whatever crowd is at the door."""
        for n in range(3 * MAX_EVENTS):
            self.member(f"new{n}", at_door=True)
        self.member("in")
        for _ in range(5):
            self.log.clear()
            self.hub.doRead()
            self.assertEqual(self.log[0], "in ready")
            self.assertEqual(len(self.log), 1 + MAX_HANDSHAKES)

    def test_let_in(self) -> None:
        """Let in, it is served with the others."""
        a = self.member("a", at_door=True)
        for n in range(MAX_HANDSHAKES):
            self.member(f"new{n}", at_door=True)
        self.hub.let_in(self.fd(a), READ)
        self.hub.let_in(self.fd(a), READ)  # twice changes nothing
        self.hub.doRead()
        self.assertEqual(self.log[0], "a ready")
        self.hub.watch(self.fd(a), 0)
        self.log.clear()
        self.hub.doRead()
        self.assertNotIn("a ready", self.log)

    def test_watch_at_the_door(self) -> None:
        """A newcomer can be paused and removed like anybody."""
        a = self.member("a", at_door=True)
        self.hub.watch(self.fd(a), 0)
        self.hub.doRead()
        self.assertEqual(self.log, [])
        self.hub.remove(self.fd(a))
        self.assertEqual(len(self.hub), 0)

    # -- coming and going ------------------------------------------------------------------

    def test_number_reused(self) -> None:
        """A descriptor that was a newcomer's may be anybody's next time."""
        a = self.member("a", at_door=True)
        self.hub.remove(self.fd(a))
        self.hub.add(self.fd(a), a)
        self.hub.watch(self.fd(a), 0)
        self.hub.watch(self.fd(a), READ)
        self.hub.doRead()
        self.assertEqual(self.log, ["a ready"])

    def test_reader(self) -> None:
        """The reactor watches the hub exactly while it has members."""
        self.assertEqual(self.reactor.readers, set())
        a, b = self.member("a"), self.member("b", at_door=True)
        self.assertEqual(self.reactor.readers, {self.hub})
        self.hub.remove(self.fd(a))
        self.assertEqual(self.reactor.readers, {self.hub})
        self.hub.remove(self.fd(b))
        self.assertEqual(self.reactor.readers, set())
        self.hub.remove(self.fd(b))  # twice is harmless
        self.assertEqual(len(self.hub), 0)

    def test_removed_within_the_turn(self) -> None:
        """Who is removed by somebody served before him is not served any more."""
        a, b = self.member("a"), self.member("b")
        a.on["ready"] = lambda: self.hub.remove(self.fd(b))
        b.on["ready"] = lambda: self.hub.remove(self.fd(a))
        self.hub.doRead()
        self.assertEqual(len(self.log), 1)

    def test_close(self) -> None:
        """Closing ends all members, sends what their ends write, and leaves nothing."""
        a, b = self.member("a"), self.member("b", at_door=True)
        a.on["end"] = lambda: (self.hub.remove(self.fd(a)), self.hub.mark_dirty(b))
        b.on["end"] = lambda: self.hub.remove(self.fd(b))
        self.hub.mark_dirty(b)
        self.hub.call_soon(a, boom)
        self.hub.close()
        self.assertEqual(self.log, ["a end", "b end", "b flush", "b flush"])
        self.assertEqual(self.reactor.readers, set())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_after_close(self) -> None:
        """Late writing is forgotten, closing twice is harmless."""
        a = self.member("a")
        self.hub.close()
        self.hub.close()
        self.hub.mark_dirty(a)
        self.hub.end_later(a)
        self.hub.call_soon(a, boom)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_no_descriptor_left(self) -> None:
        """A closed hub has given its descriptors back."""
        hub = Hub(self.reactor)
        hub.close()
        self.assertTrue(hub._epoll.closed and hub._door.closed)


class HeavyTests(HubCase):
    """One who floods does not keep others waiting."""

    def heavy_member(self, name: str) -> Member:
        """A member that fills whatever it is offered; it logs how much that was."""
        member = self.member(name)

        def fill() -> None:
            self.log.append(f"{name} takes {self.hub.arena.quantum}")
            self.assertEqual(len(self.hub.arena.room), self.hub.arena.quantum)
            self.hub.note_heavy(self.fd(member))

        member.on["ready"] = fill
        return member

    def turns(self, count: int) -> list[list[str]]:
        """What is done in each of so many turns, readiness aside."""
        result = []
        for _ in range(count):
            self.log.clear()
            self.hub.doRead()
            result.append([line for line in self.log if not line.startswith("heavy ready")])
        return result

    def test_others_first(self) -> None:
        """While somebody else is ready a flood gets one small piece in four turns."""
        self.heavy_member("heavy")
        self.hub.doRead()
        light = self.member("light")
        light.on["ready"] = lambda: self.hub.mark_dirty(light)
        served = ["light ready", "light flush"]
        rest = MAX_PASSED_OVER - 1
        expected = [*[served] * rest, [*served, f"heavy takes {SMALL_SIZE}"]]
        self.assertEqual(self.turns(2 * MAX_PASSED_OVER), expected * 2)

    def test_alone(self) -> None:
        """Soon after the last of the others it gets all it can take."""
        self.heavy_member("heavy")
        self.assertEqual(self.turns(1), [[f"heavy takes {RECV_SIZE}"]])
        light = self.member("light")
        self.turns(1)
        self.hub.remove(self.fd(light))
        turns = self.turns(ALONE_TURNS + 1)
        self.assertEqual(turns[:-1], [[f"heavy takes {SMALL_SIZE}"]] * ALONE_TURNS)
        self.assertEqual(turns[-1], [f"heavy takes {RECV_SIZE}"])

    def test_several(self) -> None:
        """Heavy ones take turns with each other; alone, all are served at once."""
        for name in "abc":
            self.heavy_member(name)
        for _ in range(ALONE_TURNS + 1):
            self.hub.doRead()
        (together,) = self.turns(1)
        takes = [line for line in together if "takes" in line]
        self.assertEqual(set(takes), {f"{name} takes {RECV_SIZE}" for name in "abc"})
        self.member("light")
        pieces = [
            line for turn in self.turns(6 * MAX_PASSED_OVER) for line in turn if "takes" in line
        ]
        self.assertEqual(pieces[:3], pieces[3:])
        self.assertEqual(set(pieces), {f"{name} takes {SMALL_SIZE}" for name in "abc"})

    def test_no_longer(self) -> None:
        """Who does not fill its piece is one of the others again."""
        heavy = self.heavy_member("heavy")
        self.hub.doRead()
        self.member("light")
        heavy.on.clear()
        self.turns(MAX_PASSED_OVER)
        (turn,) = self.turns(1)
        self.assertIn("light ready", turn)
        self.assertIn("heavy ready", self.log)

    def test_gone(self) -> None:
        """A descriptor that is used again has no past."""
        heavy = self.heavy_member("heavy")
        self.hub.doRead()
        self.hub.remove(self.fd(heavy))
        heavy.on.clear()
        self.hub.add(self.fd(heavy), heavy)
        self.member("light")
        self.log.clear()
        self.hub.doRead()
        self.assertEqual(set(self.log), {"heavy ready", "light ready"})

    def test_failing(self) -> None:
        """What goes wrong with a small piece leaves the large ones as they were."""
        heavy = self.heavy_member("heavy")
        self.hub.doRead()
        self.member("light")

        def fail() -> None:
            raise Boom

        heavy.on["ready"] = fail
        self.turns(MAX_PASSED_OVER)
        self.assertEqual(len(self.flushLoggedErrors(Boom)), 1)
        self.assertEqual(self.hub.arena.quantum, RECV_SIZE)
        self.assertEqual(len(self.hub.arena.room), RECV_SIZE)


class LingerTests(SynchronousTestCase):
    """While packets keep coming the hub waits for the next ones itself, for a bounded time."""

    def setUp(self) -> None:
        self.reactor = PumpedReactor()
        self.hub = Hub(self.reactor, linger_s=0.001)
        self.addCleanup(self.hub.close)
        self.ours, self.theirs = socket.socketpair()
        self.addCleanup(self.ours.close)
        self.addCleanup(self.theirs.close)
        self.log: list[str] = []
        self.member = Member(self.log, "a")
        self.hub.add(self.ours.fileno(), self.member)
        self.theirs.send(b"x")

    def served(self) -> int:
        """Have the reactor call once; count the turns the member got."""
        self.log.clear()
        self.hub.doRead()
        return self.log.count("a ready")

    def test_first_packet_after_a_pause(self) -> None:
        """One packet now and then is served by one turn: nothing waits."""
        self.reactor.advance(5.0)
        self.assertEqual(self.served(), 1)
        self.reactor.advance(5.0)
        self.assertEqual(self.served(), 1)

    def test_dense_traffic(self) -> None:
        """Readiness that does not end is served on, but not for ever."""
        self.reactor.advance(5.0)
        self.served()
        self.assertEqual(self.served(), 1 + MAX_LINGER_TURNS)

    def test_until_its_time_is_over(self) -> None:
        """The reactor gets its share after two milliseconds."""
        self.reactor.advance(5.0)
        self.served()
        self.member.on["ready"] = lambda: self.reactor.advance(MAX_LINGER_S / 4)
        self.assertEqual(self.served(), 5)

    def test_less_for_others(self) -> None:
        """A relay whose reactor has packets to bring, too, lets it have its share sooner."""
        self.hub.max_linger_s = MAX_LINGER_S / 2
        self.reactor.advance(5.0)
        self.served()
        self.member.on["ready"] = lambda: self.reactor.advance(MAX_LINGER_S / 4)
        self.assertEqual(self.served(), 3)

    def test_until_nothing_comes(self) -> None:
        """It does not wait a second time for packets that did not come."""
        self.reactor.advance(5.0)
        self.served()
        self.member.on["ready"] = lambda: self.ours.recv(1)
        self.assertEqual(self.served(), 1)

    def test_newcomers(self) -> None:
        """Handshakes are rationed per call of the reactor, so it does not linger over them."""
        self.reactor.advance(5.0)
        self.served()
        self.hub.add(self.theirs.fileno(), Member([], "b"), at_door=True)
        self.assertEqual(self.served(), 1)

    def test_closed_within(self) -> None:
        """A hub closed by what it served touches nothing any more."""
        self.reactor.advance(5.0)
        self.served()
        self.member.on["ready"] = self.hub.close
        self.assertEqual(self.served(), 1)


class HubOnTheReactorTests(TestCase):
    """The real reactor can watch it."""

    def test_wakes_up(self) -> Deferred[None]:
        """A socket at the door, and one inside, wake the reactor."""
        hub = Hub(reactor)  # type: ignore[arg-type]
        self.addCleanup(hub.close)
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        done: Deferred[None] = Deferred()
        member = Member([], "a")

        def at_door() -> None:
            ours.recv(1)
            hub.let_in(ours.fileno())
            member.on["ready"] = inside
            theirs.send(b"y")

        def inside() -> None:
            hub.remove(ours.fileno())
            done.callback(None)

        member.on["ready"] = at_door
        hub.add(ours.fileno(), member, at_door=True)
        theirs.send(b"x")
        return done
