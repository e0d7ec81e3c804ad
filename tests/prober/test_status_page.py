"""Tests of :mod:`derp.prober.status_page` and :mod:`derp.prober.status_html`."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from importlib.resources import files

from twisted.trial.unittest import SynchronousTestCase

from derp.core.tls_request_stats import TLSRequestStats
from derp.net.http_deadlines import PLAIN_RESPONSE_S, HTTPTiming
from derp.net.mux import Mux
from derp.net.timer_wheel import TimerWheel
from derp.net.web import WebSite
from derp.prober.status_html import facts
from tests.net.http_exchange import Answer, parse_head
from tests.net.sites import Visit, get
from tests.prober.shown_prober import INTERVAL, ShownProber

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;{title}"
VOID = ("meta", "link", "br", "img")


class Outline(HTMLParser):
    """The tags of a page, and whether each is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.unclosed: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.unclosed.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.unclosed and self.unclosed[-1] == tag, (tag, self.unclosed)
        self.unclosed.pop()

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every tag of a kind."""
        return [attributes for found, attributes in self.tags if found == tag]


class StatusPageCase(SynchronousTestCase):
    """A site with the page at its root."""

    may_run = False

    def setUp(self) -> None:
        """Probe one node."""
        self.shown = ShownProber()
        self.shown.add_node("nyc", 1, "1a", "derp1.example.com")
        clock = self.shown.clock
        page = self.shown.resource(may_run=lambda request: self.may_run)
        timing = HTTPTiming(clock, TimerWheel(clock), PLAIN_RESPONSE_S)
        self.site = WebSite(Mux({"/": page}), timing, TLSRequestStats())

    def ask(self, path: str, *headers: str, method: str = "GET") -> Answer:
        """One request and its answer."""
        head, _, body = (
            Visit(self.site).send(get(path, *headers, method=method)).partition(b"\r\n\r\n")
        )
        answer = parse_head(head)
        answer.body = body
        return answer

    def page(self, path: str = "/") -> Outline:
        """The page, which has to be HTML."""
        answer = self.ask(path)
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.header("Content-Type"), "text/html; charset=utf-8")
        outline = Outline(answer.body.decode("utf-8"))
        self.assertEqual(outline.unclosed, [])
        return outline


class PageTests(StatusPageCase):
    """What is answered at which path."""

    def test_any_path(self) -> None:
        """Whatever nothing else answers is the page."""
        for path in ("/", "/nothing/of/the/kind", "/index.html", "/?a=b"):
            self.assertIn("DERP Prober", self.page(path).text)

    def test_policy(self) -> None:
        """Nothing from elsewhere, nothing inline, and no frame around it."""
        answer = self.ask("/")
        policy = dict(
            part.strip().split(" ", 1)
            for part in (answer.header("Content-Security-Policy") or "").split(";")
        )
        for kind in ("default-src", "base-uri", "form-action", "frame-ancestors"):
            self.assertEqual(policy.pop(kind), "'none'")
        self.assertEqual(set(policy.values()), {"'self'"})
        self.assertEqual(set(policy), {"script-src", "style-src", "connect-src", "img-src"})
        self.assertEqual(answer.header("X-Content-Type-Options"), "nosniff")
        self.assertEqual(answer.header("Referrer-Policy"), "no-referrer")
        self.assertEqual(answer.header("Cache-Control"), "no-store")

    def test_nothing_from_elsewhere(self) -> None:
        """Every address in the page is one of ours, and there is no inline script or style."""
        page = self.page()
        for tag, attributes in page.tags:
            for name, value in attributes.items():
                self.assertFalse(name.startswith("on") or name == "style", (tag, attributes))
                if name in ("src", "href"):
                    self.assertRegex(value or "", r"^(/(?!/)|#)")
        self.assertEqual([each for each in page.of("script") if not each.get("src")], [])
        self.assertEqual(page.of("style"), [])

    def test_static(self) -> None:
        """Everything the page and its scripts ask for is there, with the right type."""
        wanted = {each["src"] for each in self.page().of("script")}
        wanted |= {each["href"] for each in self.page().of("link")}
        wanted |= {f"/static/{state}.svg" for state in ("ok", "failing", "pending")}
        for file in files("derp.prober").joinpath("static").iterdir():
            names = re.findall(r'from "\./([a-z]+\.js)"', file.read_text("utf-8"))
            wanted |= {f"/static/{name}" for name in names}
        self.assertGreater(len(wanted), 10)
        types = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
        for path in sorted(filter(None, wanted)):
            answer = self.ask(path)
            self.assertEqual(answer.status, 200, path)
            kind = types[path.rpartition(".")[2]]
            self.assertEqual(answer.header("Content-Type"), f"{kind}; charset=utf-8")

    def test_static_again(self) -> None:
        """What a browser has already is not sent again."""
        first = self.ask("/static/page.css")
        etag = next(value for name, value in first.headers if name.lower() == "etag")
        again = self.ask("/static/page.css", f"If-None-Match: {etag}")
        self.assertEqual((again.status, again.body), (304, b""))
        other = self.ask("/static/page.js", f"If-None-Match: {etag}")
        self.assertEqual(other.status, 200)

    def test_no_other_static(self) -> None:
        """Nothing else is below ``/static/``, above all no other file."""
        for path in (
            "/static/",
            "/static/x.js",
            "/static/%2e%2e/check.py",
            "/static/..%2fcheck.py",
        ):
            self.assertEqual(self.ask(path).status, 404, path)

    def test_head(self) -> None:
        """HEAD is answered like GET, without a body and without a stream."""
        for path in ("/", "/static/page.css", "/snapshot.json", "/events"):
            answer = self.ask(path, method="HEAD")
            self.assertEqual((answer.status, answer.body), (200, b""), path)

    def test_post(self) -> None:
        """There is nothing to post to."""
        self.assertEqual(self.ask("/", method="POST").status, 405)

    def test_snapshot(self) -> None:
        """``/snapshot.json`` is what the page is made of."""
        self.shown.pass_time(1)
        answer = self.ask("/snapshot.json")
        self.assertEqual(answer.header("Content-Type"), "application/json; charset=utf-8")
        self.assertEqual(json.loads(answer.body)["summary"]["ok"], 4)


class PlainPageTests(StatusPageCase):
    """The page of a browser without scripts."""

    def test_all_healthy(self) -> None:
        """The summary, and each probe with its figures."""
        self.shown.pass_time(1)
        page = self.page()
        self.assertIn("All healthy", page.text)
        for words in ("derp1.example.com", "STUN IPv4", "STUN IPv6", "41.0 ms", "certificate 61 d"):
            self.assertIn(words, page.text)
        self.assertEqual(page.of("body")[0]["data-state"], "ok")
        self.assertIn({"http-equiv": "refresh", "content": "30"}, page.of("meta"))

    def test_failing(self) -> None:
        """Title, icon and colour say so, and the reason is there in words."""
        self.shown.checks["derp/nyc/1a/udp6"].error = "port 3478 did not answer"
        self.shown.pass_time(INTERVAL + 1)
        page = self.page()
        self.assertIn("1 of 4 failing | DERP Prober", page.text)
        self.assertIn("port 3478 did not answer", page.text)
        self.assertIn("STUN IPv6, derp1.example.com (nyc) has been failing for 16s", page.text)
        self.assertEqual(page.of("body")[0]["data-state"], "failing")
        self.assertIn("/static/failing.svg", [each.get("href") for each in page.of("link")])

    def test_metrics(self) -> None:
        """There is a way to the metrics, as in the reference."""
        links = [each.get("href") for each in self.page().of("a")]
        self.assertIn("/debug/varz", links)

    def test_hostile_names(self) -> None:
        """Names and errors that try to be markup are text, and the page stays whole."""
        labels = {"region": HOSTILE, "region_id": HOSTILE, "hostname": HOSTILE}
        name = f"derp/{HOSTILE}/{HOSTILE}/tls"
        check = self.shown.add(name, "tls", labels, error=HOSTILE)
        check.found = {"mapped_address": HOSTILE, HOSTILE: HOSTILE, "days_left": HOSTILE}
        check.found |= {"loss": HOSTILE, "packet_ms": "1"}
        self.shown.add("derp/\ud800/x/tls", HOSTILE, {"region": "\ud800"})
        self.may_run = True
        self.shown.pass_time(1)
        page = self.page()
        self.assertEqual(page.of("img"), [])
        self.assertEqual(len(page.of("script")), 2)
        self.assertIn("<script>alert(1)</script>", page.text)

    def test_facts(self) -> None:
        """Findings in words; what nobody knows is left out."""
        found = {"loss": 0.125, "p99_ms": 12.34, "days_left": 3, "other": 1, "mapped_address": ""}
        self.assertEqual(facts(found), ["certificate 3 d", "12.5% lost", "99 % within 12.3 ms"])


class RunButtonTests(StatusPageCase):
    """Who may run probes is shown how."""

    def test_may_not(self) -> None:
        """Others see nothing of it."""
        page = self.page()
        self.assertNotIn("data-may-run", page.of("body")[0])
        self.assertFalse([a for a in page.of("a") if "probe-run" in str(a.get("href"))])
        self.assertNotIn("Run all", page.text)

    def test_may(self) -> None:
        """A link for each probe, with its name escaped; none for a continuous one."""
        self.may_run = True
        self.shown.add("derp/nyc/1a/1a/qd", "derp_qd", {"region": "nyc"}, interval=-10)
        page = self.page()
        self.assertIn("data-may-run", page.of("body")[0])
        links = [str(a["href"]) for a in page.of("a") if "probe-run" in str(a["href"])]
        self.assertEqual(len(links), 4)
        self.assertIn("/debug/probe-run?name=derp%2Fnyc%2F1a%2Ftls", links)
