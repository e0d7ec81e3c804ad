"""
Write files that must never be seen half written, nor by others.

Shape and modes are those of the reference (Go ``atomicfile``), so that either server can take
over the other's directories.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600
"""Mode of a file that holds a key."""

PUBLIC: Final = 0o644
"""Mode of a file that holds a certificate."""


def write_file(path: Path, content: bytes, mode: int = PRIVATE) -> None:
    """
    Put ``content`` under ``path`` in one step: readers see the old file or the new one.

    The bytes go to ``<name>.tmp<random>`` beside it, reach the disk, and are renamed. ``mode``
    is set as given, whatever the umask is; until then the file is 0600.

    :raises OSError: if that fails, or ``path`` is there but is no regular file. Nothing is left
        behind and what was under ``path`` is untouched.
    """
    if path.exists() and not path.is_file():
        raise FileExistsError(17, "is there and is not a regular file", str(path))
    descriptor, temporary = tempfile.mkstemp(prefix=f"{path.name}.tmp", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(descriptor, mode)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_directory(path.parent)


def cure_of(error: OSError) -> str:
    """What helps whoever runs the relay against a file that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "make room on that disk"
    return "make the directory writable for the user the relay runs as"


def make_private_directory(path: Path) -> None:
    """
    Make a directory and its missing parents, each 0700; one that exists stays as it is.

    :raises OSError: if that fails or something else stands in the way.
    """
    if not path.parent.exists():
        make_private_directory(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir(stat.S_IRWXU)
    if not path.is_dir():
        raise NotADirectoryError(20, "is there and is not a directory", str(path))


def _sync_directory(path: Path) -> None:
    # The rename itself survives a power cut only if its directory is written, too. Some file
    # systems refuse to sync a directory; the file is in place all the same.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
