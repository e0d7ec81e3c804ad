"""DERP inside WebSocket frames."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode

from derp.config import Config
from derp.net.timer_wheel import TimerWheel
from derp.net.web import build_main_site
from derp.net.websocket import (
    CLOSE_S,
    MAX_RECEIVED,
    MAX_SENT,
    WebSocketProtocol,
    WebSocketTransport,
)
from tests.net.sites import (
    GREETING,
    AbortableTransport,
    FakeConnection,
    FakeRelay,
    Visit,
    get,
    site_parts,
)
from tests.vectors import load

HANDSHAKE = get(
    "/derp",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol: derp",
)


class WebSocketTestCase(SynchronousTestCase):
    """A WebSocket with a session inside and a client outside."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wheel = TimerWheel(self.clock)
        self.session = FakeConnection(b"", {})
        self.transport = AbortableTransport()
        self.client = Connection(ConnectionType.CLIENT)
        self.websocket = WebSocketProtocol(b"", self.session, self.wheel.schedule)
        self.websocket.makeConnection(self.transport)
        self.assertEqual(self.events(), [BytesMessage(data=GREETING)])

    def send(self, event: Any) -> None:
        self.websocket.dataReceived(bytes(self.client.send(event)))

    def events(self) -> list[Any]:
        """What the client makes of what was written since."""
        data = self.transport.value()
        self.transport.clear()
        self.client.receive_data(data)
        return list(self.client.events())

    def the_close(self) -> int:
        (event,) = self.events()
        assert isinstance(event, CloseConnection)
        return int(event.code)

    def advance(self, seconds: float) -> None:
        for _ in range(int(seconds * 4)):
            self.clock.advance(0.25)


class StreamTests(WebSocketTestCase):
    """The stream in both directions."""

    def test_in(self) -> None:
        """Messages, whole or in fragments, are one stream."""
        self.send(BytesMessage(data=b"abc"))
        self.send(BytesMessage(data=b"", message_finished=True))
        self.send(BytesMessage(data=b"de", message_finished=False))
        self.send(BytesMessage(data=b"f", message_finished=False))
        self.send(BytesMessage(data=b"g"))
        self.assertEqual(self.session.received, b"abcdefg")

    def test_unfinished_message(self) -> None:
        """A message's bytes do not wait for its end."""
        frame = bytes(self.client.send(BytesMessage(data=b"abcdef")))
        self.websocket.dataReceived(frame[:-2])
        self.assertEqual(self.session.received, b"abcd")

    def test_one_delivery_per_read(self) -> None:
        """What came together is delivered together: a session that pauses got all of it."""
        deliveries: list[bytes] = []
        self.session.dataReceived = deliveries.append  # type: ignore[method-assign]
        frames = b"".join(bytes(self.client.send(BytesMessage(data=b"x"))) for _ in range(5))
        self.websocket.dataReceived(frames)
        self.assertEqual(deliveries, [b"xxxxx"])

    def test_out(self) -> None:
        """Each write is a message."""
        self.session.transport.write(b"abc")
        self.session.transport.writeSequence([b"d", b"e"])
        self.assertEqual(self.events(), [BytesMessage(data=b"abc"), BytesMessage(data=b"de")])

    def test_large_write(self) -> None:
        """A large write is cut into messages a stock client reads, in one write."""
        data = bytes(range(256)) * 300
        self.session.transport.write(data)
        decoder = FrameProtocol(client=True, extensions=[])
        decoder.receive_bytes(self.transport.value())
        frames = [f for f in decoder.received_frames() if f.frame_finished]
        self.assertEqual(b"".join(bytes(f.payload) for f in frames), data)
        self.assertTrue(all(f.message_finished for f in frames))
        self.assertEqual({f.opcode for f in frames}, {Opcode.BINARY})
        self.assertLessEqual(max(len(f.payload) for f in frames), MAX_SENT)
        self.assertLessEqual(MAX_SENT, MAX_RECEIVED)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.binary(max_size=200), max_size=8), st.lists(st.integers(1, 50)))
    def test_any_split(self, messages: list[bytes], sizes: list[int]) -> None:
        """However frames are cut, the stream is the same, and no view is kept."""
        self.setUp()
        stream = b"".join(bytes(self.client.send(BytesMessage(data=m))) for m in messages)
        for size in [*sizes, len(stream) or 1]:
            piece, stream = stream[:size], stream[size:]
            self.websocket.dataReceived(piece)
        self.websocket.dataReceived(stream)
        self.assertEqual(self.session.received, b"".join(messages))

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.binary(max_size=100), max_size=4))
    def test_garbage(self, pieces: list[bytes]) -> None:
        """Whatever comes, it ends with a close at worst."""
        self.setUp()
        for piece in pieces:
            self.websocket.dataReceived(piece)
        self.advance(CLOSE_S + 1)
        self.websocket.connectionLost(Failure(ConnectionLost()))
        self.assertIsNotNone(self.session.lost)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ControlTests(WebSocketTestCase):
    """Pings and pongs."""

    def test_ping(self) -> None:
        """A ping is answered, also amid a fragmented message."""
        self.send(BytesMessage(data=b"a", message_finished=False))
        self.send(Ping(payload=b"123"))
        self.send(BytesMessage(data=b"b"))
        self.assertEqual(self.events(), [Pong(payload=b"123")])
        self.assertEqual(self.session.received, b"ab")

    def test_ping_flood(self) -> None:
        """Of many pings at once the last is answered, and none while nothing is read."""
        pings = [bytes(self.client.send(Ping(payload=b"%d" % i))) for i in range(100)]
        self.websocket.dataReceived(b"".join(pings))
        self.assertEqual(self.events(), [Pong(payload=b"99")])
        self.websocket.pauseProducing()
        self.send(Ping(payload=b"x"))
        self.assertEqual(self.events(), [])

    def test_pong(self) -> None:
        """A pong nobody asked for is nothing."""
        self.send(Pong(payload=b"x"))
        self.assertEqual((self.events(), self.session.received), ([], b""))


class LimitTests(WebSocketTestCase):
    """The size of a message, as measured with the reference."""

    def test_largest(self) -> None:
        """32768 bytes pass, again and again, in whatever fragments."""
        self.send(BytesMessage(data=b"x" * MAX_RECEIVED))
        self.send(BytesMessage(data=b"y" * (MAX_RECEIVED - 1), message_finished=False))
        self.send(BytesMessage(data=b"y"))
        self.assertEqual(len(self.session.received), 2 * MAX_RECEIVED)
        self.assertEqual(self.events(), [])

    def test_too_large(self) -> None:
        """Of a longer one 32769 bytes enter the stream, then it is over with 1009."""
        for sizes in ([MAX_RECEIVED + 1], [70_000], [20_000, 20_000], [MAX_RECEIVED, 1]):
            with self.subTest(sizes=sizes):
                self.setUp()
                frames = b""
                for i, size in enumerate(sizes):
                    last = i == len(sizes) - 1
                    event = BytesMessage(data=b"x" * size, message_finished=last)
                    frames += bytes(self.client.send(event))
                for start in range(0, len(frames), 4096):
                    self.websocket.dataReceived(frames[start : start + 4096])
                self.assertEqual(self.session.received, b"x" * (MAX_RECEIVED + 1))
                self.assertEqual(self.the_close(), 1009)
                self.assertIn("1009", self.session.lost.getErrorMessage())

    def test_text(self) -> None:
        """Text is refused with 1003; what came before it in the same read counts."""
        frames = bytes(self.client.send(BytesMessage(data=b"abc")))
        frames += bytes(self.client.send(TextMessage(data="oh")))
        self.websocket.dataReceived(frames)
        self.assertEqual(self.session.received, b"abc")
        self.assertEqual(self.the_close(), 1003)

    def test_violations(self) -> None:
        """Frames against the protocol are refused with 1002, bad text even with 1007."""
        frames = {
            "unmasked": bytes.fromhex("820161"),
            "reserved bit": bytes.fromhex("c28100000000" + "61"),
            "unknown opcode": bytes.fromhex("838100000000" + "61"),
            "continuation of nothing": bytes.fromhex("808100000000" + "61"),
            "long ping": bytes.fromhex("89fe007e00000000"),
            "close of one byte": bytes.fromhex("888100000000" + "61"),
        }
        for name, frame in frames.items():
            with self.subTest(name):
                self.setUp()
                self.websocket.dataReceived(frame)
                self.assertEqual(self.the_close(), 1002)
                self.assertIsNotNone(self.session.lost)

    def test_memory(self) -> None:
        """After a violation nothing is kept of what still comes."""
        self.websocket.dataReceived(bytes.fromhex("820161"))
        self.patch(self.websocket, "_frames", None)
        self.websocket.dataReceived(b"x" * 1000)


class EndTests(WebSocketTestCase):
    """Who ends it, and how."""

    def test_client_closes(self) -> None:
        """1000 and 1001 are a clean end; the answer has the same code."""
        for code in (1000, 1001):
            with self.subTest(code=code):
                self.setUp()
                self.send(CloseConnection(code, "bye"))
                self.assertEqual(self.the_close(), code)
                self.assertTrue(self.transport.disconnecting)
                self.assertIsNotNone(self.session.lost.check(ConnectionDone))

    def test_client_closes_otherwise(self) -> None:
        """Any other code, or none, is an error."""
        for code in (1002, 1011, 3000, CloseReason.NO_STATUS_RCVD):
            with self.subTest(code=code):
                self.setUp()
                self.send(CloseConnection(code))
                self.assertEqual(self.the_close(), code)
                self.assertIsNone(self.session.lost.check(ConnectionDone))

    def test_last_bytes_count(self) -> None:
        """What came before a Close in the same read is delivered."""
        frames = bytes(self.client.send(BytesMessage(data=b"abc")))
        frames += bytes(self.client.send(CloseConnection(1000)))
        self.websocket.dataReceived(frames)
        self.assertEqual(self.session.received, b"abc")

    def test_session_closes(self) -> None:
        """The relay's close is 1000; it hears of the end when the connection has ended."""
        self.session.transport.write(b"bye")
        self.session.transport.loseConnection()
        self.assertEqual(self.events(), [BytesMessage(data=b"bye"), CloseConnection(1000, "")])
        self.assertTrue(self.transport.disconnecting)
        self.assertIsNone(self.transport.producer)
        self.assertIsNone(self.session.lost)
        self.session.transport.write(b"more")
        self.session.transport.loseConnection()
        self.assertEqual(self.transport.value(), b"")
        reason = Failure(ConnectionDone())
        self.websocket.connectionLost(reason)
        self.assertIs(self.session.lost, reason)

    def test_session_aborts(self) -> None:
        """The relay may cut the connection."""
        self.session.transport.abortConnection()
        self.assertTrue(self.transport.aborted)

    def test_session_closes_on_input(self) -> None:
        """A session that ends at what it reads is not disturbed by what follows."""

        def ends(data: bytes) -> None:
            self.session.transport.loseConnection()

        self.session.dataReceived = ends  # type: ignore[method-assign]
        frames = bytes(self.client.send(BytesMessage(data=b"abc")))
        frames += bytes(self.client.send(Ping())) + bytes(self.client.send(CloseConnection(1000)))
        self.websocket.dataReceived(frames)
        self.assertEqual(self.the_close(), 1000)

    def test_waits_for_the_answer(self) -> None:
        """After our Close the client's is read, over all that was under way."""
        self.send(TextMessage(data="oh"))
        self.assertFalse(self.transport.disconnecting)
        self.send(BytesMessage(data=b"x" * 100_000))
        self.send(TextMessage(data="again"))
        self.assertFalse(self.transport.disconnecting)
        self.assertEqual(self.the_close(), 1003)
        self.websocket.dataReceived(bytes(self.client.send(CloseConnection(1003))))
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.transport.value(), b"")
        self.assertEqual(self.session.received, b"")

    def test_does_not_wait_for_ever(self) -> None:
        """Without an answer the connection is cut after five seconds."""
        self.send(TextMessage(data="oh"))
        self.advance(CLOSE_S - 0.5)
        self.assertFalse(self.transport.aborted)
        self.advance(1)
        self.assertTrue(self.transport.aborted)

    def test_lost(self) -> None:
        """A lost connection is the session's end; no timer is left."""
        self.send(CloseConnection(1000))
        self.websocket.connectionLost(Failure(ConnectionDone()))
        self.advance(CLOSE_S + 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(self.transport.aborted)


class FacadeTests(WebSocketTestCase):
    """What the session sees of its transport."""

    def test_back_pressure_out(self) -> None:
        """A full socket pauses the session, and lets it go on."""
        self.transport.producer.pauseProducing()
        self.transport.producer.resumeProducing()
        self.assertEqual(self.session.pauses, ["pause", "resume"])

    def test_registering_late(self) -> None:
        """A producer that registers with a full socket is told at once."""
        facade = self.session.transport
        facade.unregisterProducer()
        self.transport.producer.pauseProducing()
        self.assertEqual(self.session.pauses, [])
        facade.registerProducer(self.session, True)
        self.assertEqual(self.session.pauses, ["pause"])
        with self.assertRaises(ValueError):
            facade.registerProducer(self.session, False)

    def test_back_pressure_in(self) -> None:
        """The session may stop the reading."""
        self.session.transport.pauseProducing()
        self.assertEqual(self.transport.producerState, "paused")
        self.session.transport.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")

    def test_addresses(self) -> None:
        """Peer and host are the real connection's."""
        facade: WebSocketTransport = self.session.transport  # type: ignore[assignment]
        self.assertEqual(facade.getPeer(), self.transport.getPeer())
        self.assertEqual(facade.getHost(), self.transport.getHost())
        self.assertIsNone(facade.bytes_moved_at)
        self.assertFalse(hasattr(facade, "getHandle"))

    def test_disconnecting(self) -> None:
        """It says when writing is of no use."""
        self.assertFalse(self.session.transport.disconnecting)
        self.session.transport.loseConnection()
        self.assertTrue(self.session.transport.disconnecting)


class SiteTests(SynchronousTestCase):
    """From the handshake on."""

    def setUp(self) -> None:
        self.relay = FakeRelay()
        self.parts = site_parts(Clock(), Config(tls=False), relay=self.relay)
        self.visit = Visit(build_main_site(self.parts))

    def test_bytes_behind_the_handshake(self) -> None:
        """A client need not wait for the 101."""
        client = Connection(ConnectionType.CLIENT)
        early = bytes(client.send(BytesMessage(data=b"early")))
        head, _, frames = self.visit.send(HANDSHAKE + early).partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"))
        client.receive_data(frames)
        self.assertEqual(list(client.events()), [BytesMessage(data=GREETING)])
        (connection,) = self.relay.connections
        self.assertEqual(connection.received, b"early")
        self.assertEqual(self.parts.websocket_stats.accepts, 1)

    def test_options_are_ignored(self) -> None:
        """Fast start and ideal node mean nothing here."""
        request = HANDSHAKE[:-2] + b"Derp-Fast-Start: 1\r\nIdeal-Node: x\r\n\r\n"
        self.assertIn(b"101 Switching", self.visit.send(request))
        (connection,) = self.relay.connections
        self.assertFalse(connection.options["fast_start"] or connection.options["not_ideal"])
        self.assertEqual(connection.head, b"")

    def test_without_the_subprotocol(self) -> None:
        """A subprotocol that only contains the name is accepted, then refused with 1008."""
        request = HANDSHAKE.replace(b"Protocol: derp", b"Protocol: xderpx")
        head, _, frames = self.visit.send(request).partition(b"\r\n\r\n")
        self.assertIn(b"101 Switching", head)
        self.assertNotIn(b"Protocol:", head)
        self.assertEqual(frames[:4], bytes.fromhex("882803f0"))
        self.assertEqual((self.relay.connections, self.parts.websocket_stats.accepts), ([], 0))
        self.assertFalse(self.visit.closing)

    def test_recorded_session(self) -> None:
        """The recorded session: its frames are read, and ours are the recorded bytes."""
        steps = [
            step
            for step in load("transcripts/websocket-session.json")["steps"]
            if step["conn"] == "A" and step["unit"] in ("http", "ws")
        ]
        stream = b""
        for step in steps:
            data = bytes.fromhex(step["hex"])
            payload = b""
            if step["unit"] == "ws":
                payload = bytes.fromhex(step["text"].removeprefix("payload "))
            if step["dir"] == "c2s":
                written = self.visit.send(data)
                if data[0] == 0x82:
                    stream += payload
            elif step["unit"] == "http":
                head, _, written = written.partition(b"\r\n\r\n")
                self.assertEqual(head.split(b"Date")[0], data.split(b"Date")[0])
            else:
                if not written:
                    self.relay.connections[0].transport.write(payload)
                    written = self.visit.take()
                self.assertEqual(written, data)
                written = b""
        (connection,) = self.relay.connections
        self.assertEqual(connection.received, stream)
        self.assertGreater(len(stream), 150)
        self.assertIsNotNone(connection.lost.check(ConnectionDone))
        self.assertTrue(self.visit.closing)
