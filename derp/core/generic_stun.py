"""
``--stun-generic``: answers to binding requests of other software than Tailscale's.

Anybody can send such a request with a forged source, so what is sent there is bounded twice:
:mod:`derp.core.source_limit` bounds how often, and no answer is longer than 1.6 times its
request. 20 bytes, the shortest request, buy the 32 of an IPv4 answer; the 44 of an IPv6 answer
take a request of 28, one with a FINGERPRINT for instance.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from derp.core.occupancy import network_of
from derp.core.source_limit import SourceLimit
from derp.core.stun_stats import STUNStats
from derp.errors import ProtocolError
from derp.wire.stun import encode_binding_response
from derp.wire.stun_error import encode_unknown_attributes
from derp.wire.stun_generic import parse_generic_request


class GenericSTUN:
    """Decides about each datagram that is no request of Tailscale's."""

    def __init__(self, stats: STUNStats, limit: SourceLimit) -> None:
        self._stats = stats
        self._limit = limit

    def answer(self, packet: bytes, ip_packed: bytes, port: int, now: float) -> bytes | None:
        """
        Make the answer, if there is one, and count what becomes of the datagram.

        :param ip_packed: the sender's address as its socket shows it, 4 or 16 bytes.
        :return: what to send; :attr:`STUNStats.generic_success` counts it as sent.
        """
        stats = self._stats
        try:
            transaction_id, unknown = parse_generic_request(packet)
        except ProtocolError:
            stats.not_stun += 1
            return None
        if unknown:
            reply = encode_unknown_attributes(transaction_id, unknown)
        else:
            reply = encode_binding_response(transaction_id, ip_packed, port)
        if not is_within_bounds(len(packet), len(reply)):
            stats.generic_too_short += 1
            return None
        if not self._limit.allow(_source(ip_packed), now):
            stats.generic_rate_limited += 1
            return None
        if unknown:
            stats.generic_unknown_attributes += 1
        else:
            stats.generic_success += 1
        return reply


def is_within_bounds(request: int, reply: int) -> bool:
    """Whether so many bytes of a reply are at most 1.6 times those of the request."""
    return 5 * reply <= 8 * request


def _source(ip_packed: bytes) -> int:
    ip = ip_address(ip_packed)
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or ip
    network = network_of(ip)
    assert network is not None
    return network
