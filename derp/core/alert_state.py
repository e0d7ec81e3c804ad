"""
When somebody is to be told of a probe: on changes that last, and not of each run.

================  =============================================================================
an alert fires    after so many failures in a row, or when half of the last ten runs failed
it is resolved    after so many successes in a row
it is repeated    at a failure, when nothing was said of it for the repeat interval
it flaps          if it fires for the fourth time within an hour, or was fired by failures that
                  were not in a row: then it is resolved only after a quarter of an hour
                  without any failure, so that nobody is told of each turn
================  =============================================================================

Times are an argument, in Unix seconds. What is kept of a probe is of fixed size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any, Final

RECENT: Final = 10
RECENT_FAILURES: Final = 5


class Change(Enum):
    """What is to be told."""

    FIRING = "firing"
    REPEATED = "repeated"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """What makes an alert. Spans are seconds."""

    failures: int = 2
    successes: int = 2
    repeat_s: float = 4 * 3600.0
    flaps: int = 4
    flap_window_s: float = 3600.0
    calm_s: float = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What is to be told of one probe."""

    change: Change
    name: str
    since: float
    """When the first of the failures was."""
    at: float
    reason: str
    """Of the last failure."""
    flapping: bool = False
    gone: bool = False
    """It is resolved because nobody probes it any more."""


class AlertState:
    """
    One probe.

    :ivar firing: whether somebody was told that it fails.
    """

    __slots__ = (
        "_raised",
        "_recent",
        "_row",
        "_row_began",
        "_rule",
        "firing",
        "flapping",
        "reason",
        "since",
        "told_at",
    )

    def __init__(self, rule: AlertRule) -> None:
        self.firing = False
        self.flapping = False
        self.reason = ""
        self.since = 0.0
        self.told_at = 0.0
        self._rule = rule
        self._row = 0  # successes in a row; below zero failures
        self._row_began = 0.0
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._raised: deque[float] = deque(maxlen=max(1, rule.flaps))

    def observe(self, *, succeeded: bool, now: float, reason: str = "") -> Change | None:
        """Note a run that ended; what is to be told, if anything is."""
        self._recent.append(succeeded)
        if succeeded != (self._row > 0) or not self._row:
            self._row, self._row_began = 0, now
        self._row += 1 if succeeded else -1
        if succeeded:
            return self._succeeded(now)
        self.reason = reason
        return self._failed(now)

    def _failed(self, now: float) -> Change | None:
        rule = self._rule
        if self.firing:
            self.told_at = min(self.told_at, now)  # somebody may have set the clock back
            if now - self.told_at < rule.repeat_s:
                return None
            self.told_at = now
            return Change.REPEATED
        in_a_row = -self._row >= rule.failures
        if not in_a_row and self._recent.count(False) < max(RECENT_FAILURES, rule.failures):
            return None
        self.firing = True
        self.since, self.told_at = self._row_began, now
        self._raised.append(now)
        raised = self._raised
        self.flapping = not in_a_row or (
            len(raised) == raised.maxlen and now - raised[0] <= rule.flap_window_s
        )
        return Change.FIRING

    def _succeeded(self, now: float) -> Change | None:
        if not self.firing or self._row < self._rule.successes:
            return None
        if self.flapping and now - self._row_began < self._rule.calm_s:
            return None
        if self.flapping:
            self._raised.clear()
            self._recent.clear()
        self.firing = self.flapping = False
        return Change.RESOLVED

    @staticmethod
    def told(notice: Notice) -> dict[str, Any]:
        """What has to outlive a restart of an alert that was told, for :meth:`restore`."""
        return {
            "since": notice.since,
            "told_at": notice.at,
            "reason": notice.reason,
            "flapping": notice.flapping,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """
        Take up an alert that was told before a restart.

        :raises ValueError: if that is not what :meth:`told` gives.
        """
        try:
            self.since, self.told_at = float(saved["since"]), float(saved["told_at"])
            self.reason, self.flapping = str(saved["reason"]), bool(saved["flapping"])
        except (KeyError, TypeError):
            raise ValueError("no saved alert") from None
        self.firing = True


class AlertBook:
    """The alerts of all probes, by their names."""

    def __init__(self, rule: AlertRule) -> None:
        self._rule = rule
        self._states: dict[str, AlertState] = {}

    def observe(self, name: str, *, succeeded: bool, now: float, reason: str = "") -> Notice | None:
        """Note a run of a probe; what is to be told, if anything is."""
        state = self._states.get(name)
        if state is None:
            state = self._states[name] = AlertState(self._rule)
        change = state.observe(succeeded=succeeded, now=now, reason=reason)
        return None if change is None else _notice(name, state, change, now)

    def forget(self, name: str, now: float) -> Notice | None:
        """A probe is no more: an alert of it ends, and nothing of it is kept."""
        state = self._states.pop(name, None)
        if state is None or not state.firing:
            return None
        return _notice(name, state, Change.RESOLVED, now, gone=True)

    def firing(self) -> dict[str, AlertState]:
        """The probes of which somebody was told that they fail."""
        return {name: state for name, state in self._states.items() if state.firing}

    def untold(self, name: str) -> None:
        """Nobody could be told of this alert: it is repeated at the next failure."""
        if name in self._states:
            self._states[name].told_at = -inf

    def restore(self, saved: Mapping[str, Any]) -> None:
        """
        Take up what was told before a restart.

        :param saved: what :meth:`AlertState.told` gave, by the probe's name.
        :raises ValueError: if it is something else.
        """
        restored = {}
        for name, each in saved.items():
            state = restored[name] = AlertState(self._rule)
            state.restore(each)
        self._states.update(restored)


def _notice(
    name: str, state: AlertState, change: Change, now: float, *, gone: bool = False
) -> Notice:
    return Notice(
        change=change,
        name=name,
        since=state.since,
        at=now,
        reason=state.reason,
        flapping=state.flapping,
        gone=gone,
    )
