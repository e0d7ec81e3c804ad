"""The two answers Go's HTTP server words itself: errors in plain text, and redirects."""

from __future__ import annotations

from html import escape
from http import HTTPStatus

from twisted.web.iweb import IRequest


def first_header(request: IRequest, name: bytes) -> bytes:
    """
    The first line of a header, or nothing.

    (Go's ``Header.Get``; twisted.web's ``getHeader`` takes the last.)
    """
    values = request.requestHeaders.getRawHeaders(name)
    return values[0] if values else b""


def plain_error(request: IRequest, status: int, message: str) -> bytes:
    """Make this answer an error, and say why in a line of text."""
    request.setResponseCode(status, HTTPStatus(status).phrase.encode("ascii"))
    request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
    request.setHeader(b"X-Content-Type-Options", b"nosniff")
    return message.encode("utf-8") + b"\n"


def redirect(request: IRequest, location: bytes, status: int) -> bytes:
    """Send the client elsewhere; a reader who gets to see the answer finds a link in it."""
    phrase = HTTPStatus(status).phrase
    request.setResponseCode(status, phrase.encode("ascii"))
    request.setHeader(b"Location", location)
    if request.method not in (b"GET", b"HEAD"):
        return b""
    request.setHeader(b"Content-Type", b"text/html; charset=utf-8")
    if request.method == b"HEAD":
        return b""
    return f'<a href="{escape(location.decode("latin-1"))}">{phrase}</a>.\n\n'.encode("latin-1")
