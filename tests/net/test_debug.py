"""Tests of :mod:`derp.net.debug`: the pages under ``/debug/``."""

from __future__ import annotations

import gc
import json
import re
import weakref
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from derp.config import MeshPeer
from derp.net.debug import LINKS, debug_resources
from derp.net.mesh_link import MeshLink
from tests.exposition import Exposition
from tests.net.mesh_fakes import FakeConnector
from tests.net.test_derper_variables import ONLY_GO
from tests.shown_relay import BOB_PRIVATE, FakeClient, exchange, make_sources
from tests.vectors import load

SERVED = {case["name"]: case["response"] for case in load("http.json")["cases"]}


class DebugPagesTests(SynchronousTestCase):
    """What each page says."""

    def setUp(self) -> None:
        self.sources = make_sources(mesh_key=bytes(range(32)))
        exchange(self.sources)
        self.pages = debug_resources(self.sources)

    def get(self, path: str, headers: dict[str, str] | None = None, **arguments: str) -> Any:
        request = DummyRequest([b""])
        for name, value in (headers or {}).items():
            request.requestHeaders.setRawHeaders(name, [value])
        for name, value in arguments.items():
            request.addArg(name.encode("ascii"), value.encode("ascii"))
        body = self.pages[f"/debug/{path}"].render(request)
        request.body = body.decode("utf-8")
        request.type = request.responseHeaders.getRawHeaders(b"Content-Type")[0].decode("ascii")
        return request

    def assert_as_recorded(self, name: str, request: Any) -> None:
        """Compare with what derper answered."""
        recorded = SERVED[name]
        self.assertEqual(request.responseCode or 200, recorded["status"])
        self.assertEqual(request.type, dict(recorded["headers"])["Content-Type"])
        if "body" in recorded:
            self.assertEqual(request.body, recorded["body"])
        for text in recorded.get("body_contains") or ():
            self.assertIn(text, request.body)
        for text in recorded.get("body_does_not_contain") or ():
            self.assertNotIn(text, request.body)

    def test_as_recorded(self) -> None:
        """Every recorded page has its status, its type and its words."""
        for name, path in (
            ("debug", ""),
            ("debug varz", "varz"),
            ("debug vars", "vars"),
            ("debug check", "check"),
            ("debug gc", "gc"),
        ):
            self.assert_as_recorded(name, self.get(path))
        request = self.get("set-mutex-profile-fraction", rate="5")
        self.assert_as_recorded("mutex fraction without header", request)

    def test_index(self) -> None:
        """Facts come first, then links, all in derper's order."""
        assert isinstance(self.sources.clock, Clock)
        self.sources.clock.advance(3723.4)
        index = self.get("").body
        self.assertIn("<h1>derper debug</h1>", index)
        items = re.findall(r"<li>(.*)</li>", index)
        self.assertEqual(
            items[:5],
            [
                "<b>Uptime:</b> 1h2m3s",
                "<b>Version:</b> 9.8.7",
                "<b>Machine:</b> a-machine",
                "<b>TLS hostname:</b> 127.0.0.1",
                "<b>Mesh key:</b> true",
            ],
        )
        links = [re.fullmatch(r'<a href="(.*)">(.*)</a> \((.*)\)', item) for item in items[5:]]
        shown = [(link[1], link[2], link[3]) for link in links if link]
        self.assertEqual(
            shown, [(f"/debug/{path}", f"/debug/{path}", what) for path, what in LINKS]
        )

    def test_no_mesh_key(self) -> None:
        """Whether there is a mesh key is told, the key is not."""
        self.assertNotIn(bytes(range(32)).hex(), self.get("").body)
        self.pages = debug_resources(make_sources())
        self.assertIn("<b>Mesh key:</b> false", self.get("").body)

    def test_mesh(self) -> None:
        """Each link to another relay is a line, and what it says is no markup."""
        clock = Clock()
        connector = FakeConnector(clock)
        peer = MeshPeer(name="r2.example", host="r2.example")
        link = MeshLink(clock, self.sources.relay, peer, connector)
        self.sources.mesh_links = [link]
        link.start()
        connector.refuse("<no> route")
        self.assertIn("<b>Mesh r2.example:</b> down, 0 forwarded", self.get("").body)
        self.assertIn("&lt;no&gt; route", self.get("").body)
        link.stop()

    def test_index_escapes(self) -> None:
        """A name with markup in it stays text."""
        self.sources.hostname = "<script>"
        self.assertNotIn("<script>", self.get("").body)

    def test_every_link_works(self) -> None:
        """The index leads to no page that does not exist."""
        for path, _ in LINKS:
            page = path.partition("?")[0]
            self.assertTrue(
                f"/debug/{page}" in self.pages or page.startswith("pprof/"), f"no page {page}"
            )

    def test_varz(self) -> None:
        """Native metrics come first; altogether there are derper's names, types and labels."""
        body = self.get("varz").body
        shown = Exposition.parse(body)
        expected = Exposition.parse(load("varz-traffic.txt")).without(*ONLY_GO)
        self.assertEqual(shown.types, expected.types)
        self.assertEqual(list(shown.types), list(expected.types))
        self.assertEqual(
            set(shown.without("version").samples), set(expected.without("version").samples)
        )
        self.assertLess(body.index("process_cpu"), body.index("bootstrap_dns"))

    def test_vars(self) -> None:
        """The page is JSON and shows the same counters."""
        self.assertEqual(json.loads(self.get("vars").body)["derp"]["packets_received"], 6)

    def test_check_fails(self) -> None:
        """What is wrong is an error, its phrases joined by commas."""
        FakeClient(self.sources.relay, BOB_PRIVATE)
        self.sources.relay.stats.home_connections += 1
        request = self.get("check")
        self.assertEqual(request.responseCode, 500)
        self.assertEqual(request.type, "text/plain; charset=utf-8")
        self.assertEqual(len(request.body.split(", ")) > 1, True, request.body)
        self.assertTrue(request.body.endswith("\n"))

    def test_gc(self) -> None:
        """Garbage is gone afterwards."""

        class Knot:
            def __init__(self) -> None:
                self.itself = self

        gc.disable()
        try:
            gone = weakref.ref(Knot())
            self.assertIsNotNone(gone())
            self.get("gc")
            self.assertIsNone(gone())
        finally:
            gc.enable()

    def test_mutex_profile(self) -> None:
        """The rate is kept, and told at the next change; it takes the header to change it."""
        page, header = "set-mutex-profile-fraction", {"Sec-Debug": "derp"}
        self.assertIn("rate 0 is 5 now", self.get(page, header, rate="5").body)
        self.assertEqual(self.get(page, {"Sec-Debug": "no"}, rate="6").responseCode, 400)
        self.assertEqual(self.get(page, header).responseCode, 400)
        self.assertIn("rate 5 is 100 now", self.get(page, header, rate="100").body)

    def test_bad_rate(self) -> None:
        """What is no number is refused."""
        for rate in ("x", "", "1.5", "9" * 10_000):
            header = {"Sec-Debug": "derp"}
            request = self.get("set-mutex-profile-fraction", header, rate=rate)
            self.assertEqual((request.responseCode, request.body), (400, "bad rate value\n"))
