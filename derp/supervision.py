"""
A program as a process: what signals and systemd want of it, and what they are told.

Only twistd's plugins and the scripts have this: a relay within another program does not take its
signals.
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
    A program's service and its surroundings.

    :param end: takes signals, and drains and exits.
    :param status: says in a few words how the service is.
    :ivar notify: tells systemd.
    :ivar exit_code: what the process should exit with, once the reactor has stopped.
    """

    exit_code = 0

    def __init__(
        self, reactor: Any, service: IService, end: ProcessEnd, status: Callable[[], str]
    ) -> None:
        super().__init__()
        self.notify = SystemdNotify(os.environ, os.getpid())
        self._reactor = reactor
        self._end = end
        self._status = status
        self._reporting = LoopingCall(self._report)
        self._reporting.clock = reactor
        end.when_ending = self.notify.stopping
        service.setServiceParent(self)

    def privilegedStartService(self) -> None:
        """Take the signals, then open the ports."""
        self._end.install()
        super().privilegedStartService()

    def startService(self) -> None:
        """Start the service; systemd is told once it really runs."""
        super().startService()
        self._reactor.callWhenRunning(self._runs)

    def _runs(self) -> None:
        if self.running and self.notify:
            self.notify.ready()
            wanted_s = self.notify.watchdog_s / 2 or STATUS_S
            self._reporting.start(min(wanted_s, STATUS_S))

    def stopService(self) -> Any:
        """Stop it. Signals stay ours: one that comes now must not kill the process."""
        if self._reporting.running:
            self._reporting.stop()
        return super().stopService()

    def _report(self) -> None:
        if self.notify.watchdog_s:
            self.notify.alive()
        self.tell_status()

    def tell_status(self) -> None:
        """Tell systemd how the service is."""
        self.notify.status(self._status())


def supervise(relay: RelayService, reactor: Any, *, clean_up: Callable[[], object]) -> Supervision:
    """
    Put a relay under supervision.

    :param clean_up: removes what twistd leaves if the process ends without it.
    """
    life = relay.life

    def clean_all() -> None:
        life.clean_up()
        clean_up()

    def status() -> str:
        return f"{life.state.word}, {len(relay.relay.registry)} clients"

    end = ProcessEnd(reactor, life, drain_seconds=relay.config.drain_seconds, clean_up=clean_all)
    supervision = Supervision(reactor, relay, end, status)
    life.when_replaced = lambda: end.end("another process took our ports over")
    life.state.when_changed(supervision.tell_status)
    relay.reloader.when_reloading(supervision.notify.reloading)
    relay.reloader.when_reloaded(supervision.notify.ready)
    return supervision
