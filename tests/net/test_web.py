"""The sites as factories, and their requests."""

import re

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.config import Config
from derp.errors import ConfigError
from derp.net.web import build_main_site, build_plain_site
from tests.net.sites import TextPage, Visit, get, site_parts


class WebSiteTests(SynchronousTestCase):
    """``WebSite``."""

    def test_nothing_ticks(self) -> None:
        """A site that is listened on, or visited, leaves the clock alone when all is over."""
        clock = Clock()
        parts = site_parts(clock, Config(tls=False))
        site = build_main_site(parts)
        site.doStart()
        visit = Visit(site)
        visit.send(get("/"))
        visit.channel.connectionLost()
        clock.advance(100)
        self.assertEqual(clock.getDelayedCalls(), [])
        site.doStop()

    def test_bad_home(self) -> None:
        """A bad ``--home`` is found when the site is built, not when it is visited."""
        with self.assertRaises(ConfigError):
            build_main_site(site_parts(Clock(), Config(home="nonsense")))

    def test_connect_only_beside_tls(self) -> None:
        """CONNECT is somebody's business on a TLS port only."""
        for tls, status in ((True, b"403 Forbidden"), (False, b"404 Not Found")):
            site = build_main_site(site_parts(Clock(), Config(tls=tls)))
            answer = Visit(site).send(get("a.tailscale.com:443", method="CONNECT"))
            self.assertIn(status, answer)

    def test_both_ports_count_in_one_place(self) -> None:
        """The two sites share counters and debug pages."""
        parts = site_parts(Clock(), Config(), debug_pages={"/debug/x": TextPage(b"x")})
        main = build_main_site(parts)
        plain = build_plain_site(parts, main)
        self.assertIs(main.tls_stats, plain.tls_stats)
        self.assertTrue(Visit(plain).send(get("/debug/x")).endswith(b"\r\n\r\nx"))


class WebRequestTests(SynchronousTestCase):
    """The form of requests and answers."""

    def setUp(self) -> None:
        pages = {"/debug/x": TextPage(b"page"), "/debug/bad": TextPage(b"no", status=500)}
        parts = site_parts(Clock(), Config(tls=False), debug_pages=pages)
        self.visit = Visit(build_main_site(parts))

    def test_absolute_target(self) -> None:
        """A target may name the host, which then counts."""
        for target in ("http://abs.example/derp/probe", "HTTPS://abs.example/derp/probe?x"):
            self.assertIn(b"Access-Control-Allow-Origin", self.visit.send(get(target)))
        self.assertIn(b"<h1>DERP</h1>", self.visit.send(get("http://abs.example")))

    def test_order_of_headers(self) -> None:
        """A page's own by name, then the server's; the guessed type comes last."""
        answer = self.visit.send(get("/debug/x")).decode()
        names = re.findall(r"^([\w-]+): ", answer, re.MULTILINE)
        self.assertEqual(names[:4], sorted(names[:4]))
        self.assertEqual(names[4:], ["Date", "Content-Length", "Content-Type"])

    def test_date(self) -> None:
        """The date has HTTP's one good form."""
        answer = self.visit.send(get("/")).decode()
        self.assertRegex(answer, r"\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n")

    def test_head(self) -> None:
        """HEAD has the headers of GET, and no body."""
        whole = self.visit.send(get("/debug/x"))
        head = self.visit.send(get("/debug/x", method="HEAD"))
        dateless = re.compile(rb"Date: [^\r]*\r\n")
        self.assertEqual(dateless.sub(b"", head) + b"page", dateless.sub(b"", whole))

    def test_client_closes(self) -> None:
        """A client's wish to close is granted and confirmed."""
        answer = self.visit.send(get("/derp/probe", "Connection: close"))
        self.assertTrue(answer.endswith(b"Content-Length: 0\r\nConnection: close\r\n\r\n"))
        self.assertTrue(self.visit.closing)

    def test_status_of_a_page(self) -> None:
        """A page's status is the answer's."""
        self.assertTrue(
            self.visit.send(get("/debug/bad")).startswith(b"HTTP/1.1 500 Internal Server Error")
        )
