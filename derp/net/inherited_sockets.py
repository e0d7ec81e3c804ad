"""
Listening sockets that were open before this process: from systemd, or from a predecessor.

The kernel keeps what waits in their queues, so nobody who connects meanwhile is refused. They
are adopted by our own port and STUN server, like those we open ourselves.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from derp.config import PlaceKind
from derp.errors import ConfigError
from derp.quoting import quoted

if TYPE_CHECKING:
    from derp.net.listening import Listener
    from derp.net.stun_udp import STUNServer

FIRST_FD: Final = 3
"""Where systemd's descriptors begin (sd_listen_fds(3))."""
NAMES: Final = {
    "derp": "-a",
    "http": "--http-port",
    "metrics": "--metrics-addr",
    "stun": "--stun-port",
}
"""``FileDescriptorName=`` of a socket unit, and the flag whose port it takes the place of."""
STUN: Final = "--stun-port"


@dataclass(frozen=True)
class InheritedSocket:
    """One socket, and what it is for."""

    name: str
    """systemd's name for it; from a predecessor the key of listener or STUN server."""
    sock: socket.socket


def first_environ() -> dict[str, str]:
    """
    Give the environment this process was started with.

    Not ``os.environ``: Twisted takes systemd's variables out of that as soon as a plugin is
    looked for, for endpoints that we do not use.
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            pairs = [each.partition(b"=") for each in file.read().split(b"\0") if each]
    except OSError:
        return dict(os.environ)
    return {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}


def systemd_sockets(
    environ: Mapping[str, str], pid: int, not_ours: Collection[int] = ()
) -> list[InheritedSocket]:
    """
    Give what systemd passed to this process.

    :param not_ours: descriptors that somebody else takes (``--listen fd:``).
    :raises ConfigError: if one of them is no socket.
    """
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(pid) or not (count.isascii() and count.isdigit()):
        return []
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found = []
    for number in range(min(int(count), 1024)):
        fd = FIRST_FD + number
        if fd in not_ours:
            continue
        try:
            os.set_inheritable(fd, False)
            sock = socket.socket(fileno=fd)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigError(
                f"LISTEN_FDS: descriptor {fd} is no socket ({reason}): let the socket unit have "
                "only ListenStream= and ListenDatagram="
            ) from error
        found.append(InheritedSocket(names[number] if number < len(names) else "", sock))
    return found


def adopt(
    sockets: Sequence[InheritedSocket], listeners: Sequence[Listener], stun: STUNServer | None
) -> None:
    """
    Let listeners and STUN server use systemd's sockets in place of their own.

    :raises ConfigError: if there is one that nobody needs: what waits there would wait for ever.
    """
    for inherited in sockets:
        flag = _flag_for(inherited, listeners)
        if flag == STUN and stun is not None and inherited.sock.type == socket.SOCK_DGRAM:
            stun.inherit(inherited.sock)
            continue
        for listener in listeners:
            fits = listener.flag == flag and listener.place.kind is PlaceKind.TCP
            if fits and listener.adopted is None:
                listener.adopted = inherited.sock
                break
        else:
            raise ConfigError(
                f"LISTEN_FDS: there is no use for {_describe(inherited)}: give it the port of a "
                f"flag, or FileDescriptorName= one of {', '.join(NAMES)}, or leave it out"
            )


def adopt_handed(
    sockets: Sequence[InheritedSocket], listeners: Sequence[Listener], stun: STUNServer | None
) -> None:
    """
    Let listeners and STUN server use a predecessor's sockets; close those of other places.

    It listens there until it is told to go, and goes on if we end before that.
    """
    by_name = {inherited.name: inherited.sock for inherited in sockets}
    if stun is not None:
        sock = by_name.pop(stun.key, None)
        if sock is not None:
            stun.inherit(sock)
    for listener in listeners:
        sock = by_name.pop(listener.key, None)
        if sock is not None:
            listener.adopted = sock
            listener.handed_over = True
    for sock in by_name.values():
        sock.close()


def _flag_for(inherited: InheritedSocket, listeners: Sequence[Listener]) -> str:
    """By its name, else by its kind and port."""
    flag = NAMES.get(inherited.name)
    if flag is not None:
        return flag
    if inherited.sock.type == socket.SOCK_DGRAM:
        return STUN
    address = inherited.sock.getsockname()
    port = address[1] if isinstance(address, tuple) else None
    fitting = (each.flag for each in listeners if port and each.place.port == port)
    return next(fitting, "")


def _describe(inherited: InheritedSocket) -> str:
    sort = "datagram" if inherited.sock.type == socket.SOCK_DGRAM else "stream"
    name = f" {quoted(inherited.name)}" if inherited.name else ""
    return f"the {sort} socket{name} at {inherited.sock.getsockname()}"
