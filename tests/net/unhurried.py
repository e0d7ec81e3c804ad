"""
The reactor in a time that waits for those who are in it.

Tests of what never comes have deadlines of a fraction of a second, and what does come has to be
there before. A machine that stands still for so long, as shared ones do, breaks that: a reactor
serves its timers first, and would find the deadline over before it has read a byte of what has
arrived meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.internet.tcp import Connector
from zope.interface import directlyProvides, providedBy

STEP_S: Final = 0.005
_TICK_S: Final = 0.002


class Unhurried(Clock):
    """
    The real reactor but for its clock, which never runs ahead of what could be done.

    It goes on only while there are calls to make, or somebody looks at it again and again. Calls
    without delay are no matter of time and are made at once, as ever.

    :param resolver: what resolves names, if not the system.
    :param step_s: by so much at most time passes from one look at it to the next.
    """

    def __init__(self, real: Any, resolver: Any = None, *, step_s: float = STEP_S) -> None:
        super().__init__()
        self.real = real
        self._step_s = step_s
        self.nameResolver = resolver or real.nameResolver
        self._looked_at = real.seconds()
        self._ticking: IDelayedCall | None = None
        directlyProvides(self, providedBy(real))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def seconds(self) -> float:
        """See ``IReactorTime``."""
        looked_at, self._looked_at = self._looked_at, self.real.seconds()
        self.rightNow += min(max(self._looked_at - looked_at, 0.0), self._step_s)
        return self.rightNow

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        """See ``IReactorTime``."""
        if delay <= 0:
            at_once: IDelayedCall = self.real.callLater(0, callable, *args, **kw)
            return at_once
        call: Any = super().callLater(delay, callable, *args, **kw)
        call.canceller = self._forget
        self._tick_on()
        planned: IDelayedCall = call
        return planned

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,
        bindAddress: Any = None,
    ) -> Any:
        """See ``IReactorTCP``; the timeout is in this time, too."""
        connector = Connector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    def _tick_on(self) -> None:
        if self.calls and self._ticking is None:
            self._ticking = self.real.callLater(_TICK_S, self._tick)

    def _tick(self) -> None:
        self._ticking = None
        self.seconds()
        try:
            self.advance(0)
        finally:
            self._tick_on()

    def _forget(self, call: Any) -> None:
        self.calls.remove(call)
        if not self.calls and self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None
