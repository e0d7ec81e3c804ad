"""Where a relay of this machine listens, for who examines it from the same machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """Where a relay listens, and what one meets there."""

    hostname: str
    host: str
    """IP to connect to."""
    port: int
    tls: bool
    derp: bool = True
    unix: tuple[str, ...] = ()
    """Paths of sockets that relay without TLS."""
    stun: tuple[str, int] | None = None
    """IP and port to ask; ``None`` if STUN is off."""
    stun_may_be_silent: bool = False
    """Whether a relay that is well may leave STUN unanswered (``--stun-follows-readiness``)."""
    admits_strangers: bool = True
    """Whether a key that was just made may log in, and does so unnoticed."""
