"""
The status page: what everybody sees who looks at a prober, at any path that is nothing else.

==================  ========================================================================
``/events``         what changes, see :mod:`derp.prober.event_stream`
``/snapshot.json``  everything at once, see :mod:`derp.prober.snapshot`
``/static/…``       style, scripts and icons of the page, from the package
anything else       the page; it is whole without scripts, and live with them
==================  ========================================================================

The page takes nothing from elsewhere and has nothing inline; its policy forbids both, so that a
name in a map that tries to be a script stays a name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final

from twisted.web.http import CACHED
from twisted.web.resource import IResource, Resource

from derp.net.answers import plain_error
from derp.prober.event_stream import EventPage, LiveView
from derp.prober.status_html import render_page

POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    b"img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
STATIC_TYPES: Final = {
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml; charset=utf-8",
}

MayRun = Callable[[Any], bool]


def page_resource(
    prober: Any,
    *,
    reactor: Any,
    may_run: MayRun,
    wall_time: Callable[[], float] = time.time,
) -> IResource:
    """
    Make what answers below ``/`` of a prober.

    :param prober: whose probes are shown.
    :param may_run: whether who sends a request may use ``/debug/probe-run``: gets its buttons.
    :param wall_time: Unix seconds, as in the probes' histories.
    """
    return StatusPages(reactor, LiveView(reactor, prober, wall_time), may_run)


def add_page_headers(request: Any) -> None:
    """Set the security headers of everything here."""
    request.setHeader(b"Content-Security-Policy", POLICY)
    request.setHeader(b"X-Content-Type-Options", b"nosniff")
    request.setHeader(b"X-Frame-Options", b"DENY")
    request.setHeader(b"Referrer-Policy", b"no-referrer")
    request.setHeader(b"Cache-Control", b"no-store")


class StatusPages(Resource):
    """Chooses by path; a leaf, so that it does not matter how it is mounted."""

    isLeaf = True

    def __init__(self, reactor: Any, live: LiveView, may_run: MayRun) -> None:
        super().__init__()
        self._live = live
        self._may_run = may_run
        self._pages: dict[bytes, IResource] = {
            b"/events": EventPage(reactor, live),
            b"/snapshot.json": SnapshotPage(live),
            **static_pages(),
        }

    def render(self, request: Any) -> bytes | int:
        """See ``IResource``."""
        page = self._pages.get(request.path)
        if page is not None:
            body: bytes | int = page.render(request)
            return body
        if request.path.startswith(b"/static/"):
            return plain_error(request, 404, "404 page not found")
        rendered: bytes | int = super().render(request)
        return rendered

    def render_GET(self, request: Any) -> bytes:
        """The page itself."""
        add_page_headers(request)
        request.setHeader(b"Content-Type", b"text/html; charset=utf-8")
        page = render_page(self._live.snapshot(), may_run=self._may_run(request))
        return page.encode("utf-8", "replace")


class SnapshotPage(Resource):
    """``/snapshot.json``: for scripts of people, and for pages whose stream is held up."""

    isLeaf = True

    def __init__(self, live: LiveView) -> None:
        super().__init__()
        self._live = live

    def render_GET(self, request: Any) -> bytes:
        """Everything there is to say."""
        add_page_headers(request)
        request.setHeader(b"Content-Type", b"application/json; charset=utf-8")
        return self._live.snapshot_text().encode("ascii") + b"\n"


class StaticPage(Resource):
    """One file of the package, read once."""

    isLeaf = True

    def __init__(self, content: bytes, content_type: bytes) -> None:
        super().__init__()
        self._content = content
        self._type = content_type
        self._etag = b'"' + sha256(content).hexdigest()[:24].encode("ascii") + b'"'

    def render_GET(self, request: Any) -> bytes:
        """The file, or that it is what the browser has."""
        add_page_headers(request)
        request.setHeader(b"Cache-Control", b"no-cache")  # keep it, and ask whether it is new
        if request.setETag(self._etag) is CACHED:
            return b""
        request.setHeader(b"Content-Type", self._type)
        return self._content


def static_pages() -> dict[bytes, IResource]:
    """Every file of ``derp/prober/static``, by its path on the page."""
    found: dict[bytes, IResource] = {}
    for file in files("derp.prober").joinpath("static").iterdir():
        content_type = STATIC_TYPES.get(file.name.rpartition(".")[2])
        if content_type is not None:
            path = f"/static/{file.name}".encode("ascii")
            found[path] = StaticPage(file.read_bytes(), content_type)
    return found
