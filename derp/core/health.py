"""
What the relay says of its own condition to everybody who is logged in (frame Health).

Clients show the text in ``tailscale status`` and forget it when they log in anew: ServerInfo
clears it, so it is sent behind that, and only if there is something to say. An empty text,
sent when the trouble is over, clears it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from derp.core.connection import Connection
from derp.wire.frames import encode_health


def _nothing(conn: Connection) -> str:
    return ""


class Health:
    """
    One text made of the troubles of several parts.

    :param connections: gives every logged-in connection.
    """

    def __init__(self, connections: Callable[[], Iterable[Connection]]) -> None:
        self._connections = connections
        self._troubles: dict[str, str] = {}
        self.text = ""
        """What clients are told; empty is well."""
        self.suffix: Callable[[Connection], str] = _nothing
        """Says what one connection is told besides; empty is well."""

    def report(self, part: str, trouble: str) -> None:
        """
        Note how a part of the relay fares; clients are told if that changes anything.

        :param part: whose condition it is, for instance ``certificate``.
        :param trouble: one sentence, empty if it is well.
        """
        if trouble:
            self._troubles[part] = trouble
        else:
            self._troubles.pop(part, None)
        text = "; ".join(self._troubles.values())
        if text == self.text:
            return
        self.text = text
        for conn in list(self._connections()):
            conn.send_control(encode_health(self.text_for(conn)))

    def text_for(self, conn: Connection) -> str:
        """Compose what one connection is told: the common text, and what concerns it alone."""
        return "; ".join(filter(None, (self.text, self.suffix(conn))))

    def greet(self, conn: Connection) -> None:
        """A connection has been sent its ServerInfo: tell it what it should know."""
        text = self.text_for(conn)
        if text:
            conn.send_control(encode_health(text))
