"""http-01 on the plain port."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.config import Config
from derp.net.acme_challenges import HTTP01
from derp.net.web import build_main_site, build_plain_site
from tests.net.sites import AbortableTransport, Visit, get, site_parts

PATH = "/.well-known/acme-challenge/"


class HTTP01Tests(SynchronousTestCase):
    """As autocert's handler answers."""

    def setUp(self) -> None:
        self.solver = HTTP01(lambda host: host == "derp.example")
        self.solver.present("derp.example", "token-1", "token-1.thumb")

    def ask(self, request: bytes) -> bytes:
        """One answer of the plain port."""
        parts = site_parts(Clock(), Config())
        site = build_plain_site(parts, build_main_site(parts), self.solver)
        answer: bytes = Visit(site, AbortableTransport("8.8.8.8")).send(request)
        return answer

    def test_known(self) -> None:
        """The proof as text, until it is withdrawn."""
        answer = self.ask(get(PATH + "token-1"))
        self.assertIn(b" 200 OK", answer)
        self.assertIn(b"Content-Type: text/plain", answer)
        self.assertTrue(answer.endswith(b"\r\n\r\ntoken-1.thumb"))
        self.solver.withdraw("derp.example", "token-1", "token-1.thumb")
        self.assertIn(b" 404 ", self.ask(get(PATH + "token-1")))

    def test_unknown(self) -> None:
        """Other tokens are not there, whatever they look like."""
        for token in ("token-2", "", "token-1/", "%74oken-1/x", "../token-1x"):
            self.assertNotIn(b"thumb", self.ask(get(PATH + token)))
        self.assertIn(b" 404 ", self.ask(get(PATH + "token-2")))

    def test_other_host(self) -> None:
        """Who comes by another name is told nothing; a port in Host does not matter."""
        line = f"GET {PATH}token-1 HTTP/1.1\r\nHost: ".encode()
        self.assertIn(b" 403 ", self.ask(line + b"other.example\r\n\r\n"))
        self.assertIn(b" 200 ", self.ask(line + b"derp.example:80\r\n\r\n"))

    def test_elsewhere(self) -> None:
        """Everything else is as without it."""
        self.assertIn(b" 302 ", self.ask(get("/")))
