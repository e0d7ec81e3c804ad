"""Tests for :mod:`derp.net.arena`."""

from twisted.trial.unittest import SynchronousTestCase

from derp.net.arena import MAX_HELD, MAX_RECORD, RECV_SIZE, Arena
from derp.wire.frames import HEADER_LEN, MAX_CLIENT_INFO


class ArenaTests(SynchronousTestCase):
    """The rule is checked, and can be restored."""

    def setUp(self) -> None:
        self.arena = Arena()

    def test_clean_at_first(self) -> None:
        """A new arena keeps the rule."""
        self.arena.assert_clean()

    def test_left_behind(self) -> None:
        """A byte in either BIO breaks the rule; the error says how many, and where."""
        self.arena.incoming.write(b"abc")
        error = self.assertRaises(AssertionError, self.arena.assert_clean)
        self.assertIn("3 bytes in, 0 bytes out", str(error))
        self.arena.incoming.read()
        self.arena.outgoing.write(b"x")
        error = self.assertRaises(AssertionError, self.arena.assert_clean)
        self.assertIn("0 bytes in, 1 bytes out", str(error))

    def test_clear(self) -> None:
        """Clearing throws away both directions."""
        self.arena.incoming.write(b"abc")
        self.arena.outgoing.write(b"def")
        self.arena.clear()
        self.arena.assert_clean()
        self.assertEqual(self.arena.incoming.read(), b"")

    def test_room(self) -> None:
        """
        What one turn may decrypt fits behind the longest partial frame: all of a ``recv``, and
        the record OpenSSL may hold from before. Else ``read`` would stop with bytes pending.
        """
        self.assertGreaterEqual(len(self.arena.plain), MAX_HELD + RECV_SIZE + MAX_RECORD)
        self.assertEqual(MAX_HELD, HEADER_LEN + MAX_CLIENT_INFO)
        self.assertEqual(len(self.arena.raw), RECV_SIZE)

    def test_views(self) -> None:
        """The views are of the buffers themselves."""
        self.arena.plain_view[0:2] = b"hi"
        self.arena.raw_view[0:2] = b"ho"
        self.assertEqual((self.arena.plain[:2], self.arena.raw[:2]), (b"hi", b"ho"))
