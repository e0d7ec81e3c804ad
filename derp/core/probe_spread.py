"""
When each probe begins, so that not all of them run at the same moment.

The delay comes from the probe's name alone: a restart changes nothing, and two probers that
watch the same relays keep their distance from each other only if their intervals differ.
"""

from __future__ import annotations

from typing import Final

_OFFSET: Final = 0xCBF29CE484222325
_PRIME: Final = 0x100000001B3
_MASK: Final = (1 << 64) - 1


def fnv1_64(data: bytes) -> int:
    """FNV-1 of 64 bits: multiply first, then xor (FNV-1a does it the other way round)."""
    value = _OFFSET
    for byte in data:
        value = value * _PRIME & _MASK ^ byte
    return value


def initial_delay(name: str, interval: float) -> float:
    """
    Seconds a probe waits before its first run.

    :param interval: seconds, positive.
    :return: at least 0, less than ``interval``.
    """
    value = fnv1_64(name.encode("utf-8"))
    # FNV-1 xors last, so that names with another last letter differ in the lowest bits only;
    # MurmurHash3's last step takes every bit to all the others.
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ value >> 33) * factor & _MASK
    value ^= value >> 33
    return interval * ((value >> 11) / (1 << 53))
