"""Waiting for what comes, without sleeping through what does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

PATIENCE_S = 90.0
"""How long anything may take before it counts as never. Far above what it takes: only a broken
relay or a machine that stands still makes anybody wait so long."""
_LOOK_EVERY_S = 0.002


async def until(reactor: Any, condition: Callable[[], Any], what: str) -> Any:
    """
    Let the reactor run until a condition holds; give what it returned.

    :param reactor: the real one, whatever time the relay lives in.
    :param what: what is waited for, for the failure.
    """
    give_up_at = reactor.seconds() + PATIENCE_S
    while True:
        result = condition()
        if result:
            return result
        if reactor.seconds() > give_up_at:
            raise AssertionError(f"waited {PATIENCE_S:g} s in vain: {what}")
        await deferLater(reactor, _LOOK_EVERY_S)


def in_time(reactor: Any, waited_for: Deferred[Any], what: str) -> Deferred[Any]:
    """Bound a Deferred; give it back."""

    def too_late(result: object, seconds: float) -> None:
        raise AssertionError(f"waited {seconds:g} s in vain: {what}")

    return waited_for.addTimeout(PATIENCE_S, reactor, too_late)
