"""
What ``--metrics-addr`` serves: ``/metrics`` and ``/healthz``, to everybody, and nothing else.

Who can reach the address is the operator's choice; there is no access rule on it.
"""

from __future__ import annotations

from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource

from derp.core.tls_request_stats import TLSRequestStats
from derp.net.http_deadlines import MAIN_RESPONSE_S, HTTPTiming
from derp.net.mux import Mux
from derp.net.web import SiteParts, WebSite


class HealthPage(Resource):
    """``/healthz``: that there is an answer is the answer."""

    isLeaf = True

    def render(self, request: IRequest) -> bytes:
        request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
        request.setHeader(b"Cache-Control", b"no-store")
        return b"ok\n"


def build_metrics_site(parts: SiteParts, metrics: IResource) -> WebSite:
    """
    Build it, with the deadlines of the main port.

    :param metrics: see :class:`derp.net.metrics.MetricsPage`.
    """
    timing = HTTPTiming(parts.clock, parts.wheel, MAIN_RESPONSE_S)
    routes = Mux({"/metrics": metrics, "/healthz": HealthPage()})
    # Requests here are not the relay's: they count nowhere.
    return WebSite(routes, timing, TLSRequestStats())
