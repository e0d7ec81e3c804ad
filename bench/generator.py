"""
The load generator: building it, and one run of it.

It is C because a client in Python would be slower than the servers. Its modes and options are
listed by ``loadgen --help``; it prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.servers import BenchmarkError, RunningServer

Run = dict[str, Any]
"""What the generator printed."""

SPARE_TIME_S = 120.0
"""For logins, draining and silence, on top of the measured time."""


@contextmanager
def built_generator(
    name: str = "loadgen", libraries: Sequence[str] = ("-lssl", "-lcrypto", "-lsodium")
) -> Iterator[Path]:
    """
    Build a generator into a temporary directory, there while the context lasts.

    :param name: of the program; all C files whose names begin so belong to it.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise BenchmarkError("no C compiler: install one (Debian: apt-get install gcc libc6-dev)")
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as directory:
        program = Path(directory) / name
        sources = [str(path) for path in sorted(Path(__file__).parent.glob(f"{name}*.c"))]
        built = subprocess.run(
            [compiler, "-O2", "-o", str(program), *sources, *libraries],
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode != 0:
            raise BenchmarkError(build_failure(built.stderr))
        yield program


def build_failure(text: str) -> str:
    """Say which library is missing, or what the compiler said."""
    for sign, library, package in (
        ("sodium", "libsodium", "libsodium-dev"),
        ("ssl", "OpenSSL 3", "libssl-dev"),
        ("crypto", "OpenSSL 3", "libssl-dev"),
    ):
        if re.search(rf"{sign}\S*: No such file|cannot find -l{sign}", text):
            return (
                f"cannot build the load generator: {library} with its headers is missing "
                f"(Debian: apt-get install {package})"
            )
    return f"cannot build the load generator:\n{text}"


def generate(
    program: Path, load: Sequence[str], server: RunningServer, options: argparse.Namespace
) -> Run:
    """
    Put one load on a server.

    :raises BenchmarkError: if the generator gives up, with what it and the server said.
    """
    words = [str(program), *load]
    words += ["--port", str(server.port), "--server", str(server.pid)]
    words += ["--seconds", str(options.seconds), "--warmup", str(options.warmup)]
    words += ["--cipher", options.cipher, "--groups", options.groups]
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=False,
            timeout=options.seconds + options.warmup + SPARE_TIME_S,
            preexec_fn=lambda: pin(options.generator_cpu),
        )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError("the generator did not end") from error
    if done.returncode != 0:
        died = "the server died; " if server.died() else ""
        raise BenchmarkError(f"{died}{done.stderr.strip()}\n{server.log_tail()}")
    run: Run = json.loads(done.stdout)
    return run


def pin(cpu: int) -> None:
    """Keep the calling process on one CPU; negative leaves it free."""
    if cpu >= 0:
        os.sched_setaffinity(0, {cpu})
