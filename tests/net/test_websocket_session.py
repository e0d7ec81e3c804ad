"""WebSockets from the handshake on, through a site."""

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage

from derp.config import Config
from derp.net.web import build_main_site
from tests.net.sites import (
    GREETING,
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
