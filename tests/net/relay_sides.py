"""Both sides of DERP connections for tests of :mod:`derp.net.relay_protocol`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from derp.net.relay_protocol import RelayProtocol, RelayServer
from derp.net.timer_wheel import TimerWheel
from derp.wire.frames import FrameDecoder, FrameType
from derp.wire.handshake import ClientInfo, encode_client_info, shared_key
from tests.core.fakes import MESH_KEY, make_relay, private_key, public_key
from tests.net.sites import AbortableTransport

PEER = IPv4Address("TCP", "192.0.2.7", 41641)


class FakeTransport(AbortableTransport):
    """
    A transport of strings whose socket can be full.

    As the relay's own it tells of its end later, from outside: :meth:`lose`.
    """

    bytes_moved_at: float

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.paused = False
        self.on_write: Callable[[], None] = lambda: None

    def write(self, data: bytes) -> None:
        super().write(data)
        self.writes.append(data)
        self.on_write()

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def loseConnection(self) -> None:
        self.disconnecting = True


class Side:
    """A client's half: what it sends, and what it was sent, as frames."""

    def __init__(self, name: str, *, mesh: bool = False) -> None:
        self.name = name
        self.key = public_key(name)
        self.info = ClientInfo(mesh_key=MESH_KEY if mesh else None, version=2)
        self._decoder = FrameDecoder()

    def login(self, server_key: bytes) -> bytes:
        """Its ClientInfo frame."""
        shared = shared_key(private_key(self.name), server_key)
        return encode_client_info(self.key, shared, b"n" * 24, self.info)

    def frames(self, data: bytes) -> list[tuple[int, bytes]]:
        """Complete frames in what came."""
        return list(self._decoder.feed(data))

    def types(self, data: bytes) -> list[FrameType]:
        """Only their types."""
        return [FrameType(frame_type) for frame_type, _ in self.frames(data)]


class RelayCase(SynchronousTestCase):
    """A relay on a clock that stands still; what it logs is in ``lines``."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.wheel = TimerWheel(self.clock)
        self.relay = make_relay()
        self.server = self.make_server()
        captured = capturedLogs()
        self._logs = captured.__enter__()
        self.addCleanup(captured.__exit__, None, None, None)

    def make_server(self, **options: Any) -> RelayServer:
        """Another server for the same relay."""
        return RelayServer(self.relay, self.clock, self.wheel, **options)

    @property
    def lines(self) -> list[str]:
        """What was logged about connections, each as operators read it."""
        return [
            each["log_format"].format(**each)
            for each in self._logs
            if each["log_namespace"] == "derp" and each.get("log_failure") is None
        ]

    def advance(self, seconds: float) -> None:
        """Let time pass in steps, as it does."""
        steps = int(seconds / 0.25)
        self.clock.pump([0.25] * steps)
        self.clock.advance(seconds - 0.25 * steps)

    def connect(self, head: bytes = b"", **options: Any) -> tuple[RelayProtocol, FakeTransport]:
        """A new connection, greeted."""
        protocol = self.server.accept(remote=PEER, head=head, **options)
        transport = FakeTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def log_in(
        self, name: str = "alice", *, mesh: bool = False
    ) -> tuple[RelayProtocol, FakeTransport, Side]:
        """A connection that has logged in and read what it was sent so far."""
        protocol, transport = self.connect()
        side = Side(name, mesh=mesh)
        protocol.dataReceived(side.login(self.relay.public))
        transport.clear()
        transport.writes.clear()
        return protocol, transport, side


def lose(protocol: RelayProtocol, reason: Exception) -> None:
    """Tell a protocol that its connection is lost."""
    from twisted.python.failure import Failure

    protocol.connectionLost(Failure(reason))
