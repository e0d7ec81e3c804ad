"""Go's way from a path to its handler."""

import re
from typing import Any
from urllib.parse import unquote_to_bytes

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.config import Config
from derp.net.mux import Mux, clean_path
from derp.net.web import build_main_site
from tests.net.sites import TextPage, Visit, get, site_parts

PATHS = st.lists(st.sampled_from([b"/", b".", b"..", b"a", b"b.c", b"%2e", b"..."]), max_size=12)


class CleanPathTests(SynchronousTestCase):
    """``clean_path``."""

    def test_known(self) -> None:
        """Cases of Go's own ``path.Clean``, with the final slash kept."""
        cases = {
            b"/": b"/",
            b"//": b"/",
            b"//derp": b"/derp",
            b"/a/../derp": b"/derp",
            b"/derp/.": b"/derp",
            b"/a/b/..": b"/a",
            b"/a/b/../": b"/a/",
            b"/../..": b"/",
            b"/..": b"/",
            b"/./": b"/",
            b"/a//b/": b"/a/b/",
            b"/a/%2e%2e/b": b"/a/%2e%2e/b",
            b"/...": b"/...",
        }
        for path, cleaned in cases.items():
            self.assertEqual(clean_path(path), cleaned, path)

    @given(PATHS.map(lambda parts: b"/" + b"".join(parts)))
    @example(b"//..//.")
    def test_properties(self, path: bytes) -> None:
        """A clean path is absolute, has no empty or dot segments, and stays as it is."""
        cleaned = clean_path(path)
        self.assertEqual(clean_path(cleaned), cleaned)
        self.assertTrue(cleaned.startswith(b"/"))
        self.assertIsNone(re.search(rb"//|/\.\.?(/|$)", cleaned))

    @given(PATHS.map(lambda parts: b"/" + b"".join(parts)))
    def test_against_walking(self, path: bytes) -> None:
        """It names the place one comes to by walking the segments."""
        place: list[bytes] = []
        for segment in path.split(b"/"):
            if segment == b"..":
                place = place[:-1]
            elif segment not in (b"", b"."):
                place = [*place, segment]
        self.assertEqual([s for s in clean_path(path).split(b"/") if s], place)


class FakeRequest:
    """As much of a request as choosing needs."""

    method = b"GET"
    prepath: list[bytes]
    postpath: list[bytes]

    def __init__(self, path: bytes) -> None:
        self.path = self.uri = path


class MuxTests(SynchronousTestCase):
    """``Mux``."""

    def setUp(self) -> None:
        self.pages = {path: TextPage(path.encode()) for path in ("/", "/a", "/a/b", "/t/", "/t/x")}
        self.mux = Mux(self.pages)

    def choose(self, path: bytes) -> tuple[Any, FakeRequest]:
        request = FakeRequest(path)
        return self.mux.resource_for(request), request

    def test_exact_and_below(self) -> None:
        """The longest pattern wins; what is no pattern belongs to the nearest subtree."""
        cases = {
            b"/": "/",
            b"/a": "/a",
            b"/a/": "/",
            b"/a/b": "/a/b",
            b"/a/b/c": "/",
            b"/t/": "/t/",
            b"/t/x": "/t/x",
            b"/t/y/z": "/t/",
            b"/tx": "/",
            b"/%61": "/a",
            b"/%61/b": "/a/b",
            b"/a%2Fb": "/",
            b"/A": "/",
        }
        for path, pattern in cases.items():
            resource, _ = self.choose(path)
            self.assertIs(resource, self.pages[pattern], path)

    def test_rest_of_the_path(self) -> None:
        """A subtree's resource learns what lies below it."""
        _, request = self.choose(b"/t/y/%7Az")
        self.assertEqual((request.prepath, request.postpath), ([b"t"], [b"y", b"zz"]))

    @given(PATHS.map(lambda parts: b"/" + b"".join(parts)))
    def test_always_chooses(self, path: bytes) -> None:
        """Every clean path has a resource of ours, every other a redirect."""
        resource, _ = self.choose(path)
        own = resource in self.pages.values()
        to_subtree = unquote_to_bytes(clean_path(path)) == b"/t"
        self.assertEqual(own, clean_path(path) == path and not to_subtree)


class RedirectTests(SynchronousTestCase):
    """Redirects as they are served."""

    def setUp(self) -> None:
        parts = site_parts(
            Clock(), Config(tls=False), debug_pages={"/debug/tree/": TextPage(b"leaf")}
        )
        self.visit = Visit(build_main_site(parts))

    def location(self, path: str, method: str = "GET") -> str | None:
        answer = self.visit.send(get(path, method=method)).decode()
        match = re.search(r"^Location: (.*)\r$", answer, re.MULTILINE)
        self.assertEqual("307 Temporary Redirect" in answer, match is not None)
        return match and match[1]

    def test_locations(self) -> None:
        """Clean, with the query; what was escaped stays so, what has to be gets escaped."""
        cases = {
            "//a%20b?x=1&y": "/a%20b?x=1&y",
            "/a/../b/?q": "/b/?q",
            "//?": "/",
            "/debug?a=b": "/debug/?a=b",
            "/debug/tree": "/debug/tree/",
            "//debug/tree": "/debug/tree/",
            '//a\\b"<': "/a%5Cb%22%3C",
            "//evil.example/..": "/",
            "//%2f/evil.example": "/%2f/evil.example",
            "/fine": None,
        }
        for path, location in cases.items():
            self.assertEqual(self.location(path), location, path)

    def test_never_to_another_host(self) -> None:
        """No path makes a redirect leave the site."""
        for path in ("///evil.example", "//./evil.example", "/\\/evil.example//", "/.//evil//"):
            location = self.location(path)
            assert location is not None
            self.assertRegex(location, r"^/[^/\\]")

    def test_methods(self) -> None:
        """Only a reader who sees the body is given one."""
        self.assertEqual(self.location("//a", method="POST"), "/a")
        answer = self.visit.send(get("//a", method="POST"))
        self.assertNotIn(b"Content-Type", answer)
        self.assertTrue(answer.endswith(b"Content-Length: 0\r\n\r\n"))

    def test_connect(self) -> None:
        """CONNECT has no path, so without TLS there is nothing."""
        answer = self.visit.send(get("a.tailscale.com:443", method="CONNECT"))
        self.assertIn(b"404 Not Found", answer)
