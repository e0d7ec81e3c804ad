"""DERP inside WebSocket frames."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from wsproto.events import BytesMessage, Ping, Pong, TextMessage
from wsproto.frame_protocol import FrameProtocol, Opcode

from derp.net.websocket import (
    CLOSE_S,
    MAX_RECEIVED,
    MAX_SENT,
)
from tests.net.websocket_case import WebSocketTestCase


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
        self.session.dataReceived = deliveries.append
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
