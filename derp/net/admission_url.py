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
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final, NoReturn
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS, ProxyAgent
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

from derp.core.admission import ALLOWED, Answer, Kind, Question, Verdict
from derp.errors import ConfigError, ProtocolError
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
from derp.net.proxy_environment import Proxy, ProxyEnvironment
from derp.net.proxy_tunnel import TunnelEndpoint
from derp.quoting import quoted
from derp.wire.go_json import field, fields_of
from derp.wire.keys import format_node_public

FLAG: Final = "--verify-client-url"
MAX_ANSWER: Final = 4096
MAX_REDIRECTS: Final = 9

_TO_GET: Final = frozenset((301, 302, 303))
_REPEAT: Final = frozenset((307, 308))


def check_url(url: str) -> str:
    """
    Let a URL through.

    :raises ConfigError: if nobody could be asked there. (derper admits everybody then.)
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable()
        usable = usable and parts.port != 0 and " " not in url
    except ValueError:
        usable = False
    if not usable:
        tail = quoted(url.rpartition("@")[2])  # what is before may be a password
        raise ConfigError(f"{FLAG}: {tail} cannot be asked: give an http:// or https:// URL")
    return url


def shown(url: str) -> str:
    """A URL for the log, without what may be secret in it: user, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class AdmissionURL:
    """One URL that is asked about clients."""

    kind = Kind.URL

    def __init__(self, reactor: Any, url: str, environ: Mapping[str, str]) -> None:
        self.url = check_url(url)
        self.label = shown(url)
        self._reactor = reactor
        self._proxies = ProxyEnvironment(environ)
        self._pool = make_pool(reactor)
        self._direct = Agent(reactor, BrowserLikePolicyForHTTPS(), TIMEOUT_S, pool=self._pool)
        self._through: dict[tuple[str, Proxy], IAgent] = {}

    def ask(self, question: Question, *, recheck: bool = False) -> Deferred[Answer]:
        """See :class:`derp.net.asked_source.Source`."""
        running = Deferred.fromCoroutine(self._ask(question))
        running.addTimeout(TIMEOUT_S, self._reactor, onTimeoutCancel=lambda result, _: result)
        return running

    def expire(self) -> None:
        """See :class:`derp.net.asked_source.Source`: nothing is kept here."""

    def close(self) -> Deferred[None]:
        """Close the connections that are kept."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

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
        target = urlunsplit(parts._replace(netloc=_location(parts), fragment=""))
        proxy = self._proxies.proxy_for(target)
        if parts.username is not None and parts.hostname == urlsplit(self.url).hostname:
            user, password = unquote(parts.username), unquote(parts.password or "")
            headers["Authorization"] = _basic(user, password)
        agent: IAgent = self._direct
        if proxy is not None:
            agent = self._agent_through(parts.scheme, proxy)
            if parts.scheme == "http" and proxy.credentials is not None:
                headers["Proxy-Authorization"] = _basic(*proxy.credentials)
        return await send(self._reactor, agent, method, target, headers, body)

    def _agent_through(self, scheme: str, proxy: Proxy) -> IAgent:
        agent = self._through.get((scheme, proxy))
        if agent is None:
            if scheme == "http":
                agent = ProxyAgent(_endpoint(self._reactor, proxy), self._reactor, self._pool)
            else:
                endpoints = _Tunnels(self._reactor, proxy)
                agent = Agent.usingEndpointFactory(self._reactor, endpoints, self._pool)
            self._through[scheme, proxy] = agent
        return agent


@implementer(IAgentEndpointFactory)
class _Tunnels:
    """Leads to HTTPS servers through a proxy."""

    def __init__(self, reactor: Any, proxy: Proxy) -> None:
        self._proxy = _endpoint(reactor, proxy)
        self._authorization = None if proxy.credentials is None else _basic(*proxy.credentials)
        self._tls = BrowserLikePolicyForHTTPS()

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        tunnel = TunnelEndpoint(
            self._proxy, uri.host.decode("ascii").strip("[]"), uri.port, self._authorization
        )
        return wrapClientTLS(self._tls.creatorForNetloc(uri.host, uri.port), tunnel)


def _endpoint(reactor: Any, proxy: Proxy) -> IStreamClientEndpoint:
    endpoint: IStreamClientEndpoint = HostnameEndpoint(reactor, proxy.host, proxy.port, TIMEOUT_S)
    if proxy.tls:
        tls = BrowserLikePolicyForHTTPS().creatorForNetloc(proxy.host.encode("idna"), proxy.port)
        endpoint = wrapClientTLS(tls, endpoint)
    return endpoint


def _follow(url: str, location: str) -> str:
    """Resolve a redirect."""
    try:
        return check_url(urljoin(url, location))
    except (ConfigError, ValueError):
        raise NoAnswer("redirected to what is no http:// or https:// URL") from None


def _location(parts: SplitResult) -> str:
    """Host and port of a URL."""
    return parts.netloc.rpartition("@")[2]


def _basic(user: str, password: str) -> str:
    pair = f"{user}:{password}".encode()
    return f"Basic {b64encode(pair).decode('ascii')}"


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
