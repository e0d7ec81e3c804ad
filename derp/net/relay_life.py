"""
A relay's life as a whole: its sockets' origin, its phase, its drain, its successor.

Whoever owns the ports (:mod:`derp.services`) calls :meth:`RelayLife.inherit`, opens them, calls
:meth:`RelayLife.started`, and in the end :meth:`RelayLife.stopped`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from derp.config import PlaceKind
from derp.core.lifecycle import Event, Lifecycle
from derp.errors import ConfigError
from derp.net.drain import Drain
from derp.net.handover import HandoverServer
from derp.net.inherited_sockets import adopt, adopt_handed, systemd_sockets
from derp.net.predecessor import Predecessor, find_predecessor, find_rival

if TYPE_CHECKING:
    from derp.config import Config
    from derp.net.listening import Listener
    from derp.net.relay_protocol import RelayServer
    from derp.net.stun_udp import STUNServer

log = Logger(namespace="derp")


def _nobody() -> int:
    return 0


class RelayLife:
    """
    What :mod:`derp.core.lifecycle` means for ports, clients and other processes.

    :param listeners: those that stop accepting in a drain, but ``--metrics-addr``.
    :ivar when_replaced: called once a new process has taken over; drains by default.
    :ivar arriving: says how many connections have not come to their first request yet.
    """

    def __init__(
        self,
        reactor: Any,
        config: Config,
        server: RelayServer,
        listeners: Sequence[Listener],
        stun: STUNServer | None,
    ) -> None:
        self.state = Lifecycle(stun_follows_readiness=config.stun_follows_readiness)
        self.state.when_changed(self._changed)
        self.when_replaced: Callable[[], object] = self.drain
        self.arriving: Callable[[], int] = _nobody
        self._reactor = reactor
        self._config = config
        self._server = server
        self._listeners = listeners
        self._stun = stun
        self._drain: Drain | None = None
        self._waiting: list[Deferred[bool]] = []
        self._drained: bool | None = None
        self._predecessor: Predecessor | None = None
        self._ports_stay = False
        self._is_replaced = False
        self._handover: HandoverServer | None = None
        if config.handover_socket:
            self._handover = HandoverServer(
                reactor, config.handover_socket, self._offer, self._replaced
            )

    def _changed(self) -> None:
        if self._stun is not None:
            self._stun.answering = self.state.is_measurable

    # -- the start -------------------------------------------------------------------------

    def inherit(self, environ: Mapping[str, str]) -> None:
        """
        Have ports adopted that are open already, from systemd or an older process.

        :raises ConfigError: if there is something that cannot be used.
        """
        taken = {each.place.fd for each in self._listeners if each.place.kind is PlaceKind.FD}
        sockets = systemd_sockets(environ, os.getpid(), taken)
        if sockets:
            self._ports_stay = True
            adopt(sockets, self._listeners, self._stun)
        elif self._config.handover_socket:
            self._predecessor = find_predecessor(self._config.handover_socket)
            if self._predecessor is not None:
                adopt_handed(self._predecessor.sockets, self._listeners, self._stun)

    def started(self) -> None:
        """The ports are open: be ready, and take an older process's place once we run."""
        self.state.enter(Event.STARTED)
        if self._handover is not None:
            self._reactor.callWhenRunning(self._take_over)

    def _take_over(self) -> None:
        if self._handover is None or not self.state.is_serving:
            return  # we are on our way out already: who was there before us stays
        predecessor, self._predecessor = self._predecessor, None
        rival = None
        if predecessor is not None:
            rival = find_rival(self._config.handover_socket, predecessor)
        try:
            self._handover.start()
        except ConfigError as error:
            log.error("{error}", error=error)
        if rival is not None:
            rival.go()
        if predecessor is not None:
            predecessor.go()
            for listener in self._listeners:
                listener.handed_over = False

    # -- the end ---------------------------------------------------------------------------

    def drain(self) -> Deferred[bool]:
        """Send everybody away; ``True`` when they are gone, ``False`` if some had to be cut."""
        waiting: Deferred[bool] = Deferred()
        if self._drained is not None:
            waiting.callback(self._drained)
            return waiting
        self._waiting.append(waiting)
        if self._drain is None:
            self.state.enter(Event.DRAIN)
            self._stop_accepting()
            self._drain = Drain(
                self._reactor,
                self._server,
                seconds=self._config.drain_seconds,
                random=Random(),  # noqa: S311 - spreads clients, guards nothing
                ports_stay=self._ports_stay,
                arriving=self.arriving if self._is_replaced else _nobody,
            )
            self._drain.over.addCallback(self._is_drained)
            self._drain.start()
        return waiting

    def _is_drained(self, in_time: bool) -> None:
        self._drained = in_time
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(in_time)

    def _stop_accepting(self) -> None:
        """Close the ports; whoever watches us may still ask how we are."""
        for listener in self._listeners:
            if listener.flag != "--metrics-addr" or listener.handed_over:
                listener.close()
        if self._stun is not None:
            self._stun.stop()

    def stopped(self) -> None:
        """The service stops: leave nothing in the reactor."""
        self.state.enter(Event.STOP)
        if self._drain is not None:
            self._drain.cancel()
        if self._predecessor is not None:
            self._predecessor.forget()
            self._predecessor = None
        if self._handover is not None:
            self._handover.stop()

    def clean_up(self) -> None:
        """Leave nothing in the file system, whatever else is still to do."""
        if self._handover is not None:
            self._handover.remove_path()

    # -- the successor ---------------------------------------------------------------------

    def _offer(self) -> dict[str, socket.socket]:
        """Give what listens, by key."""
        offered = {
            each.key: each.opened.listening_socket
            for each in self._listeners
            if each.opened is not None
        }
        if self._stun is not None and self._stun.bound_socket is not None:
            offered[self._stun.key] = self._stun.bound_socket
        return offered

    def _replaced(self) -> None:
        """A new process is ready."""
        self._ports_stay = self._is_replaced = True
        for listener in self._listeners:
            listener.handed_over = True
        self.when_replaced()
