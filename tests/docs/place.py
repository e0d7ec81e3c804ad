"""
Where the commands of a page are run.

A directory of its own is home, working directory, and what ``/etc/derper``, ``/run/derper``,
``/var/lib/derper`` and ``/srv/derper`` stand for. In it are the programs
(:mod:`tests.docs.stand_in`), a certificate for derp.example.com, and what earlier blocks of the
page made.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

from tests.certificate_files import NOW, issue
from tests.docs.pages import Block
from tests.docs.stand_in import install

PATIENCE_S: Final = 120
"""A block that takes longer is stuck."""

READY: Final = " is ready\n"
BEHIND_PORTS: Final = "  public key "
"""What a relay says when it has said where it listens."""

_OWN_PATHS: Final = re.compile(r"(?<![\w.}$/-])/(etc|run|var/lib|srv)/derper\b")
_LISTENING: Final = re.compile(r"listening +\S+:(\d+) +([^\n]*)")
_UNWANTED: Final = re.compile(r"TS_|DERP_|TAILSCALE_|XDG_|HOSTNAME|.*_proxy$", re.IGNORECASE)
_RELAY: Final = (
    "derper --certmode manual --hostname 127.0.0.1 --certdir beside -c beside/key"
    " --metrics-addr 127.0.0.1:9090"
)


class Place:
    """The directory of one page, from its first block to its last."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="derp-docs-"))
        install(self.root / ".venv" / "bin")
        certs = self.root / "etc" / "derper" / "certs"
        certs.mkdir(parents=True)
        for path in ("run/derper", "var/lib/derper", "srv/derper"):
            (self.root / path).mkdir(parents=True)
        hour = timedelta(hours=1)
        since = timedelta(seconds=time.time() - NOW)
        issued = issue(["derp.example.com"], begins=since - hour, ends=since + 90 * 24 * hour)
        (certs / "derp.example.com.crt").write_bytes(issued.pem)
        (certs / "derp.example.com.key").write_bytes(issued.key_pem())

    def leave(self) -> None:
        """Remove it."""
        shutil.rmtree(self.root, ignore_errors=True)

    def write(self, block: Block) -> None:
        """Make the file that a block shows."""
        path = Path(self._here(block.argument))
        assert self.root in path.parents, f"{block.where}: {path} is none of our directories"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._here(block.text), encoding="utf-8")

    def run(self, block: Block) -> str:
        """Run a block as its mark says; gives what went wrong, or nothing."""
        kind = block.argument
        if kind == "a relay":
            return self._run_relay(self._here(block.text))
        if kind == "beside a relay":
            return self._run_beside(self._here(block.text))
        expected = re.fullmatch(r"(?:ends with (\d+))?", kind)
        if expected is None:
            return f"there is no such mark as {kind!r}"
        return self._run(self._here(block.text), int(expected[1] or 0))

    def _here(self, text: str) -> str:
        return _OWN_PATHS.sub(lambda found: f"{self.root}{found[0]}", text)

    def _start(self, script: str) -> subprocess.Popen[str]:
        environ = {key: text for key, text in os.environ.items() if not _UNWANTED.match(key)}
        bin_directory = self.root / ".venv" / "bin"
        environ |= {
            "HOME": str(self.root),
            "PATH": f"{bin_directory}:{Path(sys.executable).parent}:{environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore",
            "CURL_CA_BUNDLE": str(self.root / "beside" / "127.0.0.1.crt"),
        }
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.root,
            env=environ,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _run(self, script: str, expected: int) -> str:
        process = self._start(script)
        try:
            output, _ = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            return f"no end within {PATIENCE_S} s: {_killed(process)}"
        if process.returncode != expected:
            return f"exit code {process.returncode}, not {expected}: {output}"
        return ""

    def _run_relay(self, script: str) -> str:
        # bash waits for its last command in spite of the signal, and ends as that does.
        process = self._start(f"trap : TERM\n{script}")
        said = _until(process, READY)
        if READY not in said:
            return f"it did not get ready: {said}{_killed(process)}"
        os.killpg(process.pid, signal.SIGTERM)
        try:
            output, _ = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            return f"it did not end: {said}{_killed(process)}"
        return "" if process.returncode == 0 else f"{process.returncode}: {said}{output}"

    def _run_beside(self, script: str) -> str:
        relay = self._start(f"exec {_RELAY}")
        try:
            said = _until(relay, BEHIND_PORTS)
            ports = {serves: port for port, serves in _LISTENING.findall(said)}
            return self._run(_with_ports(script, ports), 0)
        finally:
            _killed(relay)


def _with_ports(script: str, ports: dict[str, str]) -> str:
    """
    Put the relay that runs here into a script that means another.

    :param ports: by what is served there, as the relay says it.
    """
    main, plain, metrics, stun = (
        next(port for serves, port in ports.items() if what in serves)
        for what in ("(-a)", "(--http-port)", "(--metrics-addr)", "STUN")
    )
    https = f"https://127.0.0.1:{main}"
    doctor = (
        "derper doctor --ca-file beside/127.0.0.1.crt "
        f"--stun-port {stun} --http-port {plain} 127.0.0.1:{main}"
    )
    for written, here in (
        (r"https://(localhost|derp\.example\.com)(?![:\w])", https),
        (r"http://localhost:9090", f"http://127.0.0.1:{metrics}"),
        (r"http://localhost(?![:\w])", f"http://127.0.0.1:{plain}"),
        (r"\bderp\.example\.com:443\b", f"127.0.0.1:{main}"),
        (r"\bderper doctor derp\.example\.com\b", doctor),
        (r"\bstunc derp\.example\.com\b", f"stunc 127.0.0.1 {stun}"),
    ):
        script = re.sub(written, here, script)
    return script


def _until(process: subprocess.Popen[str], sign: str) -> str:
    """All it says up to the line with a sign, or until it ends."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if sign in line:
            break
    return said


def _killed(process: subprocess.Popen[str]) -> str:
    """End it at once; gives the rest of what it said."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[0] or ""
