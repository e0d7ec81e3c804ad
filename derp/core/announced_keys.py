"""
What one mesh link has announced: the keys another relay says it has.

The forwarder table (:mod:`derp.core.mesh`) knows links by key, this knows keys by link, so that
everything a link said is taken back when it breaks. A relay we mesh with is trusted with
presence, but not with our memory: how many keys it may announce is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from derp.core.mesh import PacketForwarder

MAX_KEYS: Final = 200_000
"""Keys one link may announce: several times what one relay can serve, about 80 MB of books."""


class Routes(Protocol):
    """What is told of keys and links (:class:`derp.core.relay.Relay`)."""

    def add_forwarder(self, key: bytes, link: PacketForwarder) -> None:
        """A mesh link announces a key."""

    def remove_forwarder(self, key: bytes, link: PacketForwarder) -> None:
        """A mesh link lost a key, or is lost itself."""


class AnnouncedKeys:
    """
    The keys one link announced, entered into the forwarder table as they come.

    :param link: what packets to these keys are forwarded on.
    :param limit: how many keys are believed; more are counted in :attr:`refused`.
    """

    def __init__(self, routes: Routes, link: PacketForwarder, limit: int = MAX_KEYS) -> None:
        self.link = link
        self.refused = 0
        """Announcements beyond the limit."""
        self._routes = routes
        self._limit = limit
        self._keys: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._keys)

    def present(self, key: bytes) -> bool:
        """
        The link announces a key; announcing it again changes nothing.

        :return: whether it is believed.
        """
        if key not in self._keys:
            if len(self._keys) >= self._limit:
                self.refused += 1
                return False
            self._keys.add(key)
        self._routes.add_forwarder(key, self.link)
        return True

    def gone(self, key: bytes) -> None:
        """The link takes a key back; of one it never announced, only a counter knows."""
        self._keys.discard(key)
        self._routes.remove_forwarder(key, self.link)

    def clear(self) -> int:
        """
        The link broke: nothing it said holds any more.

        :return: how many keys that were.
        """
        keys, self._keys = self._keys, set()
        for key in keys:
            self._routes.remove_forwarder(key, self.link)
        return len(keys)
