"""
A log line for every frame a client sends (``DERP_DEBUG_LOGS``, ``DERP_PROBER_DEBUG_LOGS``).

Whether frames are logged is decided once, by which protocol is built: without the variables
nothing of this is ever called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from derp.net.relay_protocol import RelayProtocol
from derp.wire.frames import HEADER, HEADER_LEN, FrameType
from derp.wire.keys import short_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    from derp.core.connection import Connection, RemoteAddress
    from derp.core.session import Session
    from derp.net.relay_protocol import RelayServer

log = Logger(namespace="derp")


Header = tuple[int, int, int]
"""Where a frame begins in the buffer, its type, and its length without the header."""


class LoggedRelayProtocol(RelayProtocol):
    """A DERP connection whose frames are logged as they are taken, each of them once."""

    __slots__ = ("_ahead",)

    def __init__(
        self, server: RelayServer, remote: RemoteAddress, not_ideal: bool, head: bytes
    ) -> None:
        super().__init__(server, remote, not_ideal, head)
        self._ahead = 0
        """What is still to come of a frame that was logged and is thrown away as it comes."""

    def _is_logged(self, conn: Connection | None) -> bool:
        return True

    def bufferReceived(self, buf: bytearray, view: memoryview, end: int) -> int:
        """See :meth:`derp.net.relay_protocol.RelayProtocol.bufferReceived`."""
        if self._held or self._goodbye is not None:
            return super().bufferReceived(buf, view, end)  # comes here again, or is nobody's
        session = self._session
        # Packets are rewritten where they lie: their headers must be read before.
        headers = list(self._headers(view, end))
        consumed = super().bufferReceived(buf, view, end)
        taken = [header for header in headers if header[0] < consumed]
        over = self._ahead
        if taken:
            at, _, length = taken[-1]
            over = at + HEADER_LEN + length
        self._ahead = max(0, over - consumed)
        if self._is_logged(session.conn):
            self._log(session, taken)
        return consumed

    def _headers(self, view: memoryview, end: int) -> Iterator[Header]:
        at = self._ahead
        while at + HEADER_LEN <= end:
            frame_type, length = HEADER.unpack_from(view, at)
            yield at, frame_type, length
            at += HEADER_LEN + length

    def _log(self, session: Session, taken: list[Header]) -> None:
        name = short_key(session.conn.key) if session.conn is not None else ""
        for _, frame_type, length in taken:
            log.info(
                "derp client {remote}{name}: received {frame} of {length} bytes",
                remote=session.remote,
                name=name,
                frame=_name(frame_type),
                length=length,
            )


class ProbersLoggedRelayProtocol(LoggedRelayProtocol):
    """The same for probers only; who is one is known when it has logged in."""

    __slots__ = ()

    def _is_logged(self, conn: Connection | None) -> bool:
        return conn is not None and conn.is_prober


def _name(frame_type: int) -> str:
    try:
        return FrameType(frame_type).name
    except ValueError:
        return f"frame 0x{frame_type:02x}"


def protocol_class(*, everybody: bool, probers: bool) -> type[RelayProtocol]:
    """
    Choose what serves a connection.

    :param everybody: log the frames of all clients.
    :param probers: log those of clients that say they are probers.
    """
    if everybody:
        return LoggedRelayProtocol
    return ProbersLoggedRelayProtocol if probers else RelayProtocol
