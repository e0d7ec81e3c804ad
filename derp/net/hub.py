"""
The turn: one epoll of the relay's own, watched by the reactor as a single reader.

A *turn* takes the sockets that are ready, reads and relays what they brought, and then sends
to each destination once, whatever number of packets it got. That join at the end of the turn
is what makes a relayed packet cheap: fewer system calls, fewer TLS records.

A turn is bounded, so that timers and everything else of the reactor get their share, and new
connections' handshakes (each as dear as two hundred packets) are rationed within it.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from derp.net.arena import Arena

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorFDSet, IReactorTime

    class HubReactor(IReactorFDSet, IReactorTime):
        """What the hub asks of the reactor."""


MAX_EVENTS = 64
"""Sockets served per turn."""
MAX_HANDSHAKES = 8
"""Steps of TLS handshakes per turn; each takes 0.1 to 0.2 ms that packets would wait."""

READ = select.EPOLLIN
WRITE = select.EPOLLOUT


class HubMember(Protocol):
    """A socket that lives in the hub."""

    def ready(self, events: int) -> None:
        """The socket is readable, writable or broken (epoll's event bits)."""

    def flush(self) -> None:
        """The turn ends: send what was written during it."""

    def end(self) -> None:
        """The turn has ended: close the socket for good."""

    def failed(self) -> None:
        """Our own code raised while it served this socket: give it up."""


@implementer(IReadDescriptor)
class Hub:
    """
    All of a relay's stream sockets.

    :param reactor: anything with readers, ``callLater`` and a clock.
    """

    log = Logger()

    def __init__(self, reactor: HubReactor) -> None:
        self.reactor = reactor
        self.arena = Arena()
        self.turn_began: Callable[[], None] = lambda: None
        """Called before the first socket of a turn (the relay reads the clock then)."""
        self.handshakes_left = MAX_HANDSHAKES
        self._epoll = select.epoll()
        self._members: dict[int, HubMember] = {}
        self._dirty: list[HubMember] = []
        self._ending: list[HubMember] = []
        self._in_turn = False
        self._late_turn = False
        self._reading = False

    # -- members ---------------------------------------------------------------------------

    def add(self, fd: int, member: HubMember, events: int = READ) -> None:
        """Watch a socket."""
        self._members[fd] = member
        self._epoll.register(fd, events)
        if not self._reading:
            self._reading = True
            self.reactor.addReader(self)

    def watch(self, fd: int, events: int) -> None:
        """Change what a socket is watched for; breakage is always noticed."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """
        Forget a socket, before it is closed.

        The reactor stops watching an empty hub, so that nothing of it outlives a service.
        """
        if self._members.pop(fd, None) is None:
            return
        self._epoll.unregister(fd)
        if not self._members and self._reading:
            self._reading = False
            self.reactor.removeReader(self)

    def __len__(self) -> int:
        return len(self._members)

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

    def _turn_later(self) -> None:
        if not self._late_turn:
            self._late_turn = True
            self.reactor.callLater(0, self._finish_turn)

    # -- the turn --------------------------------------------------------------------------

    def fileno(self) -> int:
        """See ``IFileDescriptor.fileno``: epoll descriptors can be polled themselves."""
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        """See ``ILoggingContext.logPrefix``."""
        return "relay"

    def doRead(self) -> None:
        """See ``IReadDescriptor.doRead``: serve one turn."""
        self._in_turn = True
        self.handshakes_left = MAX_HANDSHAKES
        self.turn_began()
        members = self._members
        for fd, events in self._epoll.poll(0, MAX_EVENTS):
            member = members.get(fd)
            if member is None:
                continue
            try:
                member.ready(events)
            except Exception:
                self.log.failure("serving a connection failed; it is closed")
                self.arena.clear()
                member.failed()
        self._finish_turn()

    def _finish_turn(self) -> None:
        self._in_turn = True
        self._late_turn = False
        while self._dirty or self._ending:
            dirty, self._dirty = self._dirty, []
            for member in dirty:
                try:
                    member.flush()
                except Exception:
                    self.log.failure("writing to a connection failed; it is closed")
                    self.arena.clear()
                    member.failed()
            if not self._dirty:
                ending, self._ending = self._ending, []
                for member in ending:
                    member.end()
        self._in_turn = False

    def connectionLost(self, reason: object) -> None:
        """See ``IFileDescriptor.connectionLost``: the reactor is going away."""

    def close(self) -> None:
        """Give the epoll descriptor back."""
        if self._reading:
            self._reading = False
            self.reactor.removeReader(self)
        self._epoll.close()
