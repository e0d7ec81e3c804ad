"""
Places to listen: TCP ports, unix sockets, sockets inherited from whoever started us.

All of them become a :class:`~derp.net.port.RelayPort`, so that limits, the choice of
certificates and the packet path hold on each.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from derp.config import ListeningPlace, PlaceKind
from derp.errors import ConfigError
from derp.net.port import BACKLOG, Greeter, RelayPort, TCPOptions, open_listener
from derp.net.socket_address import host_port
from derp.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from derp.core.listener_stats import ListenerStats
    from derp.net.hub import Hub

UNIX_MODE: Final = 0o666
"""Like a port, a socket may be used by all; who must not has no way into its directory."""


def _always() -> bool:
    return True


@dataclass
class Listener:
    """One place to be opened: for what, and what takes its connections."""

    flag: str
    place: ListeningPlace
    serves: str
    greet: Greeter
    stats: ListenerStats
    opens: Callable[[], bool] = _always
    """Asked for each connection, see :class:`RelayPort`."""
    opened: RelayPort | None = None
    adopted: socket.socket | None = None
    """A socket that listens there already; taken over by :meth:`open`."""
    handed_over: bool = False
    """Another process listens there, too, and goes on when we close."""

    @property
    def key(self) -> str:
        """Names the place as it was asked for: the same in two processes with the same flags."""
        place = self.place
        return f"{self.flag} {place.kind} [{place.host}]:{place.port} {place.fd} {place.path}"

    def open(self, hub: Hub, options: TCPOptions) -> RelayPort:
        """
        Bind and listen; nothing is accepted yet.

        :raises ConfigError: naming flag, address and cure.
        """
        place = self.place
        adopted, self.adopted = self.adopted, None
        if adopted is not None:
            sock = _checked(self.flag, adopted, options, "the inherited socket")
        elif place.kind is PlaceKind.UNIX:
            sock = _open_unix(self.flag, place.path)
        elif place.kind is PlaceKind.FD:
            sock = _open_inherited(self.flag, place.fd, options)
        else:
            sock = open_listener(place.host, place.port, options, flag=self.flag)
        self.opened = RelayPort(hub, sock, self.greet, self.stats, self.opens)
        return self.opened

    def close(self) -> None:
        """Listen no more. Harmless if it does not."""
        opened, self.opened = self.opened, None
        if opened is None:
            return
        opened.stop()
        if self.place.kind is PlaceKind.UNIX and not self.handed_over:
            with suppress(OSError):
                os.unlink(self.place.path)

    def where(self) -> str:
        """The address it listens on, for people."""
        assert self.opened is not None
        if self.place.kind is PlaceKind.UNIX:
            return self.place.path
        address: Any = self.opened.getHost()
        host = getattr(address, "host", None)
        if host is None:
            return os.fsdecode(address.name or b"") or "a unix socket"
        if host in ("::", "0.0.0.0"):  # noqa: S104 - printed, not bound
            host = "*"
        return host_port(host, address.port)


def _open_unix(flag: str, path: str) -> socket.socket:
    """Listen on a path; what a dead process left there is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear_stale(path)
        sock.bind(path)
        os.chmod(path, UNIX_MODE)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(
            f"{flag}: cannot listen on {quoted(path)}: {reason}; name a path in a directory we "
            "may write to, where nothing else is"
        ) from error
    return sock


def _clear_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "there is something that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with suppress(FileNotFoundError):
                os.unlink(path)
            return
        except BlockingIOError:
            pass  # its queue is full, so somebody listens
    raise OSError(errno.EADDRINUSE, "another process listens there")


def _open_inherited(flag: str, fd: int, options: TCPOptions) -> socket.socket:
    """Take over a copy of a descriptor, so that a restart within the process finds it again."""
    try:
        sock = socket.socket(fileno=os.dup(fd))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(
            f"{flag}: descriptor {fd} is no socket we inherited ({reason}): let systemd or the "
            "like pass a listening socket"
        ) from error
    return _checked(flag, sock, options, f"descriptor {fd}")


def _checked(flag: str, sock: socket.socket, options: TCPOptions, what: str) -> socket.socket:
    """
    Make a socket that others opened one of ours.

    :param what: names it for the error.
    :raises ConfigError: if nobody can come in through it.
    """
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.type != socket.SOCK_STREAM or sock.family not in families or not listens:
        sock.close()
        raise ConfigError(f"{flag}: {what} is no listening stream socket: pass one that listens")
    if sock.family != socket.AF_UNIX:
        options.apply(sock)
    sock.setblocking(False)
    return sock
