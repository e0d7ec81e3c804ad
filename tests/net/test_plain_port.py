"""The plain port, beyond what the recorded answers show."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.config import Config
from derp.net.web import build_main_site, build_plain_site
from tests.net.sites import AbortableTransport, TextPage, Visit, get, site_parts


class Token(TextPage):
    """Answers with the token asked for."""

    def render(self, request: object) -> bytes:
        return b"token " + request.postpath[0]


class PlainPortTests(SynchronousTestCase):
    """What is served without TLS."""

    def visit(self, peer: str = "8.8.8.8", challenges: object = None) -> Visit:
        pages = {"/debug/vars": TextPage(b"vars")}
        parts = site_parts(Clock(), Config(), debug_pages=pages)
        site = build_plain_site(parts, build_main_site(parts), challenges)
        return Visit(site, AbortableTransport(peer))

    def test_redirects(self) -> None:
        """Host and target are kept as they are."""
        cases = {
            get("/"): b"https://derp.example/",
            get("/path?q=1&r"): b"https://derp.example/path?q=1&r",
            b"GET /x HTTP/1.1\r\nHost: foo.com:8080\r\n\r\n": b"https://foo.com:8080/x",
            get("http://abs.example/y"): b"https://abs.example/y",
        }
        for request, location in cases.items():
            answer = self.visit().send(request)
            self.assertIn(b"302 Found", answer)
            self.assertIn(b"Location: " + location + b"\r\n", answer)

    def test_link_is_escaped(self) -> None:
        """What a visitor asked for can not become markup."""
        answer = self.visit().send(get("/?<script>\"'"))
        body = answer.partition(b"\r\n\r\n")[2]
        self.assertNotIn(b"<script>", body)
        self.assertEqual(body.count(b'"'), 2)

    def test_debug(self) -> None:
        """Debug pages are served here, too, by the same rules."""
        self.assertTrue(self.visit("127.0.0.1").send(get("/debug/vars")).endswith(b"vars"))
        self.assertIn(b"403 Forbidden", self.visit().send(get("/debug/vars")))
        self.assertIn(b"<h1>DERP</h1>", self.visit().send(get("/debugfoo")))
        self.assertIn(b"Location: /debug/\r\n", self.visit().send(get("/debug")))

    def test_challenges(self) -> None:
        """The authority's challenges are answered if there is one, by any method."""
        visit = self.visit(challenges=Token(b""))
        path = "/.well-known/acme-challenge/"
        self.assertTrue(visit.send(get(path + "abc")).endswith(b"token abc"))
        self.assertTrue(visit.send(get(path + "a/b", method="POST")).endswith(b"token a/b"))
        self.assertIn(b"302 Found", visit.send(get(path[:-1])))
        self.assertIn(b"302 Found", self.visit().send(get(path + "abc")))

    def test_methods(self) -> None:
        """Nothing is posted in the clear; unclean paths are cleaned first."""
        self.assertTrue(self.visit().send(get("/", method="POST")).endswith(b"Use HTTPS\n"))
        self.assertIn(b"307 Temporary", self.visit().send(get("//x", method="POST")))
        connect = get("a.tailscale.com:443", method="CONNECT")
        self.assertIn(b"404 Not Found", self.visit().send(connect))

    def test_no_derp(self) -> None:
        """DERP is not spoken here."""
        self.assertIn(b"302 Found", self.visit().send(get("/derp", "Upgrade: DERP")))
