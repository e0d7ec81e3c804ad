"""
The relays that a benchmark compares: how each is started, awaited and stopped.

A server is a command line with two placeholders, ``{port}`` (a free TCP port on 127.0.0.1) and
``{dir}`` (an empty directory for keys, certificates and logs). It must speak TLS there and needs
no name in SNI. It runs on one CPU: Go's GOMAXPROCS follows the CPU set by itself.
"""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = "ours"
PLAIN_TWISTED = "plain-twisted"
START_LIMIT_S = 30.0
STOP_LIMIT_S = 5.0


_DERPER = (
    "-a 127.0.0.1:{port} -certmode manual -certdir {dir} -hostname 127.0.0.1 "
    "-stun=false -http-port -1 -c {dir}/derper.key -verify-clients=false"
)


class BenchmarkError(Exception):
    """A sentence for the person at the terminal: what is missing or went wrong."""


@dataclass(frozen=True)
class ServerSpec:
    """One server of a comparison."""

    name: str
    command: tuple[str, ...]

    def words(self, port: int, directory: Path) -> list[str]:
        """Give the command line with its placeholders filled in."""
        places = {"{port}": str(port), "{dir}": str(directory)}
        filled = []
        for word in self.command:
            for place, value in places.items():
                word = word.replace(place, value)
            filled.append(word)
        return filled


def twistd() -> str:
    """Find the twistd of this interpreter."""
    beside = Path(sys.executable).with_name("twistd")
    return str(beside) if beside.exists() else shutil.which("twistd") or "twistd"


def built_in() -> list[ServerSpec]:
    """Ours, and the baseline on Twisted's own TLS."""
    relay = (
        "-n --pidfile= derper -a 127.0.0.1:{port} --certmode manual --certdir {dir} "
        "--hostname 127.0.0.1 --stun=false --http-port -1 -c {dir}/derper.key"
    )
    return [
        ServerSpec(OURS, (sys.executable, twistd(), *relay.split())),
        ServerSpec(PLAIN_TWISTED, (sys.executable, "-m", "bench.plain_twisted", "{port}")),
    ]


def parse_other(text: str) -> ServerSpec:
    """Read ``NAME=COMMAND LINE`` of ``--other``."""
    name, equals, command = text.partition("=")
    words = tuple(shlex.split(command))
    if not name or not equals or not words:
        raise BenchmarkError(
            f"--other {text!r}: must be NAME='COMMAND -a 127.0.0.1:{{port}} … {{dir}}'"
        )
    if not any("{port}" in word for word in words):
        raise BenchmarkError(f"--other {name}: its command line has no {{port}}")
    return ServerSpec(name, words)


def choose(others: Sequence[str], only: str | None, derper: str | None = None) -> list[ServerSpec]:
    """
    Give the servers to compare, the one others are measured against first.

    That is ``--derper``, or the first ``--other``, or the baseline when there is neither.
    """
    given = [parse_other(text) for text in others]
    if derper is not None:
        program = str(Path(derper).resolve())
        given.insert(0, ServerSpec("derper", (program, *_DERPER.split())))
    ours, plain = built_in()
    specs = [*given, ours, plain] if given else [plain, ours]
    if only is not None:
        names = [name for name in only.split(",") if name]
        unknown = sorted(set(names) - {spec.name for spec in specs})
        if unknown:
            raise BenchmarkError(f"--only {only}: there is no server {', '.join(unknown)}")
        specs = [spec for spec in specs if spec.name in names]
    if len({spec.name for spec in specs}) < len(specs):
        raise BenchmarkError("two servers have the same name: choose another for --other")
    return specs


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class RunningServer:
    """A server process on its CPU; a context manager that ends it."""

    spec: ServerSpec
    cpu: int
    """Where it runs; negative leaves it free."""
    port: int = field(default_factory=_free_port)

    def __enter__(self) -> RunningServer:
        self._directory = Path(tempfile.mkdtemp(prefix=f"bench-{self.spec.name}-"))
        self._log = self._directory / "log"
        self._words = self.spec.words(self.port, self._directory)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    self._words,
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    preexec_fn=self._settle,
                )
        except OSError as error:
            shutil.rmtree(self._directory, ignore_errors=True)
            raise BenchmarkError(f"cannot start {self.spec.name}: {error}") from error
        try:
            self._await_listening()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def log_tail(self) -> str:
        """Give the last lines it wrote."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n".join(text.splitlines()[-15:])

    def died(self) -> bool:
        """Tell whether it ended by itself."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """End it, by force if need be, and remove what it wrote."""
        if not self.died():
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _settle(self) -> None:
        """In the child: one CPU, and as many open files as the system allows."""
        if self.cpu >= 0:
            os.sched_setaffinity(0, {self.cpu})
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def _await_listening(self) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            if self.died():
                raise BenchmarkError(
                    f"{self.spec.name} ended with {self._process.returncode} at start:\n"
                    f"{shlex.join(self._words)}\n{self.log_tail()}"
                )
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise BenchmarkError(
            f"{self.spec.name} does not listen on 127.0.0.1:{self.port} after "
            f"{START_LIMIT_S:.0f} s:\n{self.log_tail()}"
        )
