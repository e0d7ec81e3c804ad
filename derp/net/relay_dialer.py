"""
Where a relay is, and how to get a TCP connection to it.

A :class:`RelayAddress` is one relay as the network sees it, made from a URL
(:func:`parse_relay_url`) or a DERP-map region (:func:`region_addresses`). :func:`dial` tries a
list of them in order; at each, IPv4 and IPv6 run side by side and the first connection wins.
A connection that fails later (TLS, HTTP) does not make the next address tried: only TCP
decides, as in the reference. Source: Go ``derphttp``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, FailureGroup, TimeoutError, race
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.python.failure import Failure

from derp.errors import ConfigError, DERPError
from derp.net.host_lookup import ascii_host, look_up
from derp.net.socket_address import host_port
from derp.wire.derp_map import Node, Region
from derp.wire.node_json import DEFAULT_DERP_PORT

if TYPE_CHECKING:
    from twisted.internet.interfaces import (
        IReactorPluggableNameResolver,
        IReactorTCP,
        IReactorTime,
    )

    class DialReactor(IReactorTCP, IReactorTime, IReactorPluggableNameResolver):
        """What dialing asks of the reactor."""


CONNECT_TIMEOUT: Final = 10.0
"""Seconds for name, TCP, TLS, HTTP and greeting together."""
NODE_TIMEOUT: Final = 1.5
"""Seconds for name and TCP connection of one node of a region, before the next is tried."""
MAX_ADDRESSES: Final = 4
"""Addresses of one name tried per family."""
_SCHEME_PORTS: Final = {"https": 443, "http": 80}
_GIVEN_UP: Final = (CancelledError, error.ConnectingCancelledError)


class DialError(DERPError):
    """No TCP connection; the text says what was tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayAddress:
    """One relay: how to dial it, what it is called, how to know it."""

    label: str
    """What errors call it."""
    host: str
    """TLS server name and ``Host`` header; dialed unless one of the next three says otherwise."""
    port: int = DEFAULT_DERP_PORT
    dial_host: str = ""
    """Name or address to dial instead of :attr:`host`."""
    ipv4: str = ""
    """Address to dial over IPv4; empty asks DNS, anything but an address turns IPv4 off."""
    ipv6: str = ""
    tls: bool = True
    path: str = "/derp"
    cert_name: str = ""
    insecure: bool = False
    """Check no certificate."""
    ideal_node: str = ""
    """The region's first node, if this is another one."""

    @property
    def host_header(self) -> str:
        """Host with the port, unless it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        own = _SCHEME_PORTS["https" if self.tls else "http"]
        return host if self.port == own else f"{host}:{self.port}"


def parse_relay_url(url: str, dial_host: str = "") -> RelayAddress:
    """
    Read ``https://host[:port]/derp``, or the same with ``http``.

    :param dial_host: connect there instead; name checks and port stay the URL's.
    :raises ConfigError: if it is no such URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        host = ascii_host(parts.hostname or "")
    except ValueError as problem:
        raise ConfigError(
            f"relay URL {url!r}: {problem}; write it as https://host[:port]/derp"
        ) from problem
    if parts.scheme not in _SCHEME_PORTS or not host:
        raise ConfigError(f"relay URL {url!r}: write it as https://host[:port]/derp")
    path = parts.path or "/"
    return RelayAddress(
        label=url,
        host=host,
        port=_SCHEME_PORTS[parts.scheme] if port is None else port,
        dial_host=dial_host,
        tls=parts.scheme == "https",
        path=f"{path}?{parts.query}" if parts.query else path,
    )


def region_addresses(region: Region) -> list[RelayAddress]:
    """
    List the relays of a region in the order to try them; nodes for STUN only are left out.

    :raises ConfigError: if none is left.
    """
    label = f"region {region.region_id} ({region.code})"
    if not region.nodes:
        raise ConfigError(f"{label} of the DERP map has no nodes")
    first = region.nodes[0].name
    relays = [_node_address(label, node, first) for node in region.nodes if not node.stun_only]
    if not relays:
        raise ConfigError(f"all nodes of {label} of the DERP map are for STUN only")
    return relays


def _node_address(label: str, node: Node, first: str) -> RelayAddress:
    try:
        host = ascii_host(node.host_name)
    except ValueError as problem:
        raise ConfigError(
            f"{label} node {node.name!r}: HostName {node.host_name!r} is no host name"
        ) from problem
    return RelayAddress(
        label=f"{label} node {node.name}",
        host=host,
        port=node.derp_port,
        ipv4=node.ipv4,
        ipv6=node.ipv6,
        cert_name=node.cert_name,
        insecure=node.insecure_for_tests,
        ideal_node="" if node.name == first else first,
    )


class DialStage:
    """What dialing is waiting for at the moment, over each IP version."""

    def __init__(self) -> None:
        self.waits: dict[int, str] = {}

    def __str__(self) -> str:
        return ", and ".join(self.waits.values()) or "the TCP connection"


async def dial(
    reactor: DialReactor,
    relays: Sequence[RelayAddress],
    factory_for: Callable[[RelayAddress], IProtocolFactory],
    node_timeout: float | None = NODE_TIMEOUT,
    stage: DialStage | None = None,
) -> IProtocol:
    """
    Connect to the first of these relays that accepts; give the protocol that was built.

    :param factory_for: makes the factory for one relay; the protocol of only one connection
        is asked for.
    :param node_timeout: seconds for each relay; ``None`` leaves the limit to the caller.
    :param stage: is kept up to date, for whoever gives up.
    :raises DialError: if none accepts.
    """
    problems = []
    stage = stage or DialStage()
    seconds = CONNECT_TIMEOUT if node_timeout is None else node_timeout
    for relay in relays:
        stage.waits.clear()
        attempt = Deferred.fromCoroutine(
            _dial_relay(reactor, relay, factory_for(relay), seconds, stage)
        )
        if node_timeout is not None:
            attempt.addTimeout(node_timeout, reactor)
        try:
            return await attempt
        except DialError as problem:
            problems.append(str(problem))
        except TimeoutError:
            problems.append(
                f"{relay.label}: no TCP connection within {node_timeout:g} s,"
                f" still waiting for {stage}"
            )
    raise DialError("; ".join(problems))


async def _dial_relay(
    reactor: DialReactor,
    relay: RelayAddress,
    factory: IProtocolFactory,
    seconds: float,
    stage: DialStage,
) -> IProtocol:
    attempts = [
        Deferred.fromCoroutine(
            _dial_family(reactor, version, host, relay.port, factory, seconds, stage)
        )
        for version, host in _families(relay)
    ]
    if not attempts:
        raise DialError(f"{relay.label}: IPv4 and IPv6 are both turned off for it")
    try:
        _, protocol = await race(attempts)
    except FailureGroup as group:
        if any(failure.check(*_GIVEN_UP) for failure in group.failures):
            raise CancelledError from None
        problems = "; ".join(_explain(failure) for failure in group.failures)
        raise DialError(f"{relay.label}: {problems}") from None
    return protocol


def _families(relay: RelayAddress) -> list[tuple[int, str]]:
    """Which IP versions to dial, and what: an address, or a name to look up."""
    literal = _ip(relay.dial_host or relay.host)
    chosen = []
    for version, forced in ((4, relay.ipv4), (6, relay.ipv6)):
        if literal is not None and literal.version != version:
            continue
        forced_ip = _ip(forced)
        if not forced:
            chosen.append((version, relay.dial_host or relay.host))
        elif forced_ip is not None and forced_ip.version == version:
            chosen.append((version, forced))
    return chosen


async def _dial_family(
    reactor: DialReactor,
    version: int,
    host: str,
    port: int,
    factory: IProtocolFactory,
    seconds: float,
    stage: DialStage,
) -> IProtocol:
    """Try the addresses of a host one after the other, each for its share of the time."""
    stage.waits[version] = f"an IPv{version} address of {host}"
    found = (
        [host] if _ip(host) is not None else await look_up(reactor.nameResolver, host, [version])
    )
    found = found[:MAX_ADDRESSES]
    endpoint = TCP4ClientEndpoint if version == 4 else TCP6ClientEndpoint
    problem: Exception = error.DNSLookupError(f"{host} has no IPv{version} address")
    for ip in found:
        stage.waits[version] = f"the TCP connection to {host_port(ip, port)}"
        try:
            return await endpoint(reactor, ip, port, seconds / len(found)).connect(factory)
        except error.ConnectError as refused:
            # The system's own words; Twisted would say the same twice.
            why = os.strerror(refused.osError) if refused.osError else str(refused)
            problem = error.ConnectError(string=f"{ip} port {port}: {why}")
    stage.waits.pop(version)
    raise problem


def _ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _explain(failure: Failure) -> str:
    text = (
        failure.getErrorMessage().removeprefix("An error occurred while connecting: ").rstrip(".")
    )
    return text if failure.check(error.ConnectError, error.DNSLookupError) else repr(failure.value)
