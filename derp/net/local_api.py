"""
tailscaled on this machine as a source of admission (``--verify-clients``).

It is asked over its unix socket who a key belongs to; whoever is in its network map may come.
The socket may vanish and come back: each connection is made by path. Source: tailscale
``client/local``, ``paths``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Coroutine
from typing import Any, Final, NoReturn

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.web.client import URI, Agent
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from derp.core.admission import ALLOWED, Answer, Kind, Question, Verdict
from derp.net.bounded_http import (
    TIMEOUT_S,
    BrokenAnswer,
    Head,
    NoAnswer,
    make_pool,
    read_body,
    send,
    shortened,
)
from derp.wire.keys import format_node_public

HOST: Final = "local-tailscaled.sock"
CAPABILITY: Final = "145"
"""What the reference says it understands."""
MAX_ANSWER: Final = 1 << 20
"""Bytes; an answer describes one node, with all that it is capable of."""
EARLY_S: Final = 2.0
"""How long after our start a tailscaled that is not there yet is waited for."""
RETRY_S: Final = 0.25

_TOO_OLD: Final = "invalid 'addr' parameter"


@implementer(IAgentEndpointFactory)
class _SocketEndpoints:
    """Every URL leads to the socket."""

    def __init__(self, reactor: Any, path: str) -> None:
        self._endpoint = UNIXClientEndpoint(reactor, path, timeout=TIMEOUT_S)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self._endpoint


class LocalAPI:
    """
    One tailscaled.

    :param path: of its socket.
    """

    kind = Kind.SOCKET

    def __init__(self, reactor: Any, path: str) -> None:
        self.path = path
        self.label = f"tailscaled at {path}"
        self._reactor = reactor
        self._early_until = reactor.seconds() + EARLY_S
        self._pool = make_pool(reactor)
        self._agent = Agent.usingEndpointFactory(
            reactor, _SocketEndpoints(reactor, path), self._pool
        )

    def ask(self, question: Question, *, recheck: bool = False) -> Deferred[Answer]:
        """
        See :class:`derp.net.asked_source.Source`.

        A tailscaled that is starting knows nobody. At a login that is as in derper; a client
        that is connected does not pay for it.
        """
        # Where the client comes from does not matter here.
        return self._within_time(self._ask(question.key, recheck))

    def self_key(self) -> Deferred[str]:
        """
        Ask for the key of the node this tailscaled is.

        :return: as text; fails with :exc:`NoAnswer` or :exc:`BrokenAnswer`.
        """
        return self._within_time(self._self_key())

    def status(self) -> Deferred[dict[str, Any]]:
        """
        Ask how this tailscaled is: ``Version``, ``BackendState``, ``Self`` and more.

        :return: fails with :exc:`NoAnswer` or :exc:`BrokenAnswer`.
        """
        return self._within_time(self._status_in_time())

    def derp_map(self) -> Deferred[bytes]:
        """
        Ask for the DERP map of the tailnet.

        :return: its JSON, unread; fails with :exc:`NoAnswer` or :exc:`BrokenAnswer`.
        """
        return self._within_time(self._derp_map())

    def expire(self) -> None:
        """See :class:`derp.net.asked_source.Source`: nothing is kept here."""

    def close(self) -> Deferred[None]:
        """Close the connections that are kept."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

    # -- inside ----------------------------------------------------------------------------

    def _within_time(self, coroutine: Coroutine[Deferred[Any], Any, Any]) -> Deferred[Any]:
        running = Deferred.fromCoroutine(coroutine)
        running.addTimeout(TIMEOUT_S, self._reactor, onTimeoutCancel=_timed_out)
        return running

    async def _ask(self, key: bytes, recheck: bool) -> Answer:
        name = format_node_public(key)
        failed = f"failed to query local tailscaled status for {name}: "
        try:
            answer = await self._who_is(name)
            if recheck and answer.verdict is Verdict.DENIED:
                status = await self._status()
                state = status.get("BackendState")
                if state != "Running":
                    reason = f"{failed}tailscaled is {shortened(str(state))}, not Running"
                    return Answer(Verdict.FAULT, reason)
        except NoAnswer as error:
            return Answer(Verdict.UNREACHABLE, f"{failed}{self.path}: {error}")
        except BrokenAnswer as error:
            return Answer(Verdict.FAULT, f"{failed}{error}")
        except CancelledError:
            problem = f"{self.path}: no answer within {TIMEOUT_S:g} s"
            return Answer(Verdict.UNREACHABLE, failed + problem)
        return answer

    async def _who_is(self, name: str) -> Answer:
        head = await self._get(f"whois?addr={name.replace(':', '%3A')}")
        if head.status == 404:
            await head.drop()
            reason = f"peer {name} not authorized (not found in local tailscaled)"
            return Answer(Verdict.DENIED, reason)
        body = await read_body(head, MAX_ANSWER)
        if head.status == 200:
            _object(body)
            return ALLOWED
        text = body.decode("utf-8", "replace")
        if _TOO_OLD in text:
            reason = "tailscaled version is too old (out of sync with derper binary)"
            return Answer(Verdict.FAULT, reason)
        raise BrokenAnswer(f"{head.status_line}: {shortened(text)}")

    async def _self_key(self) -> str:
        own = (await self._status_in_time()).get("Self")
        key = own.get("PublicKey") if isinstance(own, dict) else None
        if not isinstance(key, str):
            raise BrokenAnswer("its status names no key of its own")
        return key

    async def _derp_map(self) -> bytes:
        try:
            head = await self._get("derpmap")
            body = await read_body(head, MAX_ANSWER)
        except CancelledError:
            raise NoAnswer(f"no answer within {TIMEOUT_S:g} s") from None
        if head.status != 200:
            raise BrokenAnswer(f"{head.status_line}: {shortened(body.decode('utf-8', 'replace'))}")
        if len(body) == MAX_ANSWER:
            raise BrokenAnswer(f"the answer is longer than {MAX_ANSWER >> 20} MiB")
        return body

    async def _status_in_time(self) -> dict[str, Any]:
        try:
            return await self._status()
        except CancelledError:
            raise NoAnswer(f"no answer within {TIMEOUT_S:g} s") from None

    async def _status(self) -> dict[str, Any]:
        head = await self._get("status?peers=false")
        body = await read_body(head, MAX_ANSWER)
        if head.status != 200:
            raise BrokenAnswer(f"{head.status_line}: {shortened(body.decode('utf-8', 'replace'))}")
        return _object(body)

    async def _get(self, path: str) -> Head:
        url = f"http://{HOST}/localapi/v0/{path}"
        headers = {"Tailscale-Cap": CAPABILITY}
        while True:
            try:
                return await send(self._reactor, self._agent, "GET", url, headers)
            except NoAnswer:
                late = self._reactor.seconds() >= self._early_until
                if late or os.path.exists(self.path):
                    raise
            await deferLater(self._reactor, RETRY_S)


def _timed_out(result: object, timeout: float) -> Any:
    """Let a coroutine that has turned its cancelling into an answer have the last word."""
    return result


def _object(body: bytes) -> dict[str, Any]:
    """Read a JSON object; ``null`` is an empty one."""
    if len(body) == MAX_ANSWER:
        raise BrokenAnswer(f"the answer is longer than {MAX_ANSWER >> 20} MiB")
    try:
        value = json.loads(body, parse_constant=_no_json)
    except (ValueError, RecursionError) as error:
        raise BrokenAnswer(f"the answer is no JSON: {shortened(str(error))}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BrokenAnswer("the answer is no JSON object")
    return value


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
