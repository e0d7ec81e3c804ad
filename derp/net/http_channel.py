"""
twisted.web's HTTP/1.1 channel, with a bound on everything a stranger may send.

Only public names of :class:`twisted.web.http.HTTPChannel` are used or overridden. Differences
from Go's ``http.Server`` that remain: continuation lines are refused (RFC 9112 §5.2 allows
that; Go joins them), more than 500 header lines are a bad request, and lines must end in CRLF.
What is wrong with a line is said in Go's words (:mod:`derp.wire.request_head`).
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http

from derp.net.http_deadlines import HTTPDeadlines, HTTPTiming
from derp.wire.request_head import find_header_line_fault, find_request_line_fault

MAX_HEADER = 1 << 20
"""Bytes of request line and header together (Go: ``DefaultMaxHeaderBytes``), then 431."""
MAX_BODY = 1 << 20
"""Bytes of a request's body, then 413. No path wants a body; it is read and dropped."""

_REASONS = {413: "Request Entity Too Large"}
_BODIES = {501: "Unsupported transfer encoding"}


class BoundedChannel(http.HTTPChannel):
    """
    One HTTP/1.1 connection with absolute deadlines and bounded input.

    :param timing: the deadlines of the port it came in at.
    """

    transport: Any
    MAX_LENGTH = MAX_HEADER
    # Above our own count, which answers 431, so that twisted.web's 400 is never the first.
    totalHeadersSize = 2 * MAX_HEADER

    def __init__(self, timing: HTTPTiming) -> None:
        super().__init__()
        self.deadlines = HTTPDeadlines(timing, self.expire)
        self._partial_line = bytearray()
        self._header_size = 0
        self._in_head = False
        self._idle = False
        self._closing = False
        self._congested = False
        self.arrived: Callable[[], None] | None = None
        """Called at the first request."""

    def connectionMade(self) -> None:
        self.deadlines.await_request()
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        if self._closing:
            return
        if self._idle:
            self._idle = False
            self.deadlines.await_request()
        if self.line_mode:
            data = self._whole_lines(data)
            if not data:
                return
        super().dataReceived(data)

    def _whole_lines(self, data: bytes) -> bytes:
        # LineReceiver copies and searches all it holds at every read: a megabyte sent byte by
        # byte would be a million megabyte copies. Hold lines back until they can end.
        if b"\n" not in data:
            self._partial_line += data
            if len(self._partial_line) > MAX_HEADER:
                self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return b""
        if self._partial_line:
            self._partial_line += data
            data = bytes(self._partial_line)
            self._partial_line.clear()
        return data

    def lineReceived(self, line: bytes) -> None:
        if self._closing:
            return
        self._header_size += len(line) + len(self.delimiter)
        if self._header_size > MAX_HEADER:
            self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif line[:1] in (b" ", b"\t"):
            self.refuse(HTTPStatus.BAD_REQUEST, "header line folding is obsolete")
        elif self._takes(line):
            super().lineReceived(line)

    def _takes(self, line: bytes) -> bool:
        """Whether a line has no fault of its own; one that has is the last we read."""
        if not line:  # the head's end, or a stray one before it
            return True
        find_fault = find_header_line_fault if self._in_head else find_request_line_fault
        self._in_head = True
        fault = find_fault(line)
        if fault is not None:
            self.refuse(fault.status, fault.detail)
        return fault is None

    def lineLengthExceeded(self, line: bytes) -> None:
        self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def allHeadersReceived(self) -> None:
        if self.length is not None and self.length > MAX_BODY:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            super().allHeadersReceived()

    def rawDataReceived(self, data: bytes) -> None:
        if not self._closing:
            super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        if self._closing:
            return
        self._header_size = 0
        self._in_head = False
        self.deadlines.await_response()
        arrived, self.arrived = self.arrived, None
        if arrived is not None:
            arrived()
        super().allContentReceived()

    def requestDone(self, request: http.Request) -> None:
        self._idle = True
        # An answer the peer has not taken yet stays under the response's deadline.
        if not self._congested:
            self.deadlines.await_request()
        super().requestDone(request)

    def pauseProducing(self) -> None:
        self._congested = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self._congested = False
        if not self.requests and not self._closing:
            self.deadlines.await_request()
        super().resumeProducing()

    def refuse(self, status: int, detail: str = "") -> None:
        """
        Answer without a request, in Go's words, and close.

        :param detail: what was wrong, for a status whose own name does not say it.
        """
        if self._closing:
            return  # said already, in the piece of a body that is still being read
        reason = _REASONS.get(status, HTTPStatus(status).phrase)
        line = f"{int(status)} {reason}" + (f": {detail}" if detail else "")
        head = (
            f"HTTP/1.1 {line}\r\n"
            "Content-Type: text/plain; charset=utf-8\r\n"
            "Connection: close\r\n\r\n"
        )
        self.transport.write((head + _BODIES.get(status, line)).encode("utf-8"))
        self.loseConnection()

    def loseConnection(self) -> Any:
        if not self._closing:
            self._closing = True
            self._partial_line.clear()
            self.deadlines.await_response()
        return super().loseConnection()

    def expire(self) -> None:
        """The deadline has passed: end, and do not wait for that long either."""
        if self._closing:
            self.transport.abortConnection()
            return
        self.loseConnection()
        self.deadlines.await_close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.deadlines.stop()
        super().connectionLost(reason)
