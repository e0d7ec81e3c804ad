"""Tests for :mod:`derp.net.mesh_link`: the loop, by a clock and fake peers."""

from __future__ import annotations

from twisted.internet.defer import fail
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from derp.config import MeshPeer
from derp.core.consistency import check
from derp.core.stats import DropReason, PacketKind
from derp.net.link_pulse import DEAD_S, PING_S
from derp.net.link_state import LinkFailure, LinkState
from derp.net.mesh_link import (
    FIRST_PAUSE_S,
    LOGIN_S,
    MAX_PAUSE_S,
    REPEAT_LOG_S,
    SETTLED_S,
    STEADY_S,
    MeshLink,
)
from derp.net.relay_errors import ConnectFailed
from derp.wire.frames import PeerGoneReason
from derp.wire.messages import KeepAlive, PeerGone, Restarting
from tests.core.fakes import NOBODY, FakeClient, disco, make_relay, public_key
from tests.net.mesh_fakes import FakeConnector

OURS = public_key("the link's own key")
ALICE, BOB = public_key("alice"), public_key("bob")


class MeshLinkCase(SynchronousTestCase):
    """A link that has just been started, its pauses not varied."""

    peer = MeshPeer(name="r2.example", host="r2.example")

    def setUp(self) -> None:
        self.clock = Clock()
        self.relay = make_relay()
        self.connector = FakeConnector(self.clock)
        self.link = MeshLink(
            self.clock,
            self.relay,
            self.peer,
            self.connector,
            vary=lambda low, high: (low + high) / 2,
            max_keys=4,
        )
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)
        self.link.start()

    def observe(self, event: dict[str, object]) -> None:
        self.lines.append(str(event.get("text", event.get("log_format"))))

    def tearDown(self) -> None:
        self.link.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [], "nothing is left in the reactor")

    def advance(self, seconds: float, step: float = 0.5) -> None:
        """Let time pass as it does, in steps."""
        for _ in range(int(seconds / step)):
            self.clock.advance(step)

    def routes(self) -> set[bytes]:
        return set(self.relay.forwarders.keys())

    def only_failure(self) -> LinkFailure:
        (failure,) = (why for why, number in self.link.failures.items() if number)
        return failure


class WatchTests(MeshLinkCase):
    """What the peer tells becomes the forwarder table."""

    def test_comes_up(self) -> None:
        """Connecting is not enough, nor is ServerInfo: the first PeerPresent is."""
        self.assertIs(self.link.state, LinkState.CONNECTING)
        client = self.connector.accept()
        self.assertIs(self.link.state, LinkState.LOGGING_IN)
        client.tell(KeepAlive())
        self.assertIs(self.link.state, LinkState.LOGGING_IN)
        client.present(OURS)
        self.assertIs(self.link.state, LinkState.UP)
        self.assertEqual((self.link.connects, self.link.problem), (1, ""))

    def test_presence(self) -> None:
        """Keys are forwarded to from their coming to their going, whatever the reason."""
        client = self.connector.accept(OURS, ALICE, BOB)
        self.assertEqual(self.routes(), {OURS, ALICE, BOB})
        client.gone(ALICE)
        client.gone(BOB, PeerGoneReason.NOT_HERE)
        client.gone(NOBODY)
        self.assertEqual(self.routes(), {OURS})
        self.assertEqual(check(self.relay), [])
        self.assertEqual(len([line for line in self.lines if "no longer knows" in line]), 1)
        client.lose()
        self.assertIn("connection lost, 1 clients are no longer known", self.lines)

    def test_leaving_is_no_news(self) -> None:
        """A client that leaves is not worth a line, nor is a link without clients."""
        client = self.connector.accept(OURS, ALICE)
        client.gone(ALICE)
        client.gone(OURS)
        client.lose()
        self.assertEqual([line for line in self.lines if "no longer" in line], [])

    def test_count_is_told(self) -> None:
        """How many there are is logged when the flood has settled, later now and then."""
        client = self.connector.accept(OURS, ALICE)
        self.clock.advance(SETTLED_S / 2)
        client.present(BOB)
        self.clock.advance(SETTLED_S * 0.6)
        self.assertNotIn("connected; 3 peers", self.lines)
        self.clock.advance(SETTLED_S)
        self.assertIn("connected; 3 peers", self.lines)
        client.gone(BOB)
        self.assertNotIn("2 peers", self.lines)
        self.advance(10)
        client.tell(KeepAlive())
        self.assertIn("2 peers", self.lines)

    def test_limit(self) -> None:
        """A peer that announces too much is not believed beyond the limit, and logged once."""
        client = self.connector.accept(OURS)
        for number in range(100):
            client.present(bytes((number,)) * 32)
        self.assertEqual((len(self.routes()), self.link.announced.refused), (4, 97))
        self.assertEqual(len([line for line in self.lines if "not believed" in line]), 1)
        self.assertIs(self.link.state, LinkState.UP)

    def test_flood_of_gone(self) -> None:
        """A peer cannot fill the log with keys it does not have."""
        client = self.connector.accept(OURS)
        for number in range(100):
            client.gone(bytes((number,)) * 32, PeerGoneReason.NOT_HERE)
        self.assertEqual(len([line for line in self.lines if "no longer knows" in line]), 1)
        self.assertEqual(self.routes(), {OURS})

    def test_itself(self) -> None:
        """Our own relay among the peers: the connection is closed, and none made again."""
        link = MeshLink(
            self.clock,
            self.relay,
            self.peer,
            connector := FakeConnector(self.clock, self.relay.public),
        )
        link.start()
        client = connector.accept(OURS)
        self.assertTrue(client.closed)
        self.assertIs(link.state, LinkState.ITSELF)
        self.assertEqual(self.routes(), set())
        self.advance(10)
        self.assertEqual(len(connector.attempts), 1)
        self.assertEqual(link.describe(), "this relay itself")
        link.stop()


class ForwardTests(MeshLinkCase):
    """Packets for the peer's clients."""

    def test_forwarded(self) -> None:
        """Who is not here but there is reached on the link."""
        client = self.connector.accept(OURS, NOBODY)
        alice = FakeClient(self.relay, "alice")
        alice.send(NOBODY, b"hello")
        self.assertEqual(client.forwarded, [(alice.key, NOBODY, b"hello")])
        self.assertEqual((self.link.forwarded, self.relay.stats.packets_forwarded_out), (1, 1))
        self.assertEqual(self.relay.stats.dropped, 0)

    def test_full(self) -> None:
        """What the link does not take is dropped and counted, by kind; nobody waits."""
        client = self.connector.accept(OURS, NOBODY)
        client.takes = False
        alice = FakeClient(self.relay, "alice")
        alice.send(NOBODY, b"hello")
        alice.send(NOBODY, disco())
        stats = self.relay.stats
        self.assertEqual((self.link.forwarded, self.link.dropped), (0, 2))
        for kind in PacketKind:
            self.assertEqual(stats.packets_dropped[kind][DropReason.MESH_LINK], 1)
        self.assertEqual(stats.packets_forwarded_out, self.link.forwarded + self.link.dropped)
        self.assertEqual(alice.take(), [])

    def test_down(self) -> None:
        """A link that is down takes nothing."""
        self.link.forward_packet(ALICE, BOB, b"x")
        self.assertEqual(self.link.dropped, 1)
        self.assertEqual(self.relay.stats.bytes_dropped[PacketKind.OTHER][DropReason.MESH_LINK], 1)

    def test_unconfirmed(self) -> None:
        """What was forwarded after the last proven ping may be lost when the link breaks."""
        client = self.connector.accept(OURS, NOBODY)
        client.pong(0.125)
        for _ in range(3):
            self.link.forward_packet(ALICE, NOBODY, b"x")
        self.advance(PING_S)
        for _ in range(5):
            self.link.forward_packet(ALICE, NOBODY, b"x")
        client.pong()
        self.assertEqual((self.link.round_trip_s, self.link.unconfirmed), (0.25, 0))
        client.lose()
        self.assertEqual((self.link.unconfirmed, self.link.round_trip_s), (5, None))
        self.advance(FIRST_PAUSE_S)
        client = self.connector.accept(OURS, NOBODY)
        self.link.forward_packet(ALICE, NOBODY, b"x")
        client.lose()
        self.assertEqual((self.link.forwarded, self.link.unconfirmed), (9, 6))


class BreakTests(MeshLinkCase):
    """Links that fail, and come back."""

    def test_receivers_are_told(self) -> None:
        """A link that breaks takes its clients along; who heard from them is told."""
        client = self.connector.accept(OURS, NOBODY)
        peer = FakeClient(self.relay, "r2", mesh=True)
        alice = FakeClient(self.relay, "alice")
        self.relay.forward_in(peer.conn, NOBODY, alice.key, b"hello")
        alice.take()
        client.lose()
        self.assertEqual(alice.take(), [PeerGone(NOBODY, PeerGoneReason.DISCONNECTED)])
        self.assertEqual((self.routes(), check(self.relay)), (set(), []))
        self.assertIs(self.link.state, LinkState.WAITING)
        self.assertIs(self.only_failure(), LinkFailure.LOST)

    def test_broken_ten_times(self) -> None:
        """Each break takes the old clients back and each new connection brings its own."""
        for number in range(10):
            client = self.connector.accept(OURS, bytes((number + 1,)) * 32)
            self.assertEqual(self.routes(), {OURS, bytes((number + 1,)) * 32})
            client.lose()
            self.assertEqual(self.routes(), set())
            self.advance(MAX_PAUSE_S)
            self.assertEqual(len(self.connector.attempts), number + 2)
        self.assertEqual((self.link.connects, self.link.failures[LinkFailure.LOST]), (10, 10))

    def test_restarting_peer(self) -> None:
        """A peer that says when it is back is asked then, if that is sooner than otherwise."""
        for told_ms, pause_s in ((200, 0.2), (0, 0.0), (8000, FIRST_PAUSE_S)):
            client = self.connector.accept(OURS)
            self.advance(STEADY_S)
            client.pong()
            client.tell(Restarting(told_ms, 30_000))
            client.lose()
            self.assertTrue(self.link.problem.startswith("lost: it said that it restarts; "))
            attempts = len(self.connector.attempts)
            self.clock.advance(pause_s - 0.01 if pause_s else 0)
            self.assertEqual(len(self.connector.attempts) - attempts, 0 if pause_s else 1)
            self.clock.advance(0.02 if pause_s else 0)
            self.assertEqual(len(self.connector.attempts), attempts + 1)

    def test_peer_that_always_restarts(self) -> None:
        """It is not believed again and again."""
        self.connector.accept(OURS)
        for pause_s in (FIRST_PAUSE_S, 2 * FIRST_PAUSE_S):
            client = self.connector.clients[-1]
            client.tell(Restarting(0, 0))
            client.lose()
            attempts = len(self.connector.attempts)
            self.clock.advance(pause_s - 0.01)
            self.assertEqual(len(self.connector.attempts), attempts)
            self.clock.advance(0.02)
            self.connector.accept(OURS)

    def test_pause_grows(self) -> None:
        """Attempts that fail come ever more rarely, up to a bound; each is counted."""
        pauses = []
        for _ in range(8):
            self.connector.refuse()
            before, attempts = self.clock.seconds(), len(self.connector.attempts)
            while len(self.connector.attempts) == attempts:
                self.clock.advance(0.5)
            pauses.append(self.clock.seconds() - before)
        self.assertEqual(pauses, [1, 2, 4, 8, 16, MAX_PAUSE_S, MAX_PAUSE_S, MAX_PAUSE_S])
        self.assertEqual(self.link.failures[LinkFailure.UNREACHABLE], 8)
        self.assertIs(self.only_failure(), LinkFailure.UNREACHABLE)

    def test_pause_after_steady_link(self) -> None:
        """A link that was up for a while comes back fast, one that flaps does not."""
        pauses = []
        for steady in (0, 0, STEADY_S - 1, STEADY_S, 0):
            client = self.connector.accept(OURS)
            self.advance(steady)
            client.lose()
            before, attempts = self.clock.seconds(), len(self.connector.attempts)
            while len(self.connector.attempts) == attempts:
                self.clock.advance(0.5)
            pauses.append(self.clock.seconds() - before)
        self.assertEqual(pauses, [1, 2, 4, 1, 2])

    def test_jitter(self) -> None:
        """Relays that lost one peer together do not come back to it together."""
        asked = []

        def vary(low: float, high: float) -> float:
            asked.append((low, high))
            return high

        link = MeshLink(
            self.clock, self.relay, self.peer, connector := FakeConnector(self.clock), vary=vary
        )
        link.start()
        connector.refuse()
        self.advance(FIRST_PAUSE_S)
        self.assertEqual((asked, len(connector.attempts)), ([(0.5, 1.5)], 1))
        self.advance(FIRST_PAUSE_S / 2)
        self.assertEqual(len(connector.attempts), 2)
        link.stop()

    def test_wrong_key(self) -> None:
        """A peer that answers but closes WatchConns is told apart from one out of reach."""
        self.connector.accept().lose("r2 closed the connection")
        self.assertIs(self.only_failure(), LinkFailure.REFUSED)
        self.assertIn("mesh key", self.link.problem)
        self.assertIn("mesh key", self.lines[-1])
        self.assertIn("takes no logins at present", self.link.problem)
        self.advance(FIRST_PAUSE_S)
        self.connector.refuse("connection refused")
        self.assertEqual(self.link.failures[LinkFailure.UNREACHABLE], 1)
        self.assertNotIn("mesh key", self.lines[-1])
        self.assertNotIn("--mesh-ca-file", self.link.problem)

    def test_wrong_certificate(self) -> None:
        """What a map calls CertName is said in the words of the list of peers."""
        self.connector.refuse("put it into CertName")
        self.assertIn("CertName is what stands behind #", self.link.problem)

    def test_failed_at_once(self) -> None:
        """An attempt that fails before it has begun is followed by others like any."""
        self.link.stop()
        self.patch(self.connector, "connect", lambda hear: fail(ConnectFailed("not even tried")))
        self.link.start()
        self.assertEqual(self.link.problem, "unreachable: not even tried")
        self.advance(FIRST_PAUSE_S)
        self.assertEqual(self.link.failures[LinkFailure.UNREACHABLE], 2)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_silent_peer(self) -> None:
        """A relay that takes the login and then says nothing is given up."""
        client = self.connector.accept()
        self.advance(LOGIN_S)
        self.assertEqual(len(client.aborted), 1)
        self.assertIs(self.only_failure(), LinkFailure.SILENT)
        self.advance(FIRST_PAUSE_S)
        self.connector.accept().lose()
        self.assertEqual(self.link.failures[LinkFailure.REFUSED], 1)

    def test_stalled_peer(self) -> None:
        """A peer that answers no pings and sends nothing else is dead within fifteen seconds."""
        client = self.connector.accept(OURS)
        client.pong()
        self.advance(DEAD_S - PING_S)
        self.assertEqual(client.aborted, [])
        self.advance(PING_S)
        self.assertEqual(client.aborted, ["sent nothing for 15 s, and answered no ping"])
        self.assertIs(self.only_failure(), LinkFailure.LOST)

    def test_quiet_peer(self) -> None:
        """One that has nothing to say but its pongs is alive."""
        client = self.connector.accept(OURS)
        for _ in range(10):
            self.advance(PING_S - 0.5)
            client.pong()
            self.advance(0.5)
        self.assertEqual(client.aborted, [])
        self.assertIs(self.link.state, LinkState.UP)

    def test_busy_peer(self) -> None:
        """One that drops our pings but tells us of its clients is alive."""
        client = self.connector.accept(OURS)
        for number in range(10):
            self.advance(PING_S)
            client.present(bytes((number,)) * 32)
        self.assertEqual(client.aborted, [])

    def test_log_does_not_repeat(self) -> None:
        """The same trouble is one line in ten minutes; a new one is told at once."""
        for _ in range(15):
            self.connector.refuse("same")
            self.advance(MAX_PAUSE_S)
        self.assertEqual(self.lines.count("unreachable: same"), 1)
        self.connector.refuse("other")
        self.assertEqual(self.lines.count("unreachable: other"), 1)
        self.advance(REPEAT_LOG_S)
        self.connector.refuse("other")
        self.assertEqual(self.lines.count("unreachable: other"), 2)
        for _ in range(2):
            self.advance(MAX_PAUSE_S)
            self.connector.accept(OURS).lose("gone")
        self.assertEqual(self.lines.count("lost: gone"), 2, "the link was up in between")

    def test_unexpected_error(self) -> None:
        """A mistake of ours while connecting is logged, and does not end the link for good."""
        self.connector.attempts[-1].errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.advance(FIRST_PAUSE_S)
        self.assertEqual(len(self.connector.attempts), 2)


class StopTests(MeshLinkCase):
    """Links that are not wanted any more."""

    def test_while_connecting(self) -> None:
        """The attempt is given up."""
        self.link.stop()
        self.assertEqual(self.connector.given_up, 1)
        self.assertIs(self.link.state, LinkState.STOPPED)
        self.advance(MAX_PAUSE_S)
        self.assertEqual(len(self.connector.attempts), 1)

    def test_while_up(self) -> None:
        """The connection is closed and its clients are taken back."""
        client = self.connector.accept(OURS, ALICE)
        self.assertIsNone(self.successResultOf(self.link.stop()))
        self.assertTrue(client.closed)
        self.assertEqual((self.routes(), self.relay.mesh_books), (set(), []))
        self.assertEqual(set(self.link.failures.values()), {0})
        client.present(BOB)
        self.assertEqual(self.routes(), set())

    def test_while_waiting(self) -> None:
        """Nothing is tried any more."""
        self.connector.refuse()
        self.link.stop()
        self.advance(MAX_PAUSE_S)
        self.assertEqual(len(self.connector.attempts), 1)

    def test_again(self) -> None:
        """A link may be stopped twice, and started again."""
        self.link.stop()
        self.link.stop()
        self.link.start()
        self.connector.accept(OURS)
        self.assertEqual(self.routes(), {OURS})

    def test_again_at_once(self) -> None:
        """What is left of the old connection does not disturb the new one."""
        old = self.connector.accept(OURS)
        old.lingers = True
        self.link.stop()
        self.link.start()
        self.connector.accept(OURS, ALICE)
        old.lose()
        self.assertIs(self.link.state, LinkState.UP)
        self.assertEqual(self.routes(), {OURS, ALICE})

    def test_dial_host(self) -> None:
        """What is dialed in place of the name is told."""
        peer = MeshPeer(name="a/b", host="a", dial_host="b")
        link = MeshLink(self.clock, self.relay, peer, FakeConnector(self.clock))
        link.start()
        self.assertIn("will dial b for a", self.lines)
        link.stop()


class DescribeTests(MeshLinkCase):
    """The line on the debug page."""

    def test_up(self) -> None:
        """How many clients, how far, how much was forwarded and lost."""
        client = self.connector.accept(OURS, ALICE)
        client.pong(0.0123)
        self.link.forward_packet(BOB, ALICE, b"x")
        self.assertEqual(
            self.link.describe(),
            "up, 2 clients, round trip 12.3 ms, 1 forwarded, 0 dropped, 0 unconfirmed",
        )

    def test_down(self) -> None:
        """Why there is no link."""
        self.connector.refuse("no route")
        self.assertEqual(
            self.link.describe(),
            "down, 0 forwarded, 0 dropped, 0 unconfirmed, unreachable: no route",
        )
