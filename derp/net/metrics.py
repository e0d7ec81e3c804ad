"""
``/metrics``: the relay and its process, for Prometheus.

Everything is read from plain counters when scraped, so that being watched costs the packet
path nothing. derper's own names are on ``/debug/varz`` (:mod:`derp.net.varz`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource

from derp.net.answers import first_header
from derp.net.metric_sources import Sources
from derp.net.process_metrics import ProcessMetrics
from derp.net.relay_metrics import RelayMetrics

_MAX_ACCEPT: Final = 1024


def make_registry(sources: Sources) -> CollectorRegistry:
    """
    Put together all that is exported.

    :raises ValueError: if a name occurs twice.
    """
    registry = CollectorRegistry(auto_describe=True)
    registry.register(ProcessMetrics())
    registry.register(RelayMetrics(sources))
    return registry


class MetricsPage(Resource):
    """What a scraper gets, in the format it asks for (``Accept``), else the plain one."""

    isLeaf = True

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._registry = registry

    def render(self, request: IRequest) -> bytes:
        encode, content_type = _encoder(first_header(request, b"Accept"))
        request.setHeader(b"Content-Type", content_type.encode("ascii"))
        return encode(self._registry)


def _encoder(accept: bytes) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accept[:_MAX_ACCEPT].decode("ascii"))
    except (TypeError, ValueError):  # a version that is no version, or no text at all
        return choose_encoder("")
