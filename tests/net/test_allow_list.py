"""Tests of :mod:`derp.net.allow_list`."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.admission import AdmissionStats, Question, Verdict
from derp.errors import ConfigError
from derp.net import allow_list
from derp.net.allow_list import AllowList, parse_allow_list
from derp.wire.keys import format_node_public

ONE = bytes([1]) * 32
TWO = bytes([2]) * 32
TEXT = f"""\ufeff# friends

{format_node_public(ONE)}
  {format_node_public(TWO).upper().replace("NODEKEY", "nodekey")}\t# Grüße
"""


class ParseTests(SynchronousTestCase):
    """:func:`derp.net.allow_list.parse_allow_list`."""

    def test_keys(self) -> None:
        """Comments, blanks and either case of the digits."""
        self.assertEqual(parse_allow_list("/f", TEXT.removeprefix("\ufeff")), {ONE, TWO})
        self.assertEqual(parse_allow_list("/f", "\r\n# nobody\r\n"), frozenset())

    def test_bad_line(self) -> None:
        """The number of the line is told, and what stands there."""
        for word in (ONE.hex(), "nodekey:12", "nodekey:" + "0" * 64, "privkey:" + ONE.hex()):
            text = f"# x\n\n{word} # y\n"
            error = self.assertRaises(ConfigError, parse_allow_list, "/f", text)
            self.assertIn(f'--allow-clients: "/f" line 3: "{word}" is no node key', str(error))

    @given(st.text())
    def test_anything(self, text: str) -> None:
        """Garbage raises nothing but the operator's error, in one printable line."""
        try:
            keys = parse_allow_list("/f", text)
        except ConfigError as error:
            self.assertTrue(str(error).isprintable())
        else:
            self.assertTrue(all(len(key) == 32 for key in keys))


class AllowListTests(SynchronousTestCase):
    """:class:`derp.net.allow_list.AllowList`."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_text(TEXT, encoding="utf-8")
        self.stats = AdmissionStats()
        self.list = AllowList(str(self.path), self.stats)

    def verdict(self, key: bytes) -> Verdict:
        answer = self.successResultOf(self.list.ask(Question(key, "")))
        return answer.verdict

    def test_ask(self) -> None:
        """Who is in the file is allowed; others are told where they are missing."""
        self.assertIs(self.verdict(ONE), Verdict.ALLOWED)
        answer = self.successResultOf(self.list.ask(Question(bytes([3]) * 32, "")))
        self.assertIs(answer.verdict, Verdict.DENIED)
        self.assertIn(f"is not in {self.path} (--allow-clients)", answer.reason)
        self.assertEqual(sum(self.stats.answers.values()), 2)

    def test_reload(self) -> None:
        """A file takes the old one's place as a whole, or not at all."""
        self.path.write_text(f"{format_node_public(TWO)}\nrubbish\n")
        self.assertRaises(ConfigError, self.list.load)
        self.assertIs(self.verdict(ONE), Verdict.ALLOWED)
        self.path.write_text(f"{format_node_public(TWO)}\n")
        self.list.load()
        self.assertIs(self.verdict(ONE), Verdict.DENIED)
        self.assertIs(self.verdict(TWO), Verdict.ALLOWED)

    def test_unusable(self) -> None:
        """A file that is not there, or is no list, stops the start."""
        missing = str(self.path) + "x"
        error = self.assertRaises(ConfigError, AllowList, missing, self.stats)
        self.assertIn(f'--allow-clients: cannot read "{missing}" (No such file', str(error))
        self.patch(allow_list, "MAX_FILE_LEN", 100)
        error = self.assertRaises(ConfigError, AllowList, str(self.path), self.stats)
        self.assertIn("is longer than", str(error))
