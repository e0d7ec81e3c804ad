"""
Telling systemd how we are, in its own protocol (sd_notify(3)): datagrams of ``NAME=value`` lines.

Works wherever ``NOTIFY_SOCKET`` is set. A message that cannot be sent is dropped: a supervisor
that does not listen is no reason to stop relaying.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

MICROSECONDS = 1_000_000


class SystemdNotify:
    """
    The way to systemd, or to nobody.

    :param environ: the process environment.
    :param pid: this process, which a watchdog may have been meant for.
    """

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = _watchdog_s(environ, pid) if address else 0.0
        """Within this time systemd wants a sign of life; 0 is never."""

    def __bool__(self) -> bool:
        return bool(self._address)

    def ready(self) -> None:
        """Say that the start, or reading files again, is done."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Say that files are being read again; :meth:`ready` must follow."""
        now = time.clock_gettime(time.CLOCK_MONOTONIC)
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(now * MICROSECONDS)}")

    def stopping(self) -> None:
        """Say that the process is on its way out."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Say in a line what ``systemctl status`` is to show."""
        self._send("STATUS=" + text.replace("\n", " "))

    def alive(self) -> None:
        """Give the watchdog its sign of life."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode("utf-8"), os.fsencode(self._address))


def _watchdog_s(environ: Mapping[str, str], pid: int) -> float:
    """Read the watchdog's time, if it is meant for this process."""
    text = environ.get("WATCHDOG_USEC", "")
    if not (text.isascii() and text.isdigit()):
        return 0.0
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return 0.0
    return int(text) / MICROSECONDS
