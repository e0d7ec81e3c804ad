"""
HTTP requests to those who are asked about clients: bounded in time and size.

Made with treq, and looking like those of Go's client. Redirects are not followed here.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from OpenSSL import SSL
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from zope.interface import implementer

from derp.errors import DERPError

TIMEOUT_S: Final = 5.0
"""For a question and its answer (derper's for URLs; it lets tailscaled take for ever)."""
IDLE_S: Final = 90
"""How long an unused connection is kept (Go ``http.DefaultTransport``)."""
AGENT: Final = "Go-http-client/1.1"

_VERIFY_HINT: Final = (
    " (its issuer is not trusted here, its dates or names do not fit, or this machine's clock is "
    "wrong)"
)
_Result = TypeVar("_Result")
_MAX_REASON: Final = 200
_PACKED: Final = b"Still-Packed"
_GZIP: Final = 31
"""What zlib calls gzip's format, with the largest window."""


class NoAnswer(DERPError):
    """The exchange failed before the head of the response was there."""


class BrokenAnswer(DERPError):
    """The head was there, the body did not come as it should."""


class QuietPool(HTTPConnectionPool):
    """Keeps Twisted from logging two lines of its insides for each connection."""

    def __init__(self, reactor: Any, persistent: bool) -> None:
        super().__init__(reactor, persistent)
        quiet: Any = type("_QuietFactory", (HTTPConnectionPool._factory,), {"noisy": False})
        self._factory = quiet


def make_pool(reactor: Any) -> HTTPConnectionPool:
    """Make a pool of connections; whoever makes one closes it."""
    pool = QuietPool(reactor, persistent=True)
    pool.cachedConnectionTimeout = IDLE_S
    return pool


@dataclass(frozen=True, slots=True)
class Head:
    """A response whose body has not been read."""

    response: Any
    reactor: Any

    @property
    def status(self) -> int:
        return int(self.response.code)

    @property
    def status_line(self) -> str:
        """Code and phrase, as the server wrote them."""
        phrase = self.response.phrase.decode("latin-1")
        return shortened(f"{self.status} {phrase}")

    @property
    def is_packed(self) -> bool:
        """Whether the body is compressed."""
        return bool(self.response.headers.hasHeader(_PACKED))

    @property
    def location(self) -> str:
        """Where a redirect leads; empty if nowhere."""
        values = self.response.headers.getRawHeaders(b"Location") or [b""]
        return str(values[0].decode("latin-1"))

    def drop(self) -> Deferred[bytes]:
        """Do without the body; the connection is kept if all of it is there already."""
        body = _Body(self, 1, lambda data: True)
        self.response.deliverBody(body)
        body.end()
        return body.done


@implementer(IAgent)
class _StillPacked:
    """
    Hides from treq that a body is compressed.

    It would unpack what comes without a bound, a thousand bytes for each one.
    """

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: Any = None,
    ) -> Deferred[Any]:
        """See ``IAgent``."""
        return self._agent.request(method, uri, headers, bodyProducer).addCallback(self._hide)

    def _hide(self, response: Any) -> Any:
        codings = response.headers.getRawHeaders(b"Content-Encoding", [])
        if [coding.strip().lower() for coding in codings] == [b"gzip"]:
            response.headers.removeHeader(b"Content-Encoding")
            response.headers.setRawHeaders(_PACKED, codings)
        return response


def cancellable(exchange: Deferred[_Result]) -> Deferred[_Result]:
    """
    Make what ends in ``CancelledError`` when it is cancelled, as it should.

    An exchange of Twisted's client does not: if a name is being looked up then, it says that there
    is no such name.
    """
    given_up = False

    def cancel(_: object) -> None:
        nonlocal given_up
        given_up = True
        exchange.cancel()

    def ended(result: Any) -> None:
        cancelled = given_up and isinstance(result, Failure)
        done.callback(Failure(CancelledError()) if cancelled else result)

    done: Deferred[_Result] = Deferred(cancel)
    exchange.addBoth(ended)
    return done


async def send(
    reactor: Any,
    agent: IAgent,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None = None,
) -> Head:
    """
    Send a request.

    :raises NoAnswer: if there is no response.
    """
    client = HTTPClient(_StillPacked(agent))  # a new one each time: it would keep cookies
    try:
        requesting = client.request(
            method,
            url,
            headers=Headers({"User-Agent": [AGENT], **{k: [v] for k, v in headers.items()}}),
            data=body,
            allow_redirects=False,
            unbuffered=True,
            reactor=reactor,
        )
        response = await cancellable(requesting)
    except Exception as error:  # Twisted has no common root for these
        reason = _root(error)
        if isinstance(reason, CancelledError):
            raise reason from None
        raise NoAnswer(explain(reason)) from None
    return Head(response.original, reactor)


async def read_body(
    head: Head, limit: int, enough: Callable[[bytes], bool] = lambda data: False
) -> bytes:
    """
    Read a body; what comes behind the limit is not waited for.

    :param enough: says that no more is needed.
    :return: at most ``limit`` bytes.
    :raises BrokenAnswer: if the body was cut off before ``enough``.
    """
    body = _Body(head, limit, enough)
    head.response.deliverBody(body)
    return await body.done


class _Body(Protocol):
    """
    Collects the beginning of a body.

    The result comes in the turn after, when the connection of a body that has ended is free.
    """

    def __init__(self, head: Head, limit: int, enough: Callable[[bytes], bool]) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._give_up())
        self._reactor = head.reactor
        self._unpacker = zlib.decompressobj(_GZIP) if head.is_packed else None
        self._limit = limit
        self._enough = enough
        self._data = b""
        self._problem = ""
        self._lost = False
        self._settling: IDelayedCall | None = None

    def dataReceived(self, data: bytes) -> None:
        if self._settling is not None or self.done.called:
            return
        try:
            self._data += self._unpack(data, self._limit - len(self._data))
        except zlib.error:
            self._break("the answer is no gzip")
            return
        if len(self._data) == self._limit or self._enough(self._data):
            self.end()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        if self._settling is not None or self.done.called:
            return
        # PotentialDataLoss: it had no length, so that the connection's end is its own.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.end()
        else:
            self._break(f"the answer was cut off: {explain(reason.value)}")

    def _unpack(self, data: bytes, room: int) -> bytes:
        return self._unpacker.decompress(data, room) if self._unpacker else data[:room]

    def _break(self, problem: str) -> None:
        self._problem = problem
        self.end()

    def end(self) -> None:
        """Give what there is. A body that does not end by itself in this turn is cut off."""
        if self._settling is None:
            self._settling = self._reactor.callLater(0, self._settle)

    def _settle(self) -> None:
        self._abort()
        if self.done.called:
            return
        if self._problem:
            self.done.errback(BrokenAnswer(self._problem))
        else:
            self.done.callback(self._data)

    def _give_up(self) -> None:
        if self._settling is not None:
            self._settling.cancel()
        self._abort()

    def _abort(self) -> None:
        if not self._lost:
            transport: Any = self.transport
            transport.loseConnection()


def _root(error: BaseException) -> BaseException:
    """Take off what Twisted wraps an error into."""
    reasons = getattr(error, "reasons", None)
    return _root(reasons[-1].value) if reasons else error


def explain(error: BaseException | None) -> str:
    """Say in a line what went wrong with an exchange."""
    root = _root(error) if error is not None else None
    if isinstance(root, ConnectError) and root.osError:
        return os.strerror(root.osError)  # Twisted would say the same twice
    if isinstance(root, SSL.Error):
        return _explain_tls(root)
    return shortened(str(root) or type(root).__name__)


def _explain_tls(error: SSL.Error) -> str:
    """OpenSSL's words, which come as a list of (library, function, reason)."""
    details = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reasons = "; ".join(dict.fromkeys(str(detail[2]) for detail in details))
    hint = _VERIFY_HINT if "verify failed" in reasons else ""
    return (
        shortened(f"TLS handshake failed: {reasons or str(error) or type(error).__name__}") + hint
    )


def shortened(text: str) -> str:
    """Make a line for the log of what somebody else wrote."""
    line = " ".join(text.split())
    if len(line) > _MAX_REASON:
        line = line[: _MAX_REASON - 3] + "..."
    return line if line.isprintable() else ascii(line)[1:-1]
