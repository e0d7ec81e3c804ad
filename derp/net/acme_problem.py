"""What goes wrong with a certificate authority, in the authority's own words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from derp.errors import DERPError

_PREFIX: Final = "urn:ietf:params:acme:error:"
_MOST_SHOWN: Final = 400
MOST_TEXT: Final = 1200
"""Characters of an error; parts of it are the authority's words."""
_MOST_SUBPROBLEMS: Final = 3


class ACMEError(DERPError):
    """
    An authority refused, failed, or does not speak ACME.

    :ivar kind: error type without its prefix, for instance ``badNonce``; empty if the authority
        named none.
    :ivar retry_after: seconds it asks to wait, 0 if it does not.
    """

    def __init__(self, text: str, *, kind: str = "", retry_after: float = 0.0) -> None:
        super().__init__(printable(text, MOST_TEXT))
        self.kind = kind
        self.retry_after = retry_after


def printable(text: str, most: int = _MOST_SHOWN) -> str:
    """Make a stranger's text fit for a log: one line, bounded."""
    text = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def describe_problem(document: Any) -> str:
    """Say what a problem document (RFC 7807) says, with its subproblems."""
    if not isinstance(document, Mapping):
        return "no reason given"
    kind = str(document.get("type", "")).removeprefix(_PREFIX)
    parts = [f"{kind}: {document.get('detail', 'no detail')}" if kind else str(document)]
    subproblems = document.get("subproblems")
    for each in (subproblems if isinstance(subproblems, list) else [])[:_MOST_SUBPROBLEMS]:
        if isinstance(each, Mapping):
            identifier = each.get("identifier")
            name = identifier.get("value", "") if isinstance(identifier, Mapping) else ""
            parts.append(f"{name}: {each.get('detail', '')}")
    return printable("; ".join(parts))


def problem_of(status: int, content_type: str, body: bytes, url: str) -> ACMEError:
    """Make the error of an answer that is no success."""
    if "json" in content_type:
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        if isinstance(document, Mapping):
            kind = str(document.get("type", "")).removeprefix(_PREFIX)
            text = f"the certificate authority answers {status} to {url}: "
            return ACMEError(text + describe_problem(document), kind=kind)
    start = printable(body[:200].decode("utf-8", "replace"), 80)
    return ACMEError(
        f"{url} answers {status} with {content_type or 'no content type'} ({start!r}), "
        "not as an ACME server does; check --acme-directory"
    )
