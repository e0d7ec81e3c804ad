"""
Reactor readers served by the hub: what else waits for packets, the STUN socket above all.

The hub lingers while traffic is dense, and a way through the reactor's loop costs 5 µs per
wake-up, which is as much as answering a binding request. So such a reader lives in the hub,
too. It is handed this instead of the reactor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReadDescriptor

    from derp.net.hub import Hub


class _Reader:
    """One reader as a member of the hub."""

    def __init__(self, reader: IReadDescriptor) -> None:
        self._reader = reader

    def ready(self, events: int) -> None:
        self._reader.doRead()

    def flush(self) -> None:
        """It writes by itself."""

    def end(self) -> None:
        """It is closed by whoever opened it."""

    def failed(self) -> None:
        """Logged by the hub; a datagram that cannot be handled must not end the service."""


class HubReaders:
    """
    ``IReactorFDSet``'s reading half and ``IReactorTime`` on top of a hub.

    A descriptor must be removed while it is still open, as the reactor wants it, too.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._fds: dict[int, int] = {}

    def addReader(self, reader: IReadDescriptor) -> None:
        """See ``IReactorFDSet.addReader``; adding twice changes nothing."""
        if id(reader) not in self._fds:
            fd = self._fds[id(reader)] = reader.fileno()
            self._hub.add(fd, _Reader(reader))

    def removeReader(self, reader: IReadDescriptor) -> None:
        """See ``IReactorFDSet.removeReader``; harmless if it is not there."""
        fd = self._fds.pop(id(reader), None)
        if fd is not None:
            self._hub.remove(fd)

    def callLater(self, delay: float, call: Callable[..., Any], *args: Any) -> IDelayedCall:
        """See ``IReactorTime.callLater``."""
        return self._hub.reactor.callLater(delay, call, *args)

    def seconds(self) -> float:
        """See ``IReactorTime.seconds``."""
        return self._hub.reactor.seconds()
