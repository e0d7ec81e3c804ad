"""What browsers are told about the pages meant for them (tailscale: ``AddBrowserHeaders``)."""

from __future__ import annotations

from typing import Final

from twisted.web.iweb import IRequest

_POLICY: Final = (
    b"default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'; "
    b"block-all-mixed-content; object-src 'none'"
)
_INLINE_STYLES: Final = b"; style-src 'self' 'unsafe-inline'"


def add_browser_headers(request: IRequest, *, inline_styles: bool = False) -> None:
    """
    Set the security headers of a page; over plain HTTP as well.

    :param inline_styles: allow them, as derper does on pages below ``/debug/``.
    """
    policy = _POLICY + _INLINE_STYLES if inline_styles else _POLICY
    request.setHeader(b"Strict-Transport-Security", b"max-age=63072000; includeSubDomains")
    request.setHeader(b"Content-Security-Policy", policy)
    request.setHeader(b"X-Frame-Options", b"DENY")
    request.setHeader(b"X-Content-Type-Options", b"nosniff")
