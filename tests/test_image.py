"""
Tests of the image's parts that need no engine; ``contrib/image/rehearse`` starts the whole.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from configparser import ConfigParser
from fnmatch import fnmatch
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
PARTS = ROOT / "contrib" / "image"
LAUNCHER = PARTS / "launch.sh"
ENTRYPOINT = PARTS / "entrypoint.sh"

_LOCKED = re.compile(r"^([a-z0-9.-]+)==([0-9][^ ]*) \\$", re.MULTILINE)
_WANTED = re.compile(r"([A-Za-z-]+)(?:\[\w+\])? *>= *([0-9.]+)")


def instructions() -> Iterator[tuple[str, str]]:
    """Those of the Dockerfile: word and rest, continued lines joined, comments left out."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.split("\n") if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").split("\n"):
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, " ".join(rest.split())


def number(version: str) -> tuple[int, ...]:
    """A version, comparable."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


class DockerfileTests(SynchronousTestCase):
    """What the image is told to be."""

    def setUp(self) -> None:
        """Read it."""
        self.instructions = list(instructions())
        stages = [at for at, (word, _) in enumerate(self.instructions) if word == "FROM"]
        self.last = dict(self.instructions[stages[-1] :])

    def test_exec_form(self) -> None:
        """No shell stands between the engine's signal and the relay."""
        forms = {word: rest for word, rest in self.last.items() if word in ("ENTRYPOINT", "CMD")}
        health = self.last["HEALTHCHECK"]
        forms["HEALTHCHECK"] = health[health.index("[") :]
        self.assertEqual(json.loads(forms["CMD"]), ["derper"])
        self.assertEqual(json.loads(forms["HEALTHCHECK"]), ["/app/derper", "health"])
        (entrypoint,) = json.loads(forms["ENTRYPOINT"])
        self.assertEqual(Path(entrypoint).name, ENTRYPOINT.name)
        self.assertEqual(self.last["STOPSIGNAL"], "SIGTERM")
        for script in (ENTRYPOINT, LAUNCHER):
            self.assertTrue(script.read_text().rstrip().splitlines()[-1].startswith("exec "))

    def test_no_settings(self) -> None:
        """The image sets no variable that selects a family of defaults, nor a secret."""
        from derp.environment_flags import VARIABLES

        names = set(re.findall(r"(\w+)=", self.last["ENV"]))
        self.assertEqual(names & set(VARIABLES), set())
        self.assertIn("container", names)
        self.assertEqual([word for word, _ in self.instructions].count("ENV"), 1)

    def test_not_root(self) -> None:
        """Nobody in particular, after everything that needs root."""
        words = [word for word, _ in self.instructions]
        self.assertEqual(self.last["USER"], "derper")
        self.assertNotIn("RUN", words[words.index("USER") :])

    def test_both_stages_have_one_base(self) -> None:
        """An interpreter that is copied to another base would miss its library."""
        bases = {rest.split(" ")[0] for word, rest in self.instructions if word == "FROM"}
        self.assertEqual(bases, {"${PYTHON_IMAGE}"})
        ((_, base),) = [each for each in self.instructions if each[1].startswith("PYTHON_IMAGE=")]
        self.assertRegex(base, r":3\.1[3-9]-slim-trixie$")

    def test_what_is_copied_is_sent(self) -> None:
        """``.dockerignore`` lets through what the build needs, and no file that lies about."""
        let_in = [
            line[1:]
            for line in (ROOT / ".dockerignore").read_text().splitlines()
            if line.startswith("!")
        ]
        setup = ConfigParser()
        setup.read(ROOT / "setup.cfg")
        needed = {"setup.cfg", "setup.py", "pyproject.toml", "README.rst", "LICENSE"}
        needed |= {each.split(".")[0] for each in setup["options"]["packages"].split()}
        needed.add("contrib/image")
        self.assertEqual(set(let_in), needed)
        for path in let_in:
            self.assertTrue((ROOT / path).exists(), path)
        for private in (".git", "derper.key", "mesh.key", ".env", "tests"):
            self.assertFalse(any(fnmatch(private, pattern) for pattern in let_in), private)


class LockTests(SynchronousTestCase):
    """``requirements.txt``: every package by version and hash."""

    def setUp(self) -> None:
        """Read it."""
        self.text = (PARTS / "requirements.txt").read_text()
        self.locked = dict(_LOCKED.findall(self.text))

    def test_complete(self) -> None:
        """What ``setup.cfg`` asks for is there, and not too old."""
        setup = ConfigParser()
        setup.read(ROOT / "setup.cfg")
        wanted = _WANTED.findall(setup["options"]["install_requires"])
        self.assertGreater(len(wanted), 8)
        for name, least in wanted:
            locked = self.locked[name.lower()]
            self.assertGreaterEqual(number(locked), number(least), name)

    def test_hashes(self) -> None:
        """Each has at least one."""
        for entry in re.split(r"^(?=[a-z])", self.text, flags=re.MULTILINE)[1:]:
            self.assertIn("--hash=sha256:", entry)


class ScriptTests(SynchronousTestCase):
    """The shell scripts that start things."""

    def setUp(self) -> None:
        """A folder of programs that say how they were called."""
        self.bin = Path(self.mktemp()).absolute()
        self.bin.mkdir()
        for name in ("derper", "other", "python", "python-bind"):
            self.program(name, f'echo {name} "$@"')

    def program(self, name: str, line: str) -> None:
        """Make one."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def said(self, script: Path, *words: str) -> str:
        """What a script's program said."""
        environ = {"PATH": f"{self.bin}:{os.environ['PATH']}"}
        return subprocess.run(
            [str(script), *words], env=environ, capture_output=True, text=True, check=True
        ).stdout.strip()

    def test_entrypoint(self) -> None:
        """Nothing and flags are derper's; anything else is a command."""
        self.assertEqual(self.said(ENTRYPOINT), "derper")
        self.assertEqual(self.said(ENTRYPOINT, "-hostname", "a b"), "derper -hostname a b")
        self.assertEqual(self.said(ENTRYPOINT, "other", "-x"), "other -x")
        self.assertEqual(self.said(ENTRYPOINT, "/bin/sh", "-c", "echo hi"), "hi")

    def test_log(self) -> None:
        """The relay's goes to stdout, however it is started; others keep their two streams."""
        self.program("derper", "echo log >&2")
        self.program("other", "echo log >&2")
        for words in ((), ("-stun=false",), ("derper", "-stun=false")):
            self.assertEqual(self.said(ENTRYPOINT, *words), "log")
        self.assertEqual(self.said(ENTRYPOINT, "other"), "")

    def launched(self, user: int, bounding_set: str) -> str:
        """What is started under a name, for a user with a bounding set."""
        self.program("id", f"echo {user}")
        status = self.bin / "status"
        status.write_text(f"Name:\tsh\nUid:\t{user}\nCapBnd:\t{bounding_set}\nSeccomp:\t2\n")
        text = LAUNCHER.read_text().replace("/proc/self/status", str(status))
        self.assertIn(str(status), text)
        launcher = self.bin / "stunc"
        launcher.write_text(text.replace("/opt/derper/bin/$python", f"{self.bin}/$python"))
        launcher.chmod(0o755)
        return self.said(launcher, "-4", "a.test")

    def test_launcher(self) -> None:
        """The capability is used where it can be had, by who needs it."""
        with_it, docker, without = "0000000000000400", "00000000a80425fb", "0000000000000000"
        all_of_them = "000001ffffffffff"
        called = " -OO /opt/derper/bin/stunc -4 a.test"
        for bounding_set in (with_it, docker, all_of_them):
            self.assertEqual(self.launched(10001, bounding_set), f"python-bind{called}")
        for others in (without, "00000000a80421fb"):
            self.assertEqual(self.launched(10001, others), f"python{called}")
        self.assertEqual(self.launched(0, docker), f"python{called}")
