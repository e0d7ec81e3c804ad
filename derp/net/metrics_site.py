"""
What ``--metrics-addr`` serves: ``/metrics``, ``/healthz`` and ``/readyz``, to everybody.

Who can reach the address is the operator's choice; there is no access rule on it.
"""

from __future__ import annotations

from twisted.web.resource import IResource

from derp.core.tls_request_stats import TLSRequestStats
from derp.net.http_deadlines import MAIN_RESPONSE_S, HTTPTiming
from derp.net.mux import Mux
from derp.net.readiness import readiness_pages
from derp.net.web import SiteParts, WebSite


def build_metrics_site(parts: SiteParts, metrics: IResource) -> WebSite:
    """
    Build it, with the deadlines of the main port.

    :param metrics: see :class:`derp.net.metrics.MetricsPage`.
    """
    timing = HTTPTiming(parts.clock, parts.wheel, MAIN_RESPONSE_S)
    routes = Mux({"/metrics": metrics, **readiness_pages(parts.lifecycle)})
    # Requests here are not the relay's: they count nowhere.
    return WebSite(routes, timing, TLSRequestStats())
