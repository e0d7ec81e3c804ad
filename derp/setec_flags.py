"""Flags about a setec server, which derper and derpprobe have in common."""

from __future__ import annotations

import os
from collections.abc import Mapping

from derp.goflag import FlagValues
from derp.net.http_url import check_setec_url


def secrets_url(flags: FlagValues) -> str:
    """
    Where the mesh key is asked for; empty is nowhere.

    :raises ConfigError: if it is no URL.
    """
    url = flags.text("secrets-url")
    return check_setec_url(url) if url else ""


def secrets_cache(flags: FlagValues, environ: Mapping[str, str]) -> str:
    """The file that caches secrets; only needed, and so only named, if there are any."""
    path = flags.text("secrets-cache-dir")
    if path or flags.given("secrets-cache-dir"):
        return path
    home = environ.get("HOME", "") if flags.text("secrets-url") else ""
    return os.path.join(home, ".cache", "derper-secrets") if home else ""
