"""Tests for ``contrib/systemd``: units that systemd takes, with flags that we take."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from derp.command_line import config_from_flags
from derp.flags import FLAGS
from derp.goflag import Flag, parse_flags
from derp.probe_flags import FLAGS as PROBE_FLAGS

ROOT = Path(__file__).parent.parent
UNITS = ROOT / "contrib" / "systemd"
HOME = "/opt/derper/bin/"
GIVEN_BY_SYSTEMD = {
    "${STATE_DIRECTORY}": "/var/lib/derper",
    "${CREDENTIALS_DIRECTORY}": "/run/credentials/derper.service",
}
PROGRAMS: dict[str, tuple[Flag, ...]] = {"derper": FLAGS, "derpprobe": PROBE_FLAGS}


def settings(unit: Path) -> dict[str, list[str]]:
    """Name to values, in the order of the file; comments left out."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if line and line[0] not in "#;[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def command(line: str) -> list[str]:
    """The words of an ``ExecStart``, as systemd makes them."""
    for name, value in GIVEN_BY_SYSTEMD.items():
        line = line.replace(name, value)
    return shlex.split(line)


class UnitTests(SynchronousTestCase):
    """Each unit file."""

    def test_flags(self) -> None:
        """What is started is a program of ours, with flags that it knows, comments' included."""
        for unit in UNITS.glob("*.service"):
            text = unit.read_text()
            more = " ".join(
                line.strip("# ") for line in text.splitlines() if line.startswith("#   -")
            )
            for line in settings(unit)["ExecStart"]:
                program, *words = command(f"{line} {more}")
                self.assertTrue(program.startswith(HOME), line)
                parsed = parse_flags(PROGRAMS[program.removeprefix(HOME)], words)
                self.assertIn("mesh-psk-file", parsed.given)

    def test_programs_are_installed(self) -> None:
        """The programs are among those that an installed package has."""
        scripts = (ROOT / "setup.cfg").read_text()
        for unit in UNITS.glob("*.service"):
            program = command(settings(unit)["ExecStart"][0])[0].removeprefix(HOME)
            self.assertIn(f"\n    {program} = derp.", scripts)

    def test_sockets(self) -> None:
        """Every socket is one that the flags' defaults ask for, so that each finds its flag."""
        listens = settings(UNITS / "derper.socket")
        flags = parse_flags(FLAGS, command(settings(UNITS / "derper.service")["ExecStart"][0])[1:])
        flags.given.pop("config")
        config = config_from_flags(flags.given, {})
        self.assertEqual(listens["ListenStream"], [str(config.port), str(config.http_port)])
        self.assertEqual(listens["ListenDatagram"], [str(config.stun_port)])

    def test_settings(self) -> None:
        """The example of settings is taken, and so is what it comments out."""
        text = (UNITS / "derper.toml").read_text()
        path = Path(self.mktemp())
        for content in (text, text.replace("\n#", "\n").replace("\n ", "\n# ")):
            path.write_text(content)
            config = config_from_flags({"config": str(path), "c": "x", "certdir": "y"}, {})
            self.assertEqual(config.hostname, "derp.example.com")
        self.assertTrue(config.verify_clients)
        self.assertEqual(config.metrics_addr, "127.0.0.1:9100")

    def test_times(self) -> None:
        """systemd waits longer for the end than a drain may take."""
        unit = settings(UNITS / "derper.service")
        config = config_from_flags({"c": "x", "certdir": "y"}, {})
        self.assertGreater(float(unit["TimeoutStopSec"][0]), config.drain_seconds + 2)

    def test_systemd_takes_them(self) -> None:
        """``systemd-analyze`` finds nothing to say about them, and the relay well confined."""
        tool = shutil.which("systemd-analyze")
        if tool is None:
            if os.environ.get("CI"):
                self.fail("there is no systemd-analyze")
            raise SkipTest("there is no systemd-analyze")
        place = Path(self.mktemp())
        place.mkdir()
        names = []
        for unit in (*UNITS.glob("*.service"), *UNITS.glob("*.socket")):
            # it looks for the programs, which are not installed there
            text = unit.read_text()
            for program in PROGRAMS:
                text = text.replace(f"{HOME}{program} ", "/bin/true ")
            (place / unit.name).write_text(text)
            names.append(f"./{unit.name}")
        self.assertEqual(len(names), 3)
        verified = subprocess.run(
            [tool, "verify", "--man=no", *names], cwd=place, capture_output=True, text=True
        )
        self.assertEqual((verified.returncode, verified.stdout + verified.stderr), (0, ""))
        services = [name for name in names if name.endswith(".service")]
        for name in services:
            rated = subprocess.run(
                [tool, "security", "--offline=yes", "--threshold=20", name],
                cwd=place,
                capture_output=True,
                text=True,
            )
            self.assertEqual(rated.returncode, 0, rated.stdout + rated.stderr)
