"""Tests for :mod:`derp.goflag`; the table was tried on the reference server itself."""

import math

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ConfigError
from derp.goflag import (
    Flag,
    FlagError,
    FlagValues,
    Kind,
    Value,
    format_flag,
    parse_bool,
    parse_flags,
    parse_float,
    parse_int,
)

FLAGS = (
    Flag("a", Kind.STRING, ":443", "Address."),
    Flag("stun", Kind.BOOL, True, "STUN."),
    Flag("dev", Kind.BOOL, False, "Try."),
    Flag("http-port", Kind.INT, 80, "Port."),
    Flag("limit", Kind.FLOAT, math.inf, "Limit.", "+Inf"),
    Flag("timeout", Kind.DURATION, 15.0, "Timeout."),
    Flag("hostname", Kind.STRING, "", "Name."),
    Flag("socket", Kind.STRINGS, (), "Socket."),
)

READ: dict[tuple[str, ...], dict[str, Value]] = {
    (): {},
    ("-a", ":80"): {"a": ":80"},
    ("--a", ":80"): {"a": ":80"},
    ("-a=:80",): {"a": ":80"},
    ("--a=:80",): {"a": ":80"},
    ("--hostname=",): {"hostname": ""},
    ("--hostname", ""): {"hostname": ""},
    ("--hostname=a=b",): {"hostname": "a=b"},
    ("--hostname", "-dev"): {"hostname": "-dev"},
    ("--hostname", "--"): {"hostname": "--"},
    ("-stun",): {"stun": True},
    ("-stun=false",): {"stun": False},
    ("--stun=0", "--dev=T"): {"stun": False, "dev": True},
    ("--http-port", "-1"): {"http-port": -1},
    ("--http-port=0x1F90",): {"http-port": 8080},
    ("--http-port=1", "--http-port=2"): {"http-port": 2},
    ("--timeout", "1m30s"): {"timeout": 90.0},
    ("--timeout=0",): {"timeout": 0.0},
    ("--limit", "+Inf"): {"limit": math.inf},
    ("--limit=1e3",): {"limit": 1000.0},
    ("-dev", "--"): {"dev": True},
    ("--socket", "a", "-dev", "--socket=b", "-socket", "a"): {
        "socket": ("a", "b", "a"),
        "dev": True,
    },
    ("--socket=",): {"socket": ("",)},
}
REFUSED: dict[tuple[str, ...], str] = {
    ("--nothing",): 'there is no flag "--nothing"',
    ("-nothing=1",): 'there is no flag "-nothing"',
    ("--host", "x"): "did you mean --hostname?",
    ("--http_port", "80"): "did you mean --http-port?",
    ("--hostnam", "x"): "did you mean --hostname?",
    ("---dev",): '"---dev" is not a flag',
    ("-=x",): '"-=x" is not a flag',
    ("--=x",): '"--=x" is not a flag',
    ("--hostname",): "--hostname needs a value (string)",
    ("-a",): "-a needs a value",
    ("--stun=yes",): '--stun: "yes" is neither true nor false',
    ("--stun=",): '--stun: "" is neither true nor false',
    ("--http-port", "eighty"): '--http-port: "eighty" is not a whole number',
    ("--http-port=99999999999999999999",): "too large",
    ("--timeout=15",): '--timeout: "15" is not a duration, a unit is missing',
    ("--limit=lots",): '--limit: "lots" is not a number',
    ("--stun", "false"): "write --stun=false",
    ("-dev", "no"): "write --dev=false",
    ("extra",): '"extra" is not a flag',
    ("-",): '"-" is not a flag',
    ("",): '"" is not a flag',
    ("--", "--dev"): '"--dev" is not a flag and does not belong to one',
    ("-dev", "extra", "--nothing"): '"extra"',
    ("-dev", "--", "false"): "every word must belong to a flag",
}


class ParseFlagsTests(SynchronousTestCase):
    """:func:`derp.goflag.parse_flags` reads command lines as Go does, but ignores nothing."""

    def test_read(self) -> None:
        """Each way to write a flag, alone and with others."""
        for argv, given_flags in READ.items():
            with self.subTest(argv=argv):
                self.assertEqual(parse_flags(FLAGS, argv).given, given_flags)

    def test_refused(self) -> None:
        """The sentence says which word, and how to write it."""
        for argv, sentence in REFUSED.items():
            with self.subTest(argv=argv):
                error = self.assertRaises(FlagError, parse_flags, FLAGS, argv)
                self.assertIn(sentence, str(error))

    def test_help(self) -> None:
        """Help ends the reading, so that it works on a line that is wrong behind it."""
        for word in ("-h", "--h", "-help", "--help"):
            with self.subTest(word=word):
                self.assertTrue(parse_flags(FLAGS, ["-dev", word, "--nothing"]).help)
        self.assertFalse(parse_flags(FLAGS, ["--hostname", "-h"]).help)

    def test_words(self) -> None:
        """Where words are taken, the first one ends the flags, as in Go."""
        for argv, words in (
            (["-a", "2", "host", "-dev", "--"], ("host", "-dev", "--")),
            (["-a=2", "--", "-dev"], ("-dev",)),
            (["-a=2", "-"], ("-",)),
            (["-a=2"], ()),
        ):
            parsed = parse_flags(FLAGS, argv, takes_words=True)
            self.assertEqual((parsed.given, parsed.words), ({"a": "2"}, words))

    def test_words_are_not_consumed(self) -> None:
        """The caller's list stays as it was."""
        argv = ["-a", ":80", "-dev"]
        parse_flags(FLAGS, argv)
        self.assertEqual(argv, ["-a", ":80", "-dev"])

    @given(st.lists(st.text(max_size=12) | st.sampled_from([f"--{f.name}" for f in FLAGS])))
    def test_anything(self, argv: list[str]) -> None:
        """No command line raises anything else, and its sentence is one line of text."""
        try:
            parse_flags(FLAGS, argv)
        except FlagError as error:
            self.assertTrue(str(error).isprintable(), str(error))


class ParseValueTests(SynchronousTestCase):
    """Single values are Go literals."""

    def test_bool(self) -> None:
        """Twelve words and no others."""
        for text in ("1", "t", "T", "true", "TRUE", "True"):
            self.assertIs(parse_bool(text), True)
        for text in ("0", "f", "F", "false", "FALSE", "False"):
            self.assertIs(parse_bool(text), False)
        for text in ("", "yes", "on", "tRUE", "2", " true"):
            with self.subTest(text=text):
                self.assertRaises(ConfigError, parse_bool, text)

    def test_int(self) -> None:
        """All bases, underscores between digits, 64 bits."""
        table = {
            "0": 0,
            "-0": 0,
            "+5": 5,
            "-1": -1,
            "017": 15,
            "0_17": 15,
            "0o17": 15,
            "0X1F": 31,
            "0x_1f": 31,
            "0b11": 3,
            "1_000": 1000,
            "0b" + "1" * 63: (1 << 63) - 1,
            "9223372036854775807": (1 << 63) - 1,
            "-9223372036854775808": -(1 << 63),
        }
        self.assertEqual({text: parse_int(text) for text in table}, table)

    def test_int_refused(self) -> None:
        """Neither blanks, nor floats, nor digits of other scripts, nor more than 64 bits."""
        for text in (
            *("", "-", "08", "1__0", "_1", "1_", "0_", "0x", "0xg", "1e3", "1.0", " 5", "5 "),
            *("\u0663", "--5", "9223372036854775808", "-9223372036854775809", "9" * 100_000),
        ):
            with self.subTest(text=text[:30]):
                self.assertRaises(ConfigError, parse_int, text)

    def test_float(self) -> None:
        """Decimal and hexadecimal, infinity in any case."""
        table = {
            "5": 5.0,
            "5.": 5.0,
            ".5": 0.5,
            "-3": -3.0,
            "+1e3": 1000.0,
            "1_0.5e3": 10500.0,
            "0x1p-2": 0.25,
            "inf": math.inf,
            "+Inf": math.inf,
            "-Infinity": -math.inf,
        }
        self.assertEqual({text: parse_float(text) for text in table}, table)

    def test_float_refused(self) -> None:
        """Not a number is none; what overflows is told from infinity that was asked for."""
        for text in (
            *("", ".", "1e", "0x1", "nan", "1__0", "_1", "1_.5", " 5", "\u0663", "1e999"),
            *("0x1p99999", "infinit", "5s"),
        ):
            with self.subTest(text=text):
                self.assertRaises(ConfigError, parse_float, text)

    @given(st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from(["d", "#x", "#o", "#b"]))
    def test_int_round_trip(self, value: int, base: str) -> None:
        """Every number in every base is read back."""
        self.assertEqual(parse_int(format(value, base)), value)

    @given(st.floats(allow_nan=False))
    def test_float_round_trip(self, value: float) -> None:
        """Every number is read back, in both notations."""
        self.assertEqual(parse_float(repr(value)), value)
        if math.isfinite(value):
            self.assertEqual(parse_float(value.hex()), value)

    @given(st.text(max_size=30) | st.text("0123456789.eExXpPbo_+-inf", max_size=20))
    def test_anything(self, text: str) -> None:
        """No text raises anything else."""
        for parse in (parse_int, parse_float, parse_bool):
            try:
                parse(text)
            except ConfigError:
                continue


class FlagValuesTests(SynchronousTestCase):
    """:class:`derp.goflag.FlagValues` joins what was given with the defaults."""

    def test_default(self) -> None:
        """A flag that was not given has its default and says so."""
        values = FlagValues(FLAGS, {"http-port": 81, "a": ":443"})
        self.assertEqual(values.text("a"), ":443")
        self.assertEqual(values.int("http-port"), 81)
        self.assertEqual(values.float("timeout"), 15.0)
        self.assertIs(values.bool("stun"), True)
        self.assertTrue(values.given("a") and values.is_default("a"))
        self.assertFalse(values.given("stun") or values.is_default("http-port"))

    def test_repeatable(self) -> None:
        """Several values, and an empty one is none, as an empty string is elsewhere."""
        self.assertEqual(FlagValues(FLAGS, {}).texts("socket"), ())
        self.assertEqual(FlagValues(FLAGS, {"socket": ("a", "", "b")}).texts("socket"), ("a", "b"))


class FormatFlagTests(SynchronousTestCase):
    """:func:`derp.goflag.format_flag` writes one entry of the help."""

    def test_entry(self) -> None:
        """Kind and default are told where there is something to tell."""
        self.assertEqual(
            [format_flag(flag) for flag in FLAGS],
            [
                "  -a string\n        Address. (default :443)\n",
                "  --stun\n        STUN. (default true)\n",
                "  --dev\n        Try.\n",
                "  --http-port int\n        Port. (default 80)\n",
                "  --limit float\n        Limit. (default +Inf)\n",
                "  --timeout duration\n        Timeout. (default 15s)\n",
                "  --hostname string\n        Name.\n",
                "  --socket string, repeatable\n        Socket.\n",
            ],
        )

    def test_width(self) -> None:
        """Long help is wrapped."""
        text = format_flag(Flag("x", Kind.STRING, "", "word " * 40), 60)
        self.assertTrue(all(len(line) <= 60 for line in text.splitlines()))
