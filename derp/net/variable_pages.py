"""The pages of derper's variables: ``/debug/vars`` and ``/debug/varz``."""

from __future__ import annotations

from typing import Final

from prometheus_client.exposition import generate_latest
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource

from derp.net.derper_variables import derper_variables
from derp.net.expvar import variables_json
from derp.net.metric_sources import Sources
from derp.net.process_metrics import ProcessMetrics
from derp.net.varz import varz

_TEXT: Final = b"text/plain; charset=utf-8"
_JSON: Final = b"application/json; charset=utf-8"


class VarsPage(Resource):
    """``/debug/vars``: every variable as JSON."""

    isLeaf = True

    def __init__(self, sources: Sources) -> None:
        super().__init__()
        self._sources = sources

    def render(self, request: IRequest) -> bytes:
        request.setHeader(b"Content-Type", _JSON)
        return variables_json(derper_variables(self._sources)).encode("ascii")


class VarzPage(Resource):
    """``/debug/varz``: the process' metrics, then every variable, for Prometheus."""

    isLeaf = True

    def __init__(self, sources: Sources) -> None:
        super().__init__()
        self._sources = sources
        self._process = ProcessMetrics()

    def render(self, request: IRequest) -> bytes:
        request.setHeader(b"Content-Type", _TEXT)
        variables = varz(derper_variables(self._sources))
        return generate_latest(self._process) + variables.encode("utf-8")
