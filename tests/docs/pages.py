"""
The pages of the documentation, and the blocks in them.

A block of shell commands has a mark, a comment right above it:

``.. run:``
    Its commands are run, one after the other, and succeed.
``.. run: ends with 1``
    The same, but this is the exit code.
``.. run: a relay``
    Its last command is a relay (or derpprobe): it gets ready, and ends in order when told to.
``.. run: beside a relay``
    Its commands are run while there is one on this machine.
``.. outside: why``
    It is not run: it needs the outside world, and this is what of it.
``.. ci: name``
    ``.ci/run`` runs it.

``.. file: /path`` above a block of any other language makes that file for the blocks behind it.
All blocks of a page share a directory; see :mod:`tests.docs.place`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
SHELLS: Final = frozenset({"shell", "sh", "bash", "console"})

_MARK: Final = re.compile(r"\.\. (run|outside|ci|file):(.*)")
_BLOCK: Final = re.compile(r"( *)\.\. code-block::\s*(\S*)")
_LITERAL: Final = re.compile(r"( *)(?!\.\. )\S.*::|( *)::")
_PROGRAMS: Final = re.compile(
    r"\s*(\S*/)?(sudo|twistd|derper|derpprobe|stunc|curl|docker|openssl|pip|python3?|systemctl)\s"
)


@dataclass(frozen=True)
class Block:
    """One literal block."""

    page: Path
    line: int
    language: str
    """Empty for one behind ``::``."""
    text: str
    mark: str
    """``run``, ``outside``, ``ci``, ``file``, or empty for none."""
    argument: str

    @property
    def is_shell(self) -> bool:
        """Whether somebody may paste it into a terminal."""
        return self.language in SHELLS or (not self.language and bool(_PROGRAMS.match(self.text)))

    @property
    def where(self) -> str:
        """For failures."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def all_pages() -> list[Path]:
    """README and documentation, as they are read."""
    top = ("README.rst", "README.zh.rst", "CONTRIBUTING.rst", "CHANGELOG.rst", "SECURITY.md")
    found = [ROOT / name for name in top if (ROOT / name).exists()]
    return [*found, ROOT / "bench" / "README.rst", *sorted((ROOT / "docs").glob("*.rst"))]


def blocks(page: Path) -> Iterator[Block]:
    """Every literal block of a page."""
    if page.suffix == ".md":
        yield from _fenced(page)
        return
    lines = page.read_text(encoding="utf-8").split("\n")
    mark, argument, at = "", "", 0
    while at < len(lines):
        line = lines[at]
        if found := _MARK.fullmatch(line.strip()):
            mark, argument = found[1], found[2].strip()
            while at + 1 < len(lines) and lines[at + 1].strip() and lines[at + 1][0] == " ":
                at += 1
                argument = f"{argument} {lines[at].strip()}".strip()
        elif found := _BLOCK.match(line) or _LITERAL.fullmatch(line):
            indent = len(line) - len(line.lstrip())
            language = found[2] if line.lstrip().startswith(".. code-block") else ""
            text, end = _indented(lines, at + 1, indent)
            yield Block(page, at + 1, language or "", text, mark, argument)
            mark, argument, at = "", "", end - 1
        elif line.strip():
            mark, argument = "", ""
        at += 1


def _indented(lines: list[str], start: int, indent: int) -> tuple[str, int]:
    """The lines from ``start`` that are deeper than ``indent``, and where they end."""
    end = start
    while end < len(lines) and (
        not lines[end].strip() or len(lines[end]) - len(lines[end].lstrip()) > indent
    ):
        end += 1
    body = lines[start:end]
    while body and (not body[0].strip() or re.match(r" +:\w[\w-]*:", body[0])):
        body = body[1:]
    margins = [len(line) - len(line.lstrip()) for line in body if line.strip()]
    margin = min(margins, default=0)
    return "\n".join(line[margin:] for line in body).rstrip() + "\n", end


def _fenced(page: Path) -> Iterator[Block]:
    """The blocks of a Markdown page; a mark is ``<!-- run: -->``."""
    text = page.read_text(encoding="utf-8")
    fences = re.compile(r"(?:<!-- (\w+):(.*?)-->\n+)?```(\w*)\n(.*?)```", re.DOTALL)
    for found in fences.finditer(text):
        line = text.count("\n", 0, found.start(3)) + 1
        mark, argument, language, body = found.groups(default="")
        yield Block(page, line, language, body, mark, argument.strip())
