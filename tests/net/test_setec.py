"""Tests for :mod:`derp.net.setec`, on a server of its kind on loopback."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from derp.net.http_url import check_setec_url
from derp.net.secrets_cache import Secret
from derp.net.setec import MAX_ANSWER, Setec, SetecError
from tests.net.closed_ports import closed_tcp_port

reactor: Any = global_reactor
NAME = "prod/derp/meshkey"


class FakeSetec(Resource):
    """Answers as told; with ``None``, not at all."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.status = 200
        self.answer: bytes | None = b'{"Value":"c2VjcmV0","Version":3}'
        self.asked: list[Any] = []

    def render(self, request: Any) -> Any:
        headers = request.requestHeaders
        self.asked.append(
            (
                request.method,
                request.path,
                headers.getRawHeaders("Content-Type"),
                headers.getRawHeaders("Sec-X-Tailscale-No-Browsers"),
                json.loads(request.content.read()),
            )
        )
        if self.answer is None:
            return NOT_DONE_YET
        request.setResponseCode(self.status)
        return self.answer


class SetecTests(TestCase):
    """What is asked, and what answers mean."""

    timeout = 60

    def setUp(self) -> None:
        self.fake = FakeSetec()
        site = Site(self.fake)
        site.log = lambda request: None
        self.port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.url = f"http://127.0.0.1:{self.port.getHost().port}"
        self.setec = Setec(reactor, check_setec_url(self.url + "/"))

    async def test_get(self) -> None:
        """The question is setec's own; the answer is the secret."""
        self.assertEqual(await self.setec.get(NAME), Secret(b"secret", 3))
        body = {"Name": NAME, "Version": 0, "UpdateIfChanged": False}
        self.assertEqual(
            self.fake.asked, [(b"POST", b"/api/get", ["application/json"], ["setec"], body)]
        )

    async def test_refused(self) -> None:
        """Other answers are no secret, and the error says what they are."""
        for status, answer, words in (
            (404, b"not found", "404 Not Found: there is no such secret"),
            (403, b"no", "403 Forbidden: it does not let us"),
            (500, b"out of order", "500 Internal Server Error: out of order"),
            (200, b"<html>", "no JSON"),
            (200, b"[]", "no Value"),
            (200, b'{"Value":"c2VjcmV0', "no JSON"),
            (200, b'{"Value":"?","Version":1}', "no base64"),
            (200, b'{"Value":"' + b"A" * MAX_ANSWER + b'","Version":1}', "no JSON"),
            (200, b"[" * 20_000, "no JSON"),
        ):
            self.fake.status, self.fake.answer = status, answer
            with self.assertRaises(SetecError) as caught:
                await self.setec.get(NAME)
            self.assertIn(words, str(caught.exception))
            self.assertNotIn("c2VjcmV0", str(caught.exception))

    async def test_unreachable(self) -> None:
        """Nobody there: said once, in the system's words, and the log has no line of Twisted's."""
        url = f"http://127.0.0.1:{closed_tcp_port(self)}/"
        self.setec = Setec(reactor, check_setec_url(url))
        with capturedLogs() as logged, self.assertRaisesRegex(SetecError, "^Connection refused$"):
            await self.setec.get(NAME)
        lines = [formatEvent(event) for event in logged]
        self.assertEqual([line for line in lines if "actory" in line], [])

    async def test_cancelled(self) -> None:
        """A question that is given up ends, and so does its connection."""
        self.fake.answer = None
        asking = self.setec.get(NAME)
        given_up: Deferred[Any] = asking.addErrback(lambda failure: failure.type)
        asking.cancel()
        self.assertIsNotNone(await given_up)
