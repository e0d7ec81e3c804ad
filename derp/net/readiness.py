"""
``/healthz`` and ``/readyz``, and pages that are there only while clients may measure this relay.

Both are open to everybody on every port, for balancers and probes; so they tell one word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource

if TYPE_CHECKING:
    from derp.core.lifecycle import Lifecycle


def _word(request: IRequest, word: str) -> bytes:
    request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
    request.setHeader(b"Cache-Control", b"no-store")
    return word.encode("ascii") + b"\n"


class HealthPage(Resource):
    """``/healthz``: that there is an answer is the answer."""

    isLeaf = True

    def render(self, request: IRequest) -> bytes:
        return _word(request, "ok")


class ReadyPage(Resource):
    """``/readyz``: whether to send clients here; if not, 503 and the reason in a word or two."""

    isLeaf = True

    def __init__(self, lifecycle: Lifecycle) -> None:
        super().__init__()
        self._lifecycle = lifecycle

    def render(self, request: IRequest) -> bytes:
        if not self._lifecycle.is_ready:
            request.setResponseCode(503)
        return _word(request, self._lifecycle.word)


class WhileMeasurable(Resource):
    """
    What clients measure their latency or the network by.

    :param page: answers while they may; at other times the answer is 503.
    """

    isLeaf = True

    def __init__(self, page: IResource, lifecycle: Lifecycle) -> None:
        super().__init__()
        self._page = page
        self._lifecycle = lifecycle

    def render(self, request: IRequest) -> bytes | int:
        if self._lifecycle.is_measurable:
            answer: bytes | int = self._page.render(request)
            return answer
        request.setResponseCode(503)
        return _word(request, self._lifecycle.word)


def readiness_pages(lifecycle: Lifecycle) -> dict[str, IResource]:
    """Give the two pages by path."""
    return {"/healthz": HealthPage(), "/readyz": ReadyPage(lifecycle)}
