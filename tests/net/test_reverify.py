"""Tests of :mod:`derp.net.reverify`: who may stay, and when that is asked."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.core.admission import AdmissionStats, Verdict
from derp.core.connection import RemoteAddress
from derp.core.relay import Relay, RelayIdentity
from derp.net.reverify import AT_ONCE, GOODBYE, TURN, Reverification
from derp.wire.frames import encode_health
from tests.shown_relay import RELAY_PRIVATE, FakeClient

ALLOWED, DENIED, GONE = Verdict.ALLOWED, Verdict.DENIED, Verdict.UNREACHABLE
HEALTH = encode_health(GOODBYE)


class FakeAdmission:
    """Says of each key what the test wants, at once or when asked to."""

    def __init__(self, clock: Clock) -> None:
        self.stats = AdmissionStats()
        self.clock = clock
        self.verdicts: dict[bytes, Verdict] = {}
        self.asked: list[tuple[float, bytes]] = []
        self.held: list[tuple[bytes, Deferred[Verdict]]] | None = None

    def recheck(self, key: bytes, remote: RemoteAddress) -> Deferred[Verdict]:
        self.asked.append((self.clock.seconds(), key))
        if self.held is None:
            return succeed(self.verdicts.get(key, ALLOWED))
        answer: Deferred[Verdict] = Deferred()
        self.held.append((key, answer))
        return answer

    def answer(self) -> None:
        """Answer the oldest question."""
        assert self.held is not None
        key, answer = self.held.pop(0)
        answer.callback(self.verdicts.get(key, ALLOWED))


class ReverificationTests(SynchronousTestCase):
    """:class:`derp.net.reverify.Reverification` on a relay with fake sockets."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.relay = Relay(RelayIdentity(RELAY_PRIVATE, bytes(range(32))))
        self.admission = FakeAdmission(self.clock)

    def start(self, interval_s: float) -> Reverification:
        admission: Any = self.admission
        service = Reverification(self.clock, self.relay, admission, interval_s)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    def client(self, number: int = 1) -> FakeClient:
        self.relay.now = self.clock.seconds()
        return FakeClient(self.relay, number.to_bytes(4, "big") * 8)

    def run_for(self, seconds: float, step: float = 0.5) -> None:
        self.clock.pump([step] * round(seconds / step))

    def assert_revoked(self, client: FakeClient) -> None:
        """Told, then closed, once."""
        self.assertEqual(client.sink.written.count(HEALTH), 1)
        self.assertEqual(client.sink.written[-1], HEALTH)
        self.assertEqual(
            client.sink.closed, [f"client nodekey:{client.conn.key.hex()} is no longer admitted"]
        )

    def test_revoked_within_interval(self) -> None:
        """Whoever is refused is told and closed before the interval is over, once."""
        for interval_s in (1.0, 10.0, 60.0, 3600.0):
            self.setUp()
            self.start(interval_s)
            client, other = self.client(1), self.client(2)
            step = min(interval_s / 400, 0.5)  # at most this late is each of its two timers
            self.run_for(1.7 * interval_s, step)
            self.assertEqual(client.sink.closed, [])
            self.admission.verdicts[client.conn.key] = DENIED
            self.run_for(interval_s + 2 * step, step)
            self.assert_revoked(client)
            self.run_for(interval_s, step)
            self.assert_revoked(client)
            self.assertEqual(self.admission.stats.revoked, 1)
            self.assertEqual(other.sink.closed, [])

    def test_new_client_within_interval(self) -> None:
        """Also one that has just connected."""
        self.start(60.0)
        self.run_for(100)
        client = self.client()
        self.admission.verdicts[client.conn.key] = DENIED
        self.run_for(60)
        self.assert_revoked(client)

    def test_asked_twice(self) -> None:
        """A refusal is confirmed soon, and one that is taken back was none."""
        service = self.start(0.0)
        client = self.client()
        self.admission.verdicts[client.conn.key] = DENIED
        service.check_all()
        self.assertEqual((len(self.admission.asked), client.sink.closed), (1, []))
        self.admission.verdicts.clear()
        self.run_for(5)
        self.assertEqual((len(self.admission.asked), client.sink.closed), (2, []))
        self.admission.verdicts[client.conn.key] = DENIED
        service.check_all()
        self.run_for(5)
        self.assert_revoked(client)

    def test_nobody_knows(self) -> None:
        """Sources that cannot be asked throw nobody out, however long."""
        self.start(10.0)
        client = self.client()
        for verdict in (ALLOWED, GONE) * 20:
            self.admission.verdicts[client.conn.key] = verdict
            self.run_for(7)
        self.assertGreater(len(self.admission.asked), 20)
        self.assertEqual(client.sink.closed, [])

    def test_unreachable_does_not_forgive(self) -> None:
        """A source that vanishes between two refusals has not changed its mind."""
        service = self.start(0.0)
        client = self.client()
        for verdict in (DENIED, GONE, DENIED):
            self.admission.verdicts[client.conn.key] = verdict
            service.check_all()
            self.clock.advance(0.1)
            self.admission.verdicts[client.conn.key] = GONE
            self.run_for(5)
        self.assertEqual(self.admission.stats.revoked, 1)

    def test_spread(self) -> None:
        """Those who came together are not asked about together; each has its turn."""
        self.start(100.0)
        clients = [self.client(number) for number in range(1, 101)]
        self.run_for(100)
        times = [at for at, _ in self.admission.asked]
        self.assertEqual({key for _, key in self.admission.asked}, {c.conn.key for c in clients})
        self.assertLess(max(map(times.count, set(times))), 40)
        self.assertLessEqual(len(times), 200)

    def test_off(self) -> None:
        """Without an interval nothing ticks."""
        self.start(0.0)
        self.client()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_mesh_peers_are_exempt(self) -> None:
        """As at their login."""
        service = self.start(10.0)
        client = self.client()
        client.conn.is_mesh = True
        service.check_all()
        self.run_for(30)
        self.assertEqual(self.admission.asked, [])

    def test_concurrency(self) -> None:
        """So many at once, and every one in the end."""
        service = self.start(0.0)
        self.admission.held = []
        clients = [self.client(number) for number in range(1, 4 * AT_ONCE)]
        service.check_all()
        self.assertEqual(len(self.admission.held), AT_ONCE)
        while self.admission.held:
            self.admission.answer()
            self.assertLessEqual(len(self.admission.held), AT_ONCE)
        self.assertEqual(len(self.admission.asked), len(clients))

    def test_many_at_once(self) -> None:
        """If answers take no time, the relay still has its turns between."""
        service = self.start(0.0)
        clients = [self.client(number) for number in range(1, 3 * TURN)]
        service.check_all()
        self.assertEqual(len(self.admission.asked), TURN)
        for _ in range(3):
            self.clock.advance(0)
        self.assertEqual(len(self.admission.asked), len(clients))

    def test_again_while_asking(self) -> None:
        """What is on its way may be an old answer: a new reason to ask asks again."""
        service = self.start(0.0)
        self.admission.held = []
        client = self.client()
        service.check_all()
        service.check_all()
        service.check_all()
        self.admission.answer()
        self.admission.verdicts[client.conn.key] = DENIED
        self.admission.answer()
        self.run_for(5)
        self.admission.answer()
        self.assertEqual(len(self.admission.asked), 3)
        self.assert_revoked(client)

    def test_gone_meanwhile(self) -> None:
        """A client that leaves while it is asked about is nobody's business."""
        service = self.start(0.0)
        self.admission.held = []
        client = self.client()
        self.admission.verdicts[client.conn.key] = DENIED
        service.check_all()
        client.session.lost()
        self.admission.answer()
        self.run_for(5)
        self.assertEqual((len(self.admission.asked), self.clock.getDelayedCalls()), (1, []))

    def test_failure(self) -> None:
        """A bug of ours is logged and costs nobody the connection, nor its turn."""
        service = self.start(0.0)
        client = self.client()
        for _ in range(AT_ONCE + 1):
            self.patch(self.admission, "recheck", lambda *_: fail(ZeroDivisionError("x")))
            service.check_all()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), AT_ONCE + 1)
        self.assertEqual(client.sink.closed, [])

    def test_stop(self) -> None:
        """Nothing is left in the clock, and late answers do nothing."""
        service = self.start(10.0)
        refused, asked = self.client(1), self.client(2)
        self.admission.verdicts = {refused.conn.key: DENIED, asked.conn.key: DENIED}
        service.check_all()
        self.admission.held = []
        service.check_all()
        service.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for _ in list(self.admission.held):
            self.admission.answer()
        self.assertEqual((refused.sink.closed, asked.sink.closed), ([], []))
        service.startService()
