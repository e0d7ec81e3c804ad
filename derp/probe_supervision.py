"""The prober as a process: what it adds to :mod:`derp.supervision`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from derp.net.hangup import HangUp
from derp.net.process_end import ProcessEnd
from derp.probe_services import ProbeService
from derp.prober.probe import CLOSE_S
from derp.supervision import Supervision


class ProbeSupervision(Supervision):
    """A prober, SIGHUP, and the end of ``--once``."""

    def __init__(self, reactor: Any, probes: ProbeService, end: ProcessEnd) -> None:
        super().__init__(reactor, probes, end, probes.status)
        # Who interrupts --once has no report, and so not that all is good.
        self.exit_code = 0 if probes.once is None else 1
        self._hang_up = HangUp(reactor, probes.refresh)
        if probes.once is not None:
            probes.once.addCallback(self._over)

    def startService(self) -> None:
        """Start the prober; SIGHUP is its from now on."""
        self._hang_up.install()
        super().startService()

    def _over(self, code: int) -> None:
        self.exit_code = code
        # Not from within the run that was the last one, nor before the reactor runs.
        self._reactor.callLater(0, self._leave)

    def _leave(self) -> None:
        if not self._end.is_ending:
            self._reactor.stop()


def supervise(
    probes: ProbeService, reactor: Any, *, clean_up: Callable[[], object]
) -> ProbeSupervision:
    """
    Put a prober under supervision.

    :param clean_up: removes what twistd leaves if the process ends without it.
    """
    end = ProcessEnd(reactor, probes, drain_seconds=CLOSE_S, clean_up=clean_up)
    return ProbeSupervision(reactor, probes, end)
