"""A reactor in which time passes when told, while sockets are as real as ever."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock, deferLater

STEP_S = 0.25
"""Time is moved in steps, so that timers set by timers come in their turn."""


class VirtualTime:
    """
    The real reactor but for its clock.

    Calls without delay are no matter of time and are made at once, as ever.

    :param resolver: what resolves names, if not the system.
    """

    def __init__(self, real: Any, resolver: Any = None) -> None:
        self.real = real
        self.nameResolver = resolver or real.nameResolver
        self.clock = Clock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def seconds(self) -> float:
        """See ``IReactorTime``."""
        now: float = self.clock.seconds()
        return now

    def callLater(self, delay: float, call: Any, *args: Any, **kwargs: Any) -> Any:
        """See ``IReactorTime``."""
        if delay <= 0:
            return self.real.callLater(0, call, *args, **kwargs)
        return self.clock.callLater(delay, call, *args, **kwargs)

    async def pass_to(self, moment: float) -> None:
        """Let time pass up to a moment; sockets are served in between."""
        while self.clock.seconds() < moment:
            self.clock.advance(min(STEP_S, moment - self.clock.seconds()))
            await deferLater(self.real, 0)

    async def pass_by(self, seconds: float) -> None:
        """Let so much time pass."""
        await self.pass_to(self.clock.seconds() + seconds)
