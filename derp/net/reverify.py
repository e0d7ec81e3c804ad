"""
Whether those who are connected may stay.

Every client is asked about once per ``--reverify-interval``, at a time of its own, and all of
them as soon as the allow list changes or SIGHUP comes. One that is refused is asked about a
second time a little later, and only then told (Health frame) and closed. Mesh peers are exempt.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, WeakSet

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from derp.core.admission import Strikes, Verdict
from derp.core.connection import Connection
from derp.net.admission import Admission
from derp.wire.frames import encode_health
from derp.wire.keys import format_node_public

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from derp.core.relay import Relay

log = Logger(namespace="derp")

AT_ONCE: Final = 16
"""Clients asked about at the same time; fewer than a source takes, so that logins go on."""
TURN: Final = 256
"""Clients asked about in one turn of the reactor, if the answers are there at once."""
MAX_CONFIRM_S: Final = 2.0
MAX_TICK_S: Final = 15.0
GOODBYE: Final = "this relay no longer admits you; ask whoever runs it"


class Reverification(Service):
    """
    Re-checks the clients of one relay while it runs.

    :param interval_s: every client is asked about at least so often, and what is refused
        has been refused twice by then; 0 is never, but for :meth:`check_all`.
    """

    def __init__(
        self, reactor: Any, relay: Relay, admission: Admission, interval_s: float = 0.0
    ) -> None:
        self._reactor = reactor
        self._relay = relay
        self._admission = admission
        self._confirm_s = min(MAX_CONFIRM_S, interval_s / 10) if interval_s else MAX_CONFIRM_S
        self._tick_s = min(MAX_TICK_S, interval_s / 20)
        self._period_s = interval_s - self._confirm_s - self._tick_s
        self._due: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
        self._strikes: WeakKeyDictionary[Connection, Strikes] = WeakKeyDictionary()
        self._queue: deque[Connection] = deque()
        self._waiting: set[Connection] = set()
        """What is in the queue, being asked about, or to be confirmed."""
        self._again: set[Connection] = set()
        """What was to be asked about anew while it waited."""
        self._gone: WeakSet[Connection] = WeakSet()
        self._confirming: dict[Connection, IDelayedCall] = {}
        self._asking = 0
        self._pumping = False
        self._pause: IDelayedCall | None = None
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor
        self._random = Random()  # noqa: S311 - spreads questions, guards nothing

    def startService(self) -> None:
        super().startService()
        if self._period_s > 0:
            self._looking.start(self._tick_s, now=False)

    def stopService(self) -> None:
        super().stopService()
        if self._looking.running:
            self._looking.stop()
        for call in (*self._confirming.values(), self._pause):
            if call is not None and call.active():
                call.cancel()
        self._pause = None
        for connections in (self._confirming, self._queue, self._waiting, self._again):
            connections.clear()

    def check_all(self) -> None:
        """Ask about every client as soon as may be."""
        for conn in self._relay.registry.connections():
            if conn in self._waiting:
                self._again.add(conn)  # an answer on its way may be an old one
            else:
                self._enqueue(conn)
        self._pump()

    def _look(self) -> None:
        """Find those whose time has come."""
        now = self._reactor.seconds()
        for conn in self._relay.registry.connections():
            due = self._due.get(conn)
            if due is None:
                # Admitted when it connected. Clients that came together are drawn apart.
                spread = self._random.uniform(0.5, 1.0)
                due = self._due[conn] = conn.connected_at + spread * self._period_s
            if now >= due:
                self._enqueue(conn)
        self._pump()

    def _enqueue(self, conn: Connection) -> None:
        if not self.running or conn.is_mesh or conn in self._waiting or conn in self._gone:
            return
        self._due[conn] = self._reactor.seconds() + self._period_s
        self._waiting.add(conn)
        self._queue.append(conn)

    def _pump(self) -> None:
        """Ask about the next ones; if that takes no time at all, let others have their turn."""
        if self._pumping or self._pause is not None:
            return
        self._pumping = True
        for _ in range(TURN):
            if not self._queue or self._asking >= AT_ONCE:
                break
            self._ask(self._queue.popleft())
        else:
            self._pause = self._reactor.callLater(0, self._go_on)
        self._pumping = False

    def _go_on(self) -> None:
        self._pause = None
        self._pump()

    def _ask(self, conn: Connection) -> None:
        if not self._is_connected(conn):
            self._settle(conn)
            return
        self._asking += 1
        asked = self._admission.recheck(conn.key, conn.remote)
        asked.addCallback(self._judged, conn)
        asked.addErrback(self._failed, conn)
        asked.addCallback(self._asked)

    def _asked(self, _: object) -> None:
        self._asking -= 1
        self._pump()

    def _is_connected(self, conn: Connection) -> bool:
        return conn in self._relay.registry.connections_of(conn.key)

    def _failed(self, failure: Failure, conn: Connection) -> None:
        log.failure("re-checking a client failed", failure)
        self._settle(conn)

    def _judged(self, verdict: Verdict, conn: Connection) -> None:
        if not self.running or not self._is_connected(conn):
            self._settle(conn)
            return
        must_go = self._strikes.setdefault(conn, Strikes()).note(verdict)
        if verdict is Verdict.DENIED and not must_go:
            self._confirming[conn] = self._reactor.callLater(self._confirm_s, self._confirm, conn)
            return
        if must_go:
            self._revoke(conn)
        self._settle(conn)

    def _confirm(self, conn: Connection) -> None:
        del self._confirming[conn]
        self._queue.appendleft(conn)
        self._pump()

    def _settle(self, conn: Connection) -> None:
        """Nothing more is to be done about this client for now."""
        self._waiting.discard(conn)
        if conn in self._again:
            self._again.discard(conn)
            self._enqueue(conn)

    def _revoke(self, conn: Connection) -> None:
        self._gone.add(conn)
        self._admission.stats.revoked += 1
        conn.send_control(encode_health(GOODBYE))
        conn.sink.close(f"client {format_node_public(conn.key)} is no longer admitted")
