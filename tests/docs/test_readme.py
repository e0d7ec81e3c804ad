"""The README, its Chinese sister, and the links in them."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from derp.environment_flags import DOMAIN_FAMILY, PLAIN_FAMILY
from derp.flags import FLAGS
from tests.docs.pages import ROOT, blocks

README = ROOT / "README.rst"
CHINESE = ROOT / "README.zh.rst"
MOST_LINES = 240

_LINK = re.compile(r"`[^`<]+<([^>`]+)>`_|\]\(([^)]+)\)")


def links(page: Path) -> list[str]:
    """Where the links of a page lead that stay in the repository."""
    text = re.sub(r"``.+?``", "", page.read_text(encoding="utf-8"))
    found = (one or other for one, other in _LINK.findall(text))
    return [each for each in found if "://" not in each and not each.startswith("#")]


class ReadmeTests(SynchronousTestCase):
    """Both say the same, shortly."""

    def test_same_blocks(self) -> None:
        """Whoever reads Chinese types the same commands, and they are marked the same."""
        of = {
            page: [(each.language, each.mark, each.argument, each.text) for each in blocks(page)]
            for page in (README, CHINESE)
        }
        self.assertEqual(of[README], of[CHINESE])
        self.assertGreater(len(of[README]), 5)

    def test_same_links(self) -> None:
        """And finds the same pages."""
        own = {"README.rst", "README.zh.rst"}
        of = [[each for each in links(page) if each not in own] for page in (README, CHINESE)]
        self.assertEqual(of[0], of[1])

    def test_same_words_of_the_relay(self) -> None:
        """Every flag, file and program in one is in the other."""
        of = [
            set(re.findall(r"``([^`]+)``", page.read_text(encoding="utf-8")))
            for page in (README, CHINESE)
        ]
        self.assertEqual(of[0], of[1])

    def test_variables(self) -> None:
        """The images' variables stand beside their flags, each family in its column."""
        spellings = {flag.spelling: flag.name for flag in FLAGS}
        for page in (README, CHINESE):
            found: list[dict[str, str]] = [{}, {}]
            for line in page.read_text(encoding="utf-8").splitlines():
                head, *columns = re.split(" {2,}", line)
                flag = spellings.get(head.strip("`"))
                if flag and len(columns) == 2:
                    for family, cell in zip(found, columns, strict=True):
                        family |= dict.fromkeys(re.findall("``([A-Z_]+)``", cell), flag)
            self.assertEqual(found, [DOMAIN_FAMILY, PLAIN_FAMILY], page.name)

    def test_short(self) -> None:
        """What is looked up is in the pages, not here."""
        self.assertLess(len(README.read_text(encoding="utf-8").splitlines()), MOST_LINES)


class LinkTests(SynchronousTestCase):
    """Links that stay in the repository lead somewhere (Sphinx sees to those between pages)."""

    def test_files_exist(self) -> None:
        """From every page beside the code."""
        pages = [*ROOT.glob("*.rst"), *ROOT.glob("*.md")]
        count = 0
        for page in pages:
            for link in links(page):
                path = page.parent / link.partition("#")[0]
                self.assertTrue(path.exists(), f"{page.name}: {link}")
                count += 1
        self.assertGreater(count, 30)
