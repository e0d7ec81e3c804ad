"""``twistd -n derper`` as a child process: its ports, its log, its end."""

from __future__ import annotations

import os
import re
import signal as signals
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGCONT
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from tests.integration.waiting import in_time

ROOT = Path(__file__).parent.parent.parent
RUN_S = 120.0
"""For a command to end, on a busy machine."""
LIFETIME_S = 300
"""After so long the kernel ends a child, even if whoever started it is gone by then."""

HOST = "127.0.0.1"
ANY_PORTS = ("-a", f"{HOST}:0", "--http-port", "0", "--stun-port", "0")
"""Every listener of derper's on loopback, on a port that is free."""

BOUNDED = f"""
import os, signal, sys
signal.alarm({LIFETIME_S})
if "LISTEN_FDS" in os.environ:
    os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Becomes the command behind it, which the kernel ends after :data:`LIFETIME_S`."""
_TWISTD = "from twisted.scripts.twistd import run; run()"
_LISTENING = re.compile(r"listening +(\S+):(\d+) +([^\n]*)")
_UNWANTED = re.compile(r"TS_|DERP_|TAILSCALE_|XDG_|.*_proxy$", re.IGNORECASE)
"""Variables of whoever runs the tests that must not reach a relay under test."""


def run_python(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """
    Run this interpreter to its end, from a thread, as a command that is none of a relay's.

    :param environ: variables besides those that any command needs.
    """
    own = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "PATH": os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, *arguments],
        env=own | environ,
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )


def twistd_command() -> list[str]:
    """The installed script; or, where none is beside the interpreter, what it does."""
    script = Path(sys.executable).parent / "twistd"
    return [str(script)] if script.exists() else [sys.executable, "-c", _TWISTD]


@dataclass(frozen=True)
class Ending:
    """How a child ended."""

    code: int | None
    """Exit code, or ``None`` if a signal ended it."""
    signal: int | None


class RelayChild(ProcessProtocol):
    """
    One child, from its start to its end.

    :param directory: its working directory and home; made if it is missing.
    :param flags: what follows ``derper`` on the command line.
    :param passed: descriptors it gets, from 3 upwards, as systemd does it.
    :ivar log: what it wrote to stdout: twistd's log.
    :ivar errors: what it wrote to stderr.
    """

    def __init__(
        self,
        reactor: Any,
        directory: str,
        *flags: str,
        environ: dict[str, str] | None = None,
        passed: Sequence[int] = (),
    ) -> None:
        self.log = ""
        self.errors = ""
        self.directory = Path(directory).absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.ended: Deferred[Ending] = Deferred()
        self.ending: Ending | None = None
        self._reactor = reactor
        self._ready: Deferred[None] = Deferred()
        self._is_ready = False
        command = [sys.executable, "-c", BOUNDED, *twistd_command(), "-n", "derper", *flags]
        descriptors = {0: "w", 1: "r", 2: "r"} | dict(enumerate(passed, 3))
        reactor.spawnProcess(
            self,
            command[0],
            command,
            self._environ(environ or {}),
            str(self.directory),
            childFDs=descriptors,
        )

    def _environ(self, more: dict[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not _UNWANTED.match(name)}
        own = {
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(self.directory),
        }
        return kept | own | more

    # -- what it says ----------------------------------------------------------------------

    def outReceived(self, data: bytes) -> None:
        """See ``ProcessProtocol``."""
        self.log += data.decode("utf-8", "replace")
        if not self._is_ready and " is ready\n" in self.log and self.log.endswith("\n"):
            self._is_ready = True
            self._ready.callback(None)

    def errReceived(self, data: bytes) -> None:
        """See ``ProcessProtocol``."""
        self.errors += data.decode("utf-8", "replace")

    def processEnded(self, reason: Failure) -> None:
        """See ``ProcessProtocol``: it is reaped and its pipes are closed."""
        reason.trap(ProcessDone, ProcessTerminated)
        value: Any = reason.value
        self.ending = Ending(value.exitCode, value.signal)
        if not self._is_ready:
            self._is_ready = True
            self._ready.errback(AssertionError(f"it ended early: {self.everything}"))
        self.ended.callback(self.ending)

    @property
    def everything(self) -> str:
        """All it said, for failures."""
        return f"{self.ending}\n{self.log}\n{self.errors}"

    # -- what to do with it ----------------------------------------------------------------

    async def ready(self) -> RelayChild:
        """Give this child once it serves."""
        await in_time(self._reactor, self._ready, "a child that is ready")
        return self

    async def end(self, signal: str = "KILL") -> Ending:
        """Send it a signal, and see it end."""
        self.send(signal)
        ending: Ending = await self.over()
        return ending

    async def over(self) -> Ending:
        """See it end by itself."""
        if self._ready.called:
            self._ready.addErrback(lambda _: None)
        if self.ending is None:
            await in_time(self._reactor, self.ended, "the end of a child")
        assert self.ending is not None
        return self.ending

    def send(self, signal: str) -> None:
        """Send it a signal, if it still runs."""
        assert self.transport is not None
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(signals.Signals[f"SIG{signal}"].value)

    def resume(self) -> None:
        """Let it go on after a STOP."""
        pid = getattr(self.transport, "pid", None)
        if pid is not None:
            os.kill(pid, SIGCONT)

    # -- where it listens ------------------------------------------------------------------

    def _listening(self) -> dict[str, int]:
        found = {}
        for _, port, serves in _LISTENING.findall(self.log):
            flag = re.search(r"\((-\S+)\)", serves)
            found["--stun-port" if flag is None else flag[1]] = int(port)
        return found

    def port(self, flag: str = "-a") -> int:
        """The port it says it listens on, by the flag that asks for it."""
        return self._listening()[flag]
