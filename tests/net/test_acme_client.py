"""The ACME client against an authority that misbehaves in every known way."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived

from derp.net.acme_client import ACMEClient, Profile, RenewalWindow, certificate_id
from derp.net.acme_http import MAX_BAD_NONCES, REQUEST_S, SignedRequests, parse_retry_after
from derp.net.acme_order import new_leaf_key, obtain, prove
from derp.net.acme_problem import ACMEError, describe_problem, problem_of
from derp.wire.jose import AccountKey
from tests.certificate_files import NOW
from tests.net.fake_ca import BASE, FakeCA, problem
from tests.wall_clock import WallClock

KEY = AccountKey.generate()


class FakeSolver:
    """Notes what it should show."""

    def __init__(self, challenge_type: str) -> None:
        self.challenge_type = challenge_type
        self.shown: list[str] = []
        self.withdrawn: list[str] = []

    def present(self, name: str, token: str, key_authorization: str) -> None:
        self.shown.append(key_authorization)

    def withdraw(self, name: str, token: str, key_authorization: str) -> None:
        self.withdrawn.append(key_authorization)


class ACMECase(SynchronousTestCase):
    """A client, a clock and an authority."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wall = WallClock(self.clock, NOW)
        self.ca = FakeCA(self.wall)
        self.client = ACMEClient(
            SignedRequests(self.ca, self.clock, self.wall.seconds), self.clock, f"{BASE}/dir", KEY
        )

    def run_now(self, coroutine: Any, seconds: float = 0.0) -> Any:
        """Run a coroutine that waits for nothing but the clock."""
        done = Deferred.fromCoroutine(coroutine)
        for _ in range(int(seconds * 4)):
            self.clock.advance(0.25)
        return self.successResultOf(done)

    def error_of(self, coroutine: Any, seconds: float = 0.0) -> ACMEError:
        """Run one that fails."""
        done = Deferred.fromCoroutine(coroutine)
        for _ in range(int(seconds * 4)):
            self.clock.advance(0.25)
        error = self.failureResultOf(done, ACMEError).value
        assert isinstance(error, ACMEError)
        return error


class RequestTests(ACMECase):
    """One request and what may become of it."""

    def test_bad_nonces(self) -> None:
        """A nonce that is refused brings the next one; this goes on for a while, not for ever."""
        refused = problem(400, "badNonce", "old")
        self.ca.faults["/account"] = [refused] * MAX_BAD_NONCES
        self.run_now(self.client.register())
        self.assertEqual(self.ca.asked("/account"), MAX_BAD_NONCES + 1)
        self.assertEqual(self.ca.asked("/nonce"), 0, "errors and answers bring nonces")
        self.ca.faults["/new-order"] = [refused] * 100
        error = self.error_of(self.client.new_order("a.test"))
        self.assertEqual(error.kind, "badNonce")

    def test_html(self) -> None:
        """A web page where a directory should be is told as that, in one bounded line."""
        page = (200, {"Content-Type": "text/html"}, b"<html>\nlogin" + b"x" * 5000)
        self.ca.faults["/dir"] = [page]
        self.assertIn(
            f"{BASE}/dir answers with something other than a JSON",
            str(self.error_of(self.client.register())),
        )
        self.ca.faults["/dir"] = [(503, {"Content-Type": "text/html"}, page[2])]
        said = str(self.error_of(self.client.register()))
        self.assertIn("answers 503 with text/html ('<html> login", said)
        self.assertIn("check --acme-directory", said)
        self.assertLess(len(said), 300)
        self.ca.faults["/dir"] = [(200, {}, {"hello": "world"})]
        said = str(self.error_of(self.client.register()))
        self.assertIn("is no ACME directory (it names no newNonce)", said)

    def test_silence(self) -> None:
        """An authority that hangs costs one deadline."""
        self.ca.faults["/dir"] = [None]
        error = self.error_of(self.client.register(), seconds=REQUEST_S)
        self.assertEqual(str(error), f"no answer from {BASE}/dir within 30 s")

    def test_hanging_resolver(self) -> None:
        """So does a DNS server that hangs; Twisted says of it that there is no such name."""
        looking_up: Deferred[Any] = Deferred(lambda it: it.errback(DNSLookupError("no such name")))
        self.patch(self.ca, "request", lambda *request, **options: looking_up)
        error = self.error_of(self.client.register(), seconds=REQUEST_S)
        self.assertEqual(str(error), f"no answer from {BASE}/dir within 30 s")

    def test_untrusted(self) -> None:
        """Why an authority's own certificate is not taken is said, and what to look at."""
        refused = SSL.Error([("SSL routines", "", "certificate verify failed")])
        never = ResponseNeverReceived([Failure(refused)])
        self.patch(self.ca, "request", lambda *_, **__: fail(never))
        error = self.error_of(self.client.register())
        self.assertEqual(
            str(error),
            f"cannot reach {BASE}/dir: TLS handshake failed: certificate verify failed (its issuer "
            "is not trusted here, its dates or names do not fit, or this machine's clock is wrong)",
        )

    def test_rate_limit(self) -> None:
        """Retry-After goes along, in seconds or as a date."""
        self.ca.faults["/new-order"] = [
            problem(429, "rateLimited", "too many", Retry_After="900"),
            problem(429, "rateLimited", "too many", Retry_After="Fri, 20 Nov 2026 13:00:00 GMT"),
        ]
        for seconds in (900, 3600):
            error = self.error_of(self.client.new_order("a.test"))
            self.assertEqual((error.kind, error.retry_after), ("rateLimited", seconds))
            self.assertIn("answers 429", str(error))
            self.assertIn("rateLimited: too many", str(error))

    def test_retry_after(self) -> None:
        """What makes no sense is no wish."""
        for text in (None, "", "soon", "-5", "Thu, 01 Jan 1970 00:00:00 GMT", "1e9"):
            self.assertEqual(parse_retry_after(text, NOW), 0.0, text)
        self.assertEqual(parse_retry_after("Mon, 01 Jan 0001 00:00:00 -0000", NOW), 0.0)
        self.assertEqual(parse_retry_after("7", NOW), 7.0)
        self.assertEqual(parse_retry_after("9" * 400, NOW), 7 * 86400.0)

    def test_forgotten_account(self) -> None:
        """An authority that lost the account gets it again."""
        self.run_now(self.client.register())
        self.ca.faults["/new-order"] = [problem(400, "accountDoesNotExist", "who?")]
        self.run_now(self.client.new_order("a.test"))
        self.assertEqual(self.ca.asked("/account"), 2)

    def test_problem_in_words(self) -> None:
        """Subproblems name their identifiers; control characters go."""
        text = describe_problem(
            {
                "type": "urn:ietf:params:acme:error:malformed",
                "detail": "some\nwere\x1b[1m bad",
                "subproblems": [{"identifier": {"value": "a.test"}, "detail": "forbidden"}],
            }
        )
        self.assertEqual(text, "malformed: some were [1m bad; a.test: forbidden")
        self.assertEqual(describe_problem(None), "no reason given")
        self.assertEqual(problem_of(500, "application/json", b"[1]", "u").kind, "")


class OrderTests(ACMECase):
    """Whole orders."""

    def order(self, *solvers: FakeSolver, name: str = "a.test", **options: Any) -> Any:
        """Prove a name and have its certificate made."""

        async def run() -> Any:
            ready = await prove(self.client, name, solvers, **options)
            return await obtain(self.client, name, ready, new_leaf_key())

        return run()

    def test_order(self) -> None:
        """The proof is shown before the authority looks, and taken back."""
        solver = FakeSolver("http-01")
        chain = self.run_now(self.order(solver))
        self.assertEqual(solver.shown, [f"token0.{KEY.thumbprint()}"])
        self.assertEqual(solver.withdrawn, solver.shown)
        names = chain.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        self.assertEqual(names.value.get_values_for_type(x509.DNSName), ["a.test"])
        self.assertNotIn("profile", self.ca.orders[0])

    def test_address_and_profile(self) -> None:
        """An address is an identifier of type ip; a profile is asked for if offered."""
        self.run_now(
            self.order(FakeSolver("http-01"), name="2001:db8::7", profile=Profile("shortlived"))
        )
        self.run_now(self.order(FakeSolver("http-01"), profile=Profile("unheard-of")))
        first, second = self.ca.orders
        self.assertEqual(first["identifiers"], [{"type": "ip", "value": "2001:db8::7"}])
        self.assertEqual(first["profile"], "shortlived")
        self.assertNotIn("profile", second)

    def test_profile_of_a_flag(self) -> None:
        """One that an operator asks for is had, or he is told which there are."""
        self.run_now(self.order(FakeSolver("http-01"), profile=Profile("classic", "--flag")))
        self.assertEqual(self.ca.orders[0]["profile"], "classic")
        refused = self.order(FakeSolver("http-01"), profile=Profile("unheard-of", "--flag"))
        self.assertEqual(
            str(self.error_of(refused)),
            f'--flag: {BASE}/dir offers no profile "unheard-of"; choose one of classic, '
            "shortlived, or leave the flag out",
        )
        self.assertEqual(len(self.ca.orders), 1)

    def test_no_profiles(self) -> None:
        """An authority that knows no profiles has none to choose from."""
        self.patch(self.client, "profiles", lambda: succeed(frozenset()))
        refused = self.order(FakeSolver("http-01"), profile=Profile("classic", "--flag"))
        self.assertTrue(
            str(self.error_of(refused)).endswith('no profile "classic"; leave the flag out')
        )

    def test_second_way(self) -> None:
        """A way that fails spoils its order; the next one gets a new order."""
        self.ca.refuses.add("tls-alpn-01")
        first, second = FakeSolver("tls-alpn-01"), FakeSolver("http-01")
        self.run_now(self.order(first, second))
        self.assertEqual(len(self.ca.orders), 2)
        self.assertEqual(first.withdrawn, first.shown)

    def test_all_ways_fail(self) -> None:
        """Both reasons are told."""
        self.ca.refuses |= {"tls-alpn-01", "http-01"}
        error = self.error_of(self.order(FakeSolver("tls-alpn-01"), FakeSolver("http-01")))
        said = str(error)
        self.assertIn("tls-alpn-01 for a.test failed: connection: cannot connect", said)
        self.assertIn("http-01 for a.test failed", said)

    def test_no_order_for_the_second_way(self) -> None:
        """Why the first way failed is told, too, when the authority takes no second order."""
        self.ca.refuses.add("tls-alpn-01")
        first, second = FakeSolver("tls-alpn-01"), FakeSolver("http-01")
        limited = problem(429, "rateLimited", "slow down", Retry_After="60")
        first.withdraw = lambda *_: self.ca.faults.update(  # type: ignore[method-assign]
            {"/new-order": [limited]}
        )
        error = self.error_of(self.order(first, second))
        self.assertIn("tls-alpn-01 for a.test failed: connection: cannot connect; ", str(error))
        self.assertIn("slow down", str(error))
        self.assertEqual((error.kind, error.retry_after), ("rateLimited", 60))
        self.assertEqual(second.shown, [])

    def test_no_usable_challenge(self) -> None:
        """Nothing we can do is offered: said so, and nothing is left pending."""
        self.ca.offers = ("dns-persist-01",)
        error = self.error_of(self.order(FakeSolver("tls-alpn-01"), FakeSolver("http-01")))
        self.assertEqual(str(error), "tls-alpn-01 is not offered; http-01 is not offered")
        self.assertEqual(self.ca.deactivated, ["0"])
        self.assertEqual(len(self.ca.orders), 1)

    def test_pending_authorization_is_given_up(self) -> None:
        """A challenge that cannot even be posted leaves no pending authorization behind."""
        self.ca.faults["/chall/0/http-01"] = [problem(500, "serverInternal", "oops")]
        solver = FakeSolver("http-01")
        self.error_of(self.order(solver))
        self.assertEqual(self.ca.deactivated, ["0"])
        self.assertEqual(solver.withdrawn, solver.shown)

    def test_rate_limit_stops_trying(self) -> None:
        """The second way would only anger the authority more."""
        limited = problem(429, "rateLimited", "slow down", Retry_After="60")
        self.ca.faults["/chall/0/tls-alpn-01"] = [limited]
        error = self.error_of(self.order(FakeSolver("tls-alpn-01"), FakeSolver("http-01")))
        self.assertEqual((error.kind, error.retry_after), ("rateLimited", 60))
        self.assertEqual(len(self.ca.orders), 1)

    def test_valid_authorization_is_not_answered(self) -> None:
        """What the authority remembers as proven needs no proof."""
        solver = FakeSolver("http-01")
        ready = self.run_now(self.client.new_order("a.test"))
        self.ca._challenge("0", "http-01")
        self.ca.faults["/new-order"] = [(201, {"Location": ready.url}, self.ca.orders[0])]
        self.run_now(self.order(solver))
        self.assertEqual(solver.shown, [])

    def test_slow_authority(self) -> None:
        """It is asked again at its own pace until it is done."""
        busy = (200, {"Retry-After": "5"}, {"status": "processing"})
        ready = self.run_now(self.client.new_order("a.test"))
        self.ca._challenge("0", "http-01")
        self.ca.faults["/order/0"] = [busy, busy]
        settled = self.run_now(self.client.settle(ready, "processing"), seconds=10)
        self.assertEqual(settled.status, "ready")
        self.assertEqual(self.ca.asked("/order/0"), 3)

    def test_wrong_certificate(self) -> None:
        """What is not for our name or key is not taken."""
        chain = self.run_now(self.order(FakeSolver("http-01"), name="b.test"))
        pem = chain.chain_pem
        self.ca.faults["/cert/1"] = [(200, {}, pem)]
        error = self.error_of(self.order(FakeSolver("http-01")))
        self.assertIn("sent no usable chain", str(error))
        self.ca.faults["/cert/2"] = [(200, {}, b"<html>")]
        self.assertIn("no usable chain", str(self.error_of(self.order(FakeSolver("http-01")))))

    def test_replaces(self) -> None:
        """The certificate that is followed is named; if the authority minds, it is not."""
        self.ca.window = ("2026-12-01T00:00:00Z", "2026-12-02T00:00:00Z")
        self.run_now(self.order(FakeSolver("http-01"), replaces="aki.serial"))
        self.assertEqual(self.ca.orders[0]["replaces"], "aki.serial")
        self.ca.faults["/new-order"] = [problem(409, "alreadyReplaced", "it was")]
        self.run_now(self.order(FakeSolver("http-01"), replaces="aki.serial"))
        self.assertNotIn("replaces", self.ca.orders[1])

    def test_renewal_window(self) -> None:
        """ARI's dates and pace."""
        chain = self.run_now(self.order(FakeSolver("http-01")))
        self.assertIsNone(self.run_now(self.client.renewal_window(chain.leaf)))
        self.client._directory = None
        self.ca.window = ("2026-11-21T12:00:00Z", "2026-11-22T12:00:00+00:00")
        window = self.run_now(self.client.renewal_window(chain.leaf))
        self.assertEqual(window, RenewalWindow(NOW + 86400, NOW + 2 * 86400, 3600.0))
        self.assertEqual(self.ca.requests[-1][0], f"/ari/{certificate_id(chain.leaf)}")
        self.ca.window = ("never", "ever")
        error = self.error_of(self.client.renewal_window(chain.leaf))
        self.assertIn("suggests no window", str(error))

    def test_cancelled(self) -> None:
        """Ending an order ends it now; the proof is taken back."""
        self.ca.faults["/chall/0/http-01"] = [None]
        solver = FakeSolver("http-01")
        done = Deferred.fromCoroutine(self.order(solver))
        self.assertNoResult(done)
        asked = len(self.ca.requests)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertEqual(len(self.ca.requests), asked, "nothing is asked any more")
        self.assertEqual(solver.withdrawn, solver.shown)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class CertificateIdTests(SynchronousTestCase):
    """The name of a certificate in RFC 9773."""

    def test_example_of_the_rfc(self) -> None:
        """Section 4.1: key identifier 69:88:…:C8:D4, serial 00:87:65:43:21."""
        extension = x509.AuthorityKeyIdentifier(
            bytes.fromhex("69885B6B87464041E1B37B847BA0AE2CDE01C8D4"), None, None
        )

        class Certificate:
            serial_number = 0x87654321
            extensions = x509.Extensions(
                [x509.Extension(extension.oid, False, extension)]  # type: ignore[list-item]
            )

        found = certificate_id(Certificate())  # type: ignore[arg-type]
        self.assertEqual(found, "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE")
