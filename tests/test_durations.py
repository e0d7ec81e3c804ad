"""Tests for :mod:`derp.durations`; the texts were tried on the reference server's own flags."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.durations import (
    MAX_NS,
    NANOSECONDS,
    format_duration,
    format_duration_ns,
    parse_duration,
    parse_duration_ns,
)
from derp.errors import ConfigError

READ = {
    "0": 0,
    "-0": 0,
    "+0": 0,
    "0s": 0,
    "1ns": 1,
    "1us": 1_000,
    "1\u00b5s": 1_000,
    "1\u03bcs": 1_000,
    "500ms": 500_000_000,
    "15s": 15_000_000_000,
    "-15s": -15_000_000_000,
    "+15s": 15_000_000_000,
    "2m30s": 150_000_000_000,
    "1h2m3s": 3_723_000_000_000,
    "30s2m": 150_000_000_000,
    "1.5h": 5_400_000_000_000,
    ".5s": 500_000_000,
    "5.s": 5_000_000_000,
    "0.0000000019s": 1,
    "00000000000000000000000001s": 1_000_000_000,
    "9223372036854775807ns": MAX_NS,
    "-9223372036854775808ns": -MAX_NS - 1,
    "2562047h47m16.854775807s": MAX_NS,
}
REFUSED = [
    "",
    "-",
    "+",
    "15",
    "-15",
    "00",
    ".s",
    ".",
    "s",
    "1d",
    "1S",
    "1h30",
    "1h-1m",
    "--1s",
    " 1s",
    "1s ",
    "1 s",
    "1,5s",
    "1e3s",
    "0x1s",
    "\u0663s",
    "forever",
    "9223372036854775808ns",
    "2562047h47m16.854775808s",
    "3000000h",
    "9" * 5000 + "s",
]
PRINTED = {
    0: "0s",
    1: "1ns",
    1_100: "1.1\u00b5s",
    2_200_000: "2.2ms",
    500_000_000: "500ms",
    999_999_999: "999.999999ms",
    1_000_000_000: "1s",
    1_500_000_000: "1.5s",
    3_300_000_001: "3.300000001s",
    60_000_000_000: "1m0s",
    600_000_000_000: "10m0s",
    3_600_000_000_000: "1h0m0s",
    3_723_004_000_000: "1h2m3.004s",
    -90_000_000_000: "-1m30s",
    MAX_NS: "2562047h47m16.854775807s",
}


class ParseDurationTests(SynchronousTestCase):
    """:func:`derp.durations.parse_duration` reads what Go reads."""

    def test_read(self) -> None:
        """Every form of Go's grammar has Go's value."""
        self.assertEqual({text: parse_duration_ns(text) for text in READ}, READ)

    def test_seconds(self) -> None:
        """The value the program works with is in seconds."""
        self.assertEqual(parse_duration("2m30s"), 150.0)
        self.assertEqual(parse_duration("-500ms"), -0.5)

    def test_refused(self) -> None:
        """What Go refuses is the operator's error, and the sentence repeats the value."""
        for text in REFUSED:
            with self.subTest(text=text):
                error = self.assertRaises(ConfigError, parse_duration_ns, text)
                self.assertIn(f'"{text[:40]}', str(error))

    def test_long_value_is_cut_in_the_sentence(self) -> None:
        """A value of any length makes a sentence that fits on a screen."""
        error = self.assertRaises(ConfigError, parse_duration_ns, "1" * 100_000)
        self.assertLess(len(str(error)), 400)

    @given(st.text(max_size=30) | st.text("0123456789.hmsun-+ \u00b5\u03bc", max_size=20))
    def test_anything(self, text: str) -> None:
        """No text at all raises anything else."""
        try:
            value = parse_duration_ns(text)
        except ConfigError as error:
            self.assertTrue(str(error).isprintable(), str(error))
            return
        self.assertLessEqual(abs(value), MAX_NS + 1)

    @given(st.lists(st.tuples(st.integers(0, 10**5), st.sampled_from(sorted(NANOSECONDS)))))
    def test_sum(self, parts: list[tuple[int, str]]) -> None:
        """Parts add up, whatever their order and however often a unit comes."""
        text = "".join(f"{number}{unit}" for number, unit in parts) or "0"
        total = sum(number * NANOSECONDS[unit] for number, unit in parts)
        self.assertEqual(parse_duration_ns(text), total)


class FormatDurationTests(SynchronousTestCase):
    """:func:`derp.durations.format_duration` prints as Go prints."""

    def test_printed(self) -> None:
        """Known values have Go's text."""
        self.assertEqual({value: format_duration_ns(value) for value in PRINTED}, PRINTED)

    def test_seconds(self) -> None:
        """Seconds are rounded to nanoseconds, so that float noise stays out of the text."""
        self.assertEqual(format_duration(0.1 + 0.2), "300ms")
        self.assertEqual(format_duration(-600.0), "-10m0s")

    @given(st.integers(-MAX_NS - 1, MAX_NS))
    def test_round_trip(self, value: int) -> None:
        """What is printed is read back as the same nanoseconds."""
        self.assertEqual(parse_duration_ns(format_duration_ns(value)), value)
