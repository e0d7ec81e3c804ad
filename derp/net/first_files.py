"""
Files that a relay makes at its first start: its key, the certificate of an address.

They are written last, when everything that can be wrong with a configuration has been looked
for, so that a start that fails has left nothing behind that the next one would find.
"""

from __future__ import annotations

from collections.abc import Callable


class FirstFiles:
    """What is to be written."""

    def __init__(self) -> None:
        self._todo: list[Callable[[], object]] = []
        self._last: list[Callable[[], object]] = []

    def add(self, write: Callable[[], object], *, last: bool = False) -> None:
        """
        Note one file.

        :param write: writes it; may raise :exc:`~derp.errors.ConfigError`.
        :param last: after the others: the file is of use only to a relay that has started.
        """
        (self._last if last else self._todo).append(write)

    def write(self) -> None:
        """
        Write what has been noted, each once.

        :raises ConfigError: if a file cannot be written; those after it are not.
        """
        todo = [*self._todo, *self._last]
        self._todo, self._last = [], []
        for write in todo:
            write()
