"""
The plain HTTP port beside the TLS one.

It serves the captive-portal check, HTTP challenges of the certificate authority, the debug
pages, and whether the relay is well; everything else is sent to HTTPS.
Source: tailscale ``tsweb.Port80Handler``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.web.resource import IResource, Resource

from derp.net.answers import first_header, plain_error, redirect
from derp.net.debug_access import INDEX, DebugAccess
from derp.net.mux import Mux, Routes
from derp.net.pages import NoContent
from derp.net.readiness import WhileMeasurable, readiness_pages

if TYPE_CHECKING:
    from derp.core.lifecycle import Lifecycle
    from derp.net.web_request import WebRequest

CHALLENGES: Final = b"/.well-known/acme-challenge/"


class ToHTTPS(Resource):
    """Sends the visitor to the same place on HTTPS, keeping Host and query as they are."""

    isLeaf = True

    def __init__(self, access: DebugAccess) -> None:
        super().__init__()
        self._access = access

    def render(self, request: WebRequest) -> bytes:
        if request.method not in (b"GET", b"HEAD"):
            return plain_error(request, 400, "Use HTTPS")
        target = request.uri
        if target == b"/" and self._access.allows(request):
            target = INDEX.encode("ascii")
        return redirect(request, b"https://" + first_header(request, b"Host") + target, 302)


class PlainRoutes:
    """
    Who answers on the plain port.

    :param main: the main port's routes, for ``/debug…``.
    :param challenges: what answers below :data:`CHALLENGES`, if anything does.
    """

    def __init__(
        self,
        main: Routes,
        access: DebugAccess,
        challenges: IResource | None,
        lifecycle: Lifecycle,
    ) -> None:
        self._main = main
        self._challenges = challenges
        self._to_https = ToHTTPS(access)
        pages: dict[str, IResource] = {
            "/generate_204": WhileMeasurable(NoContent(), lifecycle),
            "/": self._to_https,
            **readiness_pages(lifecycle),
        }
        self._own = Mux(pages)

    def resource_for(self, request: WebRequest) -> IResource:
        """See :meth:`derp.net.mux.Mux.resource_for`."""
        resource = self._own.resource_for(request)
        if resource is not self._to_https:
            return resource
        if self._challenges is not None and request.path.startswith(CHALLENGES):
            request.postpath = [request.path.removeprefix(CHALLENGES)]
            return self._challenges
        if request.uri.startswith(b"/debug"):
            return self._main.resource_for(request)
        return resource
