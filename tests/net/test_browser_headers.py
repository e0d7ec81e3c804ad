"""Which answers have the headers for browsers."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.config import Config
from derp.net.web import build_main_site, build_plain_site
from tests.net.sites import AbortableTransport, TextPage, Visit, get, site_parts

POLICY = b"Strict-Transport-Security: max-age=63072000; includeSubDomains\r\n"


class BrowserHeadersTests(SynchronousTestCase):
    """On pages, and on nothing else."""

    def setUp(self) -> None:
        parts = site_parts(Clock(), Config(), debug_pages={"/debug/x": TextPage(b"x")})
        self.main = build_main_site(parts)
        self.plain = build_plain_site(parts, self.main)

    def has(self, site: object, path: str, peer: str = "127.0.0.1") -> bool:
        answer = Visit(site, AbortableTransport(peer)).send(get(path))
        self.assertEqual(b"X-Frame-Options: DENY\r\n" in answer, POLICY in answer)
        return POLICY in answer

    def test_pages(self) -> None:
        """Pages of the main port."""
        for path in ("/", "/nothing", "/derp/", "/robots.txt", "/bootstrap-dns", "/debug/x"):
            self.assertTrue(self.has(self.main, path), path)

    def test_others(self) -> None:
        """What is for clients, redirects, refusals."""
        for path in ("/derp", "/derp/probe", "/generate_204", "//x", "/debug", "/debug/nothing"):
            self.assertFalse(self.has(self.main, path), path)
        self.assertFalse(self.has(self.main, "/debug/x", "8.8.8.8"))

    def test_plain_port(self) -> None:
        """Only what the main port's pages answer."""
        for path in ("/", "/robots.txt", "/generate_204", "/bootstrap-dns"):
            self.assertFalse(self.has(self.plain, path), path)
        for path in ("/debug/x", "/debugfoo"):
            self.assertTrue(self.has(self.plain, path), path)
