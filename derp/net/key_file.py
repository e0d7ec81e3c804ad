"""
The key file: the relay's own Curve25519 key, which is its identity to every client.

Content: a JSON object with the one field ``PrivateKey``, tab-indented, without a line end,
mode 0600; to the byte what derper writes, so that a relay can move either way with its file.
Unlike derper, a file without a key is reported as such and not by a crash.
"""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any, Final

from twisted.logger import Logger

from derp.errors import ConfigError, ProtocolError
from derp.net.first_files import FirstFiles
from derp.net.private_files import write_file
from derp.wire.keys import format_node_private, generate_private, is_zero, parse_node_private

ROOT_KEY_PATH: Final = "/var/lib/derper/derper.key"
"""Where root keeps the key if ``-c`` is not given (derper's own default)."""

_FIELD: Final = "PrivateKey"
_MAX_FILE_LEN: Final = 64 * 1024
_REMAKE: Final = "restore it from a backup, or move it away and a new key will be made"

log = Logger()


def key_path(flag: str, *, is_root: bool) -> str:
    """
    Say which file ``-c`` means.

    :raises ConfigError: if it is empty and there is no default for this user.
    """
    if flag:
        return flag
    if is_root:
        return ROOT_KEY_PATH
    raise ConfigError(
        f"-c is not given and only root has a default ({ROOT_KEY_PATH}): "
        "name the key file with -c <path>, or try the relay out with --dev"
    )


def load_server_key(path: str, first_files: FirstFiles) -> bytes:
    """
    Read the relay's private key; make one if the file is missing.

    Mode and owner of an existing file are neither checked nor changed.

    :param first_files: is given the missing file to write.

    :returns: 32 raw bytes, never the zero key.
    :raises ConfigError: if the file cannot be read, made, or has no usable key in it.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_FILE_LEN + 1)
    except FileNotFoundError:
        return _make_key(path, first_files)
    except OSError as error:
        raise ConfigError(
            f"-c {path}: cannot read the key file ({error.strerror}); "
            "make it readable for the user the relay runs as"
        ) from None
    return parse_key_file(path, content)


def format_key_file(private: bytes) -> bytes:
    """Write the content of a key file."""
    document = {_FIELD: format_node_private(private)}
    return json.dumps(document, indent="\t").encode("ascii")


def _make_key(path: str, first_files: FirstFiles) -> bytes:
    if Path(path).is_symlink():
        # Its target is perhaps on a disk that is not mounted yet. A new key made in its place
        # would be a new relay to every client.
        raise _cannot_make(path, "it is a symbolic link to nothing")
    private = generate_private()
    first_files.add(partial(_write, path, private), last=True)
    return private


def _write(path: str, private: bytes) -> None:
    target = Path(path)
    try:
        os.makedirs(target.parent, exist_ok=True)
        write_file(target, format_key_file(private))
    except OSError as error:
        raise _cannot_make(path, error.strerror) from error
    log.info("made a new relay key in {path}; keep this file, it is who the relay is", path=path)


def _cannot_make(path: str, problem: str | None) -> ConfigError:
    return ConfigError(
        f"-c {path}: cannot make the missing key file ({problem}); "
        "name a file in a directory the relay may write to"
    )


def parse_key_file(path: str, content: bytes) -> bytes:
    """
    Read the content of a key file.

    :param path: for errors.
    :returns: 32 raw bytes, never the zero key.
    :raises ConfigError: if there is no usable key in it.
    """
    if len(content) > _MAX_FILE_LEN:
        raise ConfigError(f"-c {path}: too long for a key file; name the right file")
    try:
        # Objects become tuples of pairs: their order tells which of two spellings came last.
        document = json.loads(content, object_pairs_hook=tuple, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"-c {path}: the key file is not JSON ({error}); {_REMAKE}") from None
    if not isinstance(document, tuple):
        raise ConfigError(f"-c {path}: the key file holds no JSON object; {_REMAKE}")
    value = _field(document)
    if not isinstance(value, str | None):
        raise ConfigError(f"-c {path}: {_FIELD} is not a string; {_REMAKE}")
    try:
        private = parse_node_private(value) if value is not None else None
    except ProtocolError as error:
        raise ConfigError(f"-c {path}: {_FIELD} is {error}; {_REMAKE}") from None
    if private is None or is_zero(private):
        raise ConfigError(f"-c {path}: the key file holds no {_FIELD}; {_REMAKE}")
    return private


def _field(pairs: tuple[tuple[str, Any], ...]) -> Any:
    """Return the last value that is not null of the field, its name in any case (as in Go)."""
    found = None
    for name, value in pairs:
        if name.lower() == _FIELD.lower() and value is not None:
            found = value
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
