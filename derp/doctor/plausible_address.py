"""
Can the address be true that a STUN server says it sees us at?

It must be what the server's side of the net knows us by. A server with a public address cannot
have seen a private one, but for somebody in between who has put his own address in: Docker's
proxy or its masquerading, a load balancer, a carrier's NAT that ends before us.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

IP = IPv4Address | IPv6Address

_DOCKER: Final = (IPv4Network("172.16.0.0/12"),)
"""172.17.0.0/16 is Docker's bridge; 172.18 to 172.31 its further networks."""
_KINDS: Final[tuple[tuple[IPv4Network | IPv6Network, str], ...]] = tuple(
    (ip_network(network), name)
    for network, name in (
        ("127.0.0.0/8", "loopback"),
        ("::1/128", "loopback"),
        ("100.64.0.0/10", "of carriers' NAT, and of tailnets (100.64.0.0/10)"),
        ("169.254.0.0/16", "link-local"),
        ("fe80::/10", "link-local"),
        ("10.0.0.0/8", "private (10.0.0.0/8)"),
        ("192.168.0.0/16", "private (192.168.0.0/16)"),
        ("fd7a:115c:a1e0::/48", "of a tailnet (fd7a:115c:a1e0::/48)"),
        ("fc00::/7", "private (fc00::/7)"),
    )
)

_HOST_NETWORK: Final = (
    "run the container with --network host (compose: network_mode: host), or switch Docker's "
    'userland proxy off ("userland-proxy": false in /etc/docker/daemon.json)'
)
_NO_BALANCER: Final = (
    "let UDP reach the relay with its source address kept: no load balancer or proxy in between, "
    "and DNAT without SNAT (no MASQUERADE) on the relay's router"
)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why an address cannot be true, or hardly."""

    said: str
    cure: str
    certain: bool
    """Whether it cannot."""


def doubts(server: IP, local: IP, mapped: IP) -> Doubt | None:
    """
    Judge an address.

    :param server: whom we asked, as we dial it.
    :param local: where we asked from, as this machine knows it.
    :param mapped: what the server said.
    """
    if mapped == local:
        return None
    if mapped.version != local.version:
        said = f"an IPv{mapped.version} address, where we asked over IPv{local.version}"
        return Doubt(said, _NO_BALANCER, certain=True)
    if mapped.is_unspecified or mapped.is_multicast:
        return Doubt("no address that anybody has", "what answers there?", certain=True)
    if _is_docker(mapped) and not _is_docker(local):
        said = "that is of Docker's networks, and not ours: clients learn a useless address"
        return Doubt(said, _HOST_NETWORK, certain=True)
    kind = kind_of(mapped)
    if not kind:
        return None
    if server.is_global:
        said = f"that address is {kind}, and a public server cannot have seen us there"
        return Doubt(said, _NO_BALANCER, certain=True)
    said = f"that address is {kind} and not ours ({local}): somebody in between has put it in"
    cure = f"if that is no NAT of your own, {_NO_BALANCER}"
    return Doubt(said, cure, certain=mapped.is_loopback)


def kind_of(ip: IP) -> str:
    """What an address is if it is not public; else nothing."""
    if _is_docker(ip):
        return "private (172.16.0.0/12, Docker's)"
    found = (name for network, name in _KINDS if ip in network)
    return next(found, "" if ip.is_global else "reserved")


def _is_docker(ip: IP) -> bool:
    return any(ip in network for network in _DOCKER)
