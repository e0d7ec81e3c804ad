"""
Stand-ins for what surrounds the core: sockets that record, and clients that use them.

A :class:`FakeClient` logs in with a real handshake and is fed through a :class:`Feeder`, which
treats the session as an adapter does: one buffer shared by everybody and full of other
people's frames beyond ``end``, and a rest that is kept until there is enough of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from ipaddress import ip_address
from itertools import count

from derp.core.connection import Connection, RemoteAddress
from derp.core.registry import DuplicatePolicy
from derp.core.relay import Relay, RelayIdentity
from derp.core.session import LoginRequest, Session
from derp.wire.disco import DISCO_MAGIC
from derp.wire.frames import FrameDecoder, FrameType, encode_send_packet
from derp.wire.handshake import (
    ClientInfo,
    ServerInfo,
    encode_client_info,
    open_server_info,
    shared_key,
)
from derp.wire.keys import public_of
from derp.wire.messages import Message, ReceivedPacket, parse_message

MESH_KEY = bytes.fromhex("0123456789abcdef" * 4)
SERVER_PRIVATE = sha256(b"the relay").digest()
NOBODY = sha256(b"a key that is not here").digest()

BUFFER_LEN = (256 << 10) + (128 << 10)
_buffer = bytearray(BUFFER_LEN)
_view = memoryview(_buffer)
_nonces = count(1)


@cache
def private_key(name: str) -> bytes:
    """A key of this name, the same in every test."""
    return sha256(f"client {name}".encode()).digest()


@cache
def public_key(name: str) -> bytes:
    """The public half of :func:`private_key`."""
    return public_of(private_key(name))


def disco(size: int = 62, fill: bytes = b"d") -> bytes:
    """A packet that looks like disco."""
    return DISCO_MAGIC + fill * (size - len(DISCO_MAGIC))


def make_relay(
    *,
    mesh_key: bytes | None = MESH_KEY,
    policy: DuplicatePolicy = DuplicatePolicy.LAST_WRITER,
    outbox_depth: int = 32,
) -> Relay:
    """A relay with a fixed key."""
    identity = RelayIdentity(SERVER_PRIVATE, mesh_key)
    return Relay(identity, outbox_depth=outbox_depth, policy=policy)


class FakeSink:
    """A PeerSink that records; it can fill up after some writes, as sockets do."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed: list[str] = []
        self.takes: int | None = None
        """Writes it takes before it is full; ``None`` is for ever."""
        self.on_full: Callable[[], None] = lambda: None
        self.on_close: Callable[[], None] = lambda: None

    def write(self, data: bytes) -> None:
        assert type(data) is bytes, "the sink keeps what it is given: it must not be a view"
        self.written.append(data)
        if self.takes is not None:
            self.takes -= 1
            if self.takes <= 0:
                self.on_full()

    def write_through(self, data: memoryview) -> None:
        assert isinstance(data, memoryview), "a large piece is taken from where it lies"
        self.write(data.tobytes())

    def close(self, reason: str) -> None:
        self.closed.append(reason)
        self.on_close()


class FakeForwarder:
    """A link to another relay that keeps what it should forward."""

    def __init__(self) -> None:
        self.forwarded: list[tuple[bytes, bytes, bytes]] = []

    def forward_packet(self, source: bytes, destination: bytes, packet: bytes) -> None:
        self.forwarded.append((source, destination, packet))


def stale_frames(size: int) -> bytes:
    """What other turns may have left in a shared buffer: frames a parser must never reach."""
    frame = encode_send_packet(public_key("stale"), b"stale")
    other = bytes((FrameType.PING,)) + b"\0\0\0\x08stalestale"
    return ((frame + other) * (size // len(frame) + 1))[:size]


_STALE = stale_frames(4096)


class Feeder:
    """Hands bytes to a session as an adapter does, and keeps what it does not consume."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.held = b""
        self.copied = 0
        """Bytes put in front of the session, the same one each time it was."""
        self.calls = 0

    def feed(self, data: bytes) -> None:
        """One turn's bytes."""
        self.held += data
        if len(self.held) < self.session.wanted:
            return
        end = len(self.held)
        _view[:end] = self.held
        _view[end : end + len(_STALE)] = _STALE
        self.calls += 1
        self.copied += end
        consumed = self.session.receive(_buffer, _view, end)
        assert 0 <= consumed <= end
        rest = self.held[consumed:]
        assert _view[consumed:end] == rest, "what is not consumed must stay as it is"
        assert _view[end : end + len(_STALE)] == _STALE, "nothing beyond the end is written to"
        self.held = rest


class FakeClient:
    """
    A client of a relay: a session, its sink, and the client's own keys.

    :param name: names its key; two clients of one name are duplicates.
    :param info: what it says of itself at login.
    :param log_in: whether to log in at once.
    """

    def __init__(
        self,
        relay: Relay,
        name: str,
        info: ClientInfo | None = None,
        *,
        mesh: bool = False,
        not_ideal: bool = False,
        remote: str = "192.0.2.1:1234",
        private: bytes | None = None,
        admission: Callable[[LoginRequest], None] | None = None,
        log_in: bool = True,
    ) -> None:
        self.relay = relay
        self.name = name
        self.private = private or private_key(name)
        self.key = public_of(private) if private else public_key(name)
        self.info = info or ClientInfo(mesh_key=MESH_KEY if mesh else None, version=2)
        self.sink = FakeSink()
        self.requests: list[LoginRequest] = []
        self._admission = admission
        ip, _, port = remote.rpartition(":")
        self.session = Session(
            relay,
            self.sink,
            RemoteAddress(ip_address(ip.strip("[]")), int(port)),
            not_ideal=not_ideal,
            new_nonce=lambda: next(_nonces).to_bytes(24, "big"),
            ask_admission=self._ask,
        )
        self.feeder = Feeder(self.session)
        self._decoder = FrameDecoder()
        if log_in:
            self.feed(self.login_frame())
            self.server_info = self.take_server_info()

    def _ask(self, request: LoginRequest) -> None:
        self.requests.append(request)
        if self._admission is None:
            self.session.admit()
        else:
            self._admission(request)

    def login_frame(self) -> bytes:
        """Its ClientInfo."""
        shared = shared_key(self.private, self.relay.public)
        nonce = next(_nonces).to_bytes(24, "big")
        return encode_client_info(self.key, shared, nonce, self.info)

    def take_server_info(self) -> ServerInfo:
        """Open the ServerInfo that must be the next frame it got."""
        frame_type, payload = self.take_raw(1)[0]
        assert frame_type == FrameType.SERVER_INFO, frame_type
        return open_server_info(shared_key(self.private, self.relay.public), payload)

    @property
    def conn(self) -> Connection:
        """Its connection, once logged in."""
        conn = self.session.conn
        assert conn is not None
        return conn

    # -- what it does ----------------------------------------------------------------------

    def feed(self, *chunks: bytes) -> None:
        """Send bytes, each chunk in a turn of its own."""
        for chunk in chunks:
            self.feeder.feed(chunk)

    def send(self, to: FakeClient | bytes, packet: bytes) -> None:
        """Send one packet."""
        self.feed(encode_send_packet(to if isinstance(to, bytes) else to.key, packet))

    def leave(self) -> None:
        """The connection is lost."""
        self.session.lost()

    def block(self, after_writes: int = 0) -> None:
        """Its socket is full, now or after some more writes."""
        if after_writes:
            self.sink.takes = after_writes
            self.sink.on_full = self.conn.block
        else:
            self.conn.block()

    def unblock(self) -> None:
        """Its socket takes bytes again."""
        self.sink.takes = None
        self.conn.unblock(self.relay.now)

    # -- what it got -----------------------------------------------------------------------

    def take_raw(self, limit: int | None = None) -> list[tuple[int, bytes]]:
        """Frames since the last time, as type and payload; the rest of them stays."""
        written, self.sink.written = b"".join(self.sink.written), []
        frames = list(self._decoder.feed(written))
        assert not self._decoder._held, "the relay writes whole frames only"
        if limit is not None:
            for frame_type, payload in frames[limit:]:
                self.sink.written.append(
                    bytes((frame_type,)) + len(payload).to_bytes(4, "big") + payload
                )
            frames = frames[:limit]
        return frames

    def take(self) -> list[Message | None]:
        """Messages since the last time, as a client reads them."""
        return [parse_message(frame_type, payload) for frame_type, payload in self.take_raw()]

    def take_packets(self) -> list[tuple[bytes, bytes]]:
        """Packets since the last time, as source and data; there must be nothing else."""
        messages = self.take()
        assert all(isinstance(message, ReceivedPacket) for message in messages), messages
        return [(m.source, m.packet) for m in messages if isinstance(m, ReceivedPacket)]
