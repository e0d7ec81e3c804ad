"""Tests for :mod:`derp.quoting`."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.quoting import MAX_QUOTED, nearest, quoted


class QuotedTests(SynchronousTestCase):
    """:func:`derp.quoting.quoted`."""

    def test_plain(self) -> None:
        """Ordinary text, of any script, is repeated as it is."""
        self.assertEqual(quoted("15s"), '"15s"')
        self.assertEqual(quoted(""), '""')
        self.assertEqual(quoted("\u4e2d\u7ee7"), '"\u4e2d\u7ee7"')

    def test_long(self) -> None:
        """Of long text the beginning is repeated."""
        self.assertEqual(quoted("x" * MAX_QUOTED), '"' + "x" * MAX_QUOTED + '"')
        self.assertEqual(quoted("x" * 9999), '"' + "x" * (MAX_QUOTED - 3) + '..."')

    def test_control(self) -> None:
        """What moves a cursor or ends a line is escaped."""
        self.assertEqual(quoted("a\nb\x1b[2J\u202e"), r"'a\nb\x1b[2J\u202e'")

    @given(st.text(max_size=200))
    def test_anything(self, text: str) -> None:
        """The result is one printable line of bounded length."""
        self.assertTrue(quoted(text).isprintable())
        self.assertLessEqual(len(quoted(text)), 10 * MAX_QUOTED + 2)


class NearestTests(SynchronousTestCase):
    """:func:`derp.quoting.nearest`."""

    def test_nearest(self) -> None:
        """The likest of all, or nothing; how like it must be can be said."""
        known = ("hostname", "home", "http-port")
        self.assertEqual(nearest("hostnam", known), "hostname")
        self.assertEqual(nearest("xyz", known), "")
        self.assertEqual(nearest("host", known), "hostname")
        self.assertEqual(nearest("host", known, 0.8), "")
