"""Tests for :mod:`derp.sizes`."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ConfigError
from derp.sizes import MAX_SIZE, format_size, parse_size

GOOD = {
    "0": 0,
    "65536": 65536,
    "500GB": 500 * 10**9,
    "2TiB": 2 << 40,
    "1.5 MB": 1_500_000,
    "10k": 10_000,
    "10kib": 10_240,
    "7B": 7,
    "0.0001kB": 0,
    "18446744073709551615": MAX_SIZE,
}
BAD = ("", "GB", "-1", "1e9", "5 apples", "1.GB", ".5GB", "1GiBB", "٣GB", "5iB", "1,5GB", "inf")


class SizeTests(SynchronousTestCase):
    def test_good(self) -> None:
        """Decimal and binary units, in any case, with fractions."""
        self.assertEqual({text: parse_size(text) for text in GOOD}, GOOD)

    def test_bad(self) -> None:
        """What is no size is refused by name, with the cure."""
        for text in BAD:
            error = self.assertRaises(ConfigError, parse_size, text)
            self.assertIn("write it as 500GB", str(error))

    def test_too_large(self) -> None:
        """More than Go's uint64 is refused."""
        for text in ("18446744073709551616", "99999PB"):
            self.assertIn("too large", str(self.assertRaises(ConfigError, parse_size, text)))

    def test_shown(self) -> None:
        """Sizes are written with the unit that fits, else rounded."""
        shown = [format_size(n) for n in (0, 999, 5000, 65536, 2 << 40, 5 * 10**11, 123_456_789)]
        self.assertEqual(shown, ["0 B", "999 B", "5 kB", "64 KiB", "2 TiB", "500 GB", "123 MB"])

    @given(st.integers(0, MAX_SIZE // 2))
    def test_shown_can_be_read(self, size: int) -> None:
        """What is shown reads back as nearly the same."""
        back = parse_size(format_size(size))
        self.assertLessEqual(abs(back - size), size * 0.01)

    @given(st.text(max_size=20))
    def test_garbage(self, text: str) -> None:
        """Any text is a size or a ConfigError."""
        with contextlib.suppress(ConfigError):
            self.assertGreaterEqual(parse_size(text), 0)
