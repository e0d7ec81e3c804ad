"""
``/debug/traffic``: who moves how many bytes, as an endless stream of JSON lines.

derper runs ``ss`` and matches its output to clients by address; here each connection's own
counters are read, which stay right behind proxies and for IPv4 on an IPv6 socket. They count
bytes of relayed frames, not of TLS and HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Final

from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from derp.core.connection import Connection
from derp.core.relay import Relay
from derp.wire.keys import format_node_public

INTERVAL_S: Final = 2.0


class TrafficBook:
    """What each connection had moved when last looked at."""

    def __init__(self) -> None:
        self._seen: dict[Connection, tuple[int, int]] = {}

    def grown(self, connections: Iterable[Connection]) -> Iterator[str]:
        """One line for each connection that moved bytes since the last call."""
        before, self._seen = self._seen, {}
        for conn in connections:
            moved = (conn.sent_bytes, conn.recv_bytes)
            self._seen[conn] = moved
            if moved != before.get(conn, (0, 0)):
                yield traffic_line(conn)


def traffic_line(conn: Connection) -> str:
    """A connection's totals; ``Sent`` is what went to the client."""
    line: dict[str, object] = {
        "Sent": conn.sent_bytes,
        "Recv": conn.recv_bytes,
        "Key": format_node_public(conn.key),
    }
    if conn.heard:
        line["UniqueSenders"] = len(conn.heard)
    return json.dumps(line, separators=(",", ":"))


@implementer(IPushProducer)
class TrafficStream:
    """
    One reader's stream. It ends with its connection.

    A reader that does not keep up misses rounds, and no bytes: the lines are totals.
    """

    log = Logger()

    def __init__(self, relay: Relay, clock: IReactorTime, request: Request) -> None:
        self._relay = relay
        self._request = request
        self._book = TrafficBook()
        self._paused = False
        self._rounds = LoopingCall(self._round)
        self._rounds.clock = clock

    def start(self) -> None:
        """Send the first round, then one every :data:`INTERVAL_S`."""
        self._request.notifyFinish().addBoth(self._ended)
        self._request.registerProducer(self, True)
        self._rounds.start(INTERVAL_S).addErrback(self._failed)

    def _round(self) -> None:
        if self._paused:
            return
        lines = [*self._book.grown(self._relay.registry.connections()), "\n"]
        self._request.write("\n".join(lines).encode("ascii"))

    def _ended(self, _: object) -> None:
        if self._rounds.running:
            self._rounds.stop()

    def _failed(self, failure: Failure) -> None:
        self.log.failure("/debug/traffic failed", failure)
        self._request.loseConnection()

    def pauseProducing(self) -> None:
        """See ``IPushProducer``: the reader does not keep up."""
        self._paused = True

    def resumeProducing(self) -> None:
        """See ``IPushProducer``."""
        self._paused = False

    def stopProducing(self) -> None:
        """See ``IProducer``: the connection is lost."""
        self._ended(None)


class TrafficPage(Resource):
    """Starts a stream for everybody who asks."""

    isLeaf = True

    def __init__(self, relay: Relay, clock: IReactorTime) -> None:
        super().__init__()
        self._relay = relay
        self._clock = clock

    def render(self, request: Request) -> bytes | int:
        if request.method == b"HEAD":
            return b""
        TrafficStream(self._relay, self._clock, request).start()
        done: int = NOT_DONE_YET
        return done
