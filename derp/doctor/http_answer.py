"""The head of an HTTP/1 answer, and what it tells of who is between us and the relay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_HEAD: Final = 16384
"""Bytes; no honest answer has a longer head."""
_BLANK_LINE: Final = b"\r\n\r\n"
_SHOWN: Final = 80

_TELLING: Final = (
    "server",
    "via",
    "x-powered-by",
    "x-served-by",
    "x-varnish",
    "x-envoy-upstream-service-time",
    "x-amzn-trace-id",
    "x-amz-cf-id",
    "x-azure-ref",
    "fly-request-id",
    "x-cache",
    "cf-ray",
)
"""Headers that no relay sends, and that proxies and their networks do."""
_NAMES: Final = {
    "cf-ray": "Cloudflare",
    "x-amz-cf-id": "Amazon CloudFront",
    "x-amzn-trace-id": "an Amazon load balancer",
    "x-azure-ref": "Azure Front Door",
    "x-envoy-upstream-service-time": "Envoy",
    "x-varnish": "Varnish",
    "fly-request-id": "Fly.io",
}


@dataclass(frozen=True, slots=True)
class HTTPAnswer:
    """One answer, as far as it has come."""

    status: int
    reason: str
    headers: Sequence[tuple[str, str]]
    """Names in lower case."""
    rest: bytes
    """What stands behind the head."""

    def header(self, name: str) -> str:
        """The first value of a header, by its name in lower case; empty if there is none."""
        return next((value for key, value in self.headers if key == name), "")

    @property
    def words(self) -> str:
        """Status and reason, for people."""
        return f"HTTP {self.status} {self.reason}".rstrip()


def parse_answer(received: bytes) -> HTTPAnswer | None:
    """
    Read an answer.

    :return: ``None`` until the head is complete.
    :raises ValueError: saying what came instead of one.
    """
    if not b"HTTP/1.".startswith(received[:7]):
        raise ValueError(describe(received))
    end = received.find(_BLANK_LINE)
    if not 0 <= end <= MAX_HEAD:
        if len(received) > MAX_HEAD:
            raise ValueError(f"an HTTP head without an end in {MAX_HEAD} bytes")
        return None
    first, *lines = received[:end].decode("latin-1").split("\r\n")
    _, _, status_and_reason = first.partition(" ")
    status, _, reason = status_and_reason.partition(" ")
    if not (len(status) == 3 and status.isascii() and status.isdigit()):
        raise ValueError(f"an HTTP answer without a status ({printable(first)})")
    pairs = (line.partition(":") for line in lines)
    headers = [(name.strip().lower(), printable(value.strip())) for name, _, value in pairs]
    return HTTPAnswer(int(status), printable(reason), headers, received[end + 4 :])


def describe(received: bytes) -> str:
    """Say in a few words what these bytes are, if they are no HTTP/1."""
    if is_http2(received):
        return "HTTP/2"
    if is_tls(received):
        return "TLS instead of HTTP"
    if received.startswith(b"SSH-"):
        return "an SSH server"
    return f"no HTTP ({printable(received[:24].decode('latin-1'))})"


def is_tls(received: bytes) -> bool:
    """Whether a TLS server begins so: an alert or a handshake (RFC 8446 section 5.1)."""
    return received[:1] in (b"\x15", b"\x16") and received[1:2] == b"\x03"


def is_http2(received: bytes) -> bool:
    """Whether an HTTP/2 server begins so: a SETTINGS frame of stream 0 (RFC 9113 section 3.4)."""
    return len(received) >= 9 and received[3] == 4 and received[5:9] == bytes(4)


def printable(text: str) -> str:
    """Foreign text, short and safe on a terminal."""
    shown = text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
    return shown if shown.isprintable() else ascii(shown)


def proxy_words(answers: Sequence[HTTPAnswer]) -> str:
    """
    Say who has had answers in hand, by their headers; empty if nobody tells.

    :param answers: of the same server.
    """
    said: dict[str, str] = {}
    for answer in answers:
        for name in _TELLING:
            value = answer.header(name)
            if value:
                said.setdefault(name, _NAMES.get(name, value))
    unique = dict.fromkeys(f"{value} ({name})" for name, value in said.items())
    return ", ".join(unique)
