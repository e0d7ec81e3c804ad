"""
The upgrade request as stock clients write it, to the byte.

Go's ``http.Request.Write`` has one form for it: Host and User-Agent first, then the other header
lines by name. Only that form is recognised, in one regular expression without alternatives that
could be read in two ways; it is a closed list, not a parser of HTTP. Whatever deviates by a byte
(another order, a line more, a folded or doubled one) is ``None`` here and goes to the HTTP server,
which alone decides about it. For what is recognised both must come to the same: a test has the
server judge it, too.

Source: Go ``net/http`` ``Request.write``, ``derphttp`` ``Client.connect``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_REQUEST: Final = re.compile(
    rb"GET /derp HTTP/1\.1\r\n"
    rb"Host: [A-Za-z0-9.:\[\]_-]{1,261}\r\n"
    rb"(?:User-Agent: [!-~](?:[ -~]{0,254}[!-~])?\r\n)?"
    rb"Connection: Upgrade\r\n"
    rb"(Derp-Fast-Start: 1\r\n)?"
    rb"(Ideal-Node: [!-~]{1,255}\r\n)?"
    rb"Upgrade: DERP\r\n"
    rb"\r\n"
)


@dataclass(frozen=True, slots=True)
class StockUpgrade:
    """What such a request says."""

    size: int
    """Bytes of it; what stands behind them is DERP."""
    fast_start: bool
    ideal_node: bool
    """Whether the client would rather have another node of the region."""


def recognise_upgrade(data: bytes | bytearray) -> StockUpgrade | None:
    """
    Recognise a stock client's request at the beginning of what it has sent.

    :return: ``None`` if it is anything else, or not all there.
    """
    found = _REQUEST.match(data)
    if found is None:
        return None
    return StockUpgrade(found.end(), found[1] is not None, found[2] is not None)
