"""
Bootstrap DNS: addresses of control servers for clients whose own DNS does not work.

Two sets of names: the published one goes to everybody in whole; an unpublished name is
answered only to who asks for it, alone, and to a percentage of the addresses that do (so that
a rollout can grow). Source: tailscale ``cmd/derper/bootstrap_dns.go``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address

MAX_QUERIED_DOMAINS = 500
"""Distinct queried names that are counted; above it counting starts anew."""
MAX_NAME = 255
"""Longer queries are not DNS names and not remembered (RFC 1035 §2.3.4)."""

_MASK64 = (1 << 64) - 1
_MASK128 = (1 << 128) - 1
_PCG_MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645
_PCG_INCREMENT = 0x5851F42D4C957F2D14057B7EF767814F
_PCG_CHEAP_MULTIPLIER = 0xDA942042E4DD58B5


@dataclass(frozen=True, slots=True)
class BootstrapName:
    """One entry of a list: ``name`` or ``name/txtname``."""

    name: str
    txt_name: str = ""
    """Where a TXT record holds the percentage; empty means 100."""

    @classmethod
    def parse(cls, entry: str) -> BootstrapName:
        """Split an entry as the flags spell it; nothing is an error."""
        name, _, txt_name = entry.partition("/")
        return cls(name, txt_name)


@dataclass(frozen=True)
class ResolvedNames:
    """What one refresh found out. A name that did not resolve is absent."""

    addresses: Mapping[str, list[str]] = field(default_factory=dict)
    percent: Mapping[str, int] = field(default_factory=dict)
    """0 to 100; absent is 0."""


def percent_of(texts: Iterable[str]) -> int:
    """Read a rollout percentage: the last string that is an integer from 0 to 100, else 0."""
    percent = 0
    for text in texts:
        digits = text[1:] if text[:1] in ("+", "-") else text
        if not (digits.isascii() and digits.isdigit()) or len(digits) > MAX_NAME:
            continue
        value = int(text)
        if 0 <= value <= 100:
            percent = value
    return percent


def pcg_float(seed: bytes) -> float:
    """
    First float of Go's ``math/rand/v2`` PCG-DXSM, seeded with 16 bytes.

    Seed: two 64-bit halves, each little endian; the first is the state's high half.

    :returns: at least 0, less than 1.
    """
    high, low = int.from_bytes(seed[:8], "little"), int.from_bytes(seed[8:], "little")
    state = ((high << 64 | low) * _PCG_MULTIPLIER + _PCG_INCREMENT) & _MASK128
    high, low = state >> 64, state & _MASK64
    high ^= high >> 32
    high = high * _PCG_CHEAP_MULTIPLIER & _MASK64
    high ^= high >> 48
    high = high * (low | 1) & _MASK64
    return (high & ((1 << 53) - 1)) / (1 << 53)


def falls_into(percent: int, ip: str, coin: Callable[[], float]) -> bool:
    """
    Decide whether an address takes part in a rollout; the same one always does or never.

    :param ip: the address as text; what is not one takes part only at 100.
    :param coin: uniform over [0, 1); tossed for loopback, for the sake of local tests.
    """
    if percent in (0, 100):
        return percent == 100
    try:
        address = ip_address(ip)
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        packed = bytes(10) + b"\xff\xff" + address.packed
        loopback = address.is_loopback
    else:
        packed = address.packed
        loopback = (address.ipv4_mapped or address).is_loopback
    # The ratio first, as in Go: percent > 100 * float would round differently.
    return percent / 100 > (coin() if loopback else pcg_float(packed))


def _to_json(addresses: Mapping[str, list[str]]) -> bytes:
    text = json.dumps(addresses or None, indent="\t", sort_keys=True, ensure_ascii=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8")


class BootstrapDNSStats:
    """Counters ``bootstrap_dns_…``."""

    def __init__(self) -> None:
        self.requests = 0
        self.published_hits = 0
        self.published_misses = 0
        self.unpublished_hits = 0
        self.unpublished_misses = 0
        self.unpublished_percent_misses = 0
        self.queried: set[str] = set()

    @property
    def queried_domains(self) -> int:
        """Distinct names asked for since counting last started; may fall."""
        return len(self.queried)

    def remember(self, name: str) -> None:
        """Count a queried name."""
        if len(name) <= MAX_NAME:
            self.queried.add(name)
        if len(self.queried) > MAX_QUERIED_DOMAINS:
            self.queried.clear()


class BootstrapDNS:
    """
    The current answers.

    :param coin: see :func:`falls_into`.
    :param shuffle: puts a list into random order, in place.
    """

    def __init__(self, *, coin: Callable[[], float], shuffle: Callable[[list[str]], None]) -> None:
        self.stats = BootstrapDNSStats()
        self._coin = coin
        self._shuffle = shuffle
        self._published: Mapping[str, list[str]] = {}
        # Before the first refresh, and for ever without a list, there is no JSON at all.
        self._published_json = b""
        self._unpublished = ResolvedNames()

    def publish(self, names: ResolvedNames) -> None:
        """Replace the published set. Orders are random, or clients would prefer IPv6."""
        addresses = {name: list(found) for name, found in names.addresses.items()}
        for found in addresses.values():
            self._shuffle(found)
        self._published = addresses
        self._published_json = _to_json(addresses)

    def set_unpublished(self, names: ResolvedNames) -> None:
        """Replace the unpublished set."""
        self._unpublished = names

    def answer(self, query: str, ip: str) -> bytes:
        """
        Answer one request.

        :param query: the name asked for, may be empty.
        :param ip: who asks.
        :returns: JSON, or nothing.
        """
        self.stats.requests += 1
        if query:
            self.stats.remember(query)
            alone = self._unpublished_answer(query, ip)
            if alone is not None:
                return alone
            self._count_published(query)
        return self._published_json

    def _unpublished_answer(self, query: str, ip: str) -> bytes | None:
        addresses = self._unpublished.addresses.get(query)
        if not addresses:
            return None
        self.stats.unpublished_hits += 1
        if falls_into(self._unpublished.percent.get(query, 0), ip, self._coin):
            return _to_json({query: addresses})
        self.stats.unpublished_percent_misses += 1
        return None

    def _count_published(self, query: str) -> None:
        addresses = self._published.get(query)
        if addresses is None:
            self.stats.unpublished_misses += 1
        elif addresses:
            self.stats.published_hits += 1
        else:
            self.stats.published_misses += 1
