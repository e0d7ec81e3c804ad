"""
Durations as Go writes them: ``1h2m3s``, ``15s``, ``500ms``, ``1.5h``, ``-2m``, ``0``.

Every duration an operator gives or reads (flags, files, pages) has this form. Inside the
program a duration is a ``float`` of seconds; the ``_ns`` functions count whole nanoseconds,
as Go does, and lose nothing.

Source: Go ``time.ParseDuration`` and ``time.Duration.String``.
"""

from __future__ import annotations

import re
from typing import Final

from derp.errors import ConfigError
from derp.quoting import quoted

NANOSECONDS: Final[dict[str, int]] = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # micro sign, U+00B5
    "μs": 1_000,  # Greek small letter mu, U+03BC
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
"""Length of each unit."""

MAX_NS: Final = (1 << 63) - 1
"""Longest duration, about 292 years: Go counts in a signed 64-bit integer."""

_MAX_DIGITS: Final = 19
"""More digits than this before the point are beyond :data:`MAX_NS` whatever the unit."""

_PART: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)")
_CURE: Final = "write it as 15s, 2m30s or 500ms"


def parse_duration(text: str) -> float:
    """
    Read a duration.

    :returns: seconds; may be negative.
    :raises ConfigError: if it is not one, or is longer than :data:`MAX_NS`.
    """
    return parse_duration_ns(text) / NANOSECONDS["s"]


def parse_duration_ns(text: str) -> int:
    """
    Read a duration, exactly; what is shorter than a nanosecond is cut off.

    :returns: nanoseconds; may be negative.
    :raises ConfigError: see :func:`parse_duration`.
    """
    negative = text[:1] == "-"
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    if not rest:
        raise ConfigError(f"{quoted(text)} is not a duration: {_CURE}")
    total = 0
    while rest:
        part = _PART.match(rest)
        assert part is not None  # every group may be empty
        total += _part_ns(text, part)
        rest = rest[part.end() :]
    if total > MAX_NS + negative:
        raise ConfigError(f"{quoted(text)} is longer than 292 years, the longest duration")
    return -total if negative else total


def format_duration(seconds: float) -> str:
    """Print seconds as Go would; :func:`parse_duration` reads it back."""
    return format_duration_ns(round(seconds * NANOSECONDS["s"]))


def format_duration_ns(nanoseconds: int) -> str:
    """
    Print a duration as Go would: ``1h0m0s``, ``2m30s``, ``1.5s``, ``15ms``, ``0s``.

    Below one second the largest unit that leaves a whole part is used, without the others.
    """
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if rest == 0:
        return "0s"
    for unit in ("ns", "µs", "ms"):
        if rest < 1_000 * NANOSECONDS[unit]:
            return sign + _decimal(rest, NANOSECONDS[unit]) + unit
    minutes, rest = divmod(rest, NANOSECONDS["m"])
    text = _decimal(rest, NANOSECONDS["s"]) + "s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
    return sign + text


def _part_ns(text: str, part: re.Match[str]) -> int:
    """Length of one number with its unit, such as the ``30s`` of ``2m30s``."""
    whole, fraction, unit = part[1], part[2] or "", part[3]
    if not whole and not fraction:
        raise ConfigError(f"{quoted(text)} is not a duration: {_CURE}")
    if not unit:
        raise ConfigError(f"{quoted(text)} is not a duration, a unit is missing: {_CURE}")
    if unit not in NANOSECONDS:
        units = ", ".join(name for name in NANOSECONDS if name.isascii())
        raise ConfigError(
            f"{quoted(text)} is not a duration, there is no unit {quoted(unit[:8])}: use {units}"
        )
    whole = whole.lstrip("0")
    if len(whole) > _MAX_DIGITS:
        return MAX_NS + 2  # the caller refuses it; int() of endless digits would not end
    fraction = fraction[:_MAX_DIGITS]
    scale = NANOSECONDS[unit]
    below_one = int(fraction or "0") * scale // int(10 ** len(fraction))
    return int(whole or "0") * scale + below_one


def _decimal(value: int, unit: int) -> str:
    """``value / unit`` without trailing zeros; ``unit`` is a power of ten."""
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    return f"{whole}.{str(rest).zfill(len(str(unit)) - 1).rstrip('0')}"
