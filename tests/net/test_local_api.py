"""Tests of :mod:`derp.net.local_api`: a tailscaled, and what may be in its place."""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from derp.core.admission import Answer, Question, Verdict
from derp.net import local_api
from derp.net.bounded_http import BrokenAnswer, NoAnswer
from derp.net.local_api import MAX_ANSWER, LocalAPI
from tests.net.admission_fakes import CLOSE, KNOWN, SILENCE, UNKNOWN, FakeServer, respond
from tests.net.test_admission_vectors import answers

WHO = Question(bytes([7]) * 32, "192.0.2.1")
ALLOWED, DENIED = Verdict.ALLOWED, Verdict.DENIED
FAULT, UNREACHABLE = Verdict.FAULT, Verdict.UNREACHABLE


class LocalAPITests(TestCase):
    """On a real socket."""

    timeout = 60

    def setUp(self) -> None:
        self.patch(local_api, "EARLY_S", 0.0)
        self.path = self.mktemp()

    async def fake(self, answer: bytes = KNOWN) -> FakeServer:
        server = await FakeServer(answer).listen(self.path)
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        return server

    def local_api(self) -> LocalAPI:
        from twisted.internet import reactor

        source = LocalAPI(reactor, self.path)
        self.addCleanup(source.close)
        return source

    async def test_quiet(self) -> None:
        """Asking is no news: nothing of the HTTP client's insides gets into the log."""
        await self.fake()
        source = self.local_api()
        with capturedLogs() as logs:
            await source.ask(WHO)
            await source.close()
        self.assertEqual([event for event in logs if "factory" in event], [])

    async def test_verdicts(self) -> None:
        """Two hundred and JSON is a yes, 404 a no, everything else neither."""
        table = {
            respond(b"null"): ALLOWED,
            b"HTTP/1.0 200 OK\r\n\r\n{}" + CLOSE: ALLOWED,
            respond(b'{"Node":{"x":"' + b"y" * 100_000 + b'"}}'): ALLOWED,
            UNKNOWN: DENIED,
            respond(b"[]"): FAULT,
            respond(b"{} {}"): FAULT,
            respond(b"[" * 5000): FAULT,
            respond(b"denied", "403 Forbidden"): FAULT,
            respond(b"", "412 Precondition Failed"): FAULT,
            respond(b"", "302 Found"): FAULT,
            respond(b"{}", "204 No Content"): FAULT,
            respond(b"invalid 'addr' parameter", "500 Oops"): FAULT,
            respond(b"{" + b" " * MAX_ANSWER): FAULT,
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}" + CLOSE: FAULT,
            b"HTTP/1.1 4" + CLOSE: UNREACHABLE,
            b"220 mail.test ESMTP\r\n" + CLOSE: UNREACHABLE,
            CLOSE: UNREACHABLE,
        }
        server = await self.fake()
        source = self.local_api()
        for answer, verdict in table.items():
            server.answer = answer
            said = await source.ask(WHO)
            self.assertEqual((answer[:200], said.verdict), (answer[:200], verdict), said.reason)
            self.assertTrue(said.reason.isprintable() and len(said.reason) < 500)

    async def test_hangs(self) -> None:
        """A tailscaled that says nothing, or not all, is waited for until the deadline."""
        self.patch(local_api, "TIMEOUT_S", 0.1)
        server = await self.fake(SILENCE)
        source = self.local_api()
        for answer in (SILENCE, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"):
            server.answer = answer
            said = await source.ask(WHO)
            self.assertIs(said.verdict, UNREACHABLE)
            self.assertIn("no answer within 0.1 s", said.reason)

    async def test_missing(self) -> None:
        """A socket that is not there, a file that is none, one that may not be used."""
        source = self.local_api()
        self.assertIn("No such file", await self.unreachable(source))
        with open(self.path, "w"):
            self.assertIn("refused", await self.unreachable(source))
        os.unlink(self.path)
        await self.fake()
        self.assertIs((await source.ask(WHO)).verdict, ALLOWED)

    async def unreachable(self, source: LocalAPI) -> str:
        answer: Answer = await source.ask(WHO)
        self.assertIs(answer.verdict, UNREACHABLE)
        self.assertIn(self.path, answer.reason)
        return answer.reason

    async def test_early(self) -> None:
        """Just after our own start, a tailscaled that starts as well is waited for."""
        self.patch(local_api, "EARLY_S", 10.0)
        self.patch(local_api, "RETRY_S", 0.01)
        asked = self.local_api().ask(WHO)
        await self.fake()
        self.assertIs((await asked).verdict, ALLOWED)

    async def test_early_is_bounded(self) -> None:
        """But not for ever."""
        self.patch(local_api, "EARLY_S", 0.05)
        self.patch(local_api, "RETRY_S", 0.01)
        await self.unreachable(self.local_api())

    async def test_recheck(self) -> None:
        """Connected clients are refused only by a tailscaled that says it runs."""
        server = await self.fake()
        source = self.local_api()
        for status, verdict in (
            (respond(b'{"BackendState":"Running"}'), DENIED),
            (respond(b'{"BackendState":"NeedsLogin"}'), FAULT),
            (respond(b"{}"), FAULT),
            (respond(b"null"), FAULT),
            (respond(b"no"), FAULT),
            (UNKNOWN, FAULT),
            (CLOSE, UNREACHABLE),
        ):
            server.answer_to = answers({b"/whois": UNKNOWN, b"/status": status})
            self.assertIs((await source.ask(WHO, recheck=True)).verdict, verdict, status)
            self.assertIs((await source.ask(WHO)).verdict, DENIED)

    async def test_self_key(self) -> None:
        """Its own key, or why there is none."""
        server = await self.fake(respond(b'{"Self":{"PublicKey":"nodekey:x"}}'))
        source = self.local_api()
        self.assertEqual(await source.self_key(), "nodekey:x")
        for answer in (respond(b"{}"), respond(b'{"Self":[]}'), respond(b"", "500 X")):
            server.answer = answer
            with self.assertRaises(BrokenAnswer):
                await source.self_key()
        await server.stop()
        with self.assertRaises(NoAnswer):
            await source.self_key()

    async def test_close(self) -> None:
        """Connections that are kept are closed."""
        server = await self.fake()
        source = self.local_api()
        await source.ask(WHO)
        await source.ask(WHO)
        self.assertEqual(len(server.connections), 1)
        await source.close()
        await server.when(lambda: not server.connections)
