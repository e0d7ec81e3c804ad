"""
A client's side of one DERP connection: bytes in, messages out.

=========  ==========================  ======================================================
phase      what arrives                what happens
=========  ==========================  ======================================================
HEAD       the HTTP answer             101 → GREETING, anything else is a fault
GREETING   ServerKey                   ClientInfo and what follows it are sent → OPEN
OPEN       any frame                   given as a message, or skipped
DEAD       anything                    ignored
=========  ==========================  ======================================================

A client that knows the server's key already (:mod:`derp.wire.metacert`) starts OPEN: its
request and ClientInfo leave together, no HTTP answer comes, and the ServerKey frame is skipped.

OPEN does not mean admitted: the server says so with ServerInfo, and refuses by closing.
Source: Go ``derp.Client``, ``derphttp.Client``.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from derp.errors import ProtocolError
from derp.wire.frames import (
    HEADER_LEN,
    KEY_LEN,
    MAX_CLIENT_FRAME,
    WATCH_CONNS_FRAME,
    FrameDecoder,
    FrameType,
    encode_note_preferred,
    encode_send_packet,
)
from derp.wire.handshake import (
    MAX_SERVER_KEY,
    ClientInfo,
    ServerInfo,
    encode_client_info,
    open_server_info,
    parse_server_key,
    shared_key,
)
from derp.wire.keys import public_of, short_key
from derp.wire.messages import Message, ServerInfoBox, parse_message
from derp.wire.upgrade import UpgradeAnswer, describe_http

ClientEvent = Message | ServerInfo
"""What a session gives: ServerInfo comes opened, never as a box."""

_HTTP: Final = b"HTTP/1."


class Phase(Enum):
    """How far a session has come."""

    HEAD = auto()
    GREETING = auto()
    OPEN = auto()
    DEAD = auto()


class SendAllowance:
    """
    The sending limit a server may set in its ServerInfo (legacy; derper never does).

    A token bucket, full at first. Packets beyond it are not sent and nobody is told.

    :param bytes_per_second: sustained rate.
    :param burst: depth in bytes; a frame longer than that is never sent.
    """

    def __init__(self, bytes_per_second: int, burst: int) -> None:
        self._rate = bytes_per_second
        self._burst = burst
        self._tokens = float(burst)
        self._filled_at: float | None = None

    def take(self, cost: int, now: float) -> bool:
        """Spend tokens if there are enough; ``now`` is in seconds and never goes back."""
        since = now - self._filled_at if self._filled_at is not None else 0.0
        self._filled_at = now
        self._tokens = min(float(self._burst), self._tokens + since * self._rate)
        if cost > self._tokens:
            return False
        self._tokens -= cost
        return True


class ClientSession:
    """
    One login and what follows it.

    :param private_key: the client's node key, 32 raw bytes.
    :param info: what the client says of itself.
    :param nonce: 24 random bytes, for the one box that is sealed.
    :param preferred: say after the login that this server is the client's home.
    :param watch_conns: ask after the login for the server's connections (mesh peers only).
    """

    def __init__(
        self,
        private_key: bytes,
        info: ClientInfo,
        nonce: bytes,
        *,
        preferred: bool = False,
        watch_conns: bool = False,
    ) -> None:
        self.public_key = public_of(private_key)
        self.server_key: bytes | None = None
        self.server_info: ServerInfo | None = None
        """What the server answered to the login; ``None`` until it did."""
        self.fault: ProtocolError | None = None
        """What the server did wrong; the session is DEAD from there on."""
        self.frames_received = 0
        """Complete frames of any kind, skipped ones too: the server's signs of life."""
        self.phase = Phase.HEAD
        self._private_key = private_key
        self._info = info
        self._nonce = nonce
        self._preferred = preferred
        self._watch_conns = watch_conns
        self._shared = b""
        self._answer = UpgradeAnswer()
        self._decoder = FrameDecoder(MAX_SERVER_KEY)
        self._output = b""
        self._fast_start = False
        self._allowance: SendAllowance | None = None

    def start(self, request: bytes, server_key: bytes | None = None) -> bytes:
        """
        Begin; give the bytes to send first, in one write.

        :param request: the HTTP request, made for fast start if the server's key is given.
        :raises ProtocolError: if nothing can be sealed to that key.
        """
        if server_key is None:
            return request
        self._fast_start = True
        return request + self._log_in(server_key)

    def receive(self, data: bytes) -> list[ClientEvent]:
        """
        Take what arrived, give what it meant.

        Nothing is raised: if :attr:`fault` is set afterwards, the messages given are those
        before the fault, and the connection is to be closed.
        """
        events: list[ClientEvent] = []
        try:
            if self.phase is Phase.HEAD:
                data = self._read_head(data)
            elif self._fast_start and not self.frames_received:
                self._refuse_http(data)
            if self.phase in (Phase.GREETING, Phase.OPEN):
                for frame_type, payload in self._decoder.feed(data):
                    event = self._frame(frame_type, payload)
                    if event is not None:
                        events.append(event)
        except ProtocolError as error:
            self.fault = error
            self.phase = Phase.DEAD
        return events

    def data_to_send(self) -> bytes:
        """Take what :meth:`receive` wants sent, mostly nothing."""
        output, self._output = self._output, b""
        return output

    def send_packet(self, destination: bytes, packet: bytes, now: float) -> bytes:
        """
        Encode SendPacket; empty if the server's sending limit forbids it.

        :raises ValueError: if the packet is too long or the key none.
        """
        frame = encode_send_packet(destination, packet)
        if self._allowance is not None:
            cost = HEADER_LEN + KEY_LEN + len(packet)
            if not self._allowance.take(cost, now):
                return b""
        return frame

    def _read_head(self, data: bytes) -> bytes:
        behind = self._answer.feed(data)
        if behind is None:
            return b""
        self.phase = Phase.GREETING
        return behind

    def _refuse_http(self, data: bytes) -> None:
        """A server that has its DERP turned off answers in HTTP after all; say so clearly."""
        if data.startswith(_HTTP):
            raise ProtocolError(
                f"the server answered {describe_http(data)} where DERP should start"
            )

    def _frame(self, frame_type: int, payload: bytes) -> ClientEvent | None:
        self.frames_received += 1
        if self.phase is Phase.GREETING:
            self._greeted(frame_type, payload)
            return None
        if frame_type == FrameType.SERVER_KEY and self._fast_start and self.server_info is None:
            self._compare_greeting(parse_server_key(payload))
        message = parse_message(frame_type, payload)
        if isinstance(message, ServerInfoBox):
            return self._informed(message)
        return message

    def _greeted(self, frame_type: int, payload: bytes) -> None:
        if frame_type != FrameType.SERVER_KEY:
            raise ProtocolError(f"the server greeted with frame 0x{frame_type:02x}, not ServerKey")
        self._output += self._log_in(parse_server_key(payload))

    def _compare_greeting(self, greeted: bytes) -> None:
        # Skipped by the reference; but with two keys the login can only fail, and silently.
        if self.server_key is not None and greeted != self.server_key:
            raise ProtocolError(
                f"the server greeted with key {short_key(greeted)}, but its certificate said"
                f" {short_key(self.server_key)}: does something stand between us?"
            )

    def _log_in(self, server_key: bytes) -> bytes:
        self._shared = shared_key(self._private_key, server_key)
        self.server_key = server_key
        self.phase = Phase.OPEN
        self._decoder.max_payload = MAX_CLIENT_FRAME
        frames = encode_client_info(self.public_key, self._shared, self._nonce, self._info)
        if self._preferred:
            frames += encode_note_preferred(True)
        if self._watch_conns:
            frames += WATCH_CONNS_FRAME
        return frames

    def _informed(self, box: ServerInfoBox) -> ServerInfo:
        info = open_server_info(self._shared, box.sealed)
        self.server_info = info
        self._allowance = None
        if info.bytes_per_second:
            self._allowance = SendAllowance(info.bytes_per_second, info.burst_bytes)
        return info
