"""
Where the mesh key comes from: the secret that relays of one mesh show each other.

=================  ===================================================================
``--dev``          environment variable ``TAILSCALE_DERPER_MESH_KEY``, and nothing else
``--secrets-url``  the setec server, later (:mod:`derp.net.mesh_secret`)
otherwise          ``--mesh-psk-file``; if not given, the first file of derper's that exists
=================  ===================================================================

The text is 64 hex digits with white space around it; nothing at all, or the zero key, is no
key. The key never appears in an error.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from derp.goflag import FlagValues
from derp.net.mesh_key import parse_mesh_key_text, read_mesh_key
from derp.quoting import quoted

MESH_KEY_VARIABLE: Final = "TAILSCALE_DERPER_MESH_KEY"
SHARED_MESH_KEY_FILE: Final = "/home/derp/keys/derp-mesh.key"


def find_mesh_key(
    flags: FlagValues, environ: Mapping[str, str]
) -> tuple[bytes | None, tuple[str, ...]]:
    """
    Read the mesh key.

    :returns: the key (32 raw bytes) or ``None``, and sentences to log.
    :raises ConfigError: if the file cannot be read, or what it holds is no key.
    """
    if flags.bool("dev"):
        ignored = tuple(
            f"--dev takes the mesh key from {MESH_KEY_VARIABLE}: --{name} has no effect"
            for name in ("secrets-url", "mesh-psk-file")
            if flags.text(name)
        )
        source = f"environment variable {MESH_KEY_VARIABLE}"
        return parse_mesh_key_text(source, environ.get(MESH_KEY_VARIABLE, "")), ignored
    if flags.text("secrets-url") and flags.text("mesh-psk-file"):
        return None, ("--secrets-url holds the mesh key: --mesh-psk-file has no effect",)
    path = mesh_key_path(flags, environ)
    if not path:
        return None, ()
    key = read_mesh_key(path)
    if key is None:
        return None, (
            f"--mesh-psk-file: {quoted(path)} holds no key: nobody gets the rights of a mesh",
        )
    return key, ()


def mesh_key_path(flags: FlagValues, environ: Mapping[str, str]) -> str:
    """Which file holds the mesh key; empty if none does."""
    if flags.bool("dev") or flags.text("secrets-url"):
        return ""
    path = flags.text("mesh-psk-file")
    if not path and not flags.given("mesh-psk-file"):
        path = default_mesh_key_file(environ)
    return path


def default_mesh_key_file(environ: Mapping[str, str]) -> str:
    """The first of derper's default files that exists, or nothing."""
    tried = [SHARED_MESH_KEY_FILE]
    if environ.get("HOME"):
        tried.append(os.path.join(environ["HOME"], "keys", "derp-mesh.key"))
    return next((path for path in tried if os.path.exists(path)), "")
