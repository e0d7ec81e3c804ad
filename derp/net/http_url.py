"""URLs of servers that are asked over HTTP, as the operator gives them."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit, urlunsplit

from derp.errors import ConfigError
from derp.quoting import quoted

_HTTPS: Final = ("https",)
_HTTP: Final = ("http", *_HTTPS)


def check_admission_url(url: str) -> str:
    """
    Let the URL of an admission controller through.

    :raises ConfigError: if nobody could be asked there. (derper admits everybody then.)
    """
    if not _is_usable(url, _HTTP):
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
    if not _is_usable(url, _HTTP):
        raise ConfigError(f"--secrets-url: {quoted(url)} is no http:// or https:// URL: give one")
    return url.removesuffix("/")


def check_directory_url(url: str) -> str:
    """
    Let the URL of an ACME directory through; RFC 8555 section 6.1 wants HTTPS.

    :raises ConfigError: if it is none.
    """
    if not _is_usable(url, _HTTPS):
        raise ConfigError(
            f"--acme-directory: {quoted(url)} is no https:// URL: give that of the directory of "
            "an ACME authority"
        )
    return url


def _is_usable(url: str, schemes: tuple[str, ...]) -> bool:
    """Whether somebody can be asked there."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return usable and url.isprintable() and " " not in url


def shown(url: str) -> str:
    """A URL for the log, without what may be secret in it: user, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
