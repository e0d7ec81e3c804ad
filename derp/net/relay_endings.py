"""Who a DERP connection came from, and in which words it ended."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, cast

from twisted.internet.error import ConnectionDone

from derp.core.connection import RemoteAddress
from derp.core.session import State
from derp.wire.frames import HEADER_LEN
from derp.wire.keys import format_node_public, short_key

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress
    from twisted.python.failure import Failure

    from derp.core.session import Session
    from derp.errors import ProtocolError


class _SessionOver:
    """
    Stands where the session stood.

    Session and protocol point to each other; a lost connection must be freed without waiting
    for the garbage collector.
    """

    conn = None
    state = State.CLOSED
    wanted = HEADER_LEN

    @staticmethod
    def receive(buf: bytearray, view: memoryview, end: int) -> int:
        """Nobody's bytes."""
        return end


SESSION_OVER = cast("Session", _SessionOver())
"""What a protocol has for a session once that is lost."""


def remote_address(address: IAddress) -> RemoteAddress:
    """Read Twisted's address; one that is not ip:port gives the empty one."""
    try:
        ip = ip_address(address.host.partition("%")[0])  # type: ignore[attr-defined]
        return RemoteAddress(ip, address.port)  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return RemoteAddress()


def describe_fault(session: Session, error: ProtocolError) -> str:
    """Say what the client did wrong, and how far it had come."""
    if session.conn is None:
        return f"receive client key: {error}"
    return f"client {format_node_public(session.conn.key)}: recvPacket: {error}"


def describe_loss(session: Session, reason: Failure) -> str:
    """
    Say how a connection was lost that we did not close.

    :return: empty if it deserves no line: a clean end between frames, or inside a header; or
        before the login, if it came from this machine, where health checks end so.
    """
    clean = reason.check(ConnectionDone) is not None
    if session.state is State.AWAIT_CLIENT_INFO:
        ip = session.remote.ip
        if clean and ip is not None and ip.is_loopback:
            return ""
        how = "the client closed the connection" if clean else reason.getErrorMessage()
        return f"receive client key: {how}"
    conn = session.conn
    if conn is None or (clean and not session.mid_frame):
        return ""
    name = short_key(conn.key)
    if clean:
        return f"client {name}: the connection ended inside a frame"
    return f"client {name}: {reason.getErrorMessage()}"
