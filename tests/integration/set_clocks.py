"""
A child whose clocks a test sets: what time it is there, and how much of it has passed.

Its wall clock goes as ours does, and is set. The clock that nobody can set stands still until the
test lets time pass, so that no deadline there is a matter of how busy this machine is.
:meth:`SetClocks.flow` lets it go as ours does.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Final

from tests.integration.child import ROOT

VARIABLE: Final = "TEST_CLOCKS"
BOOTED_S: Final = 5.0
"""How long ago the machine of a child has booted: not long."""
_PATCH: Final = f"""
import json, os, time


def clocks(path=os.environ["{VARIABLE}"]):
    with open(path) as file:
        return json.load(file)


def patch():
    real_time, real_gmtime, real_monotonic = time.time, time.gmtime, time.monotonic

    def monotonic():
        now = clocks()
        flown = 0.0 if now["flows_since"] is None else real_monotonic() - now["flows_since"]
        return now["elapsed"] + flown

    time.time = lambda: real_time() + clocks()["wall"]
    time.monotonic = monotonic
    time.gmtime = lambda seconds=None: real_gmtime(time.time() if seconds is None else seconds)


patch()
"""
"""Python imports it as ``sitecustomize`` before anything else could keep the real functions."""


class SetClocks:
    """
    The clocks of one child.

    :param directory: a place for files of its own; it is made.
    """

    def __init__(self, directory: str) -> None:
        place = Path(directory).absolute()
        place.mkdir(parents=True)
        (place / "sitecustomize.py").write_text(_PATCH, encoding="utf-8")
        self.environ = {"PYTHONPATH": f"{place}:{ROOT}", VARIABLE: str(place / "clocks.json")}
        self._wall = 0.0
        self._elapsed = BOOTED_S
        self._flows_since: float | None = None
        self._write()

    @property
    def wall_ahead(self) -> float:
        """By how many seconds its wall clock is ahead of ours."""
        return self._wall

    def set_wall_by(self, seconds: float) -> None:
        """Set the wall clock, as ``date -s`` does; forward, or back."""
        self._wall += seconds
        self._write()

    def pass_by(self, seconds: float) -> None:
        """Let time pass, by either clock. It is noticed by whoever looks next."""
        self._wall += seconds
        self._elapsed += seconds
        self._write()

    def flow(self) -> None:
        """Let time pass by itself from now on."""
        self._flows_since = time.monotonic()
        self._write()

    def _write(self) -> None:
        clocks = {
            "wall": self._wall,
            "elapsed": self._elapsed,
            "flows_since": self._flows_since,
        }
        path = Path(self.environ[VARIABLE])
        spare = path.with_suffix(".new")
        spare.write_text(json.dumps(clocks), encoding="ascii")
        os.rename(spare, path)
