"""Which certificates are served, got and renewed; with and without txacme's loop."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial import util
from twisted.trial.unittest import SynchronousTestCase

from derp.net.acme_certificates import ACMECertificates
from derp.net.acme_client import ACMEClient, certificate_id
from derp.net.acme_http import SignedRequests
from derp.net.acme_problem import ACMEError
from derp.net.acme_rotation import TxacmeRotation
from derp.net.cert_files import parse_keyed_chain
from derp.net.certificate_cache import HostFiles
from derp.wire.jose import AccountKey
from tests.certificate_files import NOW, Issued, issue
from tests.net.fake_ca import BASE, FakeCA, problem
from tests.net.test_acme_client import FakeSolver
from tests.tls_clients import client_context, shake_hands
from tests.wall_clock import WallClock

NAME = "derp.example.com"
DAY = 86400.0
SERVER_KEY = bytes(range(32))


def der(issued: Issued) -> bytes:
    """A certificate as it goes over the wire."""
    return issued.certificate.public_bytes(Encoding.DER)


class CertificatesCase(SynchronousTestCase):
    """Certificates of an authority in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wall = WallClock(self.clock, NOW)
        self.ca = FakeCA(self.wall)
        self.place = Path(self.mktemp())
        self.made = self.make()

    def make(self) -> ACMECertificates:
        """Begin anew on the same directory."""
        return ACMECertificates(
            self.clock,
            self.wall.seconds,
            HostFiles(self.place),
            self.client,
            SERVER_KEY,
            solvers=[FakeSolver("tls-alpn-01")],
            limit_s=300,
            luck=lambda: 0.0,
        )

    def client(self, key: AccountKey) -> ACMEClient:
        """A client of the authority."""
        return ACMEClient(
            SignedRequests(self.ca, self.clock, self.wall.seconds), self.clock, f"{BASE}/dir", key
        )

    def get(self) -> ssl.SSLContext:
        """Ask for the certificate, and wait for it."""
        context = self.made.context_for(NAME)
        if isinstance(context, Deferred):
            self.clock.advance(0)
            return self.successResultOf(context)  # type: ignore[no-any-return]
        return context

    def leaf_end(self) -> float:
        """When what is served ends."""
        served = self.made.served(NAME)
        assert served is not None
        return served.not_after

    def pass_time(self, seconds: float, step: float = 3600.0) -> None:
        """Let time pass, with a tick at each step."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(min(step, end - self.clock.seconds()))
            self.made.tick()
            self.clock.advance(0)


class ServingTests(CertificatesCase):
    """From nothing to a certificate."""

    def test_first_client_waits(self) -> None:
        """One order for many; then it is there at once, and on disk."""
        waiting: Any = [self.made.context_for(NAME) for _ in range(3)]
        self.clock.advance(0)
        contexts = {self.successResultOf(each) for each in waiting}
        self.assertEqual(len(contexts), 1)
        self.assertEqual(len(self.ca.orders), 1)
        self.assertIn(self.made.context_for(NAME), contexts)
        again = self.make()
        again.load([NAME])
        self.assertIsInstance(again.context_for(NAME), ssl.SSLContext)
        self.assertEqual(len(self.ca.orders), 1)

    def test_failure(self) -> None:
        """The reason is told and kept; the next client does not cost the authority anything."""
        self.ca.faults["/dir"] = [problem(503, "serverInternal", "gone")]
        waiting: Any = self.made.context_for(NAME)
        self.clock.advance(0)
        self.assertIn("gone", self.failureResultOf(waiting, ACMEError).getErrorMessage())
        status = self.made.statuses[NAME]
        self.assertEqual((status.attempts, status.failures, status.last_failure), (1, 1, NOW))
        asked = len(self.ca.requests)
        waiting = self.made.context_for(NAME)
        self.failureResultOf(waiting, ACMEError)
        self.assertEqual(len(self.ca.requests), asked)

    def test_valid_one_is_served_though_due(self) -> None:
        """A due certificate is no reason to wait."""
        first = self.get()
        self.clock.advance(80 * DAY)
        self.assertIs(self.made.context_for(NAME), first)
        self.clock.advance(10 * DAY)
        self.assertIsInstance(self.made.context_for(NAME), Deferred)
        self.clock.advance(0)

    def test_rsa_beside(self) -> None:
        """What autocert got for clients without ECDSA is served to them, while it can be."""
        old = issue([NAME], key=rsa.generate_private_key(65537, 2048))
        weak = issue([NAME], key=rsa.generate_private_key(65537, 1024))
        client = client_context(
            maximum=ssl.TLSVersion.TLSv1_2, ciphers="ECDHE-RSA-AES128-GCM-SHA256"
        )
        self.place.mkdir()
        self.get()
        self.assertRaises(ssl.SSLError, shake_hands, self.get(), client)
        (self.place / f"{NAME}+rsa").write_bytes(old.key_pem() + old.pem)
        self.made = self.make()
        self.made.load([NAME])
        self.assertEqual(shake_hands(self.get(), client).chain[0], der(old))
        (self.place / f"{NAME}+rsa").write_bytes(weak.key_pem() + weak.pem)
        self.made = self.make()
        self.made.load([NAME])
        self.assertRaises(ssl.SSLError, shake_hands, self.get(), client)
        self.assertNotEqual(shake_hands(self.get(), client_context()).chain[0], der(old))
        self.assertEqual(self.ca.asked("/new-order"), 1)

    def test_unwritable_directory(self) -> None:
        """It is served from memory and written as soon as that works."""
        self.get()
        self.clock.advance(DAY)
        save = mock.Mock(side_effect=OSError(30, "Read-only file system"))
        files: Any = self.made._files
        with mock.patch.object(files, "save", save):
            self.made.renew(NAME)
            self.clock.advance(0)
            status = self.made.statuses[NAME]
            unwritten = "not written to --certdir: Read-only file system"
            self.assertEqual((status.failures, status.last_error), (0, unwritten))
            served = self.made.served(NAME)
            self.pass_time(60, step=15)
            self.assertEqual(status.last_error, unwritten)
        self.assertGreater(save.call_count, 1)
        self.pass_time(60, step=15)
        self.assertEqual(status.last_error, "")
        with mock.patch.object(files, "save", save):
            self.pass_time(300, step=15)
        self.assertLess(save.call_count, 5, "once written it is not written again")
        again = self.make()
        again.load([NAME])
        found = again.served(NAME)
        assert served is not None and found is not None
        self.assertEqual(found.leaf_der, served.leaf_der)

    def test_unwritten_at_the_end(self) -> None:
        """The operator's SIGHUP has it written at once; so has the relay's end."""

        def hang_up() -> None:
            self.made.forgive()
            self.made.tick()

        for end in (hang_up, self.made.stop):
            files: Any = self.made._files
            full = OSError(28, "No space left on device")
            self.clock.advance(DAY)
            with (
                mock.patch.object(files, "save", side_effect=full),
                capturedLogs() as logged,
            ):
                self.made.renew(NAME)
                self.clock.advance(0)
            self.assertIn("make room on that disk", str(formatEvent(logged[-1])))
            served = self.made.served(NAME)
            end()
            again = self.make()
            again.load([NAME])
            found = again.served(NAME)
            assert served is not None and found is not None
            self.assertEqual(found.leaf_der, served.leaf_der)

    def test_clock_is_set(self) -> None:
        """Before its clock is set a machine has no certificate; then it is the one on disk."""
        self.get()
        self.wall.set_by(-NOW)
        self.made = self.make()
        self.made.load([NAME])
        self.assertIsNone(self.made.served(NAME))
        self.ca.faults["/dir"] = [problem(400, "malformed", "who are you?")]
        waiting: Any = self.made.context_for(NAME)
        self.clock.advance(0)
        self.failureResultOf(waiting, ACMEError)
        self.wall.set_by(NOW)
        waiting = self.made.context_for(NAME)
        self.assertIn("the next is made", self.failureResultOf(waiting).getErrorMessage())
        self.made.flights.forgive()
        self.assertIsInstance(self.made.context_for(NAME), ssl.SSLContext)
        self.assertEqual(len(self.ca.orders), 1)

    def test_validity_by_the_wall(self) -> None:
        """What has ended by the time of day is not served, however little time has passed."""
        self.get()
        self.wall.set_by(91 * DAY)
        self.assertIsInstance(self.made.context_for(NAME), Deferred)
        self.clock.advance(0)
        self.assertGreater(self.leaf_end(), NOW + 91 * DAY)

    def test_slow_clock(self) -> None:
        """What is not valid yet by our clock has just been signed: it is served, ordered once."""
        self.ca.clock = WallClock(self.clock, NOW)
        self.wall.set_by(-DAY)
        first = self.get()
        self.assertIs(self.made.context_for(NAME), first)
        self.pass_time(DAY)
        self.assertEqual(len(self.ca.orders), 1)

    def test_fast_clock(self) -> None:
        """What has ended by our clock is none; the clock is named, and the authority has rest."""
        self.ca.clock = WallClock(self.clock, NOW)
        self.wall.set_by(100 * DAY)
        for minutes in (0, 1, 2):
            self.clock.advance(minutes * 60)
            waiting: Any = self.made.context_for(NAME)
            self.clock.advance(0)
            self.assertIn("set the clock", self.failureResultOf(waiting).getErrorMessage())
            self.failureResultOf(self.made.context_for(NAME), ACMEError)
        self.assertEqual(len(self.ca.orders), 3)
        self.assertEqual(self.made.statuses[NAME].failures, 3)
        self.assertIsNone(self.made.served(NAME))

    def test_rest_by_the_clock(self) -> None:
        """How long a failure is rested for is not a matter of the time of day."""
        self.ca.faults["/dir"] = [problem(503, "serverInternal", "gone")]
        waiting: Any = self.made.context_for(NAME)
        self.clock.advance(0)
        self.failureResultOf(waiting, ACMEError)
        self.wall.set_by(-DAY)
        self.clock.advance(59.0)
        self.assertFalse(self.made.flights.may_begin(NAME))
        self.clock.advance(1.0)
        self.assertTrue(self.made.flights.may_begin(NAME))

    def test_stop(self) -> None:
        """Nothing is left in the reactor when the authority hangs."""
        self.ca.faults["/dir"] = [None]
        waiting: Any = self.made.context_for(NAME)
        self.clock.advance(0)
        self.made.stop()
        self.failureResultOf(waiting, ACMEError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class RenewalTests(CertificatesCase):
    """Without txacme: what addresses have, and hosts if txacme breaks."""

    def test_renewed_when_due(self) -> None:
        """At 60 of 90 days, and the new order names the old certificate."""
        self.ca.window = _window(NOW + 80 * DAY)
        self.get()
        old, chain = self.leaf_end(), self.made.current()[NAME]
        self.pass_time(59 * DAY)
        self.assertEqual(self.leaf_end(), old)
        self.pass_time(2 * DAY)
        self.assertGreater(self.leaf_end(), old)
        self.assertEqual(self.ca.orders[1]["replaces"], certificate_id(chain.leaf))

    def test_authority_asks_for_it(self) -> None:
        """ARI may ask for renewal long before it is due."""
        self.get()
        old = self.leaf_end()
        self.made._client = None
        self.ca.window = _window(NOW + 5 * DAY)
        self.pass_time(4.9 * DAY)
        self.assertEqual(self.leaf_end(), old)
        self.pass_time(0.3 * DAY)
        self.assertGreater(self.leaf_end(), old)

    def test_due_at_once(self) -> None:
        """A clock that is ahead makes new certificates due; that is no reason to get many."""
        self.ca.clock = WallClock(self.clock, NOW)
        self.wall.set_by(70 * DAY)
        self.get()
        self.pass_time(6 * 3600 - 30, step=15)
        self.assertEqual(len(self.ca.orders), 1)
        self.pass_time(60, step=15)
        self.assertEqual(len(self.ca.orders), 2)

    def test_authority_asks_without_end(self) -> None:
        """Nor is an authority that advises the past for each new one."""
        self.ca.window = _window(NOW - 5 * DAY)
        self.get()
        self.pass_time(6 * 3600 - 30, step=15)
        self.assertEqual(len(self.ca.orders), 1)
        self.pass_time(6 * 3600, step=15)
        self.assertEqual(len(self.ca.orders), 2)

    def test_failures_are_repeated(self) -> None:
        """A failed renewal is tried again within the hour, and the old one is served."""
        self.get()
        old = self.leaf_end()
        self.ca.faults["/new-order"] = [problem(500, "serverInternal", "oops")] * 3
        self.pass_time(60 * DAY)
        self.assertEqual(self.made.statuses[NAME].failures, 1)
        self.assertEqual(self.leaf_end(), old)
        self.pass_time(900, step=15)
        self.assertEqual(self.made.statuses[NAME].failures, 3)
        self.assertGreater(self.leaf_end(), old)
        self.assertEqual(self.made.statuses[NAME].last_error, "")

    def test_short_life(self) -> None:
        """Six days: renewed at four."""
        self.ca.lifetime = timedelta(days=6)
        self.get()
        old = self.leaf_end()
        self.pass_time(3.9 * DAY)
        self.assertEqual(self.leaf_end(), old)
        self.pass_time(0.2 * DAY)
        self.assertGreater(self.leaf_end(), old)

    def test_wanted_are_on_disk(self) -> None:
        """What was not valid at the start, when the clock was wrong, is not ordered anew."""
        self.get()
        self.wall.set_by(-NOW)
        self.made = self.make()
        self.made.load([NAME])
        self.wall.set_by(NOW)
        self.made.want([NAME])
        self.clock.advance(0)
        self.assertIsNotNone(self.made.served(NAME))
        self.assertEqual(len(self.ca.orders), 1)

    def test_due_by_the_wall(self) -> None:
        """The next tick after the clock was set renews what is due by then."""
        self.get()
        old = self.leaf_end()
        self.wall.set_by(61 * DAY)
        self.made.tick()
        self.clock.advance(0)
        self.assertGreater(self.leaf_end(), old)

    def test_wanted_addresses(self) -> None:
        """What is configured is got without being asked for, and tried again."""
        self.ca.faults["/dir"] = [problem(500, "serverInternal", "oops")]
        for _ in range(3):
            self.made.want(["203.0.113.7"])
            self.clock.advance(0)
        self.assertEqual(self.made.statuses["203.0.113.7"].failures, 1)
        self.clock.advance(60)
        self.made.want(["203.0.113.7"])
        self.clock.advance(0)
        self.assertIsNotNone(self.made.served("203.0.113.7"))


class TxacmeTests(CertificatesCase):
    """txacme's service in the lead."""

    suppress = [util.suppress(module="txacme")]

    def setUp(self) -> None:
        super().setUp()
        self.use_txacme()

    def use_txacme(self) -> None:
        """Put its loop in."""
        self.made.rotation = TxacmeRotation(self.clock, self.wall.seconds, self.made, lambda: 0.0)
        self.made.start()
        self.addCleanup(self.made.stop)

    def let_loop_run(self, seconds: float, step: float = 900.0) -> None:
        """Let time pass without our own watch."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(min(step, end - self.clock.seconds()))

    def test_on_demand(self) -> None:
        """A waiting client's attempt goes through the service to the store, and to disk."""
        self.get()
        self.assertEqual(len(self.ca.orders), 1)
        self.assertTrue((self.place / NAME).read_bytes().startswith(b"-----BEGIN EC PRIVATE"))

    def test_its_loop_renews(self) -> None:
        """Our own watch does nothing here: the service sees what is due, again and again."""
        self.get()
        old = self.leaf_end()
        self.let_loop_run(59 * DAY)
        self.assertEqual(self.leaf_end(), old)
        self.let_loop_run(2 * DAY)
        self.assertGreater(self.leaf_end(), old)
        old = self.leaf_end()
        self.let_loop_run(61 * DAY)
        self.assertGreater(self.leaf_end(), old)
        self.assertEqual(self.made.statuses[NAME].attempts, 3)

    def test_due_by_the_wall(self) -> None:
        """Its next check judges by the time of day; that comes when time has really passed."""
        self.get()
        old = self.leaf_end()
        self.wall.set_by(61 * DAY)
        self.let_loop_run(3599.0, step=3599.0)
        self.assertEqual(self.leaf_end(), old)
        self.let_loop_run(1.0)
        self.assertGreater(self.leaf_end(), old)

    def test_due_at_once(self) -> None:
        """Its checks do not renew without end, either, what is due as soon as it is there."""
        self.ca.clock = WallClock(self.clock, NOW)
        self.wall.set_by(70 * DAY)
        self.get()
        self.let_loop_run(5 * 3600)
        self.assertEqual(len(self.ca.orders), 1)

    def test_it_adapts_to_short_lives(self) -> None:
        """A certificate of an hour is looked at every few minutes."""
        self.ca.lifetime = timedelta(hours=1)
        self.get()
        old = self.leaf_end()
        self.let_loop_run(45 * 60, step=10)
        self.assertGreater(self.leaf_end(), old)

    def test_failure_is_repeated_by_our_watch(self) -> None:
        """The service would try again after its interval; our watch does sooner."""
        self.get()
        old = self.leaf_end()
        self.ca.faults["/new-order"] = [problem(500, "serverInternal", "oops")]
        self.let_loop_run(60 * DAY + 1800)
        self.assertEqual(self.made.statuses[NAME].failures, 1)
        self.assertEqual(self.leaf_end(), old)
        self.pass_time(300, step=15)
        self.assertGreater(self.leaf_end(), old)

    def test_our_watch_when_it_fails(self) -> None:
        """A service that does nothing costs half of the margin, not the certificate."""
        self.get()
        old = self.leaf_end()
        assert self.made.rotation is not None
        rotation: Any = self.made.rotation
        rotation._service.stopService()
        self.pass_time(74 * DAY)
        self.assertEqual(self.leaf_end(), old)
        self.pass_time(2 * DAY)
        self.assertGreater(self.leaf_end(), old)

    def test_cached_at_start(self) -> None:
        """A due certificate from disk is served at once and renewed by the first check."""
        issued = issue([NAME], begins=timedelta(days=-70), ends=timedelta(days=20))
        key = issued.key_pem(PrivateFormat.TraditionalOpenSSL)
        HostFiles(self.place).save(NAME, parse_keyed_chain(issued.pem, key, "c", "k"))
        self.made.stop()
        self.made = self.make()
        self.made.load([NAME])
        self.use_txacme()
        self.assertIsInstance(self.made.context_for(NAME), ssl.SSLContext)
        self.clock.advance(0)
        self.assertGreater(self.leaf_end(), NOW + 80 * DAY)

    def test_one_flight(self) -> None:
        """Its check joins the attempt that a client waits for."""
        self.ca.faults["/dir"] = [None]
        waiting: Any = self.made.context_for(NAME)
        waiting.addErrback(lambda _: None)
        self.clock.advance(0)
        service: Any = self.made.rotation._service  # type: ignore[union-attr]
        service.issue_cert(NAME)
        self.clock.advance(0)
        self.assertEqual(self.ca.asked("/dir"), 1)


def _window(start: float) -> tuple[str, str]:
    moment = datetime.fromtimestamp(start, UTC)
    return moment.isoformat(), (moment + timedelta(days=1)).isoformat()
