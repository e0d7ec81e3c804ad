"""Tests for :mod:`derp.config_file`."""

from __future__ import annotations

import math
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from derp.command_line import config_from_flags
from derp.config_file import ACTIONS, MAX_SIZE, read_config_file, with_config_file
from derp.errors import ConfigError
from derp.flags import FLAGS
from derp.goflag import Kind, Value

TEXTS: dict[Kind, tuple[str, Value]] = {
    Kind.BOOL: ("true", True),
    Kind.INT: ("8_443", 8443),
    Kind.FLOAT: ("2.5", 2.5),
    Kind.STRING: ('"a b"', "a b"),
    Kind.DURATION: ('"1m30s"', 90.0),
    Kind.STRINGS: ('["a", "b"]', ("a", "b")),
}
"""How each kind is written, and read."""

REFUSED: dict[str, str] = {
    "stun = ": "is not TOML: ",
    'stun = "true"': "stun has a value of a wrong type: write true or false",
    "stun = 1": "stun has a value of a wrong type",
    'stun-port = "3478"': "stun-port has a value of a wrong type: write a whole number",
    "stun-port = 3478.0": "stun-port has a value of a wrong type",
    "stun-port = true": "stun-port has a value of a wrong type",
    "stun-port = 99999999999999999999": "is too large a number",
    "accept-connection-limit = nan": "accept-connection-limit:",
    "hostname = 1": "hostname has a value of a wrong type",
    "tcp-user-timeout = 15": "tcp-user-timeout has a value of a wrong type",
    'tcp-user-timeout = "15"': "tcp-user-timeout:",
    'socket = ["a", 1]': "socket has a value of a wrong type",
    "stun_port = 1": 'there is no flag "stun_port": did you mean stun-port?',
    "[limits]\nmax-clients = 1": 'there is no flag "limits"',
    'config = "x"': "config is for the command line only",
    "version = true": "version is for the command line only",
    "stun = true\nstun = false": "is not TOML: ",
}
"""What a file says, and part of the sentence it gets."""


class ConfigFileTests(SynchronousTestCase):
    """``--config``."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def write(self, text: str) -> str:
        """The file's path, once it says this."""
        self.path.write_text(text, encoding="utf-8")
        return str(self.path)

    def test_every_flag(self) -> None:
        """Each flag may stand in the file under its name, in the type of its kind."""
        settings = [flag for flag in FLAGS if flag.name not in ACTIONS]
        lines = [f"{flag.name} = {TEXTS[flag.kind][0]}" for flag in settings]
        read = read_config_file(self.write("\n".join(lines)))
        self.assertEqual(read, {flag.name: TEXTS[flag.kind][1] for flag in settings})

    def test_other_spellings(self) -> None:
        """One string for several, a whole number for a float, infinity."""
        text = 'socket = "/s"\naccept-connection-limit = 5 # per second\n'
        read = read_config_file(self.write(text))
        self.assertEqual(read, {"socket": ("/s",), "accept-connection-limit": 5.0})
        read = read_config_file(self.write("accept-connection-limit = inf"))
        self.assertEqual(read, {"accept-connection-limit": math.inf})

    def test_refused(self) -> None:
        """Each mistake gets one sentence with the flag, the file, and the cure."""
        for text, sentence in REFUSED.items():
            with self.subTest(text=text):
                path = self.write(text)
                error = self.assertRaises(ConfigError, read_config_file, path)
                self.assertTrue(str(error).startswith(f"--config: {path}"), error)
                self.assertIn(sentence, str(error))
                self.assertNotIn("\n", str(error))

    def test_unreadable(self) -> None:
        """A file that is not there, is no text, or is huge."""
        error = self.assertRaises(ConfigError, read_config_file, str(self.path))
        self.assertIn(f"--config: {self.path}: cannot read it: No such file", str(error))
        error = self.assertRaises(ConfigError, read_config_file, "\x1b[2J\n")
        self.assertTrue(str(error).isprintable())
        self.path.write_bytes(b"home = '\xff'")
        error = self.assertRaises(ConfigError, read_config_file, str(self.path))
        self.assertIn("not even UTF-8", str(error))
        self.path.write_bytes(b"#" * (MAX_SIZE + 1))
        error = self.assertRaises(ConfigError, read_config_file, str(self.path))
        self.assertIn("longer than 1 MiB", str(error))

    def test_beneath_the_command_line(self) -> None:
        """What is given wins, whole lists of values among it; the rest is the file's."""
        path = self.write('home = "blank"\nstun = false\nsocket = ["/a", "/b"]')
        above: dict[str, Value] = {"config": path, "stun": True, "socket": ("/c",)}
        self.assertEqual(with_config_file(above), {**above, "home": "blank"})

    def test_in_a_configuration(self) -> None:
        """``twistd derper`` reads it, too: it is a flag like any other."""
        path = self.write('dev = true\nstun-port = 3479\nhome = "blank"')
        config = config_from_flags({"config": path, "home": ""}, {})
        self.assertEqual((config.dev, config.stun_port, config.home), (True, 3479, ""))
