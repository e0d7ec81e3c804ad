"""
HTTP requests to wherever a URL leads: directly, or through the proxy the environment prescribes.

Connections are kept between requests. Server certificates are checked against the system's
roots, or those ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` name.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import URI, Agent, BrowserLikePolicyForHTTPS, ProxyAgent
from twisted.web.iweb import IAgent, IAgentEndpointFactory
from zope.interface import implementer

from derp.net.bounded_http import TIMEOUT_S, Head, make_pool, send
from derp.net.proxy_environment import Proxy, ProxyEnvironment
from derp.net.proxy_tunnel import TunnelEndpoint


class OutgoingHTTP:
    """
    Sends requests.

    :param environ: the process environment, for its proxies.
    :raises ConfigError: if the environment names a proxy that is none.
    """

    def __init__(self, reactor: Any, environ: Mapping[str, str]) -> None:
        self._reactor = reactor
        self._proxies = ProxyEnvironment(environ)
        self._pool = make_pool(reactor)
        self._direct = Agent(reactor, BrowserLikePolicyForHTTPS(), TIMEOUT_S, pool=self._pool)
        self._through: dict[tuple[str, Proxy], IAgent] = {}

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Head:
        """
        Send a request, with the user and password of its URL; redirects are not followed.

        :raises derp.net.bounded_http.NoAnswer: if there is no response.
        """
        headers = dict(headers)
        parts = urlsplit(url)
        target = urlunsplit(parts._replace(netloc=_location(parts), fragment=""))
        proxy = self._proxies.proxy_for(target)
        if parts.username is not None:
            headers["Authorization"] = _basic(
                unquote(parts.username), unquote(parts.password or "")
            )
        agent: IAgent = self._direct
        if proxy is not None:
            agent = self._agent_through(parts.scheme, proxy)
            if parts.scheme == "http" and proxy.credentials is not None:
                headers["Proxy-Authorization"] = _basic(*proxy.credentials)
        return await send(self._reactor, agent, method, target, headers, body)

    def close(self) -> Deferred[None]:
        """Close the connections that are kept."""
        closed: Deferred[None] = self._pool.closeCachedConnections()
        return closed

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


def _location(parts: SplitResult) -> str:
    """Host and port of a URL."""
    return parts.netloc.rpartition("@")[2]


def _basic(user: str, password: str) -> str:
    pair = f"{user}:{password}".encode()
    return f"Basic {b64encode(pair).decode('ascii')}"
