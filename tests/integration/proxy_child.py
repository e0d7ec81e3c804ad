"""
Other people's proxies in front of a relay, run from the recipes in ``contrib/proxies``.

A recipe is what an operator would install: its ports, paths and users are those of a server. A
test replaces them, and each thing it replaces must be there, so that recipe and test cannot
part. Where the program is missing, tests are skipped; with ``CI`` set they fail.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.integration.child import HOST, ROOT
from tests.integration.waiting import in_time, until

RECIPES = ROOT / "contrib" / "proxies"

_GRACE_S = 2.0
_LEAD_A_GROUP = """
import ctypes, os, signal, sys
os.setsid()
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""A proxy has workers: all of them end with it, and it ends with the tests (PR_SET_PDEATHSIG)."""


def missing(program: str, package: str, module: str = "") -> str | None:
    """
    Why tests of a program, such as a proxy, cannot run here.

    :param module: a file that has to be there, too.
    :returns: a reason to skip; ``None`` if they can, or if this is CI, where they have to.
    """
    there = shutil.which(program) and (not module or os.path.exists(module))
    if there or os.environ.get("CI"):
        return None
    return f"{module or program} not found: install Debian's package {package}"


def recipe(name: str, replaced: Mapping[str, str]) -> str:
    """Read a recipe, with what belongs to the machine replaced."""
    text = (RECIPES / name).read_text()
    for old, new in replaced.items():
        if old not in text:
            raise AssertionError(f"{name} does not say {old!r} any more")
        text = text.replace(old, new)
    return text


def listens(port: int) -> bool:
    """Whether somebody listens on a port of loopback."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


class ProxyChild(ProcessProtocol):
    """
    One proxy and its workers, from their start to their end.

    :ivar output: what they wrote to stdout and stderr.
    """

    def __init__(self, reactor: Any, directory: Path, program: str, *arguments: str) -> None:
        self.output = ""
        self._reactor = reactor
        self._ended: Deferred[None] = Deferred()
        self._over = False
        path = shutil.which(program)
        if path is None:
            raise AssertionError(f"{program} not found: install its Debian package")
        command = [sys.executable, "-c", _LEAD_A_GROUP, path, *arguments]
        home = {"HOME": str(directory), "XDG_DATA_HOME": str(directory)}
        kept = {"PATH": os.environ.get("PATH", os.defpath)}
        process = reactor.spawnProcess(self, command[0], command, kept | home, str(directory))
        self.pid: int = process.pid

    def outReceived(self, data: bytes) -> None:
        """See ``ProcessProtocol``."""
        self.output += data.decode("utf-8", "replace")

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        """See ``ProcessProtocol``."""
        self._over = True
        if not self._ended.called:
            self._ended.callback(None)

    async def listening(self, *ports: int) -> None:
        """Wait until it listens on all of these."""

        def ready() -> bool:
            if self._over:
                raise AssertionError(f"it ended early: {self.output}")
            return all(map(listens, ports))

        await until(self._reactor, ready, "a proxy that listens")

    def send(self, name: str) -> None:
        """Send its master a signal."""
        os.kill(self.pid, signal.Signals[f"SIG{name}"])

    async def kill(self) -> None:
        """End all of it, and see it end: its master first, which takes its workers along."""
        if not self._over:
            self.send("TERM")
            with suppress(TimeoutError):
                await self._ended.addTimeout(_GRACE_S, self._reactor)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if not self._over:
            self._ended = Deferred()
            await in_time(self._reactor, self._ended, "the end of a proxy")
