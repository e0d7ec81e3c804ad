"""
From a request's path to what answers it, by the rules of Go's ``http.ServeMux``.

A pattern ending in ``/`` stands for everything below it, any other for itself alone. A path
with empty, ``.`` or ``..`` segments is redirected to its clean form, and ``/tree`` to
``/tree/`` if only that is registered. Segments are compared unescaped (``/%64erp`` is
``/derp``), while ``%2F`` never separates. CONNECT has no path and finds nothing here.

One deviation: in a redirect to the clean form Go 1.26 escapes a second time what was escaped
already (``//a%20b`` leads to ``/a%2520b``); here the path stays what it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, unquote_to_bytes

from twisted.web.resource import IResource, Resource

from derp.net.answers import plain_error, redirect

if TYPE_CHECKING:
    from derp.net.web_request import WebRequest

_UNESCAPED = "/%:@!$&'()*+,;=~"
"""What stays as it is in a redirect's path, besides letters, digits and ``_.-``."""


def clean_path(path: bytes) -> bytes:
    """
    Drop empty and ``.`` segments, let ``..`` take its parent with it.

    :returns: an absolute path; its final slash is kept.
    """
    segments: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            if segments:
                segments.pop()
        elif segment not in (b"", b"."):
            segments.append(segment)
    cleaned = b"/" + b"/".join(segments)
    if path.endswith(b"/") and segments:
        cleaned += b"/"
    return cleaned


def _segments(path: bytes) -> tuple[bytes, ...]:
    return tuple(unquote_to_bytes(segment) for segment in path.split(b"/")[1:])


class Routes(Protocol):
    """What chooses a page on one port."""

    def resource_for(self, request: WebRequest) -> IResource:
        """Choose the resource that renders this request."""


class _Redirect(Resource):
    isLeaf = True

    def __init__(self, path: bytes) -> None:
        super().__init__()
        self._path = path

    def render(self, request: WebRequest) -> bytes:
        location = quote(self._path, safe=_UNESCAPED).encode("ascii")
        _, _, query = request.uri.partition(b"?")
        if query:
            location += b"?" + query
        return redirect(request, location, 307)


class _NotFound(Resource):
    isLeaf = True

    def render(self, request: WebRequest) -> bytes:
        return plain_error(request, 404, "404 page not found")


class Mux:
    """
    Resources by pattern.

    :param routes: pattern to resource. ``/`` is the answer to everything else.
    """

    def __init__(self, routes: Mapping[str, IResource]) -> None:
        self._literal: dict[bytes, IResource] = {}
        self._exact: dict[tuple[bytes, ...], IResource] = {}
        self._below: dict[tuple[bytes, ...], IResource] = {}
        for pattern, resource in routes.items():
            path = pattern.encode("ascii")
            self._literal[path] = resource
            self._exact[_segments(path)] = resource
            if path.endswith(b"/"):
                self._below[_segments(path)[:-1]] = resource

    def resource_for(self, request: WebRequest) -> IResource:
        """Choose who answers; a subtree's resource finds the rest in ``request.postpath``."""
        if request.method == b"CONNECT":
            return _NotFound()
        path = request.path
        request.prepath, request.postpath = [], []
        literal = self._literal.get(path)
        if literal is not None:
            return literal
        cleaned = clean_path(path)
        segments = _segments(cleaned)
        exact = self._exact.get(segments)
        if exact is None and segments[-1] and (*segments, b"") in self._exact:
            return _Redirect(cleaned + b"/")
        if cleaned != path:
            return _Redirect(cleaned)
        if exact is not None:
            return exact
        return self._subtree(segments, request)

    def _subtree(self, segments: tuple[bytes, ...], request: WebRequest) -> IResource:
        for length in range(len(segments), -1, -1):
            resource = self._below.get(segments[:length])
            if resource is not None:
                request.prepath = list(segments[:length])
                request.postpath = list(segments[length:])
                return resource
        return _NotFound()
