"""
OpenSSL, as the relay drives it: through the standard library, records in memory.

``ssl.SSLContext.wrap_bio`` makes an object around a C object; calling the latter directly saves
a Python call per read and per write. It is private (``SSLObject._sslobj``), so this is the one
place that touches it, and the public object stands in where it is missing.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from derp.net.arena import Arena

_INNER = "_sslobj"
_VERSIONS = {"TLSv1.2": "1.2", "TLSv1.3": "1.3"}
_QUIET = ("EOF", "ALERT_BAD_CERTIFICATE", "HTTP_REQUEST", "WRONG_VERSION_NUMBER")
"""Failures that say nothing but "scanner" or "changed its mind"; the reference hides the like."""


class Engine(Protocol):
    """One connection's TLS state."""

    def do_handshake(self) -> None:
        """Go one step on; ``ssl.SSLWantReadError`` until it is done."""

    def read(self, size: int, buffer: memoryview) -> int:
        """Decrypt one record into ``buffer``."""

    def write(self, data: bytes | memoryview) -> int:
        """Encrypt; return how much of it."""

    def shutdown(self) -> Any:
        """Write close_notify."""

    def version(self) -> str | None:
        """``TLSv1.3``, for instance."""


class _PublicEngine:
    """The same through public names, at a Python call more each."""

    def __init__(self, tls: ssl.SSLObject) -> None:
        self.do_handshake = tls.do_handshake
        self.read = tls.read
        self.write = tls.write
        self.shutdown = tls.unwrap
        self.version = tls.version


def server_engine(context: ssl.SSLContext, arena: Arena) -> Engine:
    """Make a connection's server side on the shared BIOs."""
    tls = context.wrap_bio(arena.incoming, arena.outgoing, server_side=True)
    inner = getattr(tls, _INNER, None)
    return cast("Engine", inner if inner is not None else _PublicEngine(tls))


def version_of(engine: Engine) -> str:
    """The negotiated version as shown: ``1.2``, ``1.3`` or ``unknown``."""
    return _VERSIONS.get(engine.version() or "", "unknown")


def error_text(error: BaseException) -> str:
    """Say what OpenSSL said, without its file names and line numbers."""
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else str(error)


def says_nothing(error: BaseException) -> bool:
    """Whether a failed handshake is not worth a line in the log."""
    reason = getattr(error, "reason", None) or ""
    return any(quiet in reason for quiet in _QUIET)
