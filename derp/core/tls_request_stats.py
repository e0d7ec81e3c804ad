"""How many HTTP requests came in over which TLS version, and how many of them still live."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial


class TLSRequestStats:
    """
    ``derper_tls_request_version`` and ``derper_tls_active_version``, by label.

    Labels appear on first use: ``1.2``, ``1.3`` or ``unknown``. A DERP connection is one
    request for all its life, so :attr:`active` counts the connected clients.
    """

    __slots__ = ("requests", "active")

    def __init__(self) -> None:
        self.requests: dict[str, int] = {}
        self.active: dict[str, int] = {}

    def begin(self, label: str) -> None:
        """A request starts; :meth:`end` must follow, with the same label."""
        self.requests[label] = self.requests.get(label, 0) + 1
        self.active[label] = self.active.get(label, 0) + 1

    def count(self, label: str) -> Callable[[], None]:
        """:meth:`begin`, and :meth:`end` to be called."""
        self.begin(label)
        return partial(self.end, label)

    def end(self, label: str) -> None:
        """A request is over."""
        self.active[label] -= 1
