"""Tests of :mod:`derp.net.private_files`."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from derp.net.private_files import PUBLIC, make_private_directory, write_file


def mode_of(path: Path) -> int:
    """Return the permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


class WriteFileTests(SynchronousTestCase):
    """Atomic writes."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "derper.key"

    def test_private_by_default(self) -> None:
        """A new file is 0600 and nothing else is in the directory."""
        write_file(self.path, b"secret")
        self.assertEqual(self.path.read_bytes(), b"secret")
        self.assertEqual(mode_of(self.path), 0o600)
        self.assertEqual(os.listdir(self.directory), ["derper.key"])

    def test_mode_ignores_umask(self) -> None:
        """A certificate is readable even under a strict umask."""
        self.addCleanup(os.umask, os.umask(0o077))
        write_file(self.path, b"public", PUBLIC)
        self.assertEqual(mode_of(self.path), 0o644)

    def test_replaces(self) -> None:
        """An existing file is replaced, its mode too."""
        self.path.write_bytes(b"old")
        self.path.chmod(0o666)
        write_file(self.path, b"new")
        self.assertEqual(self.path.read_bytes(), b"new")
        self.assertEqual(mode_of(self.path), 0o600)

    def test_never_readable_by_others(self) -> None:
        """The temporary file is private, named after its target, and in the same directory."""
        seen: list[tuple[str, int]] = []
        rename = os.rename

        def watch(source: str, target: Path) -> None:
            found = Path(source)
            seen.append((found.name, mode_of(found)))
            self.assertTrue(found.parent.samefile(self.directory))
            rename(source, target)

        with mock.patch("os.rename", watch):
            write_file(self.path, b"secret")
        ((name, mode),) = seen
        self.assertTrue(name.startswith("derper.key.tmp"))
        self.assertEqual(mode, 0o600)

    def test_failure_leaves_nothing(self) -> None:
        """When the disk fails the old file stays and the temporary one goes."""
        self.path.write_bytes(b"old")
        for name in ("os.fsync", "os.rename"):
            with mock.patch(name, side_effect=OSError(28, "No space left on device")):
                self.assertRaises(OSError, write_file, self.path, b"new")
            self.assertEqual(self.path.read_bytes(), b"old")
            self.assertEqual(os.listdir(self.directory), ["derper.key"])

    def test_refuses_what_is_no_file(self) -> None:
        """A directory or a pipe under the name is left alone."""
        self.path.mkdir()
        self.assertRaises(FileExistsError, write_file, self.path, b"x")
        pipe = self.directory / "pipe"
        os.mkfifo(pipe)
        self.assertRaises(FileExistsError, write_file, pipe, b"x")
        self.assertTrue(stat.S_ISFIFO(pipe.stat().st_mode))

    def test_directory_missing(self) -> None:
        """No directory, no file."""
        self.assertRaises(FileNotFoundError, write_file, self.directory / "no" / "file", b"x")


class MakePrivateDirectoryTests(SynchronousTestCase):
    """Directories for keys."""

    def test_parents(self) -> None:
        """Every directory it has to make is 0700."""
        path = Path(self.mktemp()) / "cache" / "derper-certs"
        make_private_directory(path)
        self.assertEqual([mode_of(each) for each in (path, path.parent)], [0o700, 0o700])

    def test_existing_stays(self) -> None:
        """The operator's own choice of mode is kept."""
        path = Path(self.mktemp())
        path.mkdir(0o755)
        path.chmod(0o755)
        make_private_directory(path)
        self.assertEqual(mode_of(path), 0o755)

    def test_file_in_the_way(self) -> None:
        """A file of that name is an error, not a directory."""
        path = Path(self.mktemp())
        path.write_bytes(b"")
        self.assertRaises(NotADirectoryError, make_private_directory, path)
        self.assertRaises(OSError, make_private_directory, path / "below")
