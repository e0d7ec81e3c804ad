"""Command lines and settings in blocks of text: what would be given to which program."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import PurePath
from typing import Final

_OPERATORS: Final = frozenset({"&&", "||", "|", ";", "&", "(", ")", ";;", "|&", "\n"})
_PREFIXES: Final = frozenset({"sudo", "exec", "time", "nohup", "timeout", "env", "!"})
_COMMENT: Final = re.compile(r"(?:(?<=\s)|^)#.*$", re.MULTILINE)
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*=")
_REDIRECTION: Final = re.compile(r"[0-9]*[<>]+&?")


def commands(script: str) -> Iterator[list[str]]:
    """
    The simple commands of a shell script, as words; variables set in front stay in front.

    Knows what documentation uses: no here-documents, no functions.
    """
    text = _COMMENT.sub("", script.replace("\\\n", " "))
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    words: list[str] = []
    for token in [*lexer, ";"]:
        if token in _OPERATORS or not token.strip("\n;&"):
            yield from [words] if words else []
            words = []
        else:
            words.append(token)


def invocation(words: list[str], programs: frozenset[str]) -> tuple[str, list[str]] | None:
    """The program and its flags, if a command runs one of ours."""
    rest = list(words)
    while rest and (_ASSIGNMENT.match(rest[0]) or rest[0] in _PREFIXES):
        rest.pop(0)
    if not rest:
        return None
    name = PurePath(rest.pop(0)).name
    if name == "twistd":
        while rest and rest[0] not in programs:
            rest.pop(0)
        if not rest:
            return None
        name = rest.pop(0)
    return (name, _flags(rest)) if name in programs else None


def _flags(words: list[str]) -> list[str]:
    """Words without redirections and without the dots that stand for more of them."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif _REDIRECTION.fullmatch(word):
            skip = True
        elif not _REDIRECTION.match(word) and word not in ("...", "…"):
            kept.append(word)
    return kept


def variables(text: str) -> Iterator[tuple[str, str]]:
    """What a command or a compose file sets: ``-e NAME=value``, ``NAME=value``, ``NAME: value``."""
    line = re.compile(r"(?:^\s*-?\s*|-e\s+|--env\s+)([A-Z][A-Z0-9_]+)(?:=|:\s+)(.*)$")
    pair = re.compile(r"(?:^|\s)(?:-e\s+|--env\s+)?\"?([A-Z][A-Z0-9_]+)=(\S*)")
    for each in text.split("\n"):
        found = pair.findall(each.strip()) or line.findall(each)
        for name, value in found:
            yield name, value.strip().strip("\"'")
