"""The transport a session has inside a WebSocket."""

from derp.net.websocket import (
    WebSocketTransport,
)
from tests.net.websocket_case import WebSocketTestCase


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
        facade: WebSocketTransport = self.session.transport
        self.assertEqual(facade.getPeer(), self.transport.getPeer())
        self.assertEqual(facade.getHost(), self.transport.getHost())
        self.assertIsNone(facade.bytes_moved_at)
        self.assertFalse(hasattr(facade, "getHandle"))

    def test_disconnecting(self) -> None:
        """It says when writing is of no use."""
        self.assertFalse(self.session.transport.disconnecting)
        self.session.transport.loseConnection()
        self.assertTrue(self.session.transport.disconnecting)
