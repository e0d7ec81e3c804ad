"""A relay that has something to show: the traffic behind ``varz-traffic`` on fake sockets."""

from __future__ import annotations

from twisted.internet.task import Clock

from derp.core.connection import Connection, RemoteAddress
from derp.core.relay import Relay, RelayIdentity
from derp.core.session import Session
from derp.net.metric_sources import Sources
from derp.wire.disco import DISCO_MAGIC
from derp.wire.frames import encode_note_preferred, encode_ping, encode_send_packet
from derp.wire.handshake import ClientInfo, encode_client_info, shared_key
from derp.wire.keys import public_of
from tests.wall_clock import WallClock

RELAY_PRIVATE = bytes([0x40]) + bytes(30) + bytes([0x41])
ALICE_PRIVATE = bytes([0x50]) + bytes(30) + bytes([0x51])
BOB_PRIVATE = bytes([0x60]) + bytes(30) + bytes([0x61])
ALICE = public_of(ALICE_PRIVATE)
BOB = public_of(BOB_PRIVATE)
NOBODY = bytes([0x77]) * 32
STARTED = 1_795_178_568.0
"""When the relay has started, in Unix seconds."""


class FakeSink:
    """A socket that takes everything."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed: list[str] = []

    def write_through(self, data: memoryview) -> None:
        """See :meth:`derp.core.connection.PeerSink.write_through`."""
        self.write(data.tobytes())

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self, reason: str) -> None:
        self.closed.append(reason)


class FakeClient:
    """A client whose every message is handed straight to its session."""

    def __init__(self, relay: Relay, private: bytes) -> None:
        self.relay = relay
        self.sink = FakeSink()
        self.session: Session = Session(
            relay,
            self.sink,
            RemoteAddress(),
            not_ideal=False,
            new_nonce=lambda: bytes(24),
            ask_admission=lambda request: self.session.admit(),
        )
        relay.stats.accepts += 1
        shared = shared_key(private, relay.public)
        self.send(encode_client_info(public_of(private), shared, bytes(24), ClientInfo()))

    @property
    def conn(self) -> Connection:
        conn = self.session.conn
        assert conn is not None
        return conn

    def send(self, frame: bytes) -> None:
        buf = bytearray(frame)
        consumed = self.session.receive(buf, memoryview(buf), len(buf))
        assert consumed == len(buf)


def make_sources(*, mesh_key: bytes | None = None, tls: bool = True) -> Sources:
    """A relay to which nothing has happened yet."""
    clock = Clock()
    return Sources(
        relay=Relay(RelayIdentity(RELAY_PRIVATE, mesh_key)),
        clock=clock,
        wall_time=WallClock(clock, STARTED).seconds,
        hostname="127.0.0.1",
        tls=tls,
        version="9.8.7",
        machine="a-machine",
        command_line=["derper", "-c", "derper.key"],
        memory_at_start=1 << 20,
    )


def exchange(sources: Sources) -> tuple[FakeClient, FakeClient]:
    """Let two clients do what they did when ``varz-traffic`` was recorded."""
    alice = FakeClient(sources.relay, ALICE_PRIVATE)
    bob = FakeClient(sources.relay, BOB_PRIVATE)
    alice.send(encode_note_preferred(True))
    for _ in range(3):
        alice.send(encode_send_packet(BOB, bytes(100)))
    alice.send(encode_send_packet(BOB, DISCO_MAGIC + bytes(70 - len(DISCO_MAGIC))))
    alice.send(encode_ping(bytes(8)))
    bob.send(encode_send_packet(NOBODY, bytes(10)))
    bob.send(encode_send_packet(NOBODY, DISCO_MAGIC + bytes(62 - len(DISCO_MAGIC))))
    sources.stun.success += 1
    sources.stun.ipv4 += 1
    sources.stun.not_stun += 1
    for _ in range(3):
        sources.tls_requests.begin("1.3")
    sources.listener.accepted_connections += 4
    return alice, bob
