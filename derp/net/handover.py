"""
Handing the listening sockets to a new process, so that a restart refuses nobody.

Over a unix socket that only the same user (or root) may use::

    new process                        old process
    "sockets\\n"                    →
                                    ←  JSON list of keys, "\\n"; with it the descriptors
    (it adopts them, becomes ready,
    listens on that path itself)
    "go\\n"                         →
                                       (it drains, and exits)

The new process's side is :mod:`derp.net.predecessor`. Until it is told to go the old process
serves as before: a new one that fails changes nothing. What nobody takes off waits in the
sockets' queues, which both processes share.
"""

from __future__ import annotations

import array
import errno
import json
import os
import socket
import stat
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from derp.errors import ConfigError
from derp.quoting import quoted

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

log = Logger(namespace="derp")

START_S: Final = 120.0
"""How long a new process may take from getting the sockets to being ready."""
PAUSE_S: Final = 1.0
"""How long nobody is accepted after that failed."""
MAX_PEERS: Final = 8
MAX_SOCKETS: Final = 250
"""Descriptors in one message (Linux ``SCM_MAX_FD`` is 253)."""
_CREDENTIALS: Final = struct.Struct("3i")
"""``struct ucred``: pid, uid, gid."""


def credentials(sock: socket.socket) -> tuple[int, int]:
    """Process and user of the other end."""
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid


def is_trusted(sock: socket.socket, *others: int) -> bool:
    """Whether the other end runs as this user, as root, or as one of others."""
    return credentials(sock)[1] in (0, os.geteuid(), *others)


@implementer(IReadDescriptor)
class HandoverServer:
    """
    The old process's side.

    :param path: ``--handover-socket``.
    :param offer: gives the sockets by key when somebody asks.
    :param go: called once the new process is ready.
    """

    def __init__(
        self,
        reactor: Any,
        path: str,
        offer: Callable[[], Mapping[str, socket.socket]],
        go: Callable[[], object],
    ) -> None:
        self.reactor = reactor
        self.offer = offer
        self.go = go
        self.peers: set[_Successor] = set()
        self._path = path
        self._sock: socket.socket | None = None
        self._identity: tuple[int, int] | None = None
        self._spare: int | None = None
        """A descriptor to give up for a successor where there is no other left."""
        self._pause: IDelayedCall | None = None

    def start(self) -> None:
        """
        Listen, in the place of whoever did before.

        :raises ConfigError: if the path cannot be had.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        own = f"{self._path}.{os.getpid()}"
        try:
            check_path(self._path)
            with suppress(FileNotFoundError):
                os.unlink(own)
            before = os.umask(0o177)  # nobody else may connect, not even before a chmod
            try:
                sock.bind(own)
            finally:
                os.umask(before)
            sock.listen(MAX_PEERS)
            sock.setblocking(False)
            status = os.stat(own)
            os.rename(own, self._path)
        except OSError as error:
            sock.close()
            with suppress(OSError):
                os.unlink(own)
            raise unusable(self._path, error) from error
        self._sock, self._identity = sock, (status.st_dev, status.st_ino)
        self._keep_spare()
        self.reactor.addReader(self)

    def stop(self) -> None:
        """Listen no more; the path is removed if it is still ours."""
        self.remove_path()
        for peer in list(self.peers):
            peer.close()
        if self._sock is not None:
            self.reactor.removeReader(self)
            self._sock.close()
            self._sock = None
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._give_spare_up()

    def _keep_spare(self) -> None:
        if self._spare is None:
            with suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY)

    def _give_spare_up(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            os.close(spare)

    def remove_path(self) -> None:
        """Remove the path unless a successor has taken it; may be called at any time."""
        identity, self._identity = self._identity, None
        if identity is None:
            return
        with suppress(OSError):
            status = os.lstat(self._path)
            if (status.st_dev, status.st_ino) == identity:
                os.unlink(self._path)

    def fileno(self) -> int:
        """See ``IFileDescriptor.fileno``."""
        return self._sock.fileno() if self._sock else -1

    def logPrefix(self) -> str:
        """See ``ILoggingContext.logPrefix``."""
        return "handover"

    def connectionLost(self, reason: object) -> None:
        """See ``IFileDescriptor.connectionLost``: the reactor stops."""

    def doRead(self) -> None:
        """See ``IReadDescriptor.doRead``: somebody connects."""
        assert self._sock is not None
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if self._spare is not None:
                self._give_spare_up()  # whoever waits there may be what helps: try again
            else:
                self._rest(error)
            return
        self._keep_spare()
        sock.setblocking(False)
        if len(self.peers) >= MAX_PEERS or not is_trusted(sock):
            log.warn("--handover-socket: somebody else's process was refused")
            sock.close()
            return
        self.peers.add(_Successor(self, sock))

    def _rest(self, error: OSError) -> None:
        """What waits cannot be accepted now; it would wake us again and again."""
        log.error(
            "--handover-socket: a new process cannot be accepted: {reason}",
            reason=(error.strerror or str(error)).lower(),
        )
        self.reactor.removeReader(self)
        self._pause = self.reactor.callLater(PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._keep_spare()
        self.reactor.addReader(self)


@implementer(IReadDescriptor)
class _Successor:
    """One process that may take over."""

    def __init__(self, server: HandoverServer, sock: socket.socket) -> None:
        self._server = server
        self._sock = sock
        self._line = b""
        self._has_sockets = False
        self._deadline: IDelayedCall = server.reactor.callLater(START_S, self._fail)
        server.reactor.addReader(self)

    def fileno(self) -> int:
        """See ``IFileDescriptor.fileno``."""
        return self._sock.fileno()

    def logPrefix(self) -> str:
        """See ``ILoggingContext.logPrefix``."""
        return "handover"

    def connectionLost(self, reason: object) -> None:
        """See ``IFileDescriptor.connectionLost``: the reactor stops."""

    def close(self) -> None:
        """Have nothing more to do with it. Harmless twice."""
        if self in self._server.peers:
            self._server.peers.discard(self)
            self._server.reactor.removeReader(self)
            self._sock.close()
        if self._deadline.active():
            self._deadline.cancel()

    def doRead(self) -> None:
        """See ``IReadDescriptor.doRead``: a word came, or the end."""
        try:
            data = self._sock.recv(64)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._line += data
        word, newline, rest = self._line.partition(b"\n")
        if newline and word == b"sockets" and not rest:
            self._line = b""
            self._hand_over()
        elif newline and word == b"go" and not rest:
            self.close()
            log.info("--handover-socket: another process is ready to go on with our ports")
            self._server.go()
        elif not data or newline or len(self._line) > len("sockets"):
            self._fail()

    def _fail(self) -> None:
        """It has gone, or takes for ever: we go on."""
        self.close()
        if self._has_sockets:
            log.warn(
                "--handover-socket: the new process did not get ready; this one goes on as before."
                " What the new one said last tells why"
            )

    def _hand_over(self) -> None:
        offered = dict(list(self._server.offer().items())[:MAX_SOCKETS])
        answer = json.dumps(list(offered)).encode("ascii") + b"\n"
        descriptors = array.array("i", [sock.fileno() for sock in offered.values()])
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)] if descriptors else []
        try:
            sent = self._sock.sendmsg([answer], ancillary)
        except OSError:
            sent = 0
        if sent != len(answer):  # a socket that is new and empty takes it all, or is broken
            self.close()
            return
        self._has_sockets = True
        log.info("--handover-socket: {count} sockets handed to a new process", count=len(offered))


def check_path(path: str) -> None:
    """
    Refuse to replace what is no socket.

    :raises OSError: if there is such a thing.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "there is something that is no socket")


def unusable(path: str, error: OSError) -> ConfigError:
    """Word why the path cannot be used."""
    reason = (error.strerror or str(error)).lower()
    return ConfigError(
        f"--handover-socket: cannot use {quoted(path)}: {reason}; name a path of at most 90 bytes "
        "in a directory that is ours alone"
    )
