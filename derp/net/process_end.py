"""
How a process that relays ends: signals, exit codes, and a limit that holds whatever happens.

===================  =========================================================================
SIGTERM, SIGINT      drain, then exit: with 0, or with 3 if the drain or what follows it did
                     not end in time
another of them      exit at once with 4
SIGUSR2              drain and live on
===================  =========================================================================

Never death by signal: twistd repeats the signal that stopped the reactor, so the reactor's own
handlers must not see one. SIGUSR1 stays twistd's (log rotation), SIGHUP the reloader's; before
that takes it, and after, SIGHUP does nothing.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.logger import Logger

from derp.net.drain import HARD_LIMIT_S

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

log = Logger(namespace="derp")

HARD_LIMIT_CODE: Final = 3
SECOND_SIGNAL_CODE: Final = 4
BACKSTOP_S: Final = 0.5
"""How much later than the drain's own limit a process ends that does not even keep that."""

_ENDING: Final = (signal.SIGTERM, signal.SIGINT)


class Drainable(Protocol):
    """What is to end: a relay."""

    def drain(self) -> Deferred[bool]:
        """Send everybody away; ``False`` if it took too long. The same drain if asked again."""


def _ignore_signals() -> None:
    """The last thing that is done: Python itself would give them back as it ends."""
    for number in (*_ENDING, signal.SIGUSR2, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


class ProcessEnd:
    """
    Takes the signals over, and ends the process.

    :param reactor: stopped for an end in order.
    :param drain_seconds: how long the drain may take (``--drain-seconds``).
    :param clean_up: removes what a dead process should not leave; may be called at any time.
    :param leave: ends the process with a code, skipping everything.
    """

    def __init__(
        self,
        reactor: Any,
        relay: Drainable,
        *,
        drain_seconds: float,
        clean_up: Callable[[], object],
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        self.is_ending = False
        self.when_ending: Callable[[], object] = lambda: None
        """Called once, when it is certain that the process will exit."""
        self._reactor = reactor
        self._relay = relay
        self._drain_seconds = drain_seconds
        self._clean_up = clean_up
        self._leave = leave
        self._signals = 0
        self._before: dict[int, Any] = {}

    # -- signals ---------------------------------------------------------------------------

    def install(self) -> None:
        """
        Take the signals over.

        The reactor takes two of them as it starts to run, and before anybody is called again
        one may come. So what it installs are ours, too: the methods it looks up then.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        self._reactor.sigTerm = self._reactor.sigInt = self._end_signal
        for number in (*_ENDING, signal.SIGUSR2):
            call = self._drain_signal if number == signal.SIGUSR2 else self._end_signal
            before = signal.signal(number, call)
            self._before.setdefault(number, before)
        self._before.setdefault(signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_IGN))
        atexit.register(_ignore_signals)

    def restore(self) -> None:
        """Give them back (for tests; a process that ends does not)."""
        atexit.unregister(_ignore_signals)
        before, self._before = self._before, {}
        for number, what in before.items():
            signal.signal(number, what or signal.SIG_DFL)

    def _end_signal(self, number: int, frame: FrameType | None) -> None:
        """Called between any two instructions; only the second signal may do something here."""
        self._signals += 1
        if self._signals > 1:
            self._exit(SECOND_SIGNAL_CODE)
        else:
            name = signal.Signals(number).name
            self._reactor.callFromThread(self.end, name)

    def _drain_signal(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._drain_only)

    # -- ends ------------------------------------------------------------------------------

    def end(self, why: str) -> None:
        """Drain, then exit; nothing more if that is under way."""
        if self.is_ending:
            return
        self.is_ending = True
        log.info("{why}: draining, then exiting", why=why)
        backstop = threading.Timer(
            self._drain_seconds + HARD_LIMIT_S + BACKSTOP_S, self._exit, [HARD_LIMIT_CODE]
        )
        backstop.daemon = True  # it must not keep a process that ends by itself
        backstop.start()
        self.when_ending()
        self._relay.drain().addCallbacks(self._drained, self._failed)

    def _drain_only(self) -> None:
        log.info("SIGUSR2: draining; the process goes on until SIGTERM")
        self._relay.drain().addErrback(self._failed)

    def _drained(self, in_time: bool) -> bool:
        if in_time:
            log.info("drained: exiting")
            with suppress(Exception):  # it is being stopped by somebody else
                self._reactor.stop()
        else:
            self._exit(HARD_LIMIT_CODE)
        return in_time

    def _failed(self, failure: Any) -> None:
        log.failure("draining failed", failure)
        if self.is_ending:
            self._exit(HARD_LIMIT_CODE)

    def _exit(self, code: int) -> None:
        with suppress(Exception):
            self._clean_up()
        self._leave(code)
