"""
``/debug/pprof/``: what of Go's profiling pages is cheap and safe to have in Python.

That is the command line and the stacks of all threads. Profiles that slow the relay down
while they are taken (CPU, heap, trace) are not offered; ``py-spy`` takes them from outside.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource

from derp.net.answers import plain_error

PAGES: Final = (
    ("cmdline", "Command line"),
    ("goroutine?debug=1", "Threads by stack, pending timers by what they call"),
    ("goroutine?debug=2", "Every thread's stack"),
)

_HTML: Final = b"text/html; charset=utf-8"
_TEXT: Final = b"text/plain; charset=utf-8"


def thread_stacks() -> str:
    """Each thread's name and stack, without values of variables."""
    frames = sys._current_frames()
    parts = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "  (ended)\n"
        daemon = ", daemon" if thread.daemon else ""
        parts.append(f"thread {thread.ident} [{thread.name}{daemon}]:\n{stack}")
    return "\n".join(parts)


def collapsed_stacks(clock: IReactorTime) -> str:
    """How many threads share each stack, and how many timers wait to call each function."""
    stacks = Counter(
        "".join(traceback.format_stack(frame)) for frame in sys._current_frames().values()
    )
    timers = Counter(_called(getattr(call, "func", call)) for call in clock.getDelayedCalls())
    lines = [f"thread profile: total {stacks.total()}"]
    lines += [f"{count} @\n{stack}" for stack, count in stacks.most_common()]
    lines.append(f"pending timers: total {timers.total()}")
    lines += [f"{count} @ {called}" for called, count in timers.most_common()]
    return "\n".join(lines) + "\n"


def _called(function: object) -> str:
    module = getattr(function, "__module__", "") or type(function).__module__
    name = getattr(function, "__qualname__", "") or type(function).__qualname__
    return f"{module}.{name}"


def _index() -> str:
    items = "".join(
        f'<li><a href="{escape(page)}">{escape(page)}</a> ({escape(what)})</li>\n'
        for page, what in PAGES
    )
    return f"<html><body>\n<h1>Profiles</h1>\n<ul>\n{items}</ul>\n</body></html>\n"


class ProfilePages(Resource):
    """Everything below ``/debug/pprof/``."""

    isLeaf = True

    def __init__(self, clock: IReactorTime, command_line: Sequence[str]) -> None:
        super().__init__()
        self._clock = clock
        self._command_line = command_line

    def render(self, request: IRequest) -> bytes:
        page = b"/".join(request.postpath)
        content_type = _TEXT
        if page == b"":
            content_type, text = _HTML, _index()
        elif page == b"cmdline":
            text = "\0".join(self._command_line)
        elif page != b"goroutine":
            return plain_error(request, 404, "Unknown profile")
        elif request.args.get(b"debug") == [b"2"]:
            text = thread_stacks()
        else:
            text = collapsed_stacks(self._clock)
        request.setHeader(b"Content-Type", content_type)
        return text.encode("utf-8", "replace")
