"""
What README and documentation tell people to type: that it works, and that it can be told.

How a block of commands is marked is in :mod:`tests.docs.pages`.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from derp.config_file import ACTIONS
from derp.environment_flags import VARIABLES, read_environment
from derp.flags import FLAGS
from derp.goflag import FlagError, parse_flags
from tests.docs.invocations import commands, invocation, variables
from tests.docs.names import PROGRAM_FLAGS, SETTINGS, TAKE_WORDS
from tests.docs.pages import ROOT, Block, all_pages, blocks
from tests.docs.place import Place
from tests.integration.proxy_child import missing

PAGES = all_pages()
SAME_AS_README = "README.zh.rst"
"""Has the same blocks, which a test sees to; once is enough."""
HINT = (
    "put a comment above it: '.. run:', '.. run: a relay', '.. run: beside a relay' or "
    "'.. outside: <what of the world it needs>' (tests/docs/pages.py)"
)


def all_blocks() -> list[Block]:
    """Every block of every page."""
    return [block for page in PAGES for block in blocks(page)]


class MarkTests(SynchronousTestCase):
    """Every command has a mark that says what becomes of it."""

    def test_shell_blocks_are_marked(self) -> None:
        """What may be pasted into a terminal is run, or says why it is not."""
        bare = [each.where for each in all_blocks() if each.is_shell and not each.mark]
        self.assertEqual(bare, [], HINT)

    def test_outside_says_why(self) -> None:
        """A mark that takes a block out of the tests has a reason."""
        mute = [each.where for each in all_blocks() if each.mark == "outside" and not each.argument]
        self.assertEqual(mute, [])

    def test_marks_are_used(self) -> None:
        """No mark stands where no block follows it."""
        for page in PAGES:
            if page.suffix == ".md":
                continue
            text = page.read_text(encoding="utf-8")
            written = len(re.findall(r"^ *\.\. (?:run|outside|ci|file):", text, re.MULTILINE))
            read = sum(bool(each.mark) for each in blocks(page))
            self.assertEqual(written, read, page.name)

    def test_something_is_run(self) -> None:
        """The reader of pages finds commands at all."""
        kinds = [each.argument for each in all_blocks() if each.mark == "run"]
        self.assertGreater(len(kinds), 10)
        self.assertIn("a relay", kinds)
        self.assertIn("beside a relay", kinds)


class WordTests(SynchronousTestCase):
    """No command names a flag or a variable that does not exist."""

    def test_flags_parse(self) -> None:
        """Each of our programs takes the flags it is given."""
        programs = frozenset(name for name in PROGRAM_FLAGS if " " not in name)
        count = 0
        for block in all_blocks():
            if not block.is_shell:
                continue
            for words in commands(block.text):
                found = invocation(words, programs)
                if found is None:
                    continue
                name, argv = found
                count += 1
                where = f"{block.where}: {name} {' '.join(argv)}"
                self.assertEqual(_complaint(name, argv), "", where)
        self.assertGreater(count, 10)

    def test_variables_exist(self) -> None:
        """Each variable of ours that is set is one, and its value fits."""
        count = 0
        for block in all_blocks():
            if block.language not in ("yaml", "shell", "ini"):
                continue
            for name, value in variables(block.text):
                if name.startswith(("DERP_", "TS_", "TAILSCALE_")):
                    self.assertIn(name, SETTINGS, block.where)
                if name in VARIABLES and "<" not in value:
                    read_environment({name: value}, "machine")
                    count += 1
        self.assertGreater(count, 5)

    def test_settings_files(self) -> None:
        """Each TOML block has flags by name and nothing else."""
        known = {flag.name for flag in FLAGS} - ACTIONS
        count = 0
        for block in all_blocks():
            if block.language == "toml":
                self.assertLessEqual(set(tomllib.loads(block.text)), known, block.where)
                count += 1
        self.assertGreater(count, 0)


def _complaint(program: str, argv: list[str]) -> str:
    if argv and f"{program} {argv[0]}" in PROGRAM_FLAGS:
        program = f"{program} {argv.pop(0)}"
    elif argv[:1] == ["health"]:
        return ""  # takes what a relay takes, and its own tests know the rest
    try:
        parse_flags(PROGRAM_FLAGS[program], argv, takes_words=program in TAKE_WORDS)
    except FlagError as error:
        return str(error)
    return ""


class RunTests(SynchronousTestCase):
    """The commands of each page do what they are marked for."""

    def run_page(self, page: Path) -> None:
        """Run its blocks in their order, in one directory."""
        ours = [each for each in blocks(page) if each.mark in ("run", "file")]
        lacking = missing("curl", "curl")
        if lacking and any(re.search(r"\bcurl\b", each.text) for each in ours):
            raise SkipTest(lacking)
        place = Place()
        self.addCleanup(place.leave)
        for block in ours:
            if block.mark == "file":
                place.write(block)
            else:
                self.assertEqual(place.run(block), "", f"{block.where}:\n{block.text}")


def _test_of(page: Path) -> object:
    def test(self: RunTests) -> None:
        self.run_page(page)

    test.__doc__ = f"{page.relative_to(ROOT)} can be followed as it is written."
    return test


for _page in PAGES:
    if _page.name != SAME_AS_README and any(each.mark == "run" for each in blocks(_page)):
        _name = re.sub(r"\W", "_", _page.stem.lower())
        setattr(RunTests, f"test_{_name}", _test_of(_page))
