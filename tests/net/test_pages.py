"""The small pages, beyond what the recorded answers show."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.config import Config
from derp.errors import ConfigError
from derp.net.debug_access import DebugAccess
from derp.net.pages import home_for
from derp.net.web import build_main_site
from tests.net.sites import AbortableTransport, TextPage, Visit, get, site_parts

STRANGER = "8.8.8.8"


def visit(config: Config, peer: str = "127.0.0.1") -> Visit:
    """Connect to the main site of a server."""
    site = build_main_site(site_parts(Clock(), config))
    return Visit(site, AbortableTransport(peer))


class HomeTests(SynchronousTestCase):
    """``--home`` and what the standard page says."""

    def test_everything(self) -> None:
        """Tailscale's own relay, switched off, shown to somebody with debug access."""
        config = Config(tls=False, derp=False, hostname="derp9.tailscale.com.")
        page = visit(config).send(get("/")).decode()
        for part in (
            "security@tailscale.com",
            "security-policies",
            "tailscale-aup",
            "Status:",
            "Debug info",
        ):
            self.assertIn(part, page)

    def test_stranger(self) -> None:
        """Nobody is pointed to pages they may not see."""
        page = visit(Config(tls=False, hostname="derp.example.com"), STRANGER).send(get("/"))
        for part in (b"/debug/", b"security@tailscale.com", b"Status:"):
            self.assertNotIn(part, page)

    def test_whose_relay(self) -> None:
        """Abuse contacts are Tailscale's only on Tailscale's relays."""
        own = ("derp.tailscale.com", "derp1b.tailscale.com", "derp-nyc.tailscale.com.")
        others = ("derp02.bar.tailscale.com", "xderp.tailscale.com", "derp.tailscale.com.evil")
        for hostname in own + others:
            page = visit(Config(tls=False, hostname=hostname)).send(get("/"))
            self.assertEqual(b"security@" in page, hostname in own, hostname)

    def test_methods(self) -> None:
        """Any method is answered, HEAD without the page but with its length."""
        connection = visit(Config(tls=False))
        whole = connection.send(get("/"))
        head = connection.send(get("/", method="HEAD"))
        length = len(whole.partition(b"\r\n\r\n")[2])
        self.assertTrue(head.endswith(b"Content-Length: %d\r\n\r\n" % length))
        self.assertIn(b"<h1>DERP</h1>", connection.send(get("/", method="BREW")))

    def test_unknown_value(self) -> None:
        """A value that makes no sense is named, with the way out."""
        with self.assertRaisesRegex(ConfigError, "--home.*'ftp://x'.*blank"):
            home_for(Config(home="ftp://x"), DebugAccess(Config().knobs))


class SmallPageTests(SynchronousTestCase):
    """Robots, probe, 204."""

    def test_challenges(self) -> None:
        """Only a short challenge of tame characters comes back."""
        connection = visit(Config(tls=False))
        cases = {
            "input": True,
            "ts_derp99b.tailscale.com:443": True,
            "x" * 64: True,
            "x" * 65: False,
            "foo bar": False,
            "foo\xe4": False,
            "": False,
        }
        for challenge, good in cases.items():
            answer = connection.send(get("/generate_204", f"X-Tailscale-Challenge: {challenge}"))
            self.assertIn(b"204 No Content", answer)
            echoed = f"X-Tailscale-Response: response {challenge}\r\n".encode("latin-1")
            self.assertEqual(echoed in answer, good, challenge)
            self.assertEqual(b"X-Tailscale-Response" in answer, good, challenge)
            self.assertNotIn(b"Content-Length", answer)

    def test_first_header_counts(self) -> None:
        """Of a repeated header the first line is read, as in Go."""
        request = get("/generate_204", "X-Tailscale-Challenge: a", "X-Tailscale-Challenge: b")
        self.assertIn(b"response a\r\n", visit(Config(tls=False)).send(request))

    def test_no_trace_of_twisted(self) -> None:
        """Nothing says what the server is made of."""
        connection = visit(Config(tls=False))
        for path in ("/", "/robots.txt", "/derp", "/debug/x", "//x"):
            answer = connection.send(get(path))
            self.assertNotIn(b"Server:", answer)
            self.assertNotIn(b"Twisted", answer)

    def test_http_1_0(self) -> None:
        """A client of old gets its answer and the end of the connection."""
        connection = visit(Config(tls=False))
        answer = connection.send(b"GET /robots.txt HTTP/1.0\r\n\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.0 200 OK\r\n"))
        self.assertTrue(connection.closing)

    def test_failing_page(self) -> None:
        """A page that fails is our fault, and says no more."""

        class Failing(TextPage):
            def render(self, request: object) -> bytes:
                raise ZeroDivisionError("secret")

        parts = site_parts(Clock(), Config(tls=False), debug_pages={"/debug/fails": Failing(b"")})
        answer = Visit(build_main_site(parts)).send(get("/debug/fails"))
        self.assertIn(b"500 Internal Server Error", answer)
        self.assertNotIn(b"secret", answer)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_unsupported_method(self) -> None:
        """A resource that knows its methods has the others refused."""
        from twisted.web.resource import Resource

        class OnlyGET(Resource):
            isLeaf = True

            def render_GET(self, request: object) -> bytes:
                return b"got"

        parts = site_parts(Clock(), Config(tls=False), debug_pages={"/debug/x": OnlyGET()})
        connection = Visit(build_main_site(parts))
        self.assertTrue(connection.send(get("/debug/x")).endswith(b"\r\n\r\ngot"))
        answer = connection.send(get("/debug/x", method="POST"))
        self.assertIn(b"405 Method Not Allowed", answer)
        self.assertIn(b"Allow: GET, HEAD", answer.replace(b"HEAD, GET", b"GET, HEAD"))
