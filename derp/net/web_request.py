"""
One HTTP request: twisted.web's, answering as Go's ``http.Server`` does.

That is: no ``Server`` header, headers in Go's order, no body kept, ``text/plain`` unless
a page says otherwise, and the checks of Host and request target before any page is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from twisted.python.failure import Failure
from twisted.web import http, server
from twisted.web.error import UnsupportedMethod
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource

from derp.net.answers import plain_error
from derp.net.http_channel import MAX_BODY

if TYPE_CHECKING:
    from derp.core.tls_request_stats import TLSRequestStats
    from derp.net.upgrade import UpgradableChannel

_HOST: Final = re.compile(rb"[A-Za-z0-9!$%&'()*+,\-.:;=\[\]_~]*")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL)
_NO_BODY: Final = (204, 304)


class WebRequest(server.Request):
    """A request to any of our sites."""

    defaultContentType: bytes | None = b"text/plain; charset=utf-8"
    channel: UpgradableChannel
    site: Any
    transport: Any
    via_trusted_proxy = False
    """Whether a proxy we trust has said who the client is."""
    _closes = False
    """Whether it is the channel that wants the connection closed, not the page."""
    _tls_stats: TLSRequestStats | None = None
    _tls_label = ""
    _body_size = 0

    def gotLength(self, length: int | None) -> None:
        """Nobody reads bodies: there is no file to put one in."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Count the body against :data:`~derp.net.http_channel.MAX_BODY`, and drop it."""
        self._body_size += len(data)
        if self._body_size > MAX_BODY:
            self.channel.refuse(413)

    def process(self) -> None:
        self.site = self.channel.site
        self._closes = self.responseHeaders.hasHeader(b"Connection")
        self.responseHeaders.removeHeader(b"Connection")
        self._find_client()
        self._count_tls()
        try:
            fault = self._read_target()
            if fault is not None:
                self.channel.refuse(400, fault)
            elif self.uri == b"*":
                self._answer_star()
            else:
                self.render(self.site.resource_for(self))
        except Exception:
            self._fail(Failure())

    def _find_client(self) -> None:
        proxies = self.site.proxies
        if proxies is not None:
            client = proxies.client_of(self.requestHeaders, self.client)
            self.via_trusted_proxy = client is not self.client
            self.client = client

    def judge_client(self) -> None:
        """This client logs in: see whether it has an address of its own."""
        proxies = self.site.proxies
        if proxies is not None:
            named = self.via_trusted_proxy or self.channel.client_named
            proxies.judge_login(self.requestHeaders, self.client, named=named)

    def judge_plain_visit(self) -> None:
        """A page was asked for where clients log in: see whether a proxy made it one."""
        proxies = self.site.proxies
        if proxies is not None:
            proxies.judge_plain_visit(self.requestHeaders, self.transport.getPeer())

    def _fail(self, failure: Failure) -> None:
        channel = self.channel
        if channel is not None and channel.taken_over:
            # No HTTP answer may get into another protocol's stream.
            self._log.failure("the protocol that took over failed", failure)
            channel.transport.abortConnection()
        else:
            self.processingFailed(failure)

    def _read_target(self) -> str | None:
        """
        Check Host and target, and bring an absolute target into the usual form.

        :returns: what is wrong, if anything is; ``""`` if it has no name.
        """
        hosts = self.requestHeaders.getRawHeaders(b"Host", [])
        if len(hosts) > 1:
            return ""
        if not hosts and self.clientproto == b"HTTP/1.1" and self.method != b"CONNECT":
            return "missing required Host header"
        if hosts and not _HOST.fullmatch(hosts[0]):
            return "malformed Host header"
        if self.method == b"CONNECT" or self.uri == b"*":
            return None
        absolute = _ABSOLUTE.fullmatch(self.uri)
        if absolute is not None:
            host, rest = absolute.groups()
            if not _HOST.fullmatch(host):
                return ""
            self.requestHeaders.setRawHeaders(b"Host", [host])
            self.uri = rest if rest.startswith(b"/") else b"/" + rest
            self.path = self.uri.partition(b"?")[0]
        if not self.path.startswith(b"/") or _BAD_ESCAPE.search(self.path):
            return ""
        return None

    def _answer_star(self) -> None:
        if self.method != b"OPTIONS":
            self.close_after_answer()
            self.setResponseCode(400)
        self.setHeader(b"Content-Length", b"0")
        self.finish()

    def render(self, resrc: IResource) -> None:
        try:
            body = resrc.render(self)
        except UnsupportedMethod as fault:
            self.setHeader(b"Allow", b", ".join(fault.allowedMethods))
            body = plain_error(self, 405, "Method Not Allowed")
        if body is not server.NOT_DONE_YET:
            self.answer(body)

    def answer(self, body: bytes) -> None:
        """Send the whole answer at once."""
        if not body:
            self.defaultContentType = None
        if self.method != b"HEAD":
            if self.code not in _NO_BODY:
                self.setHeader(b"Content-Length", b"%d" % len(body))
            self.write(body)
        else:
            # As Go: a page that writes its body for HEAD, too, is measured by it.
            if body:
                self.setHeader(b"Content-Length", b"%d" % len(body))
            self.write(b"")
        self.finish()

    def close_after_answer(self) -> None:
        """Make this the last request of its connection."""
        self.setHeader(b"Connection", b"close")
        self.channel.persistent = False

    def write(self, data: bytes) -> None:
        if not self.startedWriting:
            self._arrange_headers()
        super().write(data)

    def _arrange_headers(self) -> None:
        """Order as Go does: the page's own by name, then what the server adds."""
        headers = self.responseHeaders
        arranged = Headers()
        own = dict(headers.getAllRawHeaders())
        length = own.pop(b"Content-Length", None)
        closes = self._closes and own.get(b"Connection") != [b"close"]
        if closes:
            own.pop(b"Connection", None)
        for name in sorted(own):
            arranged.setRawHeaders(name, own[name])
        arranged.setRawHeaders(b"Date", [http.datetimeToString()])
        if length is not None:
            arranged.setRawHeaders(b"Content-Length", length)
        if closes:
            arranged.setRawHeaders(b"Connection", [b"close"])
        self.responseHeaders = arranged

    def _count_tls(self) -> None:
        transport = self.transport
        label = getattr(transport, "tls_version", None)
        if label is None:
            if not self.isSecure():
                return
            label = "unknown"
        self._tls_stats = self.site.tls_stats
        if self._tls_stats is not None:
            self._tls_label = label
            self._tls_stats.begin(label)

    def count_end(self) -> None:
        """The request is over, unless the connection's taker has the count now."""
        stats, self._tls_stats = self._tls_stats, None
        if stats is not None:
            stats.end(self._tls_label)

    def hand_over_tls_count(self) -> Callable[[], None] | None:
        """Let the count end with the connection, which is being taken over."""
        stats, label = self._tls_stats, self._tls_label
        self._tls_stats = None
        if stats is None:
            return None
        return lambda: stats.end(label)

    def finish(self) -> Any:
        result = super().finish()
        self.count_end()
        return result

    def connectionLost(self, reason: Failure) -> None:
        self.count_end()
        super().connectionLost(reason)
