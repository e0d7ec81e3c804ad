"""Tests of :mod:`derp.net.admission_service`: admission as the operator asked for it."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.client import Agent, readBody
from twisted.web.resource import Resource
from twisted.web.server import Site

from derp.errors import ConfigError
from derp.net import admission_service, local_api
from derp.net.metrics import make_registry
from derp.net.relay_errors import RelayError
from tests.net.admission_fakes import (
    ALLOW,
    DENY,
    KEY,
    KNOWN,
    SILENCE,
    UNKNOWN,
    AdmissionTestCase,
    respond,
)
from tests.net.test_admission_vectors import answers

OTHER = bytes(range(1, 33))
STATUS = respond(json.dumps({"Self": {"PublicKey": KEY}}).encode())


class Verify(Resource):
    """``/verify`` of a Headscale that knows some nodes: strict, and wrapped in a newline."""

    isLeaf = True

    def __init__(self, *known: str) -> None:
        super().__init__()
        self.known = set(known)

    def render_POST(self, request: Any) -> bytes:
        try:
            asked = json.loads(request.content.read())["NodePublic"]
        except (ValueError, KeyError):
            request.setResponseCode(400)
            return b"Bad Request: parsing DERP client request"
        request.setHeader(b"Content-Type", b"application/json")
        return json.dumps({"Allow": asked in self.known}).encode() + b"\n"


class HeadscaleTests(AdmissionTestCase):
    """``--verify-client-url https://<headscale>/verify``."""

    async def test_verify(self) -> None:
        """Its nodes get in, others do not."""
        from twisted.internet import reactor

        site = Site(Verify(KEY), timeout=None)
        port: Any = await TCP4ServerEndpoint(reactor, 0).listen(site)
        self.addCleanup(port.stopListening)
        url = f"http://127.0.0.1:{port.getHost().port}/verify"
        relay = self.relay(verify_client_url=(url,), verify_client_url_fail_open=False)
        await self.login(relay)
        with self.assertRaises(RelayError):
            await self.login(relay, private_key=OTHER)


class SelfCheckTests(AdmissionTestCase):
    """What ``/debug/check`` adds while ``--verify-clients`` is on."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(local_api, "EARLY_S", 0.0)

    async def page(self, relay: Any) -> tuple[int, str]:
        from twisted.internet import reactor

        url = f"http://127.0.0.1:{self.port_of(relay)}/debug/check"
        response = await Agent(reactor).request(b"GET", url.encode())
        return response.code, (await readBody(response)).decode()

    async def test_url_is_asked(self) -> None:
        """All of admission, as for somebody who comes from this machine."""
        path = self.mktemp()
        daemon = await self.fake(path=path)
        daemon.answer_to = answers({b"/status": STATUS, b"/whois": KNOWN})
        server = await self.fake(DENY)
        relay = self.relay(verify_clients=True, socket=(path,), verify_client_url=(server.url,))
        code, body = await self.page(relay)
        self.assertEqual(code, 500)
        expected = f"verifyClient for self nodekey: admission controller: {KEY}/::1 not allowed\n"
        self.assertEqual(body, expected)
        self.assertIn(b'"Source":"::1"', server.requests[0])
        self.assertEqual(sum(relay.admission.stats.logins.values()), 0)

    async def test_each_socket(self) -> None:
        """Of several tailscaleds each is asked who it is; what is wrong is said of each."""
        good = await self.fake(path=(one := self.mktemp()))
        good.answer_to = answers({b"/status": STATUS, b"/whois": KNOWN})
        odd = await self.fake(path=(two := self.mktemp()))
        odd.answer_to = answers({b"/status": respond(b'{"Self":{}}'), b"/whois": UNKNOWN})
        relay = self.relay(verify_clients=True, socket=(one, two, "nowhere"))
        code, body = await self.page(relay)
        self.assertEqual(code, 500)
        first, second = body.split(", ", 1)
        self.assertEqual(first, f"tailscaled at {two}: its status names no key of its own")
        self.assertTrue(second.startswith("tailscaled at nowhere: No such file"), second)

    async def test_hangs(self) -> None:
        """Somebody who does not answer costs the page its deadline, not its answer."""
        self.patch(admission_service, "SELF_CHECK_S", 0.1)
        self.patch(local_api, "TIMEOUT_S", 0.1)
        await self.fake(SILENCE, path := self.mktemp())
        relay = self.relay(verify_clients=True, socket=(path,))
        code, body = await self.page(relay)
        self.assertEqual((code, body), (500, f"tailscaled at {path}: no answer within 0.1 s\n"))

    async def test_reader_leaves(self) -> None:
        """Who closes the page before its answer leaves nothing behind."""
        from twisted.internet import reactor

        daemon = await self.fake(SILENCE, path := self.mktemp())
        relay = self.relay(verify_clients=True, socket=(path,))
        url = f"http://127.0.0.1:{self.port_of(relay)}/debug/check"
        asked = Agent(reactor).request(b"GET", url.encode())
        await daemon.when(lambda: bool(daemon.requests))
        asked.cancel()
        await asked.addErrback(lambda _: None)
        await daemon.when(lambda: not daemon.connections)

    async def test_off(self) -> None:
        """Without tailscaled there is nothing to check."""
        relay = self.relay()
        self.assertEqual((await self.page(relay))[0], 200)


class LifeTests(AdmissionTestCase):
    """From the start to the end."""

    async def test_no_socket(self) -> None:
        """A socket that is not there is told at the start: it admits nobody."""
        await self.fake(path=(path := self.mktemp()))
        self.relay(verify_clients=True, socket=(path, "nowhere"))
        (line,) = self.logged("--verify-clients: there is no socket")
        self.assertIn("nowhere", line)

    def test_bad_file(self) -> None:
        """An allow list that cannot be read stops the start."""
        error = self.assertRaises(ConfigError, self.relay, allow_clients="/nonexistent/keys")
        self.assertIn('--allow-clients: cannot read "/nonexistent/keys"', str(error))

    async def test_stop_while_asking(self) -> None:
        """A relay that stops does not wait for those it asked."""
        server = await self.fake(SILENCE)
        relay = self.relay(verify_client_url=(server.url,))
        login = Deferred.fromCoroutine(self.login(relay))
        await server.when(lambda: bool(server.requests))
        await relay.stopService()
        with self.assertRaises(RelayError):
            await login
        self.assertEqual(relay.admission.stats.logins["fail_open"], 0)

    async def test_metrics(self) -> None:
        """Every outcome has its number."""
        server = await self.fake()
        says = iter([ALLOW, DENY, respond(b"x", "500 X"), b"(closed)"])
        server.answer_to = lambda request: next(says)
        relay = self.relay(verify_client_url=(server.url,))
        keys = [bytes([number]) * 32 for number in range(2, 6)]
        for key in keys:
            try:
                await self.login(relay, private_key=key)
            except RelayError:
                continue
        await self.login(relay, private_key=keys[0])
        value = make_registry(relay.sources).get_sample_value
        for outcome, count in (
            ("admitted", 2),
            ("denied", 1),
            ("fault", 1),
            ("fail_open", 1),
            ("unreachable", 0),
        ):
            labels = {"outcome": outcome}
            self.assertEqual(value("derp_admission_logins_total", labels), count, outcome)
        for verdict in ("allowed", "denied", "fault", "unreachable"):
            labels = {"source": "url", "verdict": verdict}
            self.assertEqual(value("derp_admission_answers_total", labels), 1, verdict)
        self.assertEqual(value("derp_admission_spared_questions_total", {"reason": "fresh"}), 1)
        self.assertEqual(value("derp_logins_refused_total"), 2)
