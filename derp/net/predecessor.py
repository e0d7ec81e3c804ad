"""
The new process's side of a hand-over: an old one that listens is asked for its sockets.

What the two say to each other is in :mod:`derp.net.handover`.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Sequence
from typing import Final

from twisted.logger import Logger

from derp.net.handover import MAX_SOCKETS, check_path, credentials, is_trusted, unusable
from derp.net.inherited_sockets import InheritedSocket
from derp.quoting import quoted

log = Logger(namespace="derp")

ANSWER_S: Final = 5.0
"""How long a new process waits for the old one's sockets."""
RIVAL_S: Final = 1.0
"""The same for a connection to somebody who was quicker; it is there at once."""
_MAX_ANSWER: Final = 64 << 10


class Predecessor:
    """
    An old process that is still there.

    :ivar sockets: what it handed over.
    :ivar place: tells its unix socket from that of another one at the same path.
    """

    def __init__(
        self,
        sock: socket.socket,
        sockets: Sequence[InheritedSocket] = (),
        place: tuple[int, int] | None = None,
    ) -> None:
        self.sockets = sockets
        self.place = place
        self._sock = sock

    def go(self) -> None:
        """We are ready: let it go."""
        pid, _ = credentials(self._sock)
        try:
            with self._sock:
                self._sock.sendall(b"go\n")
        except OSError as error:
            log.error(
                "--handover-socket: the old process ({pid}) cannot be told to go ({reason}): it may"
                " serve the same ports still. If it is there, end it",
                pid=pid,
                reason=(error.strerror or str(error)).lower(),
            )

    def forget(self) -> None:
        """We shall not be ready: let it go on."""
        self._sock.close()


def find_predecessor(path: str) -> Predecessor | None:
    """
    Ask for the sockets of whoever listens on the path; wait for them.

    :return: nothing if nobody does, or if what does gives none: the ports are then opened as
        usual, which fails with a sentence if they are taken.
    :raises ConfigError: if the path cannot be used, or is somebody else's.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(ANSWER_S)
    place = _place(path)
    try:
        check_path(path)
        sock.connect(path)
        # A relay that gave up root's privileges (twistd -u) listens in a directory of its user.
        owner = os.stat(os.path.dirname(path) or ".").st_uid
        if not is_trusted(sock, owner):
            raise OSError(errno.EPERM, "another user listens there")
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        _check_directory(path)
        return None
    except OSError as error:
        sock.close()
        raise unusable(path, error) from error
    try:
        sock.sendall(b"sockets\n")
        return Predecessor(sock, _receive(sock), place)
    except (OSError, ValueError, RecursionError) as error:
        sock.close()
        log.warn(
            "--handover-socket {path}: the process there hands nothing over ({reason}): opening"
            " the ports without it",
            path=quoted(path),
            reason=str(error) or type(error).__name__,
        )
        return None


def _check_directory(path: str) -> None:
    """
    See whether we can listen there ourselves: later, when we serve, that stops nothing any more.

    :raises ConfigError: if not.
    """
    directory = os.path.dirname(path) or "."
    if not os.access(directory, os.W_OK | os.X_OK):
        number = errno.EACCES if os.path.isdir(directory) else errno.ENOENT
        raise unusable(path, OSError(number, os.strerror(number)))


def find_rival(path: str, predecessor: Predecessor) -> Predecessor | None:
    """
    Find out who took our predecessor's place while we started, if anybody.

    It has the same ports, and nobody else would ever tell it to go.
    """
    if _place(path) in (None, predecessor.place):
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(RIVAL_S)
    try:
        sock.connect(path)
        if is_trusted(sock):
            return Predecessor(sock)
    except OSError:
        pass  # it has gone by itself
    sock.close()
    return None


def _place(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _receive(sock: socket.socket) -> list[InheritedSocket]:
    """
    Take the answer.

    :raises ValueError: if it makes no sense; what came with it is closed.
    """
    answer = b""
    sockets: list[socket.socket] = []
    try:
        while not answer.endswith(b"\n"):
            data, descriptors, _, _ = socket.recv_fds(sock, 4096, MAX_SOCKETS)
            sockets += [socket.socket(fileno=descriptor) for descriptor in descriptors]
            for each in sockets:
                each.set_inheritable(False)
            answer += data
            if not data or len(answer) > _MAX_ANSWER:
                raise ValueError("it hung up" if not data else "its answer is too long")
        keys = json.loads(answer)
        if not isinstance(keys, list) or len(keys) != len(sockets):
            raise ValueError("its answer makes no sense")
    except BaseException:
        for each in sockets:
            each.close()
        raise
    return [InheritedSocket(str(key), each) for key, each in zip(keys, sockets, strict=True)]
