"""
What is wrong with a line of a request's head, in the words of Go's ``http.Server``.

Judged line by line, before twisted.web reads it: that would answer without a word of text. Only
what a line says by itself is judged here; lengths that contradict each other, for instance, are
not.

============================================  ==============================================
line                                          answer
============================================  ==============================================
request line that is none                     400
version other than 1.0 and 1.1                505, "unsupported protocol version"
header line without a colon, or with          400
control characters
header name that is none                      400, "invalid header name"
Content-Length that is no number              400
Transfer-Encoding other than ``chunked``      501
============================================  ==============================================

Source: Go ``net/http`` ``readRequest``, ``readTransfer``, ``conn.serve``. One deviation:
``HTTP/1.2`` and later are 505 here, while Go takes them for 1.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST: Final = re.compile(_TOKEN + rb" [!-~]+ HTTP/(\d\.\d)")
_NAME: Final = re.compile(_TOKEN)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BLANKS: Final = b" \t"


@dataclass(frozen=True, slots=True)
class HeadFault:
    """A line that cannot be taken."""

    status: int
    detail: str = ""
    """What the status does not say by its name."""


_MALFORMED: Final = HeadFault(400)
_VERSION: Final = HeadFault(505, "unsupported protocol version")
_HEADER_NAME: Final = HeadFault(400, "invalid header name")
_ENCODING: Final = HeadFault(501)


def find_request_line_fault(line: bytes) -> HeadFault | None:
    """Judge the first line, without its end."""
    found = _REQUEST.fullmatch(line)
    if found is None:
        return _MALFORMED
    return None if found[1] in (b"1.0", b"1.1") else _VERSION


def find_header_line_fault(line: bytes) -> HeadFault | None:
    """Judge a header line, without its end; it is no continuation of another."""
    name, colon, value = line.partition(b":")
    if not colon or _CONTROL.search(line):
        return _MALFORMED
    if not _NAME.fullmatch(name):
        return _HEADER_NAME
    name, value = name.lower(), value.strip(_BLANKS)
    if name == b"content-length" and not value.isdigit():
        return _MALFORMED
    if name == b"transfer-encoding" and value.lower() != b"chunked":
        return _ENCODING
    return None
