"""
The relay as a process: what signals and systemd want of it, and what they are told.

Only ``twistd derper`` has this: a relay within another program does not take its signals.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import IService, MultiService
from twisted.internet.task import LoopingCall

from derp.net.process_end import ProcessEnd
from derp.net.systemd_notify import SystemdNotify

if TYPE_CHECKING:
    from derp.services import RelayService

STATUS_S: Final = 10.0
"""Seconds between two reports to systemd, if its watchdog does not want them earlier."""


class Supervision(MultiService):
    """
    A relay and its surroundings.

    :param end: takes signals, and drains and exits.
    :param notify: tells systemd.
    """

    def __init__(
        self, reactor: Any, relay: RelayService, end: ProcessEnd, notify: SystemdNotify
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._relay = relay
        self._end = end
        self._notify = notify
        self._reporting = LoopingCall(self._report)
        self._reporting.clock = reactor
        end.when_ending = notify.stopping
        relay.life.when_replaced = lambda: end.end("another process took our ports over")
        relay.life.state.when_changed(self._tell_status)
        relay.reloader.when_reloading(notify.reloading)
        relay.reloader.when_reloaded(notify.ready)
        relay.setServiceParent(self)

    def privilegedStartService(self) -> None:
        """Take the signals, then open the ports."""
        self._end.install()
        super().privilegedStartService()

    def startService(self) -> None:
        """Start the relay; systemd is told once it really runs."""
        super().startService()
        self._reactor.callWhenRunning(self._runs)

    def _runs(self) -> None:
        if self.running and self._notify:
            self._notify.ready()
            wanted_s = self._notify.watchdog_s / 2 or STATUS_S
            self._reporting.start(min(wanted_s, STATUS_S))

    def stopService(self) -> Any:
        """Stop the relay. Signals stay ours: one that comes now must not kill the process."""
        if self._reporting.running:
            self._reporting.stop()
        return super().stopService()

    def _report(self) -> None:
        if self._notify.watchdog_s:
            self._notify.alive()
        self._tell_status()

    def _tell_status(self) -> None:
        state = self._relay.life.state
        clients = len(self._relay.relay.registry)
        self._notify.status(f"{state.word}, {clients} clients")


def supervise(relay: RelayService, reactor: Any, *, clean_up: Callable[[], object]) -> IService:
    """
    Put a relay under supervision.

    :param clean_up: removes what twistd leaves if the process ends without it.
    """

    def clean_all() -> None:
        relay.life.clean_up()
        clean_up()

    end = ProcessEnd(
        reactor, relay.life, drain_seconds=relay.config.drain_seconds, clean_up=clean_all
    )
    return Supervision(reactor, relay, end, SystemdNotify(os.environ, os.getpid()))
