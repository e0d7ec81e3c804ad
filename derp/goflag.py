"""
Command lines as Go programs read them.

::

    -x value   --x value   -x=value   --x=value      one dash or two, no abbreviations
    -b   -b=false   --b=true                          booleans take a value only after "="
    --                                                nothing is a flag behind this

Booleans are ``1 0 t f T F true false TRUE FALSE True False``; integers and floats are Go
literals (``0x1f``, ``1_000``, ``+Inf``); durations are those of :mod:`derp.durations`. A flag
given twice has its last value; one of :attr:`Kind.STRINGS` has them all.

One thing is not as in Go: a word that is no flag is refused, where Go would ignore it and
everything behind it. ``-stun false`` there leaves STUN on and forgets the rest of the line.

Source: Go ``flag``, ``strconv``.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from derp.durations import format_duration, parse_duration
from derp.errors import ConfigError
from derp.quoting import nearest, quoted

Value = bool | int | float | str | tuple[str, ...]
"""What a flag can hold; a duration is a ``float`` of seconds."""


class FlagError(ConfigError):
    """The command line itself is wrong: an unknown flag, a bad value, a stray word."""


class Kind(StrEnum):
    """Type of a flag's value; the text is what help shows."""

    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    STRING = "string"
    DURATION = "duration"
    STRINGS = "string, repeatable"


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag a program knows."""

    name: str
    """Without dashes."""
    kind: Kind
    default: Value
    help: str
    default_text: str = ""
    """Said in help instead of ``default``, where that is found out at the start."""

    @property
    def spelling(self) -> str:
        """How errors and help write it: ``-a``, ``--hostname``."""
        return f"-{self.name}" if len(self.name) == 1 else f"--{self.name}"


@dataclass(slots=True)
class Parsed:
    """What a command line said."""

    given: dict[str, Value] = field(default_factory=dict)
    """Name to value, only of the flags that were there."""
    help: bool = False
    """``-h``, ``-help`` or ``--help`` was met; what is behind it was not read."""
    words: tuple[str, ...] = ()
    """What stood behind the flags, where a program takes such words."""


class FlagValues:
    """Values by name and type: what was given, else the default."""

    def __init__(self, flags: Iterable[Flag], given: Mapping[str, Value]) -> None:
        self._given = given
        self._flags = {flag.name: flag for flag in flags}

    def given(self, name: str) -> bool:
        """Whether the flag was on the command line."""
        return name in self._given

    def is_default(self, name: str) -> bool:
        """Whether the flag has its default, given or not."""
        return self._of(name) == self._flags[name].default

    def text(self, name: str) -> str:
        """Value of a string flag."""
        return str(self._of(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """Values of a repeatable flag in their order; empty ones are left out."""
        value = self._of(name)
        assert isinstance(value, tuple)
        return tuple(filter(None, value))

    def bool(self, name: str) -> bool:
        """Value of a boolean flag."""
        return bool(self._of(name))

    def int(self, name: str) -> int:
        """Value of an integer flag."""
        value = self._of(name)
        assert isinstance(value, int)
        return value

    def float(self, name: str) -> float:
        """Value of a float flag, or a duration in seconds."""
        value = self._of(name)
        assert isinstance(value, float)
        return value

    def _of(self, name: str) -> Value:
        return self._given.get(name, self._flags[name].default)


def parse_flags(flags: Iterable[Flag], argv: Sequence[str], *, takes_words: bool = False) -> Parsed:
    """
    Read a command line.

    :param argv: its words, without the program's name.
    :param takes_words: whether flags end at the first word that is none, which is no error then.
    :raises FlagError: at the first word that is wrong.
    """
    known = {flag.name: flag for flag in flags}
    parsed = Parsed()
    words = list(argv)
    previous: Flag | None = None
    while words:
        word = words.pop(0)
        if word == "--":
            previous = None
            break
        if len(word) < 2 or word[0] != "-":
            words.insert(0, word)
            break
        name, equals, text = _split(word)
        previous = known.get(name)
        if previous is None:
            if name in ("h", "help"):
                parsed.help = True
                return parsed
            raise _unknown(word, name, known)
        if not equals:
            text = _value_of(previous, words)
        value = parse_value(previous, text)
        before = parsed.given.get(name)
        if isinstance(before, tuple) and isinstance(value, tuple):
            value = (*before, *value)
        parsed.given[name] = value
    if takes_words:
        parsed.words = tuple(words)
    elif words:
        raise _stray(words[0], previous)
    return parsed


def parse_value(flag: Flag, text: str) -> Value:
    """
    Read the value of one flag.

    :raises FlagError: if it does not fit; the sentence names the flag and the value.
    """
    try:
        return _READERS[flag.kind](text)
    except ConfigError as error:
        raise FlagError(f"{flag.spelling}: {error}") from None


def parse_bool(text: str) -> bool:
    """
    Read a boolean, see Go ``strconv.ParseBool``.

    :raises ConfigError: if it is none of the twelve words.
    """
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ConfigError(f"{quoted(text)} is neither true nor false")


def parse_int(text: str) -> int:
    """
    Read an integer of 64 bits, see Go ``strconv.ParseInt`` with base 0.

    :raises ConfigError: if it is none.
    """
    match = _INT.fullmatch(text)
    digits = match["digits"] if match else ""
    if match and len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567_":
        digits = "0o" + digits[1:]  # Go, like C, takes a leading zero for octal
    try:
        value = int(digits[:80], 0)  # 64 binary digits and their underscores; more is too large
    except ValueError:
        raise ConfigError(f"{quoted(text)} is not a whole number") from None
    if match and match["sign"] == "-":
        value = -value
    if len(digits) > 80 or not -(1 << 63) <= value < 1 << 63:
        raise ConfigError(f"{quoted(text)} is too large a number")
    return value


def parse_float(text: str) -> float:
    """
    Read a number, see Go ``strconv.ParseFloat``; ``Inf`` is one, ``NaN`` (unlike in Go) is not.

    :raises ConfigError: if it is none.
    """
    if _INFINITY.fullmatch(text):
        return -math.inf if text[0] == "-" else math.inf
    plain = _UNDERSCORE.sub("", text)
    try:
        if _DECIMAL.fullmatch(plain):
            value = float(plain)
        elif _HEXADECIMAL.fullmatch(plain):
            value = float.fromhex(plain)
        else:
            raise ConfigError(f"{quoted(text)} is not a number")
    except OverflowError:
        value = math.inf
    if math.isinf(value):
        raise ConfigError(f"{quoted(text)} is too large a number")
    return value


def format_flag(flag: Flag, width: int = 80) -> str:
    """Describe a flag for ``--help``: its spelling, then indented text with the default."""
    head = f"  {flag.spelling}"
    if flag.kind is not Kind.BOOL:
        head += f" {flag.kind}"
    default = flag.default_text or _default_text(flag)
    text = f"{flag.help} (default {default})" if default else flag.help
    indent = " " * 8
    body = textwrap.fill(
        text,
        max(width, 40),
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )
    return f"{head}\n{body}\n"


def format_groups(groups: Iterable[tuple[str, Iterable[Flag]]], width: int = 80) -> str:
    """Describe all flags of a program: how they are written, then each under its heading."""
    head = (
        "Flags take one dash or two, and their value as --flag value or --flag=value;\n"
        "booleans as --flag or --flag=false. Durations are written 15s, 2m30s, 500ms.\n"
    )
    described = (
        f"\n{title}:\n" + "".join(format_flag(flag, width) for flag in flags)
        for title, flags in groups
    )
    return head + "".join(described)


_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_INT: Final = re.compile(r"(?P<sign>[+-]?)(?P<digits>[0-9][0-9A-Za-z_]*)")
_INFINITY: Final = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_UNDERSCORE: Final = re.compile(r"(?<=[0-9A-Fa-fxX])_(?=[0-9A-Fa-f])")
_DECIMAL: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_HEXADECIMAL: Final = re.compile(
    r"[+-]?0[xX]([0-9A-Fa-f]+\.?[0-9A-Fa-f]*|\.[0-9A-Fa-f]+)[pP][+-]?[0-9]{1,6}"
)

_READERS: Final[dict[Kind, Callable[[str], Value]]] = {
    Kind.BOOL: parse_bool,
    Kind.INT: parse_int,
    Kind.FLOAT: parse_float,
    Kind.STRING: str,
    Kind.DURATION: parse_duration,
    Kind.STRINGS: lambda text: (text,),
}


def _split(word: str) -> tuple[str, str, str]:
    """Take ``--name=value`` apart into name, ``=`` or nothing, and value."""
    body = word[2:] if word[1] == "-" else word[1:]
    if not body or body[0] in "-=":
        raise FlagError(f"{quoted(word)} is not a flag: write --name or --name=value")
    return body.partition("=")


def _value_of(flag: Flag, words: list[str]) -> str:
    """The value of a flag that came without ``=``; takes it from ``words``."""
    if flag.kind is Kind.BOOL:
        return "true"
    if not words:
        raise FlagError(f"{flag.spelling} needs a value ({flag.kind}) behind it")
    return words.pop(0)


def _unknown(word: str, name: str, known: dict[str, Flag]) -> FlagError:
    near = nearest(name, known)
    hint = f": did you mean {known[near].spelling}?" if near else ""
    dashes = word[: word.index(name)]
    return FlagError(f"there is no flag {quoted(dashes + name)}{hint}")


def _stray(word: str, previous: Flag | None) -> FlagError:
    """Say why a word that is no flag stops us, and what was probably meant."""
    if previous is not None and previous.kind is Kind.BOOL:
        meant = word if word in _TRUE | _FALSE else "false"
        cure = f'a boolean takes its value after "=": write {previous.spelling}={meant}'
    else:
        cure = "every word must belong to a flag: write --flag value or --flag=value"
    return FlagError(f"{quoted(word)} is not a flag and does not belong to one: {cure}")


def _default_text(flag: Flag) -> str:
    """The default as one would type it; nothing for what is empty or off."""
    if flag.default is False or flag.default in ("", ()):
        return ""
    if isinstance(flag.default, float) and flag.kind is Kind.DURATION:
        return format_duration(flag.default)
    return "true" if flag.default is True else str(flag.default)
