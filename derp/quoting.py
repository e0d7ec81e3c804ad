"""How a sentence repeats what somebody else wrote: marked, short, and safe on a terminal."""

from __future__ import annotations

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
