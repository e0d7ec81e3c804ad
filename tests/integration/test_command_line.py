"""``twistd derper`` in a child process: what an operator's mistake looks like on a terminal."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO

from twisted.trial.unittest import SynchronousTestCase

from derp import __version__

ROOT = Path(__file__).parent.parent.parent
TIMEOUT = 120.0
"""Seconds a child may take; it is killed then, and the test is red."""

TWISTD = "from twisted.scripts.twistd import run; run()"

REFUSING = f"""
import sys, types
from twisted.application.service import Service
from derp.errors import ConfigError

class Refusing(Service):
    def startService(self):
        raise ConfigError("-a: port 443 is in use: stop the other server")

services = sys.modules["derp.services"] = types.ModuleType("derp.services")
services.build = lambda config, reactor: Refusing()

from derp import supervision
supervision.supervise = lambda relay, reactor, clean_up: relay
{TWISTD}
"""
"""twistd with a relay whose port is taken."""


class HangUpTests(SynchronousTestCase):
    """SIGHUP, of which a bare twistd dies."""

    def test_hang_up(self) -> None:
        """The relay reads its files again and goes on; a bad file changes nothing."""
        place = tempfile.mkdtemp(dir=Path.cwd())
        keys = Path(place) / "keys"
        keys.write_text("# nobody\n")
        command = [sys.executable, "-c", TWISTD, "-n", "--pidfile=", "derper", "-a", "127.0.0.1:0"]
        command += ["--stun=false", "-c", str(Path(place) / "key"), "--allow-clients", str(keys)]
        environ = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        child = subprocess.Popen(
            command, cwd=place, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        killer = threading.Timer(TIMEOUT, child.kill)
        killer.start()
        assert child.stdout is not None
        try:
            self.read_until(child.stdout, b"is ready")
            child.send_signal(signal.SIGHUP)
            self.read_until(child.stdout, b"is in use now")
            keys.write_text("rubbish\n")
            child.send_signal(signal.SIGHUP)
            self.read_until(child.stdout, b'line 1: "rubbish" is no node key')
            self.assertIsNone(child.poll())
            child.terminate()
            self.read_until(child.stdout, b"Server Shut Down")
        finally:
            killer.cancel()
            child.kill()
            child.stdout.close()
            child.wait()

    def read_until(self, output: IO[bytes], wanted: bytes) -> None:
        """Read lines up to one; the end of the output is a failure."""
        seen = []
        for line in output:
            if wanted in line:
                return
            seen.append(line)
        self.fail(f"{wanted!r} is not in {seen}")


class CommandLineTests(SynchronousTestCase):
    """A start that fails ends with exit code 1 and one sentence on stderr."""

    def setUp(self) -> None:
        """A working directory of its own, where a pid file would show."""
        self.place = tempfile.mkdtemp(dir=Path.cwd())

    def twistd(self, *argv: str, program: str = TWISTD) -> subprocess.CompletedProcess[str]:
        """Run twistd to its end."""
        environ = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
        return subprocess.run(
            [sys.executable, "-c", program, *argv],
            cwd=self.place,
            env=environ,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    def assert_refused(self, ran: subprocess.CompletedProcess[str], sentence: str) -> None:
        """One sentence, nothing else, nothing left behind."""
        self.assertEqual((ran.returncode, ran.stdout), (1, ""), ran.stderr)
        self.assertTrue(ran.stderr.startswith(f"derper: {sentence}"), ran.stderr)
        self.assertNotIn("Traceback", ran.stderr)
        self.assertEqual(os.listdir(self.place), [])

    def test_wrong_flag(self) -> None:
        """An unknown flag, with a hint how to see the others."""
        ran = self.twistd("-n", "derper", "--dve")
        self.assert_refused(ran, 'there is no flag "--dve": did you mean --dev?')
        self.assertIn("(twistd derper --help lists the flags)", ran.stderr)

    def test_boolean_with_a_space(self) -> None:
        """``--stun false`` would leave STUN on in derper; here it stops the start."""
        self.assert_refused(self.twistd("-n", "derper", "--stun", "false"), '"false" is not a flag')

    def test_certificate_flags(self) -> None:
        """What a mode of certificates needs is said with the cure."""
        ran = self.twistd("-n", "derper", "--hostname", "192.0.2.7")
        self.assert_refused(ran, "--hostname 192.0.2.7 is an IP address: add --acme-ip-certs")
        self.assertIn("or use --certmode manual", ran.stderr)

    def test_help(self) -> None:
        """Help goes to stdout and is no error."""
        ran = self.twistd("derper", "--help")
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
        self.assertIn("--verify-client-url-fail-open", ran.stdout)

    def test_version(self) -> None:
        """So does the version, with one dash as with two."""
        for flag in ("-version", "--version"):
            ran = self.twistd("derper", flag)
            self.assertEqual((ran.returncode, ran.stdout), (0, f"{__version__}\n"), ran.stderr)

    def test_port_in_use(self) -> None:
        """What is found out only while starting ends the same way, and the pid file goes."""
        ran = self.twistd("-n", "derper", "--dev", program=REFUSING)
        self.assertEqual(ran.returncode, 1)
        self.assertEqual(ran.stderr, "derper: -a: port 443 is in use: stop the other server\n")
        self.assertNotIn("Traceback", ran.stdout)
        self.assertEqual(os.listdir(self.place), [])

    def test_port_in_use_of_a_daemon(self) -> None:
        """The terminal of a daemon gets exit code and sentence too; the log has no traceback."""
        ran = self.twistd("derper", "--dev", program=REFUSING)
        self.assertEqual(ran.returncode, 1)
        self.assertIn("derper: -a: port 443 is in use", ran.stderr)
        self.assertEqual(os.listdir(self.place), ["twistd.log"])
        log = (Path(self.place) / "twistd.log").read_text()
        self.assertIn("port 443 is in use: stop the other server", log)
        self.assertNotIn("Traceback", log)
