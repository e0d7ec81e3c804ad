"""
One connection's life, from greeting to end, as tables.

==================  ============  ===========================================================
state               input         what happens
==================  ============  ===========================================================
AWAIT_CLIENT_INFO   CLIENT_INFO   box opened, admission asked → ADMITTING
ADMITTING           ADMITTED      registered, ServerInfo sent → RUNNING
ADMITTING           REFUSED       → CLOSED
RUNNING             FRAME         :data:`FRAME_RULES` checked, frame acted on
any                 LOST          unregistered if it was registered → CLOSED
==================  ============  ===========================================================

Every other combination is the remote's fault. What a client sends while ADMITTING is left
unconsumed (the adapter stops reading); what comes after the end is swallowed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from derp.core.connection import Connection, PeerSink, RemoteAddress
from derp.core.relay import Relay
from derp.core.router import bad_send_packet, relay_run
from derp.errors import ProtocolError
from derp.wire.frames import (
    HEADER_LEN,
    KEY_LEN,
    LENGTH,
    MAX_CLIENT_INFO,
    MAX_PACKET,
    MAX_PING,
    MIN_CLIENT_INFO,
    PING_LEN,
    FrameType,
    encode_pong,
)
from derp.wire.handshake import (
    ClientInfo,
    encode_server_info,
    open_box,
    parse_client_info_json,
    shared_key,
    split_client_info,
)

_SEND = int(FrameType.SEND_PACKET)
_HEAD = HEADER_LEN + KEY_LEN


class State(Enum):
    """Where in its life a connection is."""

    AWAIT_CLIENT_INFO = auto()
    ADMITTING = auto()
    RUNNING = auto()
    CLOSED = auto()


class Input(Enum):
    """What can happen to it."""

    CLIENT_INFO = auto()
    ADMITTED = auto()
    REFUSED = auto()
    FRAME = auto()
    LOST = auto()


TRANSITIONS: dict[State, dict[Input, State]] = {
    State.AWAIT_CLIENT_INFO: {Input.CLIENT_INFO: State.ADMITTING, Input.LOST: State.CLOSED},
    State.ADMITTING: {
        Input.ADMITTED: State.RUNNING,
        Input.REFUSED: State.CLOSED,
        Input.LOST: State.CLOSED,
    },
    State.RUNNING: {Input.FRAME: State.RUNNING, Input.LOST: State.CLOSED},
    State.CLOSED: {Input.LOST: State.CLOSED},
}


@dataclass(frozen=True, slots=True)
class FrameRule:
    """What a client's frame must be; a violation closes the connection."""

    act: str
    """Name of the :class:`Session` method that acts on the payload."""
    min_len: int
    max_len: int
    mesh_only: bool = False


FRAME_RULES: dict[int, FrameRule] = {
    FrameType.NOTE_PREFERRED: FrameRule("_note_preferred", 1, 1),
    FrameType.FORWARD_PACKET: FrameRule(
        "_forward_packet", 2 * KEY_LEN, 2 * KEY_LEN + MAX_PACKET, mesh_only=True
    ),
    FrameType.WATCH_CONNS: FrameRule("_watch_conns", 0, 0, mesh_only=True),
    FrameType.CLOSE_PEER: FrameRule("_close_peer", KEY_LEN, KEY_LEN, mesh_only=True),
    FrameType.PING: FrameRule("_ping", PING_LEN, MAX_PING),
}
"""
The frames a logged-in client may send besides SendPacket (which :mod:`derp.core.router`
takes). Any other type is read and thrown away, whatever its length.
"""


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """Somebody wants in: what admission decides on."""

    key: bytes
    info: ClientInfo
    remote: RemoteAddress
    is_mesh: bool


class Session:
    """
    The relay's side of one DERP connection.

    :param sink: the adapter's socket side.
    :param new_nonce: gives 24 random bytes (there is no randomness in this layer).
    :param ask_admission: called with a :class:`LoginRequest`; whoever answers calls
        :meth:`admit` or :meth:`refuse`, at once or later.
    """

    __slots__ = (
        "_ask_admission",
        "_new_nonce",
        "_not_ideal",
        "_request",
        "_shared",
        "_skip",
        "conn",
        "relay",
        "remote",
        "sink",
        "state",
        "wanted",
    )

    def __init__(
        self,
        relay: Relay,
        sink: PeerSink,
        remote: RemoteAddress,
        *,
        not_ideal: bool,
        new_nonce: Callable[[], bytes],
        ask_admission: Callable[[LoginRequest], None],
    ) -> None:
        self.relay = relay
        self.sink = sink
        self.remote = remote
        self.state = State.AWAIT_CLIENT_INFO
        self.conn: Connection | None = None
        self.wanted = HEADER_LEN
        """How many unconsumed bytes there must be before :meth:`receive` can go on."""
        self._skip = 0
        self._not_ideal = not_ideal
        self._new_nonce = new_nonce
        self._ask_admission = ask_admission
        self._request: LoginRequest | None = None
        self._shared = b""

    def _enter(self, happened: Input) -> None:
        state = TRANSITIONS[self.state].get(happened)
        if state is None:
            raise ProtocolError(f"{happened.name} while {self.state.name}")
        self.state = state

    @property
    def mid_frame(self) -> bool:
        """Whether a frame's header has come and its payload has not, or not all of it."""
        return self._skip > 0 or self.wanted > HEADER_LEN

    @property
    def skipping(self) -> int:
        """How many of the bytes to come belong to a frame that is thrown away."""
        return self._skip

    @property
    def begun(self) -> int:
        """How many of the bytes to come belong to a frame whose header has come."""
        if self._skip:
            return self._skip
        return self.wanted if self.wanted > HEADER_LEN else 0

    def throw_away(self, size: int) -> None:
        """Skip so many of the bytes to come: a whole frame that must not be acted on."""
        self._skip = size
        self.wanted = HEADER_LEN

    # -- bytes in --------------------------------------------------------------------------

    def receive(self, buf: bytearray, view: memoryview, end: int) -> int:
        """
        Take the bytes of one turn. **HOT**

        :param buf: holds what earlier turns left unconsumed, then what is new; it is written
            into and may be used for others as soon as this returns.
        :param view: the same bytes as a memoryview.
        :param end: where they end.
        :return: how many were consumed. The rest must be offered again, in front of new ones,
            once there are :attr:`wanted` bytes.
        :raises ProtocolError: the remote broke the rules; the connection must be closed.
        """
        conn = self.conn
        pos = 0
        if (  # mostly a turn is a run of packets and nothing else
            conn is not None
            and end >= _HEAD
            and buf[0] == _SEND
            and not self._skip
            and not conn.dup
        ):
            pos = relay_run(self.relay, conn, buf, view, 0, end)
            if pos:
                self.wanted = HEADER_LEN
                if pos == end:
                    return end
        return self.receive_from(buf, view, pos, end)

    def receive_from(self, buf: bytearray, view: memoryview, pos: int, end: int) -> int:
        """Go on with :meth:`receive` from ``pos``, one frame (or run of packets) at a time."""
        while self.state is State.RUNNING or self.state is State.AWAIT_CLIENT_INFO:
            if self._skip:
                pos += self._skip_some(end - pos)
            if end - pos < HEADER_LEN:
                self.wanted = 1 if self._skip else HEADER_LEN
                return pos
            conn = self.conn
            self._note_header(conn)
            frame_type = buf[pos]
            length: int = LENGTH(buf, pos + 1)[0]
            is_packet = frame_type == _SEND and conn is not None
            if is_packet:
                size = self._send_packet_size(length)
            elif self._check(frame_type, length):
                size = HEADER_LEN + length
            else:
                self._skip = HEADER_LEN + length
                continue
            if end - pos < size:
                self.wanted = size
                return pos
            if is_packet:
                assert conn is not None
                # Duplicates may take turns between any two frames: each is judged by itself.
                stop = pos + size if conn.dup else end
                pos = relay_run(self.relay, conn, buf, view, pos, stop)
            else:
                payload = bytes(view[pos + HEADER_LEN : pos + size])
                pos += size
                self._act(frame_type, payload)
        return pos if self.state is State.ADMITTING else end

    def _skip_some(self, there: int) -> int:
        """Pass over what has come of a frame nobody knows."""
        skipped = min(self._skip, there)
        self._skip -= skipped
        assert self.conn is not None
        self.conn.recv_bytes += skipped
        return skipped

    def _note_header(self, conn: Connection | None) -> None:
        """A frame's header is there: one of several connections of a key has spoken."""
        if self.wanted > HEADER_LEN:
            self.wanted = HEADER_LEN  # it was there before, only its payload was not
        elif conn is not None and conn.dup:
            self.relay.note_activity(conn)

    def _send_packet_size(self, length: int) -> int:
        """How much of a SendPacket must be there; refuse an impossible one at its header."""
        if length < KEY_LEN:
            raise ProtocolError(bad_send_packet(length))
        if length > KEY_LEN + MAX_PACKET:
            return _HEAD  # the reference reads the key before it closes; so do we
        return HEADER_LEN + length

    def _check(self, frame_type: int, length: int) -> bool:
        """
        Judge a frame by its header.

        :return: whether to act on it; ``False`` to throw its payload away unread.
        :raises ProtocolError: if its length, type or sender is not allowed.
        """
        if self.state is State.AWAIT_CLIENT_INFO:
            if frame_type != FrameType.CLIENT_INFO:
                raise ProtocolError(f"the first frame is 0x{frame_type:02x}, not ClientInfo")
            if not MIN_CLIENT_INFO <= length <= MAX_CLIENT_INFO:
                raise ProtocolError(f"client info of {length} bytes")
            return True
        rule = FRAME_RULES.get(frame_type)
        if rule is None:
            return False
        name = FrameType(frame_type).name
        if rule.mesh_only and not (self.conn and self.conn.is_mesh):
            raise ProtocolError(f"insufficient permissions for {name}: not a mesh peer")
        if not rule.min_len <= length <= rule.max_len:
            raise ProtocolError(
                f"{name} of {length} bytes; {rule.min_len} to {rule.max_len} are allowed"
            )
        return True

    def _act(self, frame_type: int, payload: bytes) -> None:
        if self.state is State.AWAIT_CLIENT_INFO:
            self._client_info(payload)
            return
        self._enter(Input.FRAME)
        assert self.conn is not None
        self.conn.recv_bytes += HEADER_LEN + len(payload)
        act: Callable[[Connection, bytes], None] = getattr(self, FRAME_RULES[frame_type].act)
        act(self.conn, payload)

    # -- login -----------------------------------------------------------------------------

    def _client_info(self, payload: bytes) -> None:
        key, box = split_client_info(payload)
        self._shared = shared_key(self.relay.private, key)
        info = parse_client_info_json(open_box(self._shared, box))
        is_mesh = self.relay.is_mesh_key(info.mesh_key)
        self._request = LoginRequest(key, info, self.remote, is_mesh)
        self._enter(Input.CLIENT_INFO)
        self._ask_admission(self._request)

    def admit(self) -> None:
        """Admission said yes: register, then send ServerInfo, then anything else."""
        if self.state is State.CLOSED:
            return  # it went away while admission was asked
        self._enter(Input.ADMITTED)
        relay, request = self.relay, self._request
        assert request is not None
        conn = Connection(
            request.key, self.sink, relay.stats, self.remote, relay.now, relay.outbox_depth
        )
        conn.is_mesh = request.is_mesh
        conn.is_prober = request.info.is_prober
        conn.not_ideal = self._not_ideal
        # ServerInfo is written first although the reference registers first: nothing can come
        # between in one turn, and clients demand it as the first frame after the greeting.
        self.sink.write(encode_server_info(self._shared, self._new_nonce()))
        self.conn = conn
        self._request, self._shared = None, b""
        relay.register(conn)

    def refuse(self, reason: str) -> None:
        """Admission said no. The client is not told why: there is no frame for it."""
        if self.state is State.CLOSED:
            return
        self._enter(Input.REFUSED)
        request = self._request
        assert request is not None
        self.relay.stats.logins_refused += 1
        self.sink.close(f"client nodekey:{request.key.hex()} rejected: {reason}")

    # -- frames ----------------------------------------------------------------------------

    def _note_preferred(self, conn: Connection, payload: bytes) -> None:
        self.relay.note_preferred(conn, payload[0] != 0)

    def _ping(self, conn: Connection, payload: bytes) -> None:
        self.relay.stats.got_ping += 1
        conn.send_pong(encode_pong(payload[:PING_LEN]))

    def _watch_conns(self, conn: Connection, payload: bytes) -> None:
        self.relay.watch(conn)

    def _close_peer(self, conn: Connection, payload: bytes) -> None:
        self.relay.close_peer(payload)

    def _forward_packet(self, conn: Connection, payload: bytes) -> None:
        source, destination = payload[:KEY_LEN], payload[KEY_LEN : 2 * KEY_LEN]
        self.relay.forward_in(conn, source, destination, payload[2 * KEY_LEN :])

    # -- the end ---------------------------------------------------------------------------

    def lost(self) -> None:
        """The connection is gone; says so to whoever has to know. Harmless twice."""
        registered = self.state is State.RUNNING
        self._enter(Input.LOST)
        conn, self.conn = self.conn, None
        if registered and conn is not None:
            self.relay.unregister(conn)
