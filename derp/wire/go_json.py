"""
Read JSON as Go's ``encoding/json`` reads it into a struct.

What differs from a plain :func:`json.loads`: member names match in any case, ``null`` leaves a
field at its default, unknown members are ignored, the types are strict (``2.0`` is no integer,
integers have 64 bits), ``NaN`` is no number, broken text becomes U+FFFD. Of members of the
same name the last one counts. The nesting allowed is Python's (about 1000 levels; Go: 10000).
"""

from __future__ import annotations

import json
from typing import Any, Final

from derp.errors import ProtocolError

Fields = dict[str, Any]
"""The members of an object by lower-cased name."""

_INT64: Final = 1 << 63
_TYPE_NAMES: Final = {int: "integer", str: "string", bool: "boolean", float: "number"}


def parse_object(data: bytes | str, what: str) -> Fields:
    """
    Read one JSON object; ``null`` is an empty one.

    :param what: what the JSON is, for errors ("the box").
    :raises ProtocolError: if it is anything else.
    """

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    try:
        value = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"{what} holds no JSON") from error
    return fields_of(value, what)


def fields_of(value: Any, what: str) -> Fields:
    """
    Take a decoded value for an object.

    :raises ProtocolError: if it is neither an object nor ``null``.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ProtocolError(f"{what} holds no JSON object")
    return {name.lower(): item for name, item in value.items()}


def field(fields: Fields, name: str, default: Any, what: str) -> Any:
    """
    Get one field, of the type of its default.

    :param name: in lower case.
    :param default: for absent and ``null``; an ``int``, ``float``, ``bool`` or ``str``.
    :raises ProtocolError: if the value is of another type.
    """
    value = fields.get(name)
    if value is None:
        return default
    kind = type(default)
    if kind is float and type(value) is int:
        value = _float(value)
    if type(value) is not kind or (isinstance(value, int) and not -_INT64 <= value < _INT64):
        raise ProtocolError(f"{name!r} of {what} is no {_TYPE_NAMES[kind]}")
    if isinstance(value, str):
        # Lone surrogates can be escaped in JSON but never printed.
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value


def _float(value: int) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None
