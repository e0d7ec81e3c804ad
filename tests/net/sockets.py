"""
A hub that is turned by hand: real sockets, a clock that stands still, no reactor.

Everything happens in the calling thread. :meth:`Pump.until` turns the hub and lets the clients
read until something is the case, and waits in ``select`` only while nobody has anything to do.

The hub of these tests is *audited*: whenever a member was served, no byte may be left in the
shared BIOs, and the shared buffers are overwritten, so that whoever kept a view of them, or
reads past what is his, delivers rubbish.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from derp.net.hub import READ, Hub, HubMember
from derp.net.timer_wheel import TimerWheel
from derp.net.transport import StreamTransport

PATIENCE_S = 60.0
"""Wall-clock time after which a test gives up; passing tests never wait for it."""
POISON = 0xEE


class PumpedReactor(Clock):
    """A clock that remembers who wants to be read."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.advance(1000.0)

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)


class AuditedMember:
    """A member, checked and its traces removed whenever it was served."""

    def __init__(self, hub: AuditedHub, member: HubMember) -> None:
        self.member = member
        self._hub = hub

    def ready(self, events: int) -> None:
        self.member.ready(events)
        self._hub.audit()

    def flush(self) -> None:
        self.member.flush()
        self._hub.audit()

    def end(self) -> None:
        self.member.end()
        self._hub.audit()

    def failed(self) -> None:
        self.member.failed()


class AuditedHub(Hub):
    """Checks the arena's rule after everything a member does. A breach is a logged error."""

    audits = 0

    def add(self, fd: int, member: HubMember, events: int = READ, *, at_door: bool = False) -> None:
        super().add(fd, AuditedMember(self, member), events, at_door=at_door)

    def mark_dirty(self, member: HubMember) -> None:
        super().mark_dirty(AuditedMember(self, member))

    def end_later(self, member: HubMember) -> None:
        super().end_later(AuditedMember(self, member))

    def call_soon(self, member: HubMember, call: Callable[[], None]) -> None:
        def audited() -> None:
            call()
            self.audit()

        super().call_soon(AuditedMember(self, member), audited)

    def audit(self) -> None:
        self.audits += 1
        arena = self.arena
        arena.assert_clean()
        for buffer in (arena.raw, arena.plain):
            buffer[:] = bytes((POISON,)) * len(buffer)


class Client(Protocol):
    """The other end of a connection."""

    sock: socket.socket

    def pump(self) -> None:
        """Read and write what can be."""


class PlainClient:
    """A socket that keeps what it reads."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.received = bytearray()
        self.ended: str | None = None
        """``"eof"``, or the error's name, once nothing more can come."""
        self.reading = True
        self._unsent = b""

    def send(self, data: bytes) -> None:
        """Send now what the socket takes, the rest while pumping."""
        self._unsent += data
        self._push()

    @property
    def all_sent(self) -> bool:
        return not self._unsent

    def _push(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self._unsent = b""
            self.ended = self.ended or type(error).__name__

    def pump(self) -> None:
        self._push()
        while self.reading and self.ended is None:
            try:
                data = self.sock.recv(1 << 18)
            except BlockingIOError:
                return
            except OSError as error:
                self.ended = type(error).__name__
                return
            if not data:
                self.ended = "eof"
                return
            self.take(data)

    def take(self, data: bytes) -> None:
        """What came from the wire."""
        self.received += data

    def close(self) -> None:
        self.sock.close()


class Recorder:
    """A protocol of the ordinary kind."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.received = bytearray()
        self.lost: Failure | None = None
        self.events: list[str] = []

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        assert isinstance(data, bytes)
        self.received += data

    def connectionLost(self, reason: Failure) -> None:
        assert self.lost is None, "told twice"
        self.lost = reason
        self.events.append("lost")

    # as a producer

    def pauseProducing(self) -> None:
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.events.append("resume")

    def stopProducing(self) -> None:
        self.events.append("stop")


class Echo(Recorder):
    """Sends everything back."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.write(data)


class Pump:
    """
    Turns a hub.

    :param case: what fails, and cleans up.
    """

    def __init__(self, case: SynchronousTestCase) -> None:
        self.reactor = PumpedReactor()
        self.hub = AuditedHub(self.reactor, linger_s=0.0)
        self.wheel = TimerWheel(self.reactor)
        self.clients: list[Client] = []
        self._case = case
        self._sockets: list[socket.socket] = []
        case.addCleanup(self._clean_up)

    def _clean_up(self) -> None:
        self.hub.close()
        self.wheel.stop()
        self.close_sockets()
        self._case.assertEqual(self.reactor.readers, set(), "the hub is still being read")
        self._case.assertEqual(self.reactor.getDelayedCalls(), [], "the reactor is dirty")
        self._case.assertEqual(len(self.hub), 0)

    def close_sockets(self) -> None:
        """Let go of all connections; a test that makes many pumps does it after each."""
        for sock in self._sockets:
            sock.close()

    def pair(self, *, tcp: bool = True, buffer: int = 0) -> tuple[socket.socket, socket.socket]:
        """
        Make a connection: the relay's end, which the transport closes, and the client's.

        :param tcp: over loopback; otherwise a pair of unix sockets.
        :param buffer: size of the buffers in either direction; 0 leaves it to the kernel.
        """
        if not tcp:
            ours, theirs = socket.socketpair()
        else:
            with socket.socket() as listener:
                if buffer:
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
                listener.bind(("127.0.0.1", 0))
                listener.listen()
                theirs = socket.socket()
                if buffer:
                    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
                theirs.connect(listener.getsockname())
                ours, _ = listener.accept()
                ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for sock in (ours, theirs):
            sock.setblocking(False)
            if buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        self._sockets += (ours, theirs)
        return ours, theirs

    def connect(
        self, protocol: Any, *, tcp: bool = True, buffer: int = 0
    ) -> tuple[StreamTransport, PlainClient]:
        """Start a plain connection with this protocol."""
        ours, theirs = self.pair(tcp=tcp, buffer=buffer)
        transport = StreamTransport(self.hub, self.wheel, ours, ("192.0.2.1", 4321))
        client = PlainClient(theirs)
        self.clients.append(client)
        transport.start(protocol)
        return transport, client

    def turn(self, times: int = 1) -> None:
        """Make one turn of the hub, and what it left for later, then let clients read."""
        for _ in range(times):
            self.hub.doRead()
            self.reactor.advance(0)
            for client in self.clients:
                client.pump()

    def until(self, condition: Callable[[], Any], what: str = "it never happened") -> None:
        """Turn until something is the case; fail if it does not become so."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            self.turn()
            if condition():
                return
            if time.monotonic() > deadline:
                self._case.fail(what)
            self._wait()

    def _wait(self) -> None:
        """Sleep until somebody can do something, for a moment at most."""
        readable: Sequence[Any] = [
            self.hub,
            *(client.sock for client in self.clients if client.sock.fileno() >= 0),
        ]
        select.select(readable, [], [], 0.005)

    def settle(self) -> None:
        """Turn until nothing has happened for some turns."""
        quiet = 0
        while quiet < 3:
            before = self.hub.audits
            self.turn()
            quiet = quiet + 1 if self.hub.audits == before else 0
