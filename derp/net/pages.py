"""The small pages: home, robots, probe, captive-portal check, and DERP being off."""

from __future__ import annotations

import re
from typing import Final

from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource

from derp.config import Config
from derp.errors import ConfigError
from derp.net.answers import first_header, plain_error, redirect
from derp.net.browser_headers import add_browser_headers
from derp.net.debug_access import DebugAccess

_TAILSCALES_OWN: Final = re.compile(r"derp([^.]*)\.tailscale\.com\.?")
_CHALLENGE: Final = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
"""Source: tailscale ``derpserver.ServeNoContent``; longer or stranger ones get no response."""

_HTML: Final = b"text/html; charset=utf-8"

_INTRODUCTION: Final = """\
<p>
  A <a href="https://tailscale.com/">Tailscale</a> DERP server lives here. It answers STUN,
  helps clients to find a direct way to each other, and relays their end-to-end encrypted
  packets for as long as there is none.
</p>
"""
_ABUSE: Final = """\
<p>
  To report abuse, write to
  <a href="mailto:security@tailscale.com">security@tailscale.com</a>.
</p>
"""
_POLICY_LINKS: Final = """\
  <li><a href="https://tailscale.com/security-policies">Security policies of Tailscale</a></li>
  <li><a href="https://tailscale.com/tailscale-aup">What Tailscale may be used for</a></li>
"""
_LINKS: Final = """\
  <li><a href="https://tailscale.com/kb/1232/derp-servers">What DERP is</a></li>
  <li><a href="https://pkg.go.dev/tailscale.com/derp">The protocol, and its Go package</a></li>
  <li><a href="https://github.com/tailscale/tailscale/tree/main/cmd/derper#derp">How to run
    a DERP server</a></li>
"""
_DISABLED: Final = "<p>Status: <b>disabled</b></p>\n"
_DEBUG: Final = "<p>Debug info: <a href='/debug/'>/debug/</a>, traffic included.</p>\n"


class HomePage(Resource):
    """What a human sees who looks the relay up, at any path that is nothing else."""

    isLeaf = True

    def __init__(self, *, hostname: str, derp: bool, access: DebugAccess) -> None:
        super().__init__()
        self._official = _TAILSCALES_OWN.fullmatch(hostname) is not None
        self._derp = derp
        self._access = access

    def render(self, request: IRequest) -> bytes:
        add_browser_headers(request)
        request.setHeader(b"Content-Type", _HTML)
        return self._page(debug=self._access.allows(request)).encode("utf-8")

    def _page(self, *, debug: bool) -> str:
        parts = ["<html><body>\n<h1>DERP</h1>\n", _INTRODUCTION]
        if self._official:
            parts.append(_ABUSE)
        parts.append("<p>To read on:</p>\n<ul>\n")
        if self._official:
            parts.append(_POLICY_LINKS)
        parts += [_LINKS, "</ul>\n"]
        if not self._derp:
            parts.append(_DISABLED)
        if debug:
            parts.append(_DEBUG)
        parts.append("</body></html>\n")
        return "".join(parts)


class BlankHome(Resource):
    """``--home=blank``."""

    isLeaf = True

    def render(self, request: IRequest) -> bytes:
        add_browser_headers(request)
        request.setHeader(b"Content-Type", _HTML)
        return b""


class RedirectHome(Resource):
    """``--home=https://…``."""

    isLeaf = True

    def __init__(self, location: str) -> None:
        super().__init__()
        self._location = location.encode("utf-8")

    def render(self, request: IRequest) -> bytes:
        add_browser_headers(request)
        return redirect(request, self._location, 302)


def home_for(config: Config, access: DebugAccess) -> IResource:
    """
    Build what ``--home`` asks for.

    :raises ConfigError: if it is neither empty, ``blank`` nor an http(s) URL.
    """
    if not config.home:
        return HomePage(hostname=config.hostname, derp=config.derp, access=access)
    if config.home == "blank":
        return BlankHome()
    if config.home.startswith(("http://", "https://")):
        return RedirectHome(config.home)
    raise ConfigError(
        f"unknown --home value {config.home!r}: leave it empty for the standard page, "
        "say blank for none, or give an http:// or https:// URL to redirect to"
    )


class Robots(Resource):
    """Nothing here is for search engines."""

    isLeaf = True

    def render(self, request: IRequest) -> bytes:
        add_browser_headers(request)
        return b"User-agent: *\nDisallow: /\n"


class Probe(Resource):
    """``/derp/probe``: how clients without UDP, browsers among them, measure latency."""

    isLeaf = True

    def render(self, request: IRequest) -> bytes:
        if request.method not in (b"GET", b"HEAD"):
            return plain_error(request, 405, "bogus probe method")
        request.setHeader(b"Access-Control-Allow-Origin", b"*")
        return b""


class NoContent(Resource):
    """
    ``/generate_204``: how clients find out about captive portals.

    The challenge comes back, so that a portal that fakes the status does not pass.
    """

    isLeaf = True

    def render(self, request: IRequest) -> bytes:
        challenge = first_header(request, b"X-Tailscale-Challenge")
        if _CHALLENGE.fullmatch(challenge):
            request.setHeader(b"X-Tailscale-Response", b"response " + challenge)
        request.setHeader(
            b"Cache-Control", b"no-cache, no-store, must-revalidate, no-transform, max-age=0"
        )
        request.setResponseCode(204)
        return b""


class DERPDisabled(Resource):
    """``/derp`` with ``--derp=false``."""

    isLeaf = True

    def render(self, request: IRequest) -> bytes:
        return plain_error(request, 404, "derp server disabled")
