"""URLs of servers that are asked over HTTP, as the operator gives them."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from derp.errors import ConfigError
from derp.quoting import quoted


def check_admission_url(url: str) -> str:
    """
    Let the URL of an admission controller through.

    :raises ConfigError: if nobody could be asked there. (derper admits everybody then.)
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable()
        usable = usable and parts.port != 0 and " " not in url
    except ValueError:
        usable = False
    if not usable:
        tail = quoted(url.rpartition("@")[2])  # what is before may be a password
        raise ConfigError(
            f"--verify-client-url: {tail} cannot be asked: give an http:// or https:// URL"
        )
    return url


def check_setec_url(url: str) -> str:
    """
    Let the URL of a setec server through, as it is used.

    :raises ConfigError: if it is none.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise ConfigError(f"--secrets-url: {quoted(url)} is no http:// or https:// URL: give one")
    return url.removesuffix("/")


def shown(url: str) -> str:
    """A URL for the log, without what may be secret in it: user, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
