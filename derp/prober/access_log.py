"""
One line of JSON per request for the page and for runs; none for scrapes and health checks, nor
for the files that belong to the page.

Fields: ``time`` ``duration`` (seconds) ``remote_addr`` ``proto`` ``tls`` ``host`` ``method``
``request_uri`` ``user_agent`` ``referer`` ``code`` ``bytes`` ``err``; what is empty is left out.
Source: tailscale ``tsweb.AccessLogRecord``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from twisted.logger import Logger
from twisted.web.resource import IResource, Resource

from derp.net.answers import first_header
from derp.net.socket_address import host_port

log = Logger(namespace="derp")

_KEY: Final = re.compile(rb"([?&]debugkey=)[^&]*")
_FILES: Final = b"/static/"
_MAX_FIELD: Final = 2000
"""Characters of what a client has sent."""


class Logged(Resource):
    """
    A page whose requests are logged.

    :param clock: how long answers take.
    :param wall_time: Unix seconds.
    """

    isLeaf = True

    def __init__(self, page: IResource, clock: Any, wall_time: Callable[[], float]) -> None:
        super().__init__()
        self._page = page
        self._clock = clock
        self._wall_time = wall_time

    def render(self, request: Any) -> bytes | int:
        """Render the page; the line is written when the answer was."""
        began = self._wall_time(), self._clock.seconds()
        if not request.path.startswith(_FILES):
            request.notifyFinish().addCallbacks(
                lambda _: self._write(request, began, ""),
                lambda _: self._write(request, began, "the client left"),
            )
        body: bytes | int = self._page.render(request)
        if isinstance(body, bytes) and request.code >= 400:
            request.error_said = body.decode("utf-8", "replace").strip()
        return body

    def _write(self, request: Any, began: tuple[float, float], error: str) -> None:
        log.info("{record}", record=self._record(request, began, error))

    def _record(self, request: Any, began: tuple[float, float], error: str) -> str:
        """:param began: by either clock."""
        peer = request.getClientAddress()
        host, port = getattr(peer, "host", ""), getattr(peer, "port", 0)
        fields = {
            "time": datetime.fromtimestamp(began[0], UTC).isoformat().replace("+00:00", "Z"),
            "duration": round(self._clock.seconds() - began[1], 9),
            "remote_addr": host_port(host, port) if host else "",
            "proto": _text(request.clientproto),
            "tls": request.isSecure(),
            "host": _text(first_header(request, b"Host")),
            "method": _text(request.method),
            "request_uri": _text(_KEY.sub(rb"\1<hidden>", request.uri)),
            "user_agent": _text(first_header(request, b"User-Agent")),
            "referer": _text(first_header(request, b"Referer")),
            "code": request.code,
            "bytes": request.sentLength,
            "err": error or getattr(request, "error_said", ""),
        }
        kept = {name: value for name, value in fields.items() if value}
        return json.dumps(kept, separators=(",", ":"))


def _text(value: bytes) -> str:
    return value[:_MAX_FIELD].decode("utf-8", "replace")
