"""``derper`` in a child process: the script as a unit or an image starts it."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent.parent
TIMEOUT = 120.0
"""Seconds a child may take; it is killed then, and the test is red."""

_PREFIX = re.compile(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ")


class DerperTests(SynchronousTestCase):
    """The process: log, ports, exit codes."""

    def setUp(self) -> None:
        """A working directory of its own, where a pid file would show."""
        self.place = tempfile.mkdtemp(dir=Path.cwd())
        self.line = ["-stun=false", "-c", str(Path(self.place) / "derper.key")]

    def start(self, *argv: str, code: str = "", **environ: str) -> subprocess.Popen[str]:
        """
        A child, without the variables of whoever runs the tests.

        :param code: run instead of the script.
        """
        own = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "HOME": self.place}
        child = subprocess.Popen(
            [sys.executable, *(["-c", code] if code else ["-m", "derp.derper_command"]), *argv],
            cwd=self.place,
            env={"PATH": os.environ["PATH"]} | own | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        killer = threading.Timer(TIMEOUT, child.kill)
        killer.start()
        self.addCleanup(killer.cancel)
        return child

    def ended(self, child: subprocess.Popen[str]) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        stdout, stderr = child.communicate()
        return child.returncode, stdout, stderr

    def test_serves(self) -> None:
        """It runs in the foreground, logs as derper does, answers, and ends well by SIGTERM."""
        child = self.start(*self.line, DERP_ADDR="127.0.0.1:0", DERP_DOMAIN="a.test")
        assert child.stderr is not None
        line = first = child.stderr.readline()
        while line and " is ready" not in line:
            line = child.stderr.readline()
        listening = re.search(r"listening +127\.0\.0\.1:(\d+) ", child.stderr.readline())
        assert listening is not None, line
        self.assertRegex(first, _PREFIX)
        self.assertRegex(line, _PREFIX)
        web = http.client.HTTPConnection("127.0.0.1", int(listening[1]), timeout=TIMEOUT)
        self.addCleanup(web.close)
        web.request("GET", "/generate_204")
        self.assertEqual(web.getresponse().status, 204)
        child.send_signal(signal.SIGTERM)
        code, stdout, _ = self.ended(child)
        self.assertEqual((code, stdout), (0, ""))
        self.assertEqual(os.listdir(self.place), ["derper.key"])

    def test_ended_while_loading(self) -> None:
        """A signal to end that comes while Python still imports does so at once; others nothing."""
        loading = (
            "import sys, time, derp.derper_command as command\n"
            "class Slow:\n"
            "    def find_spec(self, name, path, target=None):\n"
            "        if name == 'derp.derper_script':\n"
            "            print('loading', flush=True)\n"
            "            time.sleep(600)\n"
            "sys.meta_path.insert(0, Slow())\n"
            "command.main()"
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            child = self.start(*self.line, code=loading)
            assert child.stdout is not None
            self.assertEqual(child.stdout.readline(), "loading\n")
            child.send_signal(signal.SIGHUP)
            child.send_signal(signal.SIGUSR2)
            child.send_signal(number)
            self.assertEqual(self.ended(child), (0, "", ""))
        self.assertEqual(os.listdir(self.place), [])

    def test_wrong_flag(self) -> None:
        """Usage and exit code 2."""
        code, stdout, stderr = self.ended(self.start("-dve"))
        self.assertEqual((code, stdout), (2, ""))
        self.assertIn("Usage: derper [flags]", stderr)
        self.assertTrue(stderr.endswith('derper: there is no flag "-dve": did you mean --dev?\n'))

    def test_port_in_use(self) -> None:
        """One sentence that leads to the variable, exit code 1, no traceback."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            code, stdout, stderr = self.ended(
                self.start(*self.line, DERP_ADDR=address, DERP_DOMAIN="a.test")
            )
        self.assertEqual((code, stdout), (1, ""))
        self.assertNotIn("Traceback", stderr)
        sentences = [line for line in stderr.splitlines() if not _PREFIX.match(line)]
        self.assertEqual(len(sentences), 2, stderr)
        self.assertIn("in use", sentences[0])
        self.assertEqual(sentences[1], "(-a is set by DERP_ADDR)")

    def test_bad_variable(self) -> None:
        """One sentence; nothing is written."""
        code, stdout, stderr = self.ended(self.start(*self.line, DERP_STUN_PORT="x"))
        self.assertEqual((code, stdout), (1, ""))
        self.assertEqual(
            stderr,
            'derper: environment variable DERP_STUN_PORT: "x" is not a whole number: write a '
            "whole number\n",
        )
        self.assertEqual(os.listdir(self.place), [])
