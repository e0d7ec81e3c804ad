"""Tests of :mod:`derp.net.relay_client` against a scripted relay in memory, without TLS."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.test.iosim import IOPump, connectedServerAndClient
from twisted.trial.unittest import SynchronousTestCase

from derp.core.client_session import ClientEvent
from derp.net.relay_client import MAX_PENDING, READ_TIMEOUT, RelayClient
from derp.net.relay_connector import RelayConnector
from derp.net.relay_dialer import parse_relay_url
from derp.net.relay_errors import ConnectFailed, LoginRefused, RelayError
from derp.wire import frames, messages
from derp.wire.frames import FrameType, encode_frame
from derp.wire.handshake import (
    ClientInfo,
    ServerInfo,
    encode_server_info,
    encode_server_key,
    shared_key,
)
from derp.wire.keys import format_node_public, public_of
from tests.net.relay_fakes import CLIENT, SERVER, SWITCHING, FakeRelay

PEER = bytes(range(32))
OTHER = bytes(range(32, 64))
URL = "http://relay.example/derp"
GREETING = encode_server_key(public_of(SERVER))


class Link:
    """A client, a scripted relay and the wire between them."""

    def __init__(self, relay: FakeRelay | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.messages: list[ClientEvent] = []
        connector = RelayConnector(reactor=self.clock, target=URL, private_key=CLIENT, **options)
        address = parse_relay_url(URL)
        self.relay = relay or FakeRelay()
        self.client: RelayClient
        self.pump: IOPump
        self.client, _, self.pump = connectedServerAndClient(
            lambda: self.relay,
            lambda: connector.make_client(address, 1, self.messages.append),
            greet=False,
            clock=self.clock,
        )

    def flush(self) -> None:
        self.pump.flush()


def refused(test: SynchronousTestCase, link: Link) -> str:
    """The text of the error with which a connection that was never made failed."""
    error = test.failureResultOf(link.client.when_connected(), ConnectFailed)
    return str(error.value)


class LoginTests(SynchronousTestCase):
    """From the first byte to ServerInfo, or to the reason why not."""

    def test_logs_in(self) -> None:
        """Connected when ClientInfo is sent, logged in when ServerInfo comes."""
        link = Link(app_name="test", mesh_key=b"m" * 32, is_prober=True, can_ack_pings=True)
        connected, logged_in = link.client.when_connected(), link.client.when_logged_in()
        self.assertNoResult(connected)
        link.flush()
        self.assertIs(self.successResultOf(connected), link.client)
        self.assertEqual(self.successResultOf(logged_in), ServerInfo(2))
        self.assertEqual(link.relay.client_key, public_of(CLIENT))
        self.assertEqual(link.relay.client_info, ClientInfo(b"m" * 32, 2, True, True, "test"))
        self.assertEqual(link.messages, [ServerInfo(2)])

    def test_request(self) -> None:
        """Without TLS there is no key to start fast with: one plain upgrade."""
        link = Link()
        link.flush()
        self.assertTrue(
            link.relay.request.startswith(b"GET /derp HTTP/1.1\r\nHost: relay.example\r\n")
        )
        self.assertFalse(link.relay.fast_started)

    def test_what_is_known(self) -> None:
        """Keys, peer, generation and TLS can be read from the client."""
        link = Link()
        self.assertIsNone(link.client.server_key)
        link.flush()
        self.assertEqual(link.client.server_key, public_of(SERVER))
        self.assertEqual(link.client.public_key, public_of(CLIENT))
        self.assertEqual(link.client.server_info, ServerInfo(2))
        self.assertEqual(link.client.generation, 1)
        self.assertIsNone(link.client.tls_version)
        self.assertIs(link.client.peer_address, link.client.transport.getPeer())

    def test_what_follows_the_login(self) -> None:
        """A home says so, a watcher asks, each once."""
        link = Link(preferred=True, watch_conns=True)
        link.flush()
        link.client.note_preferred(True)
        link.flush()
        self.assertEqual(
            link.relay.frames, [(FrameType.NOTE_PREFERRED, b"\x01"), (FrameType.WATCH_CONNS, b"")]
        )

    def test_refused(self) -> None:
        """Closed instead of ServerInfo: the error names relay and key, and what it may mean."""
        link = Link(FakeRelay(admit=False))
        logged_in = link.client.when_logged_in()
        link.flush()
        self.successResultOf(link.client.when_connected())
        error = self.failureResultOf(logged_in, LoginRefused).value
        self.assertIn(f"{URL} closed the connection during login", str(error))
        self.assertIn("may not admit", str(error))
        self.assertIn(format_node_public(public_of(CLIENT)), str(error))
        self.assertIs(self.successResultOf(link.client.when_closed()), error)

    def test_closed_at_each_stage(self) -> None:
        """An error of a connection that was never made says how far it came."""
        for sent, stage in ((b"", "the HTTP answer"), (SWITCHING, "the relay's greeting")):
            relay = FakeRelay(answer=sent, greeting=b"")
            link = Link(relay)
            link.flush()
            relay.hang_up()
            link.flush()
            self.assertIn(f"{URL}: closed the connection during {stage}", refused(self, link))
            self.failureResultOf(link.client.when_logged_in(), ConnectFailed)

    def test_garbage_at_each_stage(self) -> None:
        """What is no HTTP, no upgrade, no greeting and no frame ends the connection, explained."""
        for answer, greeting, text in (
            (b"SSH-2.0-OpenSSH\r\n", b"", "no HTTP"),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", b"derp server disabled", "404 Not Found"),
            (b"HTTP/1.1 101 X\r\n" + b"y" * 9000, b"", "no end"),
            (SWITCHING, frames.KEEP_ALIVE_FRAME, "0x06"),
            (SWITCHING, encode_frame(0x01, bytes(40)), "not a DERP ServerKey"),
            (SWITCHING, b"\x01\x00\x00\x04\x01", "1025 bytes"),
        ):
            link = Link(FakeRelay(answer=answer, greeting=greeting))
            link.flush()
            self.assertIn(text, refused(self, link))
            self.assertTrue(link.relay.lost, text)

    @given(st.binary(max_size=60), st.integers(0, 3))
    def test_any_garbage(self, data: bytes, stage: int) -> None:
        """Whatever comes at whatever stage, nothing is raised and nothing hangs on."""
        clock = Clock()
        connector = RelayConnector(reactor=clock, target=URL, private_key=CLIENT)
        client = connector.make_client(parse_relay_url(URL), 1, None)
        client.makeConnection(StringTransport())
        client.dataReceived((b"", SWITCHING, SWITCHING + GREETING, SWITCHING + GREETING)[stage])
        client.dataReceived(data)
        client.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertIsInstance(self.successResultOf(client.when_closed()), RelayError)


class MessageTests(SynchronousTestCase):
    """What the relay says after the login."""

    def setUp(self) -> None:
        self.link = Link()
        self.link.flush()
        self.link.messages.clear()

    def say(self, data: bytes) -> list[ClientEvent]:
        self.link.relay.send(data)
        self.link.flush()
        return self.link.messages

    def test_messages(self) -> None:
        """Every kind of message arrives, in order; unknown frames do not."""
        heard = self.say(
            frames.encode_recv_packet(PEER, b"packet")
            + encode_frame(0x77, b"future")
            + frames.encode_peer_gone(PEER, 1)
            + frames.KEEP_ALIVE_FRAME
            + frames.encode_health("ill")
        )
        self.assertEqual(
            heard,
            [
                messages.ReceivedPacket(PEER, b"packet"),
                messages.PeerGone(PEER, 1),
                messages.KeepAlive(),
                messages.Health("ill"),
            ],
        )

    def test_pings_are_for_the_owner(self) -> None:
        """A Ping is not answered by itself; the owner may do it."""
        self.assertEqual(self.say(frames.encode_ping(b"12345678")), [messages.Ping(b"12345678")])
        self.assertEqual(self.link.relay.frames, [])
        self.link.client.send_pong(b"12345678")
        self.link.flush()
        self.assertEqual(self.link.relay.frames, [(FrameType.PONG, b"12345678")])

    def test_closing_in_a_message(self) -> None:
        """After the owner has closed, the rest of the read is not delivered."""
        heard: list[ClientEvent] = []

        def first_only(message: ClientEvent) -> None:
            heard.append(message)
            self.link.client.close()

        self.link.client.on_message = first_only
        self.say(frames.KEEP_ALIVE_FRAME * 3)
        self.assertEqual(len(heard), 1)

    def test_fault(self) -> None:
        """A frame above 1 MiB ends the connection, after what came before it."""
        heard = self.say(frames.KEEP_ALIVE_FRAME + b"\x05\x00\x10\x00\x01")
        self.assertEqual(heard, [messages.KeepAlive()])
        error = self.successResultOf(self.link.client.when_closed())
        self.assertIn("1048577 bytes", str(error))
        self.assertNotIsInstance(error, ConnectFailed)

    def test_nobody_listens(self) -> None:
        """Without a callback messages go nowhere."""
        self.link.client.on_message = None
        self.say(frames.KEEP_ALIVE_FRAME)
        self.assertFalse(self.link.client.when_closed().called)


class SendTests(SynchronousTestCase):
    """What the client says after the login."""

    def setUp(self) -> None:
        self.link = Link()
        self.link.flush()
        self.client = self.link.client

    def test_frames(self) -> None:
        """Each method sends its frame."""
        self.assertTrue(self.client.send(PEER, b"packet"))
        self.assertTrue(self.client.forward(OTHER, PEER, b"packet"))
        self.assertTrue(self.client.note_preferred(True))
        self.assertTrue(self.client.note_preferred(False))
        self.assertTrue(self.client.watch_conns())
        self.assertTrue(self.client.close_peer(PEER))
        self.link.flush()
        self.assertEqual(
            self.link.relay.frames,
            [
                (FrameType.SEND_PACKET, PEER + b"packet"),
                (FrameType.FORWARD_PACKET, OTHER + PEER + b"packet"),
                (FrameType.NOTE_PREFERRED, b"\x01"),
                (FrameType.NOTE_PREFERRED, b"\x00"),
                (FrameType.WATCH_CONNS, b""),
                (FrameType.CLOSE_PEER, PEER),
            ],
        )

    def test_too_long(self) -> None:
        """A packet too long is the caller's fault, and nothing is sent of it."""
        self.assertRaises(ValueError, self.client.send, PEER, bytes(65537))
        self.assertRaises(ValueError, self.client.forward, PEER, OTHER, bytes(65537))

    def test_before_the_login(self) -> None:
        """Before ClientInfo nothing may be sent; behind it one need not wait for the answer."""
        link = Link()
        self.assertFalse(link.client.send(PEER, b"early"))
        link.flush()
        self.assertEqual(link.relay.frames, [])
        early = Link(FakeRelay(admit=True))
        early.client.when_connected().addCallback(lambda client: client.send(PEER, b"soon"))
        early.flush()
        self.assertEqual(early.relay.frames, [(FrameType.SEND_PACKET, PEER + b"soon")])

    def test_after_the_end(self) -> None:
        """A connection that has ended takes nothing, and says so without raising."""
        self.client.close()
        self.link.flush()
        self.assertFalse(self.client.send(PEER, b"late"))
        self.assertFalse(self.client.forward(OTHER, PEER, b"late"))
        self.failureResultOf(self.client.ping(), RelayError)

    def test_server_limit(self) -> None:
        """Beyond the relay's sending limit packets are dropped, until time has passed."""
        shared = shared_key(SERVER, public_of(CLIENT))
        self.link.relay.send(encode_server_info(shared, bytes(24), ServerInfo(2, 43, 86)))
        self.link.flush()
        sent = [self.client.send(PEER, b"packet") for _ in range(4)]
        self.assertEqual(sent, [True, True, False, False])
        self.link.clock.advance(1)
        self.assertTrue(self.client.send(PEER, b"packet"))
        self.assertTrue(self.client.forward(OTHER, PEER, b"packet"), "only SendPacket is limited")


class PingTests(SynchronousTestCase):
    """Round trips."""

    def test_round_trip(self) -> None:
        """The pong fires the ping's own Deferred, with seconds, and is no message."""
        link = Link(FakeRelay(pongs=False))
        link.flush()
        first, second = link.client.ping(), link.client.ping()
        link.flush()
        link.clock.advance(0.25)
        (_, one), (_, two) = link.relay.frames
        self.assertNotEqual(one, two)
        link.relay.send(frames.encode_pong(two))
        link.flush()
        self.assertNoResult(first)
        self.assertEqual(self.successResultOf(second), 0.25)
        link.relay.send(frames.encode_pong(one))
        link.flush()
        self.assertEqual(self.successResultOf(first), 0.25)
        self.assertEqual(link.messages, [ServerInfo(2)])

    def test_timeout(self) -> None:
        """No pong within 5 s is an error; one that comes later is a message like any other."""
        link = Link(FakeRelay(pongs=False))
        link.flush()
        pinged = link.client.ping()
        link.flush()
        link.clock.advance(4.9)
        self.assertNoResult(pinged)
        link.clock.advance(0.2)
        self.assertIn("no pong within 5 s", str(self.failureResultOf(pinged, RelayError).value))
        ((_, data),) = link.relay.frames
        link.relay.send(frames.encode_pong(data))
        link.flush()
        self.assertEqual(link.messages[1:], [messages.Pong(data)])
        self.assertFalse(link.client.when_closed().called)

    def test_lost(self) -> None:
        """A ping does not wait for its timeout when the connection has gone."""
        link = Link(FakeRelay(pongs=False))
        link.flush()
        pinged = link.client.ping()
        link.relay.hang_up()
        link.flush()
        self.failureResultOf(pinged, RelayError)


class TimeoutTests(SynchronousTestCase):
    """A relay that has gone silent."""

    def setUp(self) -> None:
        self.link = Link()
        self.link.flush()

    def test_silence(self) -> None:
        """120 s without a frame end the connection."""
        self.link.clock.advance(READ_TIMEOUT - 0.1)
        self.assertFalse(self.link.client.when_closed().called)
        self.link.clock.advance(0.2)
        self.link.flush()
        error = self.successResultOf(self.link.client.when_closed())
        self.assertIn("sent nothing for 120 s", str(error))

    def test_any_frame_counts(self) -> None:
        """A frame nobody knows is a sign of life."""
        for _ in range(3):
            self.link.clock.advance(READ_TIMEOUT - 1)
            self.link.relay.send(encode_frame(0x77, b""))
            self.link.flush()
        self.assertFalse(self.link.client.when_closed().called)

    def test_half_a_frame_does_not(self) -> None:
        """Bytes that never become a frame do not keep a connection."""
        for _ in range(3):
            self.link.clock.advance(READ_TIMEOUT / 3 + 1)
            self.link.relay.send(b"\x77\x00\x00\x01\x00"[:1])
            self.link.flush()
        self.assertTrue(self.link.client.when_closed().called)

    def test_paused_by_the_owner(self) -> None:
        """Who does not read cannot expect to hear."""
        self.link.client.pause_receiving()
        self.link.clock.advance(2 * READ_TIMEOUT)
        self.assertFalse(self.link.client.when_closed().called)
        self.link.client.resume_receiving()
        self.link.clock.advance(READ_TIMEOUT + 1)
        self.link.flush()
        self.assertTrue(self.link.client.when_closed().called)


class BackPressureTests(SynchronousTestCase):
    """A relay that takes nothing from us."""

    def setUp(self) -> None:
        self.clock = Clock()
        connector = RelayConnector(reactor=self.clock, target=URL, private_key=CLIENT)
        self.client = connector.make_client(parse_relay_url(URL), 1, None)
        self.transport = StringTransport()
        self.client.makeConnection(self.transport)
        self.client.dataReceived(SWITCHING + GREETING)
        self.transport.clear()

    def test_registered(self) -> None:
        """The client lets itself be told, as a push producer."""
        self.assertIs(self.transport.producer, self.client)
        self.assertTrue(self.transport.streaming)

    def test_bounded(self) -> None:
        """While paused, 1 MiB is queued and the rest is refused; when it has left, all goes."""
        self.transport.producer.pauseProducing()
        self.assertFalse(self.client.writable)
        sent = sum(self.client.send(PEER, bytes(10000)) for _ in range(1000))
        self.assertEqual(sent, MAX_PENDING // 10037)
        self.assertEqual(len(self.transport.value()), sent * 10037)
        heard: list[bool] = []
        self.client.on_writable = lambda: heard.append(self.client.send(PEER, bytes(10000)))
        self.transport.producer.resumeProducing()
        self.assertEqual((heard, self.client.writable), ([True], True))
        self.transport.producer.resumeProducing()
        self.assertEqual(heard, [True], "told once per change")
        self.transport.producer.pauseProducing()
        again = sum(self.client.send(PEER, bytes(10000)) for _ in range(1000))
        self.assertEqual(again, sent, "the bound is for each pause anew")

    def test_forward_stalls(self) -> None:
        """A mesh peer that takes no packet for 5 s is given up."""
        self.transport.producer.pauseProducing()
        self.assertTrue(self.client.forward(OTHER, PEER, b"packet"))
        self.clock.advance(4)
        self.client.forward(OTHER, PEER, b"packet")
        self.assertFalse(self.transport.disconnecting)
        self.clock.advance(1.1)
        self.assertTrue(self.transport.disconnected)
        self.client.connectionLost(Failure(ConnectionDone()))
        error = self.successResultOf(self.client.when_closed())
        self.assertIn("took no packet to forward for 5 s", str(error))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_forward_goes_on(self) -> None:
        """Taking bytes again within 5 s is enough."""
        self.transport.producer.pauseProducing()
        self.client.forward(OTHER, PEER, b"packet")
        self.clock.advance(4)
        self.transport.producer.resumeProducing()
        self.clock.advance(4)
        self.assertFalse(self.transport.disconnected)

    def test_send_may_stall(self) -> None:
        """Without packets to forward there is no such limit."""
        self.transport.producer.pauseProducing()
        self.client.send(PEER, b"packet")
        self.clock.advance(READ_TIMEOUT - 1)
        self.assertFalse(self.transport.disconnected)

    def test_close_does_not_wait_for_ever(self) -> None:
        """What was sent may leave for 2 s; then the connection is cut."""
        self.client.close()
        self.assertIsNone(self.transport.producer)
        self.assertTrue(self.transport.disconnecting)
        self.assertFalse(self.transport.disconnected)
        self.clock.advance(2.1)
        self.assertTrue(self.transport.disconnected)

    def test_abort_while_closing(self) -> None:
        """Who cannot wait for the end cuts it."""
        timers = self.clock.getDelayedCalls()
        self.client.close()
        self.client.abort("no time")
        self.assertTrue(self.transport.disconnected)
        self.client.abort("twice is no harm")
        self.assertEqual(self.clock.getDelayedCalls(), timers)


class EndTests(SynchronousTestCase):
    """How connections end."""

    def test_closed_by_us(self) -> None:
        """Our own close is no error, leaves no timer, and lets what was sent leave."""
        link = Link()
        link.flush()
        link.client.send(PEER, b"last")
        closed = link.client.close()
        link.flush()
        self.assertIsNone(self.successResultOf(closed))
        self.assertIsNone(self.successResultOf(link.client.close()), "twice is no harm")
        self.assertEqual(link.relay.frames, [(FrameType.SEND_PACKET, PEER + b"last")])
        self.assertEqual(link.clock.getDelayedCalls(), [])

    def test_closed_by_the_relay(self) -> None:
        """The relay's close is reported to all who wait, before and after."""
        link = Link()
        link.flush()
        before = link.client.when_closed()
        link.relay.hang_up()
        link.flush()
        error = self.successResultOf(before)
        self.assertIn(f"{URL}: connection lost", str(error))
        self.assertNotIsInstance(error, LoginRefused)
        self.assertIs(self.successResultOf(link.client.when_closed()), error)
        self.assertFalse(link.client.writable)
        self.assertEqual(link.clock.getDelayedCalls(), [])

    def test_nobody_waits(self) -> None:
        """An end nobody asked about leaves no unhandled error behind."""
        link = Link(FakeRelay(admit=False))
        link.flush()
        self.assertTrue(link.relay.lost)
        self.assertEqual(self.flushLoggedErrors(), [])
