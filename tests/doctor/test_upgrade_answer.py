"""Tests for :mod:`derp.doctor.upgrade_answer` and :mod:`derp.doctor.http_answer`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.doctor.finding import Finding, Verdict
from derp.doctor.http_answer import HTTPAnswer, parse_answer, proxy_words
from derp.doctor.upgrade_answer import judge_fast_greeting, judge_upgrade
from derp.wire.handshake import encode_server_key
from tests.net.relay_fakes import SWITCHING

KEY = bytes(range(32))
GREETING = encode_server_key(KEY)
RIGHT = SWITCHING + GREETING


class UpgradeTests(SynchronousTestCase):
    """Every prefix of a right answer waits for more; what is wrong is wrong at once."""

    def test_right(self) -> None:
        """Complete, and with bytes behind it."""
        for received in (RIGHT, RIGHT + b"\x06"):
            finding = judge_upgrade(received)
            assert finding is not None
            self.assertEqual(
                (finding.verdict, finding.facts), (Verdict.OK, {"server_key": KEY.hex()})
            )

    def test_every_prefix(self) -> None:
        """None decides before it is complete, and each is a failure once nothing more comes."""
        for length in range(len(RIGHT)):
            received = RIGHT[:length]
            self.assertIsNone(judge_upgrade(received), received)
            for over in ("closed", "silent"):
                finding = judge_upgrade(received, over=over)
                assert finding is not None
                self.assertEqual(finding.verdict, Verdict.FAIL, (received, over))
                self.assertNotEqual(finding.cure, "")

    def test_every_prefix_of_a_fast_greeting(self) -> None:
        """The same without HTTP."""
        for length in range(len(GREETING)):
            self.assertIsNone(judge_fast_greeting(GREETING[:length]), length)
            finding = judge_fast_greeting(GREETING[:length], over="closed")
            assert finding is not None
            self.assertEqual(finding.verdict, Verdict.FAIL)
        finding = judge_fast_greeting(GREETING)
        assert finding is not None
        self.assertEqual(finding.verdict, Verdict.OK)

    @given(st.binary(max_size=200), st.sampled_from(["closed", "silent"]))
    def test_garbage(self, data: bytes, over: str) -> None:
        """Whatever comes there is a finding at the end, fit to be printed."""
        for received in (data, SWITCHING + data, b"HTTP/1.1 " + data, SWITCHING[:-2] + data):
            for judge in (judge_upgrade, judge_fast_greeting):
                finding = judge(received, over=over)
                self.assertIsInstance(finding, Finding)
                assert finding is not None
                self.assertTrue(finding.said.isprintable(), finding.said)
                self.assertTrue(finding.cure.isprintable(), finding.cure)

    def test_location_is_foreign(self) -> None:
        """What a header says is shown short, and cannot speak to the terminal."""
        head = b"HTTP/1.1 302 Found\r\nLocation: \x1b[2J" + b"x" * 500 + b"\r\n\r\n"
        finding = judge_upgrade(head)
        assert finding is not None
        self.assertTrue(finding.said.isprintable())
        self.assertLess(len(finding.said), 250)


class ProxyTests(SynchronousTestCase):
    """Who has had an answer in hand."""

    def answer(self, *headers: tuple[str, str]) -> HTTPAnswer:
        """One with these headers."""
        return HTTPAnswer(200, "OK", headers, b"")

    def test_words(self) -> None:
        """By name where the header is somebody's own, else as it says."""
        for headers, words in (
            ((), ""),
            ((("date", "x"), ("content-type", "y")), ""),
            ((("server", "nginx"),), "nginx (server)"),
            (
                (("server", "cloudflare"), ("cf-ray", "7")),
                "cloudflare (server), Cloudflare (cf-ray)",
            ),
            (
                (("via", "1.1 caddy"), ("x-amz-cf-id", "q")),
                "1.1 caddy (via), Amazon CloudFront (x-amz-cf-id)",
            ),
        ):
            self.assertEqual(proxy_words([self.answer(*headers)]), words)

    def test_several_answers(self) -> None:
        """Each is named once."""
        answers = [self.answer(("server", "nginx")), self.answer(("server", "nginx"), ("via", "v"))]
        self.assertEqual(proxy_words(answers), "nginx (server), v (via)")

    def test_parse(self) -> None:
        """Names in lower case, values without blanks around them."""
        answer = parse_answer(b"HTTP/1.0 204\r\nX-A:  b \r\nServer: c\r\n\r\nrest")
        assert answer is not None
        self.assertEqual((answer.status, answer.reason, answer.rest), (204, "", b"rest"))
        self.assertEqual((answer.header("x-a"), answer.header("nothing")), ("b", ""))
        self.assertRaises(ValueError, parse_answer, b"HTTP/1.1 abc def\r\n\r\n")
