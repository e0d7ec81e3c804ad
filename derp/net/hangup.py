"""SIGHUP as an event of the reactor."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


class HangUp:
    """
    Calls back on SIGHUP from :meth:`install` until :meth:`restore`.

    Only the main thread may change what a signal does; in another one this does nothing.

    :param reactor: where the call is made, after whatever the signal interrupted.
    """

    def __init__(self, reactor: Any, call: Callable[[], object]) -> None:
        self._reactor = reactor
        self._call = call
        self._installed = False
        self._before: Any = None

    def install(self) -> None:
        """Take the signal over; a second time changes nothing."""
        if not self._installed and _in_main_thread():
            self._before = signal.signal(signal.SIGHUP, self._arrived)
            self._installed = True

    def restore(self) -> None:
        """Put back what was there before."""
        if self._installed and _in_main_thread():
            # None: it was installed by other means than Python, which cannot be repeated.
            signal.signal(signal.SIGHUP, self._before or signal.SIG_DFL)
            self._installed = False

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        self._reactor.callFromThread(self._call)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
