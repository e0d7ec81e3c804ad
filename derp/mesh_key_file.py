"""
Where the mesh key comes from: the secret that relays of one mesh show each other.

==========  ==========================================================================
``--dev``   environment variable ``TAILSCALE_DERPER_MESH_KEY``, and nothing else
otherwise   ``--mesh-psk-file``; if not given, the first file of derper's that exists
==========  ==========================================================================

The text is 64 hex digits with white space around it; nothing at all, or the zero key, is no
key. The key never appears in an error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from derp.errors import ConfigError, ProtocolError
from derp.goflag import FlagValues
from derp.quoting import quoted
from derp.wire.keys import is_zero, parse_mesh_key

MESH_KEY_VARIABLE: Final = "TAILSCALE_DERPER_MESH_KEY"
SHARED_MESH_KEY_FILE: Final = "/home/derp/keys/derp-mesh.key"

_MAX_FILE_LEN: Final = 4096


def find_mesh_key(
    flags: FlagValues, environ: Mapping[str, str]
) -> tuple[bytes | None, tuple[str, ...]]:
    """
    Read the mesh key.

    :returns: the key (32 raw bytes) or ``None``, and sentences to log.
    :raises ConfigError: if the file cannot be read, or what it holds is no key.
    """
    if flags.bool("dev"):
        ignored = (
            (f"--dev takes the mesh key from {MESH_KEY_VARIABLE}: --mesh-psk-file has no effect",)
            if flags.text("mesh-psk-file")
            else ()
        )
        source = f"environment variable {MESH_KEY_VARIABLE}"
        return _parse(source, environ.get(MESH_KEY_VARIABLE, "")), ignored
    path = flags.text("mesh-psk-file")
    if not path and not flags.given("mesh-psk-file"):
        path = default_mesh_key_file(environ)
    if not path:
        return None, ()
    key = _parse(f"--mesh-psk-file: {quoted(path)}", _read(path))
    if key is None:
        return None, (
            f"--mesh-psk-file: {quoted(path)} holds no key: nobody gets the rights of a mesh",
        )
    return key, ()


def default_mesh_key_file(environ: Mapping[str, str]) -> str:
    """The first of derper's default files that exists, or nothing."""
    tried = [SHARED_MESH_KEY_FILE]
    if environ.get("HOME"):
        tried.append(os.path.join(environ["HOME"], "keys", "derp-mesh.key"))
    return next((path for path in tried if os.path.exists(path)), "")


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(_MAX_FILE_LEN).decode("ascii", "replace")
    except OSError as error:
        raise ConfigError(
            f"--mesh-psk-file: cannot read {quoted(path)} ({error.strerror}): "
            "name a file that this user may read"
        ) from None


def _parse(source: str, text: str) -> bytes | None:
    if not text:
        return None
    try:
        key = parse_mesh_key(text)
    except ProtocolError:
        raise ConfigError(
            f"{source} holds no mesh key: it must be 64 hex digits and nothing else"
        ) from None
    return None if is_zero(key) else key
