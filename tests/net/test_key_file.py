"""Tests of :mod:`derp.net.key_file` against files derper wrote and files it was given."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ConfigError
from derp.net.first_files import FirstFiles
from derp.net.key_file import ROOT_KEY_PATH, format_key_file, key_path, load_server_key
from derp.wire.keys import format_node_public, parse_node_private, public_of
from tests.vectors import load

CONFIG = load("config.json")
TEXT = "privkey:98f64c944337e67d332c49a8dabf17c4b4ae05aebe769b1576b4d02b9410a56e"


def load_key(path: Path | str) -> bytes:
    """Load a key as a start does in which nothing else is wrong."""
    first_files = FirstFiles()
    private = load_server_key(str(path), first_files)
    first_files.write()
    return private


class LoadServerKeyTests(SynchronousTestCase):
    """Reading and making the key file."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "derper.key"

    def offer(self, content: str | bytes) -> bytes:
        self.path.write_bytes(content.encode() if isinstance(content, str) else content)
        return load_key(self.path)

    def refuse(self, content: str | bytes) -> str:
        text = str(self.assertRaises(ConfigError, self.offer, content))
        self.assertTrue(text.startswith(f"-c {self.path}: "), text)
        self.assertIn("move it away", text)
        return text

    def test_recorded_cases(self) -> None:
        """Files derper runs with give the same key; files it dies of are ConfigErrors."""
        for case in CONFIG["key_file_cases"]:
            if case["result"] == "runs":
                public = public_of(self.offer(case["file"])).hex()
                self.assertEqual(public, case["served_public_key"])
            else:
                self.refuse(case["file"])

    def test_recorded_file(self) -> None:
        """The file derper wrote is read, and written again, to the byte."""
        recorded = CONFIG["key_file_written_by_server"]
        content = bytes.fromhex(recorded["bytes_hex"])
        private = self.offer(content)
        self.assertEqual(format_node_public(public_of(private)), recorded["public"])
        self.assertEqual(format_key_file(private), content)
        sample = load("derper.key").encode()
        self.assertEqual(format_key_file(self.offer(sample)), sample)

    def test_made_if_missing(self) -> None:
        """A missing file is made, 0600, with its directories, and read again afterwards."""
        self.addCleanup(os.umask, os.umask(0o022))
        path = self.directory / "var" / "lib" / "derper.key"
        private = load_key(path)
        self.assertEqual(path.read_bytes(), format_key_file(private))
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(path.parent.stat().st_mode), 0o755)
        self.assertEqual(load_key(path), private)

    def test_written_last(self) -> None:
        """Not before everything else of the first start has been."""
        first_files = FirstFiles()
        private = load_server_key(str(self.path), first_files)
        self.assertFalse(self.path.exists())
        first_files.add(lambda: self.assertFalse(self.path.exists()))
        first_files.write()
        self.assertEqual(self.path.read_bytes(), format_key_file(private))
        self.path.unlink()
        first_files.write()
        self.assertFalse(self.path.exists())

    def test_existing_mode_stays(self) -> None:
        """Reading changes nothing about the file."""
        self.path.write_bytes(format_key_file(parse_node_private(TEXT)))
        self.path.chmod(0o640)
        load_key(self.path)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640)

    def test_no_key_in_it(self) -> None:
        """What makes derper panic is told in a sentence."""
        for content in (
            "{}",
            '{"PrivateKey":null}',
            '{"PrivateKey":"privkey:' + "0" * 64 + '"}',
            '{"Other":"' + TEXT + '"}',
        ):
            self.assertIn("holds no PrivateKey", self.refuse(content))

    def test_not_a_key_file(self) -> None:
        """Everything else that is no key file is refused and never shown."""
        for content in (
            "",
            "[]",
            "null",
            '"' + TEXT + '"',
            TEXT,
            '{"PrivateKey":5}',
            '{"PrivateKey":["' + TEXT + '"]}',
            '{"PrivateKey":"' + TEXT + '"} x',
            '{"PrivateKey":"' + TEXT + ' "}',
            '{"PrivateKey":"' + TEXT + '","Other":NaN}',
            "[" * 5000,
            b"\xff\xfe",
        ):
            self.assertNotIn(TEXT[8:40], self.refuse(content))

    def test_last_spelling_counts(self) -> None:
        """As in Go, a later field replaces an earlier one whatever its case; null does not."""
        other = "privkey:" + "11" * 32
        content = f'{{"PRIVATEKEY":"{other}","PrivateKey":"{TEXT}","privatekey":null}}'
        self.assertEqual(self.offer(content), parse_node_private(TEXT))

    def test_too_long(self) -> None:
        """A file that cannot be a key file is not read whole."""
        text = str(self.assertRaises(ConfigError, self.offer, " " * 70000))
        self.assertIn("too long", text)

    def test_unreadable(self) -> None:
        """A directory under the name is an error naming flag and file."""
        text = str(self.assertRaises(ConfigError, load_key, self.directory))
        self.assertIn(f"-c {self.directory}: cannot read", text)

    def test_cannot_be_made(self) -> None:
        """A file where a directory should be prevents making the key."""
        self.path.write_bytes(b"")
        below = str(self.path / "derper.key")
        self.assertIn(below, str(self.assertRaises(ConfigError, load_key, below)))

    def test_dangling_link(self) -> None:
        """A link to an absent file makes no new identity behind the operator's back."""
        self.path.symlink_to(self.directory / "unmounted")
        text = str(self.assertRaises(ConfigError, load_key, self.path))
        self.assertIn("symbolic link to nothing", text)
        self.assertEqual(os.listdir(self.directory), ["derper.key"])


class KeyPathTests(SynchronousTestCase):
    """The default of -c."""

    def test_given(self) -> None:
        """The flag counts for everybody."""
        self.assertEqual(key_path("x.key", is_root=False), "x.key")
        self.assertEqual(key_path("x.key", is_root=True), "x.key")

    def test_default(self) -> None:
        """Only root has a default."""
        self.assertEqual(key_path("", is_root=True), ROOT_KEY_PATH)
        self.assertIn("-c", str(self.assertRaises(ConfigError, key_path, "", is_root=False)))
