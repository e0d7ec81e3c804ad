"""
Who may see the debug pages, and the frame around each of them.

Source: tailscale ``tsweb.AllowDebugAccess``. The first rule that applies decides; an address
that cannot be read (a unix socket has none) is nobody's.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource

from derp.config import DebugKnobs
from derp.net.answers import first_header, plain_error
from derp.net.browser_headers import add_browser_headers

INDEX: Final = "/debug/"

_DENIED: Final = "debug access denied"
_MAX_KEY_FILE: Final = 4096
_TAILSCALE_IPV4: Final = IPv4Network("100.64.0.0/10")
_CHROME_OS_VM: Final = IPv4Network("100.115.92.0/23")
"""Carved out of Tailscale's range: ChromeOS gives these to its own virtual machines."""
_TAILSCALE_IPV6: Final = IPv6Network("fd7a:115c:a1e0::/48")


def is_tailscale_ip(ip: IPv4Address | IPv6Address) -> bool:
    """Whether ``ip`` is one of a tailnet's own (tailscale: ``tsaddr.IsTailscaleIP``)."""
    if isinstance(ip, IPv6Address):
        return ip in _TAILSCALE_IPV6
    return ip in _TAILSCALE_IPV4 and ip not in _CHROME_OS_VM


def _unmapped(text: str) -> IPv4Address | IPv6Address:
    ip = ip_address(text)
    return ip.ipv4_mapped or ip if isinstance(ip, IPv6Address) else ip


def peer_ip(request: IRequest) -> str:
    """The requester's address as text; empty if it has none."""
    host = getattr(request.getClientAddress(), "host", "")
    return host if isinstance(host, str) else ""


def _via_trusted_proxy(request: IRequest) -> bool:
    """Whether its address is the client's own, by the word of a proxy we trust."""
    return getattr(request, "via_trusted_proxy", False) is True


class DebugAccess:
    """
    The rules of one server.

    :param knobs: the environment variables that widen access.
    """

    def __init__(self, knobs: DebugKnobs) -> None:
        self._knobs = knobs

    def allows(self, request: IRequest) -> bool:
        """Whether this requester may see debug pages."""
        if self._has_key(request):
            return True
        if first_header(request, b"X-Forwarded-For") and not _via_trusted_proxy(request):
            return False
        text = peer_ip(request)
        try:
            ip = _unmapped(text)
        except ValueError:
            return False
        if is_tailscale_ip(ip) or ip.is_loopback or text == self._knobs.allow_debug_ip:
            return True
        return any(ip in network for network in self._knobs.trusted_cidrs)

    def _has_key(self, request: IRequest) -> bool:
        path = self._knobs.debug_key_path
        offered = request.args.get(b"debugkey", [b""])[0]
        if request.method != b"GET" or not offered or not path:
            return False
        try:
            with open(path, "rb") as file:
                key = file.read(_MAX_KEY_FILE).strip()
        except OSError:
            return False
        return hmac.compare_digest(key, offered)


class _Page(Resource):
    """A page below ``/debug/``."""

    isLeaf = True

    def __init__(self, page: IResource, access: DebugAccess, *, explain: bool) -> None:
        super().__init__()
        self._page = page
        self._access = access
        self._explain = explain

    def render(self, request: IRequest) -> bytes | int:
        if not self._access.allows(request):
            hint = f"; to permit access, set TS_ALLOW_DEBUG_IP={peer_ip(request)}"
            return plain_error(request, 403, _DENIED + (hint if self._explain else ""))
        add_browser_headers(request, inline_styles=True)
        body: bytes | int = self._page.render(request)
        return body


class _Index(Resource):
    """``/debug/`` itself, and the paths below it that are nothing."""

    isLeaf = True

    def __init__(self, page: IResource | None, access: DebugAccess) -> None:
        super().__init__()
        self._page = page
        self._access = access

    def render(self, request: IRequest) -> bytes | int:
        if not self._access.allows(request):
            return plain_error(request, 403, _DENIED)
        if self._page is None or request.postpath:
            return plain_error(request, 404, "404 page not found")
        add_browser_headers(request)
        body: bytes | int = self._page.render(request)
        return body


def guard(
    pages: Mapping[str, IResource], access: DebugAccess, *, dev: bool
) -> dict[str, IResource]:
    """
    Put every debug page behind the rules, and give it its browser headers.

    :param pages: by path, each starting with ``/debug/``; a path ending in ``/`` other than
        that takes all below it.
    :param dev: whether a stranger is told how to be let in.
    """
    guarded: dict[str, IResource] = {
        path: _Page(page, access, explain=dev) for path, page in pages.items() if path != INDEX
    }
    guarded[INDEX] = _Index(pages.get(INDEX), access)
    return guarded
