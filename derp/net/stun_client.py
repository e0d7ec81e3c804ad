"""Ask a STUN server which address it sees us at, given its name: look up, ask, be in time."""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, Literal

from twisted.internet.defer import TimeoutError

from derp.durations import format_duration
from derp.net.host_lookup import ascii_host, look_up
from derp.net.stun_transaction import (
    MOST_SENDS,
    Binding,
    BindingFailed,
    Cause,
    Endpoint,
    Transaction,
)
from derp.quoting import quoted
from derp.wire import stun

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorPluggableNameResolver

    from derp.net.stun_transaction import TransactionReactor

    class STUNClientReactor(TransactionReactor, IReactorPluggableNameResolver):
        """What asking needs of the reactor."""


__all__ = ["binding", "Binding", "BindingFailed", "Cause", "Endpoint", "Family", "DEFAULT_PORT"]

DEFAULT_PORT: Final = 3478

Family = Literal["any", "ipv4", "ipv6"]
_VERSIONS: Final[dict[Family, tuple[int, ...]]] = {"any": (4, 6), "ipv4": (4,), "ipv6": (6,)}


async def binding(
    reactor: STUNClientReactor,
    host: str,
    port: int = DEFAULT_PORT,
    *,
    family: Family = "any",
    generic: bool = False,
    timeout: float = 3.0,
    sends: int = MOST_SENDS,
) -> Binding:
    """
    Run one transaction.

    :param host: name or address. Of a name's addresses the first is asked, IPv4 before IPv6.
    :param generic: send what any RFC 8489 client may, which a relay answers only with
        ``--stun-generic``; else what Tailscale's clients send, which every server answers.
    :param timeout: seconds for name and transaction together.
    :param sends: requests at most; 1 never sends again.
    :raises BindingFailed: anything else. Cancelling leaves nothing behind.
    """
    timeout = max(timeout, 0.0)
    deadline = reactor.seconds() + timeout
    server = Endpoint(await _find(reactor, host, family, timeout), port)
    transaction_id = os.urandom(stun.TRANSACTION_ID_LEN)
    software = None if generic else stun.TAILNODE
    request = stun.encode_binding_request(transaction_id, software=software)
    transaction = Transaction(reactor, server, request, sends)
    try:
        transaction.start()
        left = max(deadline - reactor.seconds(), 0.0)
        return await transaction.outcome.addTimeout(left, reactor)
    except TimeoutError:
        raise transaction.unanswered(timeout) from None
    finally:
        transaction.stop()


async def _find(
    reactor: STUNClientReactor, host: str, family: Family, timeout: float
) -> IPv4Address | IPv6Address:
    """The address to ask."""
    versions = _VERSIONS[family]
    kind = "" if family == "any" else f"IPv{versions[0]} "
    try:
        literal = ip_address(host)
    except ValueError:
        pass
    else:
        if literal.version in versions:
            return literal
        raise BindingFailed(f"{host} is no {kind}address", Cause.LOOKUP)
    try:
        looking_up = look_up(reactor.nameResolver, ascii_host(host), versions)
        found = await looking_up.addTimeout(timeout, reactor)
    except ValueError:
        raise BindingFailed(f"{quoted(host)} is no host name", Cause.LOOKUP) from None
    except TimeoutError:
        waited = format_duration(timeout)
        sentence = f"the name {quoted(host)} was not looked up within {waited}: ask its DNS server"
        raise BindingFailed(sentence, Cause.LOOKUP) from None
    ips = sorted(map(ip_address, found), key=lambda ip: ip.version)
    if not ips:
        sentence = f"{quoted(host)} has no {kind}address: check the name and its DNS records"
        raise BindingFailed(sentence, Cause.LOOKUP)
    return ips[0]
