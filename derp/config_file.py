"""
Settings from a file: ``--config``, TOML with flags by name.

::

    hostname = "derp.example.com"
    stun-port = 3478
    verify-clients = true
    tcp-user-timeout = "15s"                        # durations as on the command line
    verify-client-url = ["https://a.example/verify", "https://b.example/verify"]

What the command line says takes the place of what the file says; a flag that may be given
several times has either the file's values or the command line's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from derp.errors import ConfigError
from derp.flags import FLAGS
from derp.goflag import Flag, FlagError, Kind, Value, parse_value
from derp.quoting import nearest, quoted

FLAG: Final = "config"
"""The flag's name."""

ACTIONS: Final = frozenset({FLAG, "version", "check-config"})
"""Flags that are no settings: what to do this once."""

MAX_SIZE: Final = 1 << 20
"""Bytes; our own bound."""

_CURES: Final[dict[Kind, str]] = {
    Kind.BOOL: "write true or false, without quotation marks",
    Kind.INT: "write a whole number, without quotation marks",
    Kind.FLOAT: "write a number, without quotation marks",
    Kind.STRING: 'write a "text" in quotation marks',
    Kind.DURATION: 'write a duration in quotation marks, such as "15s"',
    Kind.STRINGS: 'write a "text" in quotation marks, or a list of such: ["one", "two"]',
}


def with_config_file(given: Mapping[str, Value]) -> dict[str, Value]:
    """
    Put the values of ``--config``, if that is among the given ones, beneath them.

    :raises ConfigError: if the file cannot be read or holds something wrong.
    """
    path = given.get(FLAG)
    below = read_config_file(str(path)) if path else {}
    return {**below, **given}


def read_config_file(path: str) -> dict[str, Value]:
    """
    Read the values of flags, by name.

    :raises ConfigError: if the file cannot be read or holds something wrong.
    """
    known = {flag.name: flag for flag in FLAGS if flag.name not in ACTIONS}
    try:
        return {name: _value(known, name, value) for name, value in _load(path).items()}
    except ConfigError as error:
        raise ConfigError(f"--config: {_inline(path)}: {error}") from None


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_SIZE + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read it: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > MAX_SIZE:
        raise ConfigError(f"it is longer than {MAX_SIZE >> 20} MiB, as no such file is")
    import tomllib  # most relays have flags or variables, and no file

    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise ConfigError("it is not TOML: not even UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"it is not TOML: {_inline(str(error))}") from None


def _inline(text: str) -> str:
    """Somebody else's text, safe within a sentence."""
    return text if text.isprintable() else quoted(text)


def _unknown(name: str, known: Mapping[str, Flag]) -> str:
    if name in ACTIONS:
        return f"{name} is for the command line only: take it out"
    near = nearest(name.replace("_", "-"), known)
    hint = f"did you mean {near}?" if near else "--help lists the flags"
    return f"there is no flag {quoted(name)}: {hint}"


def _value(known: Mapping[str, Flag], name: str, value: object) -> Value:
    """The value of one flag, in the type of its kind."""
    flag = known.get(name)
    if flag is None:
        raise ConfigError(_unknown(name, known))
    kind = flag.kind
    if kind is Kind.BOOL and isinstance(value, bool):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and (kind is Kind.FLOAT or (kind is Kind.INT and isinstance(value, int))):
        return _parsed(flag, str(value)[:100])
    if isinstance(value, str) and kind in (Kind.STRING, Kind.DURATION, Kind.STRINGS):
        return _parsed(flag, value)
    if kind is Kind.STRINGS and isinstance(value, list):
        texts = tuple(each for each in value if isinstance(each, str))
        if len(texts) == len(value):
            return texts
    raise ConfigError(f"{flag.name} has a value of a wrong type: {_CURES[kind]}")


def _parsed(flag: Flag, text: str) -> Value:
    """As on the command line, but the sentence has the name as the file has it."""
    try:
        return parse_value(flag, text)
    except FlagError as error:
        raise ConfigError(f"{flag.name}{str(error).removeprefix(flag.spelling)}") from None
