"""
The buffers that all connections share, and the rule that keeps them apart.

An idle connection owns no buffer. While one is served, its ciphertext passes through one
incoming and one outgoing memory BIO and its plaintext through one large buffer, and all three
belong to whoever's turn it is. OpenSSL keeps the partial record of each connection in memory
of its own, so:

**Both BIOs are empty when a connection's turn ends.** A byte left behind would be read by, or
sent to, somebody else. :meth:`Arena.assert_clean` says so after every turn of a connection;
after an error :meth:`Arena.clear` makes it so.
"""

from __future__ import annotations

from ssl import MemoryBIO

from derp.wire.frames import HEADER_LEN, MAX_CLIENT_INFO

RECV_SIZE = 64 << 10
"""Bytes taken from a socket per turn. More falls out of the cache and costs time."""
SMALL_SIZE = 6 << 10
"""
The same for one that has far more to send, while others wait for their turn. At half load 6 KiB
double what the others wait at most (p99); 16 KiB make it three times as much.
"""
MAX_RECORD = 16 << 10
"""Longest plaintext of a TLS record: what OpenSSL may still hold from earlier reads."""
MAX_HELD = HEADER_LEN + MAX_CLIENT_INFO
"""Longest frame a session waits to complete: what may stand before the new bytes."""


class Arena:
    """
    One relay's shared buffers.

    ``plain`` has room for a held partial frame, everything one ``recv`` can decrypt to, and
    one more record.
    """

    def __init__(self) -> None:
        self.raw = bytearray(RECV_SIZE)
        self.raw_view = memoryview(self.raw)
        self.quantum = RECV_SIZE
        """Bytes that may be taken from a socket now."""
        self.room = self.raw_view
        """Where they go: the first :attr:`quantum` bytes of ``raw``."""
        self.plain = bytearray(MAX_HELD + RECV_SIZE + 2 * MAX_RECORD)
        self.plain_view = memoryview(self.plain)
        self.incoming = MemoryBIO()
        self.outgoing = MemoryBIO()

    def allow(self, size: int) -> None:
        """Set :attr:`quantum`."""
        self.quantum = size
        self.room = self.raw_view[:size]

    def assert_clean(self) -> None:
        """Check the rule: nothing of the last connection is left."""
        if self.incoming.pending or self.outgoing.pending:
            raise AssertionError(
                f"{self.incoming.pending} bytes in, {self.outgoing.pending} bytes out"
                " left behind by a connection"
            )

    def clear(self) -> None:
        """Throw away whatever a failed connection left."""
        self.incoming.read()
        self.outgoing.read()
