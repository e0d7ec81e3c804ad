"""
A URL as a source of admission (``--verify-client-url``).

It is sent ``{"NodePublic": "nodekey:…", "Source": "<ip>"}`` and answers ``{"Allow": true}``.
The same two values are sent a second time under ``nodePublic`` and ``source``, since there are
receivers written for those spellings. Source: tailscale ``derpserver.verifyClient``.

=====================================  =================================================
what comes                             verdict
=====================================  =================================================
nothing, within 5 s                    unreachable
a redirect                             followed, up to nine times
a status other than 200                fault
200, but no JSON in the first 4 KiB    fault
200 with ``Allow`` true                allowed
200 with ``Allow`` false or without    denied
=====================================  =================================================
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn
from urllib.parse import urljoin, urlsplit, urlunsplit

from twisted.internet.defer import CancelledError, Deferred

from derp.core.admission import ALLOWED, Answer, Kind, Question, Verdict
from derp.errors import ConfigError, ProtocolError
from derp.net.bounded_http import TIMEOUT_S, BrokenAnswer, Head, NoAnswer, read_body, shortened
from derp.net.http_url import check_admission_url, shown
from derp.net.outgoing_http import OutgoingHTTP
from derp.wire.go_json import field, fields_of
from derp.wire.keys import format_node_public

MAX_ANSWER: Final = 4096
MAX_REDIRECTS: Final = 9

_TO_GET: Final = frozenset((301, 302, 303))
_REPEAT: Final = frozenset((307, 308))


class AdmissionURL:
    """One URL that is asked about clients."""

    kind = Kind.URL

    def __init__(self, reactor: Any, url: str, environ: Mapping[str, str]) -> None:
        self.url = check_admission_url(url)
        self.label = shown(url)
        self._reactor = reactor
        self._http = OutgoingHTTP(reactor, environ)

    def ask(self, question: Question, *, recheck: bool = False) -> Deferred[Answer]:
        """See :class:`derp.net.asked_source.Source`."""
        running = Deferred.fromCoroutine(self._ask(question))
        running.addTimeout(TIMEOUT_S, self._reactor, onTimeoutCancel=lambda result, _: result)
        return running

    def expire(self) -> None:
        """See :class:`derp.net.asked_source.Source`: nothing is kept here."""

    def close(self) -> Deferred[None]:
        """Close the connections that are kept."""
        return self._http.close()

    # -- inside ----------------------------------------------------------------------------

    async def _ask(self, question: Question) -> Answer:
        key = format_node_public(question.key)
        sent = f'Post "{shown(self.url)}": '
        try:
            head = await self._post(encode_question(key, question.ip))
        except NoAnswer as error:
            return Answer(Verdict.UNREACHABLE, f"{sent}{error}")
        except CancelledError:
            return Answer(Verdict.UNREACHABLE, f"{sent}no answer within {TIMEOUT_S:g} s")
        if head.status != 200:
            await head.drop()
            return Answer(Verdict.FAULT, f"admission controller: {head.status_line}")
        try:
            allowed = read_answer(await read_body(head, MAX_ANSWER, _is_whole))
        except (BrokenAnswer, ProtocolError) as error:
            return Answer(Verdict.FAULT, f"admission controller: {error}")
        except CancelledError:
            reason = f"admission controller: no whole answer within {TIMEOUT_S:g} s"
            return Answer(Verdict.FAULT, reason)
        if allowed:
            return ALLOWED
        return Answer(Verdict.DENIED, f"admission controller: {key}/{question.ip} not allowed")

    async def _post(self, question: bytes) -> Head:
        """Send the question, and go where it is sent on to."""
        method, url, body = "POST", self.url, question
        for _ in range(MAX_REDIRECTS + 1):
            head = await self._send(method, url, body if method == "POST" else None)
            if head.status not in _TO_GET | _REPEAT or not head.location:
                return head
            await head.drop()
            if head.status in _TO_GET:
                method = "GET"
            url = _follow(url, head.location)
        raise NoAnswer(f"stopped after {MAX_REDIRECTS + 1} redirects")

    async def _send(self, method: str, url: str, body: bytes | None) -> Head:
        headers = {} if body is None else {"Content-Type": "application/json"}
        parts = urlsplit(url)
        if parts.hostname != urlsplit(self.url).hostname:  # sent on with a password: not ours
            url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        return await self._http.send(method, url, headers, body)


def _follow(url: str, location: str) -> str:
    """Resolve a redirect."""
    try:
        return check_admission_url(urljoin(url, location))
    except (ConfigError, ValueError):
        raise NoAnswer("redirected to what is no http:// or https:// URL") from None


def encode_question(key: str, ip: str) -> bytes:
    """The body of a question, in both spellings."""
    question = {"NodePublic": key, "Source": ip, "nodePublic": key, "source": ip}
    return json.dumps(question, separators=(",", ":")).encode("ascii")


def read_answer(data: bytes) -> bool:
    """
    Read the answer: the first JSON value there is. Go's decoder leaves alone what follows it.

    :raises ProtocolError: if there is none, or it says something else.
    """
    text = data.decode("utf-8", "replace").lstrip(" \t\r\n")
    try:
        value, _ = _DECODER.raw_decode(text)
    except (ValueError, RecursionError) as error:
        size = f" in its first {MAX_ANSWER} bytes" if len(data) == MAX_ANSWER else ""
        raise ProtocolError(f"the answer is no JSON{size}: {shortened(str(error))}") from None
    allow: bool = field(fields_of(value, "the answer"), "allow", False, "the answer")
    return allow


def _is_whole(data: bytes) -> bool:
    """Whether an answer can be read already."""
    if b"}" not in data:
        return False
    try:
        read_answer(data)
    except ProtocolError:
        return False
    return True


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_no_json)
