"""TXT records, for the percentages of bootstrap DNS."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred


class TXTLookup:
    """
    Asks the name servers of ``/etc/resolv.conf`` for TXT records.

    The file is read anew for each question, there being one in ten minutes.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __call__(self, name: str) -> Deferred[list[str]]:
        return Deferred.fromCoroutine(self._look_up(name))

    async def _look_up(self, name: str) -> list[str]:
        # Imported here: only a list with percentages has a use for it.
        from twisted.names import client, dns

        resolver = client.Resolver(servers=name_servers(), reactor=self._reactor)
        answers, _, _ = await resolver.lookupText(name)
        records = [answer.payload for answer in answers if answer.type == dns.TXT]
        return [b"".join(record.data).decode("utf-8", "replace") for record in records]


def name_servers(path: str = "/etc/resolv.conf") -> list[tuple[str, int]]:
    """Read the name servers of a resolver configuration; without any, the local one."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        lines = []
    servers = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
    return [(server, 53) for server in servers or ["127.0.0.1"]]
