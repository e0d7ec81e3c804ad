"""
The pages under ``/debug/``, without the question who may see them
(:mod:`derp.net.debug_access`).
"""

from __future__ import annotations

import gc
import re
from html import escape
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET

from derp.core.consistency import check
from derp.durations import format_duration
from derp.net.answers import first_header, plain_error
from derp.net.certificate_watchdog import expiry_note
from derp.net.close_peer import ClosePeerPage
from derp.net.late_page import LatePage
from derp.net.metric_sources import Sources
from derp.net.pprof import ProfilePages
from derp.net.traffic import TrafficPage

LINKS: Final = (
    ("vars", "Metrics (Go)"),
    ("varz", "Metrics (Prometheus)"),
    ("pprof/", "pprof (index)"),
    ("pprof/goroutine?debug=1", "Goroutines (collapsed)"),
    ("pprof/goroutine?debug=2", "Goroutines (full)"),
    ("gc", "force GC"),
    ("check", "Consistency check"),
    ("traffic", "Traffic check"),
    ("set-mutex-profile-fraction", "SetMutexProfileFraction"),
)
"""What the index leads to, in derper's order and words."""

log = Logger(namespace="derp")

_INTEGER: Final = re.compile(rb"[+-]?[0-9]{1,18}")
_HTML: Final = b"text/html; charset=utf-8"
_TEXT: Final = b"text/plain; charset=utf-8"


def debug_resources(sources: Sources) -> dict[str, IResource]:
    """Every debug page by its path; one that ends in ``/`` takes what is below it."""
    pages = {
        "": Index(sources),
        "vars": LatePage(lambda: _vars(sources)),
        "varz": LatePage(lambda: _varz(sources)),
        "check": CheckPage(sources),
        "traffic": TrafficPage(sources.relay, sources.clock),
        "close-peer": ClosePeerPage(sources.relay),
        "gc": CollectPage(),
        "pprof/": ProfilePages(sources.clock, sources.command_line),
        "set-mutex-profile-fraction": MutexProfilePage(),
    }
    return {f"/debug/{path}": page for path, page in pages.items()}


def _vars(sources: Sources) -> IResource:
    from derp.net.variable_pages import VarsPage

    return VarsPage(sources)


def _varz(sources: Sources) -> IResource:
    from derp.net.variable_pages import VarzPage

    return VarzPage(sources)


class Index(Resource):
    """``/debug/``: what runs here, and where to look closer."""

    isLeaf = True

    def __init__(self, sources: Sources) -> None:
        super().__init__()
        self._sources = sources

    def render(self, request: IRequest) -> bytes:
        request.setHeader(b"Content-Type", _HTML)
        sources = self._sources
        facts: list[tuple[str, str]] = [
            ("Uptime", format_duration(sources.uptime)),
            ("Version", sources.version),
            ("Machine", sources.machine),
            ("TLS hostname", sources.hostname),
            ("Mesh key", "true" if sources.relay.mesh_key is not None else "false"),
        ]
        facts += [("Certificate", each) for each in self._certificates()]
        facts += [(f"Mesh {link.peer.name}", link.describe()) for link in sources.mesh_links]
        items = [f"<b>{escape(key)}:</b> {escape(value)}" for key, value in facts]
        items += [
            f'<a href="/debug/{path}">/debug/{path}</a> ({escape(description)})'
            for path, description in LINKS
        ]
        listing = "".join(f"<li>{item}</li>\n" for item in items)
        page = f"<html><body>\n<h1>derper debug</h1>\n<ul>\n{listing}</ul>\n</body></html>\n"
        return page.encode("utf-8")

    def _certificates(self) -> list[str]:
        now = self._sources.wall_time()
        found = []
        for status in self._sources.certificates():
            note = expiry_note(status, now)
            found.append(f"{status.describe()} ({note})" if note else status.describe())
        return found


class CheckPage(Resource):
    """
    ``/debug/check``: whether the relay's books agree with each other, and admission works.

    Answers as soon as tailscaled and URLs have, if there are any to ask.
    """

    isLeaf = True

    def __init__(self, sources: Sources) -> None:
        super().__init__()
        self._sources = sources

    def render(self, request: Any) -> bytes | int:
        problems = check(self._sources.relay)
        answer: Deferred[bytes] = self._sources.check_self().addCallback(
            lambda found: self._report(request, [*problems, *found])
        )
        if isinstance(body := getattr(answer, "result", None), bytes):
            return body
        left = request.notifyFinish()
        left.addErrback(lambda _: answer.cancel())
        answer.addCallback(self._finish, request, left).addErrback(self._failed, request)
        return NOT_DONE_YET

    def _report(self, request: IRequest, problems: list[str]) -> bytes:
        if problems:
            return plain_error(request, 500, ", ".join(problems))
        request.setHeader(b"Content-Type", _TEXT)
        return b"derp.Server ConsistencyCheck okay"

    def _finish(self, body: bytes, request: Any, left: Deferred[None]) -> None:
        if not left.called:
            request.write(body)
            request.finish()

    def _failed(self, failure: Failure, request: Any) -> None:
        if not failure.check(CancelledError):  # then nobody waits any more
            log.failure("the self-check failed", failure)
            request.write(plain_error(request, 500, "the self-check failed, see the log"))
            request.finish()


class CollectPage(Resource):
    """``/debug/gc``: collects garbage; nothing is relayed meanwhile."""

    isLeaf = True

    def render(self, request: IRequest) -> bytes:
        request.setHeader(b"Content-Type", _TEXT)
        gc.collect()
        return b"running GC...\nDone.\n"


class MutexProfilePage(Resource):
    """
    ``/debug/set-mutex-profile-fraction``: keeps the number it is given.

    There is nothing to profile: one thread relays, and takes no locks.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self._rate = 0

    def render(self, request: IRequest) -> bytes:
        rates = request.args.get(b"rate", [])
        if not rates or first_header(request, b"Sec-Debug") != b"derp":
            hint = (
                "To set, use: curl -HSec-Debug:derp "
                "'http://derp/debug/set-mutex-profile-fraction?rate=100'"
            )
            return plain_error(request, 400, hint)
        if not _INTEGER.fullmatch(rates[0]):
            return plain_error(request, 400, "bad rate value")
        old, self._rate = self._rate, int(rates[0])
        request.setHeader(b"Content-Type", _TEXT)
        return f"rate {old} is {self._rate} now; there is no mutex to profile\n".encode("ascii")
