"""
How much has passed in which calendar month, and whether that is more than is allowed.

Months are those of UTC, written ``2026-11``. The clock is not believed blindly:

==========================  ===============================================================
it is set forward           the months counted so far are kept
it is set back              what was counted for later months counts for the month it is now
it was never set            (before 2025: no battery, no network yet) the last month goes on
==========================  ===============================================================

So nothing is ever forgotten by a step, and nobody gets a second month's worth for good.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

EARLIEST: Final = "2025-01"
"""A clock that shows an earlier month is not set."""
KEPT: Final = 24
"""Months remembered."""

MONTH: Final = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])", re.ASCII)


class MonthlyQuota:
    """
    The books of one relay.

    :param months: bytes by month, from the last run.
    :param month: the month it is.
    :param limit: bytes per month; 0 is none.
    """

    def __init__(self, months: Mapping[str, int], month: str, limit: int) -> None:
        self.limit = limit
        self.months = dict(months)
        self._seen = 0
        self._month = max(months) if months and month < EARLIEST else month
        self.turn(month)

    @property
    def month(self) -> str:
        """The month that is counted for."""
        return self._month

    @property
    def used(self) -> int:
        """Bytes counted in it."""
        return self.months.get(self._month, 0)

    @property
    def exhausted(self) -> bool:
        """Whether nothing more may pass."""
        return bool(self.limit) and self.used >= self.limit

    def note(self, total: int, month: str) -> None:
        """
        Enter what has passed.

        :param total: bytes since the start of the process; never less than the last time.
        """
        self.turn(month)
        self.months[self._month] = self.used + max(0, total - self._seen)
        self._seen = total

    def join(self, before: Mapping[str, int], after: Mapping[str, int]) -> None:
        """
        Enter what somebody else has counted for the same relay: another process, while one
        takes the other's place.

        :param before: bytes by month when the two last agreed.
        :param after: what the other one has made of them.
        """
        for month, used in after.items():
            more = used - before.get(month, 0)
            if more > 0:
                self.months[month] = self.months.get(month, 0) + more

    def turn(self, month: str) -> None:
        """The clock shows this month."""
        if month >= EARLIEST:
            self._month = month
            wrong = [name for name in self.months if name > month or name < EARLIEST]
            if wrong:
                self.months[month] = self.used + sum(self.months.pop(name) for name in wrong)
        for name in sorted(self.months)[:-KEPT]:
            del self.months[name]


def month_of(year: int, month: int) -> str:
    """Write a month."""
    return f"{year:04d}-{month:02d}"


def first_of_next(month: str) -> str:
    """The day the next month begins: ``2026-12-01``."""
    year, number = int(month[:4]), int(month[5:])
    year, number = (year + 1, 1) if number == 12 else (year, number + 1)
    return f"{year:04d}-{number:02d}-01"
