"""
Signed requests to a certificate authority (RFC 8555 section 6).

Each needs a nonce of the authority's; answers and errors bring new ones. An authority may
refuse a nonce at any time (``badNonce``): the request is signed anew with the one that came
along, a few times. Every request has a deadline and every answer a bound.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

from treq.client import HTTPClient
from treq.content import collect
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.interfaces import IReactorTime
from twisted.web.client import ResponseFailed
from twisted.web.error import SchemeNotSupported
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

from derp import __version__
from derp.net.acme_problem import ACMEError, printable, problem_of
from derp.net.bounded_http import cancellable, explain
from derp.wire.jose import AccountKey, encode_json

REQUEST_S: Final = 30.0
MAX_ANSWER_LEN: Final = 1 << 20
MAX_BAD_NONCES: Final = 8
_MOST_NONCES: Final = 32
_MOST_RETRY_AFTER_S: Final = 7 * 86400.0
_UNREACHABLE: Final = (
    ConnectError,
    ConnectionClosed,
    DNSLookupError,
    ResponseFailed,
    SchemeNotSupported,
    OSError,
)
USER_AGENT: Final = f"derp/{__version__} (twistd derper)"


@dataclass(frozen=True)
class Answer:
    """One successful answer, whole."""

    url: str
    status: int
    headers: Mapping[str, str]
    """By lower-case name; of several the last."""
    body: bytes
    retry_after: float
    """Seconds; 0 if not asked for."""

    def json(self) -> dict[str, Any]:
        """
        Read the body as an object.

        :raises ACMEError: if it is none.
        """
        try:
            document = json.loads(self.body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ACMEError(f"{self.url} answers with something other than a JSON object")
        return document


def parse_retry_after(text: str | None, now: float) -> float:
    """Read Retry-After, seconds or an HTTP date; 0 if it is absent, past or unreadable."""
    if not text:
        return 0.0
    try:
        seconds = float(text) if text.isascii() and text.isdigit() else _seconds_until(text, now)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), _MOST_RETRY_AFTER_S)


def _seconds_until(date: str, now: float) -> float:
    return parsedate_to_datetime(date).timestamp() - now


class SignedRequests:
    """
    One authority's HTTP.

    :param agent: trusts whom it should (:mod:`derp.net.acme_trust`).
    :param clock: deadlines.
    :param wall_time: Unix seconds, to read HTTP dates by.
    """

    def __init__(self, agent: IAgent, clock: IReactorTime, wall_time: Callable[[], float]) -> None:
        self._http = HTTPClient(agent)
        self._clock = clock
        self._wall_time = wall_time
        self._nonces: list[str] = []
        self.new_nonce_url = ""
        """``newNonce`` of the directory; set by who reads that."""

    async def get(self, url: str) -> Answer:
        """
        Fetch something public.

        :raises ACMEError: if that fails.
        """
        return self._succeeded(await self._request("GET", url, None))

    async def post(
        self, url: str, payload: Any, key: AccountKey, account_url: str | None
    ) -> Answer:
        """
        Send a signed request.

        :param payload: what becomes JSON; ``None`` is a POST-as-GET.
        :raises ACMEError: with the authority's reason.
        """
        content = b"" if payload is None else encode_json(payload)
        for remaining in range(MAX_BAD_NONCES, -1, -1):
            body = key.sign(url, content, await self._nonce(), account_url)
            try:
                return self._succeeded(await self._request("POST", url, body))
            except ACMEError as error:
                if error.kind != "badNonce" or not remaining:
                    raise
        raise AssertionError("unreachable")

    async def _nonce(self) -> str:
        if not self._nonces:
            answer = self._succeeded(await self._request("HEAD", self.new_nonce_url, None))
            if not self._nonces:
                raise ACMEError(f"{answer.url} gives no Replay-Nonce; check --acme-directory")
        return self._nonces.pop()

    async def _request(self, method: str, url: str, body: bytes | None) -> Answer:
        headers = Headers({"User-Agent": [USER_AGENT]})
        if body is not None:
            headers.setRawHeaders("Content-Type", ["application/jose+json"])
        exchange = Deferred.fromCoroutine(self._exchange(method, url, headers, body))
        exchange.addTimeout(REQUEST_S, self._clock)
        try:
            return await exchange
        except TimeoutError:
            raise ACMEError(f"no answer from {url} within {REQUEST_S:g} s") from None
        except _UNREACHABLE as error:
            raise ACMEError(f"cannot reach {url}: {explain(error)}") from None
        except ValueError as error:
            raise ACMEError(f"cannot ask {printable(url)}: {error}") from None

    async def _exchange(
        self, method: str, url: str, headers: Headers, body: bytes | None
    ) -> Answer:
        content = bytearray()
        try:
            requesting: Deferred[Any] = self._http.request(
                method, url, headers=headers, data=body, allow_redirects=method != "POST"
            )
            response: IResponse = await cancellable(requesting)
            # What is too long is read on and forgotten until the deadline.
            await collect(
                response, lambda data: content.extend(data[: MAX_ANSWER_LEN - len(content)])
            )
        except ResponseFailed as error:
            # This is what a cancelled request fails with; it must not look like an answer.
            if any(reason.check(CancelledError) for reason in error.reasons):
                raise CancelledError from None
            raise
        fields = {
            name.decode("ascii", "replace").lower(): values[-1].decode("ascii", "replace")
            for name, values in response.headers.getAllRawHeaders()
        }
        nonce = fields.get("replay-nonce")
        if nonce and len(self._nonces) < _MOST_NONCES:
            self._nonces.append(nonce)
        wait = parse_retry_after(fields.get("retry-after"), self._wall_time())
        return Answer(url, response.code, fields, bytes(content), wait)

    def _succeeded(self, answer: Answer) -> Answer:
        if 200 <= answer.status < 300:
            return answer
        content_type = answer.headers.get("content-type", "")
        error = problem_of(answer.status, content_type, answer.body, answer.url)
        error.retry_after = answer.retry_after
        raise error
