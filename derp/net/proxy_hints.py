"""
What an operator should hear about a proxy in front of us that was told too little.

Everything goes on as it would without these lines; but whom a relay takes for its client is
seen nowhere else, until a limit per address or an admission server punishes all of them.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.logger import Logger

from derp.net.socket_address import peer_name

MAX_SAID: Final = 32
"""Lines in the life of a relay: anybody may send what looks like a proxy's headers."""


class ProxyHints:
    """Each hint once for each address."""

    log = Logger(namespace="derp")

    def __init__(self) -> None:
        self._said: set[tuple[str, str]] = set()

    def unnamed(self, peer: Any) -> None:
        """A trusted proxy let a client log in without saying whose address it has."""
        self._say(
            "is in --trusted-proxies but does not say who its clients are, so that they all have "
            "its address: let it send a PROXY header or X-Forwarded-For, or list proxies only",
            peer,
        )

    def unbelieved(self, peer: Any) -> None:
        """Somebody else named another client for a login."""
        self._say(
            "sends X-Forwarded-For or X-Real-IP and is not believed: if it is a proxy of yours, "
            "add it to --trusted-proxies",
            peer,
        )

    def no_upgrade(self, peer: Any) -> None:
        """A proxy passed a login on as if it were a page."""
        self._say(
            "passes /derp on without the Upgrade header, so that nobody can log in through it: "
            "let it pass upgrades on, by HTTP/1.1",
            peer,
        )

    def stray_header(self, peer: Any) -> None:
        """Somebody who is not trusted begins with a PROXY header."""
        self._say(
            "begins with a PROXY header, which is not read, so that it cannot connect: if it is "
            "a proxy of yours, add it to --trusted-proxies",
            peer,
        )

    def _say(self, text: str, peer: Any) -> None:
        host = getattr(peer, "host", None) or peer_name(peer)
        key = (host, text)
        if key in self._said or len(self._said) >= MAX_SAID:
            return
        self._said.add(key)
        self.log.warn("{host} {text}", host=host, text=text)
