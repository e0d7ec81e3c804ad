"""Read a mesh key; where from is :mod:`derp.mesh_key_file`'s affair."""

from __future__ import annotations

from typing import Final

from derp.errors import ConfigError, ProtocolError
from derp.quoting import quoted
from derp.wire.keys import is_zero, parse_mesh_key

_MAX_FILE_LEN: Final = 4096


def read_mesh_key(path: str) -> bytes | None:
    """
    Read ``--mesh-psk-file``.

    :return: 32 raw bytes, or ``None`` if the file is empty or holds the zero key.
    :raises ConfigError: if the file cannot be read, or what it holds is no key.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_MAX_FILE_LEN).decode("ascii", "replace")
    except OSError as error:
        raise ConfigError(
            f"--mesh-psk-file: cannot read {quoted(path)} ({error.strerror}): "
            "name a file that this user may read"
        ) from None
    return parse_mesh_key_text(f"--mesh-psk-file: {quoted(path)}", text)


def parse_mesh_key_text(source: str, text: str) -> bytes | None:
    """
    Read the text of a mesh key.

    :param source: where it is from, for the error; the text itself never is in it.
    :raises ConfigError: if it is no key.
    """
    if not text:
        return None
    try:
        key = parse_mesh_key(text)
    except ProtocolError:
        raise ConfigError(
            f"{source} holds no mesh key: it must be 64 hex digits and nothing else"
        ) from None
    return None if is_zero(key) else key
