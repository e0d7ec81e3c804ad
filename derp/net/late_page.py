"""Pages that are not loaded before somebody opens them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.web.resource import IResource, Resource


class LatePage(Resource):
    """
    A page that few relays are ever asked for, with libraries of its own.

    Loading them holds up the relay's turn once, so it must not take long.

    :param make: imports and makes the page; called once.
    """

    isLeaf = True

    def __init__(self, make: Callable[[], IResource]) -> None:
        super().__init__()
        self._make = make
        self._page: IResource | None = None

    def load(self) -> IResource:
        """Make the page if that has not been done."""
        if self._page is None:
            self._page = self._make()
        return self._page

    def render(self, request: Any) -> Any:
        return self.load().render(request)
