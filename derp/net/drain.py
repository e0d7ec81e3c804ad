"""
Sending everybody away in order, so that each can be somewhere else before it misses us.

::

    everybody is told (Health, Restarting) ─ LEAD ─ clients, one after the other ─ mesh peers

All of it takes :attr:`Drain.seconds` at most. A client whose socket is full is not closed before
it has taken what it is owed, unless that lasts :data:`HARD_LIMIT_S` longer: then it is cut.

The Restarting frame says when to come back. If the ports stay open (another process has them,
too), that is when the client is closed, and a little later, so that not all come at once. If
they do not, it is when a new process may be there.

To a successor that nobody may notice, connections on their way in are owed an answer, too: they
found an open door.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from derp.wire.frames import encode_health, encode_restarting

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from derp.core.connection import Connection
    from derp.net.relay_protocol import RelayServer

log = Logger(namespace="derp")

HARD_LIMIT_S: Final = 2.0
"""After the time for the drain, what is left is cut."""
NOTICE: Final = "the relay is about to restart"
"""Clients show it; it is gone as soon as they are connected again."""
TRY_FOR_S: Final = 30.0
"""How long clients should try to come back; a process has started long before."""
JITTER_S: Final = 0.5
"""How much later than their own end clients come back to ports that stay open."""
ARRIVAL_S: Final = 2.0
"""How long who is on the way in is waited for, if at all."""

_LEAD_S: Final = 0.25
"""From the notice to the first end, if there is as much time; a notice needs a round trip."""
_GAP_S: Final = 0.05
"""Between two ends, if there are few: nobody needs to be slower."""
MOST_TALKS: Final = 100_000
"""Who talks to whom is looked at if it is no more than that: 0.1 s, in which nothing is relayed."""
_TICK_S: Final = 0.02
_TOLD_PER_TICK: Final = 500
"""Telling costs 20 µs each; packets wait meanwhile."""
_CLIENTS_SHARE: Final = 0.8
"""By this share of the time every client is to be closed; the rest is for mesh peers."""
_MESH_SHARE: Final = 0.9


class Drain:
    """
    One drain, begun once.

    :param server: whose connections are closed; it takes no logins from :meth:`start` on.
    :param seconds: how long it may take (``--drain-seconds``).
    :param arriving: says how many connections have not come to their first request yet.
    :ivar over: fires when nobody is left: ``True`` if that was in time, ``False`` if the hard
        limit had to cut somebody.
    """

    def __init__(
        self,
        clock: IReactorTime,
        server: RelayServer,
        *,
        seconds: float,
        random: Random,
        ports_stay: bool = False,
        arriving: Callable[[], int] = lambda: 0,
    ) -> None:
        self.over: Deferred[bool] = Deferred()
        self._clock = clock
        self._server = server
        self._seconds = seconds
        self._random = random
        self._ports_stay = ports_stay
        self._arriving = arriving
        self._began_at = 0.0
        self._gap_s = 0.0
        self._untold: deque[tuple[Connection, float]] = deque()
        self._clients: deque[tuple[Connection, float]] = deque()
        """With when to close each, in seconds from the beginning; soonest first."""
        self._mesh: list[Connection] = []
        self._tick_call: IDelayedCall | None = None
        self._is_over = False

    def start(self) -> None:
        """Begin."""
        self._server.draining = True
        self._began_at = self._clock.seconds()
        self._plan()
        count = len(self._clients)
        if self._server.protocols:
            log.info(
                "draining: {count} clients are told and closed within {seconds:g} s",
                count=count,
                seconds=self._seconds,
            )
        self._tick()

    def cancel(self) -> None:
        """Give it up; :attr:`over` does not fire any more."""
        self._is_over = True
        if self._tick_call is not None:
            self._tick_call.cancel()
            self._tick_call = None

    def _plan(self) -> None:
        """
        Choose whose turn is when: by lot, so that nobody is always the last, but those who talk
        to each other in a row. While one is with a successor and the other is not, they cannot.
        """
        connections = list(self._server.relay.registry.connections())
        self._mesh = [conn for conn in connections if conn.is_mesh]
        clients = [conn for conn in connections if not conn.is_mesh]
        self._random.shuffle(clients)
        clients = _in_company(clients)
        lead_s = min(_LEAD_S, self._seconds * 0.1)
        until_s = self._seconds * _CLIENTS_SHARE
        gap_s = min(_GAP_S, (until_s - lead_s) / max(1, len(clients)))
        self._clients.extend((conn, lead_s + i * gap_s) for i, conn in enumerate(clients))
        last = self._clients[-1][1] if self._clients else 0.0
        self._untold.extend(self._clients)
        self._untold.extend((conn, last) for conn in self._mesh)

    # -- as time goes by -------------------------------------------------------------------

    def _tick(self) -> None:
        self._tick_call = None
        passed = self._clock.seconds() - self._began_at
        for _ in range(min(_TOLD_PER_TICK, len(self._untold))):
            conn, closed_at = self._untold.popleft()
            self._tell(conn, closed_at - passed)
        self._close_newcomers()
        self._close_clients(passed)
        self._close_mesh(passed)
        nobody = not self._server.protocols
        if nobody and (passed >= min(ARRIVAL_S, self._seconds) or not self._arriving()):
            self._finish(in_time=True)
        elif passed >= self._seconds + HARD_LIMIT_S:
            self._cut()
        elif not self._is_over:
            self._tick_call = self._clock.callLater(_TICK_S, self._tick)

    def _tell(self, conn: Connection, closed_in_s: float) -> None:
        if not conn.is_mesh:
            health = self._server.relay.health.text_for(conn)
            conn.send_control(encode_health("; ".join(filter(None, (NOTICE, health)))))
        if self._ports_stay:
            back_in_s = max(0.0, closed_in_s) + self._random.uniform(0, JITTER_S)
        else:
            back_in_s = self._seconds + self._random.uniform(0, self._seconds)
        conn.send_control(encode_restarting(int(back_in_s * 1000), int(TRY_FOR_S * 1000)))

    def _close_newcomers(self) -> None:
        """Who has not logged in has nothing to lose here."""
        for protocol in list(self._server.protocols):
            if protocol.session.conn is None:
                protocol.close("")

    def _close_clients(self, passed: float) -> None:
        waiting = []
        while self._clients and self._clients[0][1] <= passed:
            conn, due = self._clients.popleft()
            if conn.blocked:
                waiting.append((conn, due))
            else:
                conn.sink.close("")
        self._clients.extendleft(reversed(waiting))

    def _close_mesh(self, passed: float) -> None:
        """Once the clients are gone, or it is time: until then peers reach those who are left."""
        gone = all(conn.is_mesh for conn in self._server.relay.registry.connections())
        if self._mesh and not self._untold and (gone or passed >= self._seconds * _MESH_SHARE):
            mesh, self._mesh = self._mesh, []
            for conn in mesh:
                conn.sink.close("")

    # -- the end ---------------------------------------------------------------------------

    def _cut(self) -> None:
        """Who still has not gone does not take its bytes."""
        left = list(self._server.protocols)
        log.error(
            "draining took longer than {seconds:g} s (--drain-seconds) and {more:g} s more:"
            " {count} connections are cut",
            seconds=self._seconds,
            more=HARD_LIMIT_S,
            count=len(left),
        )
        for protocol in left:
            protocol.transport.abortConnection()
        self._finish(in_time=False)

    def _finish(self, *, in_time: bool) -> None:
        if not self._is_over:
            self._is_over = True
            self.over.callback(in_time)


def _in_company(clients: list[Connection]) -> list[Connection]:
    """Put those who have heard of each other in a row; the rest stays as it is."""
    if sum(len(conn.heard or ()) for conn in clients) > MOST_TALKS:
        return clients
    by_key = {conn.key: conn for conn in clients}
    talks: dict[Connection, list[Connection]] = {conn: [] for conn in clients}
    for conn in clients:
        for other in filter(None, map(by_key.get, conn.heard or ())):
            talks[conn].append(other)
            talks[other].append(conn)
    order: dict[Connection, None] = {}
    for first in clients:
        company = [first]
        while company:
            conn = company.pop()
            if conn not in order:
                order[conn] = None
                company += talks[conn]
    return list(order)
