"""
What a source of admission said lately.

==============  =========  ===============================================================
verdict         fresh for  afterwards, up to :data:`STALE_S`
==============  =========  ===============================================================
allowed         15 s       stands in for an answer while the source cannot be reached
denied          5 s        likewise: a source that vanishes admits nobody it has refused
others          never      are not kept
==============  =========  ===============================================================

Who asks with made-up keys fills the denied half only.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

from derp.core.admission import Answer, Question, Verdict

FRESH_S: Final = {Verdict.ALLOWED: 15.0, Verdict.DENIED: 5.0}
STALE_S: Final = 600.0
CAPACITY: Final = 8192
"""Entries of each verdict; a full half forgets the oldest."""

Entry = tuple[float, Answer]
"""Seconds when it was said, and what."""


class VerdictCache:
    """The latest verdicts of one source by question. Time is the caller's."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._fresh_from = -math.inf
        self._entries: dict[Verdict, OrderedDict[Question, Entry]] = {
            verdict: OrderedDict() for verdict in FRESH_S
        }

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    def remember(self, question: Question, answer: Answer, now: float) -> None:
        """Keep an answer in the place of earlier ones; what is no verdict changes nothing."""
        if answer.verdict not in FRESH_S:
            return
        for entries in self._entries.values():
            entries.pop(question, None)
        entries = self._entries[answer.verdict]
        entries[question] = (now, answer)
        if len(entries) > self._capacity:
            entries.popitem(last=False)

    def expire(self, now: float) -> None:
        """Nothing said up to now is fresh any more: things have changed."""
        self._fresh_from = now

    def fresh(self, question: Question, now: float) -> Answer | None:
        """What may be said without asking."""
        for verdict, life in FRESH_S.items():
            found = self._find(verdict, question, now, life)
            if found is not None and self._entries[verdict][question][0] > self._fresh_from:
                return found
        return None

    def stale(self, question: Question, now: float) -> Answer | None:
        """What may be said if there is no answer to be had."""
        for verdict in FRESH_S:
            found = self._find(verdict, question, now, STALE_S)
            if found is not None:
                return found
        return None

    def _find(self, verdict: Verdict, question: Question, now: float, life: float) -> Answer | None:
        entry = self._entries[verdict].get(question)
        if entry is None:
            return None
        said_at, answer = entry
        # A clock that was set back makes an entry neither older nor younger than it can be.
        return answer if 0 <= now - said_at < life else None
