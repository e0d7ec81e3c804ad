"""
How a sentence repeats what somebody else wrote: marked, short, and safe on a terminal; and what
was probably meant by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

MAX_QUOTED: Final = 240
"""Characters of a foreign text that a sentence repeats at most; most paths are shorter."""


def quoted(text: str) -> str:
    """
    Put text into quotation marks.

    Its beginning only, if it is long; with escapes, if it holds what a terminal would obey or
    a log would take for the end of the line.
    """
    shown = text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 3] + "..."
    return f'"{shown}"' if shown.isprintable() else ascii(shown)


def nearest(word: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """What was probably meant by a word that is unknown; empty if nothing is like it."""
    from difflib import get_close_matches  # for those alone who err

    return next(iter(get_close_matches(word, known, n=1, cutoff=likeness)), "")
