"""
Amounts of data as operators write them: ``500GB``, ``2TiB``, ``1.5 MB``, ``65536``.

Decimal units (``kB MB GB TB PB``) are powers of 1000, binary ones (``KiB MiB …``) of 1024; case
does not matter, and neither does a missing ``B``. Inside the program a size is an ``int`` of
bytes.
"""

from __future__ import annotations

import re
from typing import Final

from derp.errors import ConfigError
from derp.quoting import quoted

MAX_SIZE: Final = (1 << 64) - 1
"""Go's largest ``uint64``."""

_PREFIXES: Final = "kmgtp"
_UNITS: Final = {
    name: base**power
    for power in (5, 4, 3, 2, 1)
    for name, base in ((f"{'kMGTP'[power - 1]}B", 1000), (f"{'KMGTP'[power - 1]}iB", 1024))
} | {"B": 1}
_SIZE: Final = re.compile(
    r"([0-9]{1,20})(?:\.([0-9]{1,20}))?[ _]?(?:([kmgtp])(i)?)?b?", re.IGNORECASE | re.ASCII
)


def parse_size(text: str) -> int:
    """
    Read an amount of data; a fraction of a byte is cut off.

    :raises ConfigError: if it is none, or more than :data:`MAX_SIZE`.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ConfigError(f"{quoted(text)} is not a size: write it as 500GB, 2TiB or 65536")
    whole, fraction, prefix, binary = match.groups()
    decimals = fraction or ""
    amount, parts = int(whole + decimals), 10 ** len(decimals)
    if prefix:
        amount *= (1024 if binary else 1000) ** (_PREFIXES.index(prefix.lower()) + 1)
    if amount > MAX_SIZE * parts:
        raise ConfigError(f"{quoted(text)} is too large a size")
    return amount // parts


def format_size(size: int) -> str:
    """Write a size for people: in the largest unit that is exact or nearly so (``1.23 GB``)."""
    exact = [
        f"{size // unit} {name}"
        for name, unit in _UNITS.items()
        if size % unit == 0 and 0 < size // unit < 1024
    ]
    if exact:
        return min(exact, key=len)
    for name, unit in _UNITS.items():
        if "i" not in name and size >= unit:
            rounded = f"{size / unit:.2f}" if size < 100 * unit else f"{size / unit:.0f}"
            return f"{rounded.rstrip('0').rstrip('.') if '.' in rounded else rounded} {name}"
    return "0 B"
