"""Tests of :mod:`derp.wire.disco`."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.wire.disco import DISCO_MAGIC, looks_like_disco


class DiscoTests(SynchronousTestCase):
    """The prefix that gives a packet its own queue and its sender a PeerGone."""

    def test_shortest(self) -> None:
        """Magic, key and nonce make 62 bytes; with one less it is no disco."""
        self.assertEqual(DISCO_MAGIC.hex(), "5453f09f92ac")
        self.assertTrue(looks_like_disco(DISCO_MAGIC + bytes(56)))
        self.assertFalse(looks_like_disco(DISCO_MAGIC + bytes(55)))

    def test_magic(self) -> None:
        """Each byte of the magic counts."""
        packet = DISCO_MAGIC + bytes(60)
        for index in range(6):
            other = bytearray(packet)
            other[index] ^= 1
            self.assertFalse(looks_like_disco(other), index)

    @given(st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(DISCO_MAGIC.__add__)))
    def test_any_view(self, packet: bytes) -> None:
        """Bytes, bytearrays and views get the same answer, whatever the packet."""
        wanted = packet.startswith(DISCO_MAGIC) and len(packet) >= 62
        for view in (packet, bytearray(packet), memoryview(packet)):
            self.assertEqual(looks_like_disco(view), wanted)
