"""
DER, the little of it that is needed to read a certificate without a library (ITU-T X.690).

An element is ``tag u8 | length | contents``. A length below 128 is one byte; a longer one is
``0x80 + n`` and ``n`` bytes, big-endian.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
VERSION: Final = 0xA0
"""Tag of the explicit version that a certificate of today begins with."""

_YEAR_DIGITS: Final = {UTC_TIME: 2, GENERALIZED_TIME: 4}


class Element(NamedTuple):
    """Where the contents of one element are."""

    tag: int
    start: int
    end: int


class Fields(NamedTuple):
    """The first fields of a certificate's signed part (RFC 5280 section 4.1)."""

    serial: Element
    algorithm: Element
    issuer: Element
    validity: Element
    subject: Element


def read_element(der: bytes, at: int, limit: int) -> Element:
    """
    Read tag and length at an offset.

    :raises ValueError: if the element passes ``limit``.
    :raises IndexError: if its head passes the end.
    """
    tag, length, start = der[at], der[at + 1], at + 2
    if length >= 0x80:
        size = length & 0x7F
        length = int.from_bytes(der[start : start + size], "big")
        start += size
    if start + length > limit:
        raise ValueError("a DER element is longer than what holds it")
    return Element(tag, start, start + length)


def read_elements(der: bytes, at: int, limit: int) -> Iterator[Element]:
    """
    Read the elements that stand one behind the other.

    :raises ValueError: see :func:`read_element`; likewise ``IndexError``.
    """
    while at < limit:
        element = read_element(der, at, limit)
        yield element
        at = element.end


def certificate_fields(der: bytes) -> Fields:
    """
    Find the fields of a certificate.

    :raises ValueError: if it is none.
    """
    try:
        whole = read_element(der, 0, len(der))
        signed = read_element(der, whole.start, whole.end)
        found = list(read_elements(der, signed.start, signed.end))
        if found and found[0].tag == VERSION:
            del found[0]
        serial, algorithm, issuer, validity, subject = found[:5]
    except IndexError as error:
        raise ValueError("no certificate: cut off") from error
    return Fields(serial, algorithm, issuer, validity, subject)


def read_validity(der: bytes) -> tuple[int, int]:
    """
    Read from when to when a certificate is valid, as Unix times in seconds.

    :raises ValueError: if it cannot be read.
    """
    validity = certificate_fields(der).validity
    try:
        begins, ends = read_elements(der, validity.start, validity.end)
    except IndexError as error:
        raise ValueError("a validity without two times") from error
    return _time(der, begins), _time(der, ends)


def _time(der: bytes, element: Element) -> int:
    """Read ``YYMMDDHHMMSSZ``, or the same with a year of four digits."""
    text = der[element.start : element.end].decode("ascii")
    digits = _YEAR_DIGITS.get(element.tag, -1)
    if len(text) != digits + 11 or text[-1] != "Z" or not text[:-1].isdigit():
        raise ValueError(f"tag 0x{element.tag:02x} holds no time")
    year = int(text[:digits])
    if element.tag == UTC_TIME:
        year += 2000 if year < 50 else 1900  # RFC 5280 section 4.1.2.5.1
    month, day, hour, minute, second = (
        int(text[at : at + 2]) for at in range(digits, digits + 10, 2)
    )
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())
