"""
Plays a recorded session to a running relay, and holds what comes back against the record.

A step of the relay's is waited for before the next one of a client's is made, and a step of a
client's until the relay has acted on it. So nothing is left to chance but what the record
itself leaves open: the order of independent frames that came together.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from twisted.internet.protocol import Protocol

from derp.core.connection import Connection
from derp.services import RelayService
from derp.wire.frames import HEADER_LEN, KEY_LEN, FrameType
from derp.wire.handshake import open_box, shared_key
from derp.wire.keys import parse_node_private, parse_node_public

IN_ORDER = {FrameType.SERVER_KEY, FrameType.SERVER_INFO, FrameType.RECV_PACKET}
"""Frames that keep their order among each other, whatever comes between them."""
TOGETHER_MS = 5
"""Recorded frames of one connection that came so close may have been independent."""
_PORT_AT = HEADER_LEN + KEY_LEN + 16
_KEEP_ALIVE = b"\x06\x00\x00\x00\x00"

Unit = tuple[str, bytes]
"""``("http", head)`` or ``("frame", header and payload)``."""


@dataclass
class Step:
    """One thing that happened in a recorded session."""

    t_ms: int
    conn: str
    by_client: bool
    unit: str
    """As recorded, but what the relay sent in WebSocket messages are frames here."""
    data: bytes
    burst: int = 0
    """Which of the relay's bursts on this connection it belongs to."""


def read_steps(recorded: dict[str, Any]) -> Iterator[Step]:
    """Give a record's steps; those of WebSocket messages where a frame is complete."""
    streams: dict[str, bytes] = {}
    for raw in recorded["steps"]:
        step = Step(
            raw["t_ms"], raw["conn"], raw["dir"] == "c2s", raw["unit"], bytes.fromhex(raw["hex"])
        )
        if step.unit == "ws" and not step.by_client:
            message = take_message(step.data)
            assert message is not None
            stream = streams.get(step.conn, b"") + message.payload
            while (size := frame_size(stream)) and len(stream) >= size:
                step.unit, step.data, stream = "frame", stream[:size], stream[size:]
                yield step
            streams[step.conn] = stream
        else:
            yield step


def number_bursts(steps: list[Step]) -> None:
    """Tell the relay's bursts apart: a client's step on the connection, or time, ends one."""
    bursts: dict[str, tuple[int, int]] = {}
    for step in steps:
        number, began = bursts.get(step.conn, (0, step.t_ms))
        if step.by_client or step.t_ms - began > TOGETHER_MS:
            number, began = number + 1, step.t_ms
        bursts[step.conn] = number, began
        step.burst = number


def frame_size(data: bytes) -> int:
    """Size of the DERP frame these bytes begin with; 0 if that is not known yet."""
    if len(data) < HEADER_LEN:
        return 0
    return HEADER_LEN + int.from_bytes(data[1:HEADER_LEN], "big")


@dataclass(frozen=True)
class Message:
    """One WebSocket frame (RFC 6455 section 5.2), unmasked."""

    opcode: int
    payload: bytes
    rest: bytes
    """What stands behind it."""

    @property
    def carries_stream(self) -> bool:
        return self.opcode in (0, 2)


def take_message(data: bytes) -> Message | None:
    """Cut one WebSocket frame off; ``None`` while it is not complete."""
    if len(data) < 2:
        return None
    length, at = data[1] & 0x7F, 2
    if length >= 126:
        at = 4 if length == 126 else 10
        length = int.from_bytes(data[2:at], "big")
    mask = bytes(4)
    if data[1] & 0x80:
        mask, at = data[at : at + 4], at + 4
    if len(data) < at + length:
        return None
    payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data[at : at + length]))
    return Message(data[0] & 0x0F, payload, data[at + length :])


class RecordedClient(Protocol):
    """
    The client's end of one connection: raw bytes out, units in.

    :param now: the relay's clock.
    """

    transport: Any

    def __init__(self, now: Callable[[], float]) -> None:
        self.units: list[Unit] = []
        self.keep_alives: list[float] = []
        """When they came, on the relay's clock."""
        self.closed = False
        self.logged_in = False
        """Whether ClientInfo was sent."""
        self.sent = 0
        """Bytes of DERP frames sent since."""
        self._now = now
        self._buffer = b""
        self._stream = b""
        self._in_head = self._in_messages = False

    def expect_answer(self, *, websocket: bool) -> None:
        """The next to come is an HTTP answer; behind it are frames, in messages or not."""
        self._in_head = True
        self._in_messages = websocket

    def note_sent(self, step: Step, *, websocket: bool) -> None:
        """A step of the client's was made."""
        if step.unit in ("http", "partial"):
            return  # the relay's books have only what is complete
        size = len(step.data)
        if websocket:
            message = take_message(step.data)
            assert message is not None
            size = len(message.payload) if message.carries_stream else 0
        if self.logged_in:
            self.sent += size
        self.logged_in = True

    def dataReceived(self, data: bytes) -> None:
        """See ``IProtocol``."""
        self._buffer += data
        if self._in_head:
            head, blank, rest = self._buffer.partition(b"\r\n\r\n")
            if not blank:
                return
            self.units.append(("http", head + blank))
            self._in_head, self._buffer = False, rest
        if not self._in_messages:
            self._stream, self._buffer = self._stream + self._buffer, b""
        while self._in_messages and (message := take_message(self._buffer)) is not None:
            self._buffer = message.rest
            if message.carries_stream:
                self._stream += message.payload
        while (size := frame_size(self._stream)) and len(self._stream) >= size:
            self._take_frame(self._stream[:size])
            self._stream = self._stream[size:]

    def _take_frame(self, frame: bytes) -> None:
        if frame == _KEEP_ALIVE:
            self.keep_alives.append(self._now())
        else:
            self.units.append(("frame", frame))

    def connectionLost(self, reason: Any = None) -> None:
        """See ``IProtocol``."""
        self.closed = True


class Player:
    """
    One recorded session against one relay.

    :param test: the :class:`tests.integration.relay_case.RelayTestCase` that plays.
    :param service: with the recorded server's keys.
    :param time: the virtual time the relay lives in.
    """

    def __init__(
        self, test: Any, recorded: dict[str, Any], service: RelayService, time: Any
    ) -> None:
        self.clients: dict[str, RecordedClient] = {}
        self._test = test
        self._service = service
        self._time = time
        self._conns = recorded["conns"]
        self._steps = [step for step in read_steps(recorded) if step.data != _KEEP_ALIVE]
        number_bursts(self._steps)
        server = parse_node_public(recorded["server"]["public"])
        self._shared = {
            name: shared_key(parse_node_private(conn["private"]), server)
            for name, conn in self._conns.items()
        }
        self._expected: dict[str, list[Step]] = {name: [] for name in self._conns}
        self.ports: dict[str, int] = {}
        """Our clients' local ports."""
        self._ended: set[str] = set()

    async def play(self) -> AsyncIterator[Step]:
        """Make every step at its time; give each once it has been acted upon."""
        at = 0
        while at < len(self._steps):
            step = self._steps[at]
            await self._time.pass_to(step.t_ms / 1000)
            if step.by_client:
                together = self._written_together(at)
                await self._make(together)
                for each in together:
                    yield each
                at += len(together)
            else:
                await self._see(step)
                yield step
                at += 1

    def _written_together(self, at: int) -> list[Step]:
        """Steps a client made at one moment: it wrote them in one go."""
        first = self._steps[at]
        end = at + 1
        while end < len(self._steps):
            step = self._steps[end]
            if (step.by_client, step.conn, step.t_ms) != (True, first.conn, first.t_ms):
                break
            end += 1
        return self._steps[at:end]

    async def _make(self, steps: list[Step]) -> None:
        name = steps[0].conn
        client = await self._client(name)
        websocket = self._conns[name]["login"] == "websocket"
        for step in steps:
            if step.data:
                client.note_sent(step, websocket=websocket)
        data = b"".join(step.data for step in steps)
        if data:
            client.transport.write(data)
            await self._test.until(lambda: self._acted_upon(name), f"{name} to be read")
        if steps[-1].unit == "close":
            client.transport.loseConnection()
            await self._test.until(
                lambda: client.closed and self._connection(name) is None, f"{name} to be gone"
            )

    async def _client(self, name: str) -> RecordedClient:
        if name not in self.clients:
            client = RecordedClient(self._time.seconds)
            first = next(s for s in self._steps if s.conn == name and not s.by_client)
            if first.unit == "http":
                client.expect_answer(websocket=self._conns[name]["login"] == "websocket")
            port = self._test.port_of(self._service)
            await self._test.connect(client, port, tls=self._service.config.tls)
            self.clients[name] = client
            self.ports[name] = client.transport.getHost().port
        return self.clients[name]

    def _connection(self, name: str) -> Connection | None:
        """The relay's side of it, while it is logged in."""
        port = self.ports[name]
        connections = self._service.relay.registry.connections()
        return next((conn for conn in connections if conn.remote.port == port), None)

    def _acted_upon(self, name: str) -> bool:
        """Whether the relay took all the client sent; before and after the login it answers."""
        conn = self._connection(name)
        return conn is None or conn.recv_bytes >= self.clients[name].sent

    async def _see(self, step: Step) -> None:
        client = self.clients[step.conn]
        if step.unit == "eof":
            self._ended.add(step.conn)
            await self._test.until(lambda: client.closed, f"the end of {step.conn}")
            return
        expected = self._expected[step.conn]
        expected.append(step)
        await self._test.until(
            lambda: len(client.units) >= len(expected) or client.closed,
            f"{step.unit} number {len(expected)} to {step.conn}",
        )

    # -- comparing -------------------------------------------------------------------------

    def compare(self) -> None:
        """Assert that each connection got what was recorded, and nothing else."""
        test = self._test
        for name, client in self.clients.items():
            steps = self._expected[name]
            wanted = [self._normal(name, (step.unit, step.data)) for step in steps]
            got = [self._normal(name, unit, ours=True) for unit in client.units]
            test.assertEqual(len(got), len(wanted), f"{name} got {got}")
            for burst in sorted({step.burst for step in steps}):
                at = [i for i, step in enumerate(steps) if step.burst == burst]
                self._compare_burst(name, [got[i] for i in at], [wanted[i] for i in at])
        ended = {name for name, client in self.clients.items() if client.closed}
        closed_by_client = {step.conn for step in self._steps if step.unit == "close"}
        test.assertEqual(ended - closed_by_client, self._ended - closed_by_client)

    def _compare_burst(self, name: str, got: list[Any], wanted: list[Any]) -> None:
        test = self._test
        test.assertEqual(sorted(got), sorted(wanted), name)
        in_order = [unit for unit in wanted if unit[0] == "http" or unit[1][0] in IN_ORDER]
        test.assertEqual([unit for unit in got if unit in in_order], in_order, name)

    def _normal(self, name: str, unit: Unit, *, ours: bool = False) -> Unit:
        """A unit without what differs from run to run."""
        kind, data = unit
        if kind == "http":
            lines = data.decode("latin-1").split("\r\n")
            dated = ("Date: <date>" if line.startswith("Date: ") else line for line in lines)
            return kind, "\r\n".join(dated).encode("latin-1")
        if data[0] == FrameType.SERVER_INFO:
            return kind, data[:1] + open_box(self._shared[name], data[HEADER_LEN:])
        if data[0] == FrameType.PEER_PRESENT and not ours:
            return kind, self._with_our_port(data)
        return unit

    def _with_our_port(self, frame: bytes) -> bytes:
        recorded = int.from_bytes(frame[_PORT_AT : _PORT_AT + 2], "big")
        for name, conn in self._conns.items():
            if conn["local_addr"].endswith(f":{recorded}"):
                port = self.ports[name].to_bytes(2, "big")
                return frame[:_PORT_AT] + port + frame[_PORT_AT + 2 :]
        raise AssertionError(f"nobody was recorded at port {recorded}")
