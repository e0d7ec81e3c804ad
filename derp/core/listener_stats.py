"""What the main listening port counts: plain integers, as in :mod:`derp.core.stats`."""

from __future__ import annotations


class ListenerStats:
    """Counters of one listening port since its start."""

    __slots__ = (
        "accept_paused",
        "accepted_connections",
        "handshake_failures",
        "handshake_timeouts",
        "rejected_connections",
    )

    def __init__(self) -> None:
        self.accepted_connections = 0
        """Connections taken from the kernel and kept."""
        self.rejected_connections = 0
        """Connections closed at once by ``--accept-connection-limit``."""
        self.accept_paused = 0
        """Times accepting was paused because file descriptors or memory ran out."""
        self.handshake_failures = 0
        """TLS handshakes that ended in an alert or a lost connection."""
        self.handshake_timeouts = 0
        """TLS handshakes not finished within their deadline."""
