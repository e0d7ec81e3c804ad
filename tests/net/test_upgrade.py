"""From the request to DERP: no byte lost, none added, nothing left behind."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from tests.net.sites import (
    GREETING,
    FakeConnection,
    get,
)
from tests.net.upgrade_case import CLIENT_INFO, FAST, HEAD, UPGRADE, UpgradeTestCase


class UpgradeTests(UpgradeTestCase):
    """``/derp`` with plain DERP."""

    def test_head_and_greeting(self) -> None:
        """Without fast start the 101 leaves together with ServerKey."""
        self.assertEqual(self.visit().send(UPGRADE), HEAD + GREETING)

    def test_fast_start(self) -> None:
        """In fast start nothing of HTTP is written, and what follows belongs to DERP."""
        self.assertEqual(self.visit().send(FAST + CLIENT_INFO), GREETING)
        self.assertEqual(self.connection.received, CLIENT_INFO)
        self.assertTrue(self.connection.options["fast_start"])

    def test_fast_start_is_exactly_one(self) -> None:
        """Any other value of the header is no fast start."""
        request = get("/derp", "Upgrade: DERP", "Derp-Fast-Start: true")
        self.assertEqual(self.visit().send(request), HEAD + GREETING)

    def test_ideal_node(self) -> None:
        """A client that names another node as its ideal one is not ideal here."""
        self.visit().send(get("/derp", "Upgrade: DERP", "Ideal-Node: 7a"))
        self.assertTrue(self.connection.options["not_ideal"])

    def test_remote(self) -> None:
        """The relay is told who is there."""
        visit = self.visit()
        visit.send(UPGRADE)
        self.assertEqual(self.connection.options["remote"], visit.transport.getPeer())
        self.assertFalse(self.connection.options["not_ideal"])

    def test_forms_of_the_request(self) -> None:
        """Method, body, version and Connection do not matter; the bytes behind survive."""
        chunked = get("/derp", "Upgrade: derp", "Transfer-Encoding: chunked", method="POST")
        requests = [
            get("/derp", "Upgrade: derp", "Content-Length: 3", method="POST") + b"abc",
            chunked + b"3\r\nabc\r\n0\r\n\r\n",
            get("/derp?x=1", "Upgrade: DERP"),
            get("/derp", "Upgrade: DERP", "Connection: close"),
            b"GET /derp HTTP/1.0\r\nUpgrade: DERP\r\n\r\n",
            get("http://derp.example/derp", "Upgrade: DERP"),
            get("/%64erp", "Upgrade: WebSocket"),
        ]
        for request in requests:
            with self.subTest(request=request):
                self.relay.connections.clear()
                visit = self.visit()
                self.assertEqual(visit.send(request + CLIENT_INFO), HEAD + GREETING)
                visit.send(b"more")
                self.assertEqual(self.connection.received, CLIENT_INFO + b"more")
                self.assertFalse(visit.closing)

    def test_behind_other_requests(self) -> None:
        """Requests before the upgrade in the same packet are answered first."""
        pipeline = get("/derp/probe") + get("/", method="HEAD")
        pipeline += get("/derp/probe", "Content-Length: 2", method="POST") + b"ab"
        answers = self.visit().send(pipeline + FAST + CLIENT_INFO)
        self.assertEqual(answers.count(b"HTTP/1.1 "), 3)
        self.assertTrue(answers.endswith(b"bogus probe method\n" + GREETING))
        self.assertEqual(self.connection.received, CLIENT_INFO)

    def test_behind_an_answer_that_takes_its_time(self) -> None:
        """An upgrade waits for the answer before it, with all that follows."""
        visit = self.visit()
        visit.send(get("/debug/later", "X: y") + FAST + CLIENT_INFO)
        self.assertEqual(self.relay.connections, [])
        self.later.request.finish()
        self.assertTrue(visit.take().endswith(b"0\r\n\r\n" + GREETING))
        visit.send(b"more")
        self.assertEqual(self.connection.received, CLIENT_INFO + b"more")

    def test_reading_goes_on(self) -> None:
        """A channel that stopped reading for too much input starts again."""
        visit = self.visit()
        filler = get("/derp/probe") * 400
        visit.send(get("/debug/later") + filler + FAST)
        self.assertEqual(visit.transport.producerState, "paused")
        self.later.request.finish()
        self.assertEqual(visit.transport.producerState, "producing")
        self.assertEqual(len(self.relay.connections), 1)

    def test_full_socket(self) -> None:
        """A channel that stopped reading because nobody took its answers starts again, too."""
        visit = self.visit()
        visit.transport.producer.pauseProducing()
        self.assertEqual(visit.transport.producerState, "paused")
        visit.send(FAST)
        self.assertEqual(visit.transport.producerState, "producing")

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(1, 40)))
    def test_any_split(self, sizes: list[int]) -> None:
        """However the stream is cut, the session gets what is behind the request."""
        self.relay.connections.clear()
        stream = get("/derp/probe") + FAST + CLIENT_INFO * 3
        visit = self.visit()
        written = b""
        for size in sizes:
            if stream:
                written += visit.send(stream[:size])
                stream = stream[size:]
        written += visit.send(stream) if stream else b""
        self.assertTrue(written.endswith(GREETING))
        self.assertEqual(self.connection.received, CLIENT_INFO * 3)

    def test_byte_by_byte(self) -> None:
        """A request may come in single bytes."""
        visit = self.visit()
        for byte in UPGRADE + CLIENT_INFO:
            visit.channel.dataReceived(bytes([byte]))
        self.assertEqual(visit.take(), HEAD + GREETING)
        self.assertEqual(self.connection.received, CLIENT_INFO)

    def test_nothing_left_behind(self) -> None:
        """No timer, no producer of HTTP's, no request."""
        visit = self.visit()
        visit.send(get("/") + UPGRADE)
        self.assertIs(visit.transport.producer, self.connection)
        self.assertEqual(visit.channel.requests, [])
        self.clock.advance(1000)
        self.assertFalse(visit.closing)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_loss(self) -> None:
        """On a transport of Twisted's, the end reaches the session through the channel."""
        visit = self.visit()
        visit.send(UPGRADE)
        reason = Failure(ConnectionDone())
        visit.channel.connectionLost(reason)
        self.assertIs(self.connection.lost, reason)

    def test_refused_upgrade_keeps_http(self) -> None:
        """Without an upgrade the connection stays what it is."""
        visit = self.visit()
        self.assertIn(b"426 Upgrade Required", visit.send(get("/derp", "Upgrade: h2c")))
        self.assertIn(b"200 OK", visit.send(get("/derp/probe")))

    def test_failing_relay(self) -> None:
        """A relay that fails on the way in gets no HTTP answer into its stream."""

        class Failing(FakeConnection):
            def connectionMade(self) -> None:
                raise ZeroDivisionError("on purpose")

        self.relay.accept = lambda **options: Failing(b"", {})
        visit = self.visit()
        self.assertEqual(visit.send(UPGRADE), b"")
        self.assertTrue(visit.transport.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
