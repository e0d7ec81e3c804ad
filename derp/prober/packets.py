"""
A payload as packets: bytes that nobody can know before, of which each packet is its own.

Packets are made when they are asked for, so that a payload of any size takes no more memory
than one packet.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from secrets import token_bytes
from typing import Final, overload

PACKET_LEN: Final = 65536
"""Longest packet a relay takes (Go ``derp.MaxPacketSize``)."""
_NUMBER_LEN: Final = 8


class Packets(Sequence[bytes]):
    """
    The packets of one payload.

    All have the same random tail; what tells them apart is their number in front of it, least
    significant byte first, so that even a last packet of one byte has some of it.

    :param size: bytes of the payload.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"a payload has at least one byte, not {size}")
        self.size = size
        self._start = int.from_bytes(token_bytes(_NUMBER_LEN), "little")
        self._tail = token_bytes(min(size, PACKET_LEN))[_NUMBER_LEN:]

    def __len__(self) -> int:
        return -(-self.size // PACKET_LEN)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        length = min(PACKET_LEN, self.size - number * PACKET_LEN)
        marked = (self._start + number) % (1 << 8 * _NUMBER_LEN)
        return (marked.to_bytes(_NUMBER_LEN, "little") + self._tail)[:length]


def packets_for_size(size: int) -> Packets:
    """Split a payload: a short one is new each time, one of several packets is used again."""
    return Packets(size) if size <= PACKET_LEN else _long(size)


@lru_cache(maxsize=1)
def _long(size: int) -> Packets:
    return Packets(size)
