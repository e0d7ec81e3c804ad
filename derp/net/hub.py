"""
The turn: one epoll of the relay's own, watched by the reactor as a single reader.

A *turn* takes the sockets that are ready, reads and relays what they brought, and then sends
to each destination once, whatever number of packets it got. That join at the end of the turn
is what makes a relayed packet cheap: fewer system calls, fewer TLS records.

A turn is bounded, so that timers and everything else of the reactor get their share. New
connections wait *at the door*, an epoll of their own within the hub's, until their handshake
is done: a handshake step is as dear as two hundred packets, so only a few are made per turn,
and however many newcomers wait, they take no slot of those who are in.

A client that fills the whole receive buffer whenever it is read is *heavy*. While others have
something to say, too, heavy ones get the turns in between, and now and then one in any case, one
of them at a time and with a small piece: nobody waits for a flood for longer than a few packets
of it take. Alone, or among themselves, they get all they can.

Whatever a member's code raises ends that member and nothing else.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from derp.net.arena import RECV_SIZE, SMALL_SIZE, Arena

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReactorTime

    class HubReactor(IReactorFDSet, IReactorTime):
        """What the hub asks of the reactor."""


MAX_EVENTS = 64
"""Sockets served per turn."""
MAX_HANDSHAKES = 8
"""Steps of TLS handshakes per turn; each takes 0.1 to 0.2 ms that packets would wait."""

LINGER_S = 0.001
"""
How long the hub waits for the next packets itself, while they keep coming. A way through the
reactor's loop costs as much CPU as relaying a packet; whatever else the reactor has to do is
held up by this much, or by :data:`MAX_LINGER_S` when packets keep coming without a pause.
"""
MAX_LINGER_S = 0.002
MESHED_LINGER_S = 0.0005
"""The same of a relay with mesh links: those are the reactor's, and packets come over them."""
MAX_LINGER_TURNS = 64

MAX_PASSED_OVER = 4
"""Turns that others may have before a heavy client gets a piece all the same."""
ALONE_TURNS = 16
"""Turns without anybody else after which heavy clients are among themselves."""

READ = select.EPOLLIN
WRITE = select.EPOLLOUT


Ready = list[tuple[int, int]]
"""Descriptors and what they are ready for, as epoll tells it."""


class HubMember(Protocol):
    """A socket that lives in the hub."""

    def ready(self, events: int) -> None:
        """The socket is readable, writable or broken (epoll's event bits)."""

    def flush(self) -> None:
        """The turn ends: send what was written during it."""

    def end(self) -> None:
        """The turn has ended: close the socket for good. Harmless twice."""

    def failed(self) -> None:
        """Our own code raised while it served this socket: give it up."""


class Timed(Protocol):
    """Is told what time it is, once a turn."""

    now: float
    """Seconds on the reactor's clock."""


class _Nobody:
    """Wants to know no time."""

    now = 0.0


@implementer(IReadDescriptor)
class Hub:
    """
    All of a relay's stream sockets.

    :param reactor: anything with readers, ``callLater`` and a clock.
    :param linger_s: see :data:`LINGER_S`; 0 makes one turn per call of the reactor.
    """

    log = Logger()

    def __init__(self, reactor: HubReactor, linger_s: float = LINGER_S) -> None:
        self.reactor = reactor
        self._linger_s = linger_s
        self.max_linger_s = MAX_LINGER_S
        self.arena = Arena()
        self.timed: Timed = _Nobody()
        """Whose time is set before the first socket of a turn (the relay, which reads none)."""
        self._epoll = select.epoll()
        self._door = select.epoll()
        self._epoll.register(self._door.fileno(), READ)
        self._at_door: set[int] = set()
        self._members: dict[int, HubMember] = {}
        self._heavy: dict[int, None] = {}
        """Who had more to send than one read takes; who waits longest is first."""
        self._passed_over = 0
        self._alone = 0
        self._dirty: list[HubMember] = []
        self._ending: list[HubMember] = []
        self._calls: list[tuple[HubMember, Callable[[], None]]] = []
        self._late_turn: IDelayedCall | None = None
        self._in_turn = False
        self._reading = False
        self._last_read = -linger_s

    # -- members ---------------------------------------------------------------------------

    def add(self, fd: int, member: HubMember, events: int = READ, *, at_door: bool = False) -> None:
        """
        Watch a socket.

        :param at_door: it waits with the newcomers until :meth:`let_in`.
        """
        (self._door if at_door else self._epoll).register(fd, events)
        self._members[fd] = member
        if at_door:
            self._at_door.add(fd)
        if not self._reading:
            self._reading = True
            self.reactor.addReader(self)

    def let_in(self, fd: int, events: int = READ) -> None:
        """A newcomer's handshake is done: it is served like everybody from the next turn on."""
        if fd in self._at_door:
            self._at_door.discard(fd)
            self._door.unregister(fd)
            self._epoll.register(fd, events)

    def watch(self, fd: int, events: int) -> None:
        """Change what a socket is watched for; breakage is always noticed."""
        (self._door if fd in self._at_door else self._epoll).modify(fd, events)

    def remove(self, fd: int) -> None:
        """
        Forget a socket, before it is closed.

        The reactor stops watching an empty hub, so that nothing of it outlives a service.
        """
        if self._members.pop(fd, None) is None:
            return
        (self._door if fd in self._at_door else self._epoll).unregister(fd)
        self._at_door.discard(fd)
        self._heavy.pop(fd, None)
        if not self._members and self._reading:
            self._reading = False
            self.reactor.removeReader(self)

    def __len__(self) -> int:
        return len(self._members)

    def note_heavy(self, fd: int) -> None:
        """A socket gave as much as it was asked for: it has more."""
        self._heavy[fd] = None

    # -- what members ask for --------------------------------------------------------------

    def mark_dirty(self, member: HubMember) -> None:
        """Have ``flush`` called at the end of the turn; outside of one, make one soon."""
        self._dirty.append(member)
        if not self._in_turn:
            self._turn_later()

    def end_later(self, member: HubMember) -> None:
        """
        Have ``end`` called once the turn is over.

        Descriptors are closed only then: a number that was reused within the turn would get
        the old socket's events.
        """
        self._ending.append(member)
        if not self._in_turn:
            self._turn_later()

    def call_soon(self, member: HubMember, call: Callable[[], None]) -> None:
        """
        Serve a member in a turn to come, for a reason other than its socket.

        Whoever uses the shared buffers must do so this way: the buffers may be another
        member's at the moment.
        """
        self._calls.append((member, call))
        self._turn_later()

    def _turn_later(self) -> None:
        if self._late_turn is None and not self._epoll.closed:
            self._late_turn = self.reactor.callLater(0, self._serve_late)

    # -- the turn --------------------------------------------------------------------------

    def fileno(self) -> int:
        """See ``IFileDescriptor.fileno``: epoll descriptors can be polled themselves."""
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        """See ``ILoggingContext.logPrefix``."""
        return "relay"

    def doRead(self) -> None:
        """See ``IReadDescriptor.doRead``: serve one turn, or many while traffic is dense."""
        self._in_turn = True
        try:
            now = self._serve_turn(self._epoll.poll(0, MAX_EVENTS))
            if now - self._last_read < self._linger_s and not self._at_door:
                now = self._linger(now)
            self._last_read = now
        finally:
            self._in_turn = False

    def _linger(self, now: float) -> float:
        """Serve turns without the reactor for a bounded time; returns when the last began."""
        poll, wait, serve = self._epoll.poll, self._linger_s, self._serve_turn
        until = now + self.max_linger_s
        for _ in range(MAX_LINGER_TURNS):
            if self._at_door or not self._reading:
                break  # handshakes are rationed; nobody is left, or the hub was closed
            ready = poll(wait, MAX_EVENTS)
            if not ready:
                break
            now = serve(ready)
            if now >= until:
                break
        return now

    def _serve_turn(self, ready: Ready) -> float:
        """One turn: read and relay, then send; returns when it began. **HOT**"""
        now = self.timed.now = self.reactor.seconds()
        members = self._members
        heavy: Ready = []
        if self._heavy:
            ready, heavy = self._ration(ready)
        for fd, events in ready:
            member = members.get(fd)
            if member is None:
                continue  # the door, which is served after those who are in
            try:
                member.ready(events)
            except Exception:
                self.give_up(member)
        if self._at_door:
            self._serve(self._door.poll(0, MAX_HANDSHAKES))
        self._finish_turn()
        if heavy:
            self.arena.allow(SMALL_SIZE)
            self._serve(heavy)
            self.arena.allow(RECV_SIZE)
            self._finish_turn()
        return now

    def _ration(self, ready: Ready) -> tuple[Ready, Ready]:
        """
        Tell who is served now, and who behind them with a small piece.

        Those left out are told of again by epoll when the next turn begins.
        """
        heavy = self._heavy
        others = [each for each in ready if each[0] not in heavy]
        if len(others) == len(ready):
            return ready, []
        if others:
            self._alone = 0
            self._passed_over += 1
            if self._passed_over < MAX_PASSED_OVER:
                return others, []
        else:
            self._alone += 1
            if self._alone > ALONE_TURNS:
                heavy.clear()  # who still is will be noted again
                return ready, []
        self._passed_over = 0
        events = dict(ready)
        longest = next(fd for fd in heavy if fd in events)
        del heavy[longest]
        return others, [(longest, events[longest])]

    def _serve(self, ready: Ready) -> None:
        """Serve these, whatever happens to one."""
        for fd, events in ready:
            member = self._members.get(fd)
            if member is None:
                continue
            try:
                member.ready(events)
            except Exception:
                self.give_up(member)

    def _serve_late(self) -> None:
        """Make a turn that no socket asked for."""
        self._late_turn = None
        self._in_turn = True
        try:
            calls, self._calls = self._calls, []
            if calls:
                self.timed.now = self.reactor.seconds()
            for member, call in calls:
                try:
                    call()
                except Exception:
                    self.give_up(member)
            self._finish_turn()
        finally:
            self._in_turn = False

    def _finish_turn(self) -> None:
        """Send what was written; then close what is to be closed, which may write again. **HOT**"""
        while self._dirty or self._ending:
            dirty, self._dirty = self._dirty, []
            for member in dirty:
                try:
                    member.flush()
                except Exception:
                    self.give_up(member)
            if self._dirty:
                continue
            ending, self._ending = self._ending, []
            for member in ending:
                self._end(member)

    def give_up(self, member: HubMember) -> None:
        """Our own code failed (to be called where that is caught): end this member alone."""
        self.log.failure("serving a connection failed; it is closed")
        self.arena.clear()
        try:
            member.failed()
        except Exception:
            self.log.failure("giving up a connection failed")
            self._ending.append(member)

    def _end(self, member: HubMember) -> None:
        try:
            member.end()
        except Exception:
            self.log.failure("closing a connection failed")

    def connectionLost(self, reason: object) -> None:
        """See ``IFileDescriptor.connectionLost``: the reactor is going away."""

    def close(self) -> None:
        """End all members at once and give the epoll descriptors back."""
        if self._epoll.closed:
            return
        for member in list(self._members.values()):
            self._end(member)
        self._in_turn = True
        self._finish_turn()
        self._in_turn = False
        self._calls.clear()
        if self._late_turn is not None:
            self._late_turn.cancel()
            self._late_turn = None
        if self._reading:
            self._reading = False
            self.reactor.removeReader(self)
        self._door.close()
        self._epoll.close()
