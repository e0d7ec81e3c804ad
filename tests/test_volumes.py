"""Tests for :mod:`derp.volumes`: whose files they are, and what to do about it."""

from __future__ import annotations

import builtins
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from derp import volumes
from derp.command_line import config_from_flags
from derp.config import Config
from derp.errors import ConfigError
from derp.net.first_files import FirstFiles
from derp.net.key_file import load_server_key
from derp.volumes import check_volumes, ownership_advice

IMAGE = {"container": "oci"}


class VolumesTestCase(SynchronousTestCase):
    """A directory, and directories that only somebody else may write to."""

    def setUp(self) -> None:
        """Be a user with a number of our choice."""
        self.place = Path(self.mktemp()).absolute()
        self.place.mkdir()
        self.closed: set[str] = set()
        self.patch(os, "geteuid", lambda: 10001)
        self.patch(volumes.os, "access", lambda path, mode: str(path) not in self.closed)

    def config(self, **flags: str) -> Config:
        """A configuration with its key in an open directory."""
        given = {"c": f"{self.place}/derper.key", "hostname": "a.test"} | flags
        return config_from_flags(given, {"HOME": str(self.place)})

    def refused(self, config: Config, environ: dict[str, str], *, acme: bool = True) -> str:
        """The sentence."""
        error = self.assertRaises(ConfigError, check_volumes, config, environ, acme=acme)
        return str(error)


class CheckVolumesTests(VolumesTestCase):
    """:func:`derp.volumes.check_volumes`."""

    def test_certificates_by_acme(self) -> None:
        """A container's directory must keep them; elsewhere a relay goes on without."""
        certs = self.place / "certs"
        certs.mkdir()
        config = self.config(certdir=str(certs))
        check_volumes(config, IMAGE, acme=True)
        self.closed.add(str(certs))
        sentence = self.refused(config, IMAGE)
        self.assertEqual(
            sentence,
            f"--certdir {certs}: the relay runs as user 10001 and may not write to {certs}: on its "
            f"volume do chown -R 10001 {certs}, or start the container with --user 0",
        )
        self.assertNotIn("container", self.refused(config, {}))
        check_volumes(config, {}, acme=False)

    def test_own_certificate(self) -> None:
        """One for an address is made at the first start, and only then needs room."""
        config = self.config(certmode="manual", hostname="192.0.2.7", certdir=str(self.place))
        self.closed.add(str(self.place))
        self.assertIn("--certdir", self.refused(config, {}, acme=False))
        for name in ("192.0.2.7.crt", "192.0.2.7.key", "derper.key"):
            (self.place / name).touch()
        check_volumes(config, {}, acme=True)

    def test_certificate_of_the_operator(self) -> None:
        """Nothing is made in a directory of files for a name."""
        self.closed.add("/nowhere")
        config = self.config(certmode="manual", certdir="/nowhere")
        check_volumes(config, IMAGE, acme=True)

    def test_key(self) -> None:
        """A key that is there is never written; one that is not is named before that is tried."""
        config = self.config()
        self.closed.add(str(self.place))
        self.assertTrue(self.refused(config, {}, acme=False).startswith(f"-c {self.place}: "))
        (self.place / "derper.key").touch()
        check_volumes(config, {}, acme=False)
        check_volumes(config_from_flags({"dev": True}, {}), {}, acme=True)

    def test_no_volume(self) -> None:
        """A directory that an image lacks is mounted, not given to somebody."""
        self.closed.add(str(self.place))
        config = self.config(c=f"{self.place}/data/keys/derper.key")
        sentence = self.refused(config, IMAGE, acme=False)
        self.assertIn(f"mount a volume at {self.place}/data/keys", sentence)
        self.assertIn(f"chown -R 10001 {self.place}", self.refused(config, {}, acme=False))

    def test_file_in_the_way(self) -> None:
        """A file where a directory should be is found before the other one is written to."""
        file = self.place / "file"
        file.touch()
        expected = f"{file} is no directory: name one, or move that away"
        sentence = self.refused(self.config(certdir=f"{file}/certs"), IMAGE)
        self.assertEqual(sentence, f"--certdir {file}/certs: {expected}")
        sentence = self.refused(self.config(c=f"{file}/derper.key"), {}, acme=False)
        self.assertEqual(sentence, f"-c {file}: {expected}")

    def test_read_only(self) -> None:
        """A read-only file system is no matter of users."""

        class ReadOnly:
            f_flag = os.ST_RDONLY

        self.patch(volumes.os, "statvfs", lambda path: ReadOnly())
        self.closed.add(str(self.place))
        sentence = self.refused(self.config(), IMAGE, acme=False)
        self.assertIn("read-only", sentence)
        self.assertIn(f"mount a volume at {self.place}", sentence)
        self.assertNotIn("chown", sentence)


class OwnershipAdviceTests(VolumesTestCase):
    """:func:`derp.volumes.ownership_advice`."""

    def unreadable_key(self) -> ConfigError:
        """What the key file of another user brings."""
        path = self.place / "derper.key"
        path.touch()

        def refuse(path: str, mode: str) -> None:
            raise PermissionError(13, "Permission denied", path)

        self.patch(builtins, "open", refuse)
        return self.assertRaises(ConfigError, load_server_key, str(path), FirstFiles())

    def test_file_of_root(self) -> None:
        """The error of whoever could not read the file is found, and the file's owner."""
        error = self.unreadable_key()
        owner = os.stat(self.place).st_uid
        self.assertEqual(
            ownership_advice(error, IMAGE),
            f"{self.place}/derper.key belongs to user {owner}, and the relay runs as user 10001: "
            f"on its volume do chown -R 10001 {self.place}, or start the container with --user 0",
        )
        self.assertNotIn("container", ownership_advice(error, {}))

    def test_gone(self) -> None:
        """What cannot be looked at has no owner to be named."""
        error = PermissionError(13, "Permission denied", f"{self.place}/none/x")
        self.assertIn("is in a directory that is gone", ownership_advice(error, {}))

    def test_another_matter(self) -> None:
        """Errors that are about no file, or not about permission, get no advice."""
        for error in (ConfigError("x"), FileNotFoundError(2, "x", "y"), PermissionError(1, "x")):
            self.assertEqual(ownership_advice(error, IMAGE), "")
