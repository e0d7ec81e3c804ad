"""How a WebSocket ends, and who hears of it."""

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason

from derp.net.websocket import (
    CLOSE_S,
)
from tests.net.websocket_case import WebSocketTestCase


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

    def test_answer_to_last_bytes(self) -> None:
        """The answer to them is for nobody any more, and disturbs nothing."""

        def answers(data: bytes) -> None:
            self.session.transport.write(b"answer")
            heard.append(data)

        heard: list[bytes] = []
        self.session.dataReceived = answers
        frames = bytes(self.client.send(BytesMessage(data=b"abc")))
        frames += bytes(self.client.send(CloseConnection(1001)))
        self.websocket.dataReceived(frames)
        self.assertEqual(heard, [b"abc"])
        self.assertEqual(self.the_close(), 1001)
        self.assertIsNotNone(self.session.lost.check(ConnectionDone))

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

        self.session.dataReceived = ends
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
