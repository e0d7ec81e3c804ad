"""
How much of the relay there is for whom: the limits as values, and the file that changes them.

The file is the reference's rate config with more members; 0 is no limit everywhere. What the
file does not name stays as the flags have it.

================================  =====================================================
``PerClientRateLimitBytesPerSec``  what each client may send (derper's; no flag)
``PerClientRateBurstBytes``        that much at once; at least 65568 (derper's; no flag)
``ServerRateLimitBytesPerSec``     what all clients together may send
``ServerRateBurstBytes``           that much at once; if not given a tenth of a second's
``AcceptConnectionLimit``          new connections per second
``AcceptConnectionBurst``          that many at once
``MaxHandshakes``                  connections that have not come to a request yet
``MaxClients``                     logged-in clients
``MaxClientsPerIP``                of them from one address
``MonthlyQuota``                   bytes in and out per calendar month; or text: ``"2TiB"``
================================  =====================================================

Source of the first two: tailscale ``derpserver.RateConfig``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from json import JSONDecodeError
from math import inf, isfinite
from typing import Any, Final

from derp.errors import ConfigError, ProtocolError
from derp.quoting import nearest
from derp.sizes import MAX_SIZE, format_size, parse_size
from derp.wire.frames import KEY_LEN, MAX_PACKET
from derp.wire.go_json import Fields, parse_object

MIN_BURST: Final = KEY_LEN + MAX_PACKET
"""A bucket must hold what one frame can cost, or that frame would wait for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """All limits at one time; 0 is none."""

    client_rate: int = 0
    """Bytes per second."""
    client_burst: int = 0
    server_rate: int = 0
    server_burst: int = 0
    """0 is what :attr:`server_depth` makes of it."""
    accept_rate: float = 0.0
    """Connections per second."""
    accept_burst: int = 0
    max_handshakes: int = 0
    max_clients: int = 0
    max_clients_per_ip: int = 0
    monthly_quota: int = 0
    """Bytes."""

    @property
    def client_depth(self) -> int:
        """How deep a client's bucket is; 0 if it has none."""
        return max(self.client_burst, MIN_BURST) if self.client_rate else 0

    @property
    def server_depth(self) -> int:
        """How deep the bucket of all is; 0 if there is none."""
        if not self.server_rate:
            return 0
        return max(self.server_burst or self.server_rate // 10, MIN_BURST)

    def describe_others(self) -> str:
        """What is limited besides each client's rate, in a line; empty if nothing is."""
        limits = {
            "server-rate": self.server_rate and f"{self.server_rate} bytes/sec",
            "accept-connection-limit": self.accept_rate and f"{self.accept_rate:g}/sec",
            "max-handshakes": self.max_handshakes,
            "max-clients": self.max_clients,
            "max-clients-per-ip": self.max_clients_per_ip,
            "monthly-quota": self.monthly_quota and format_size(self.monthly_quota),
        }
        return ", ".join(f"{name}={limit}" for name, limit in limits.items() if limit)

    @property
    def meters(self) -> bool:
        """Whether bytes are metered."""
        return bool(self.client_rate or self.server_rate)


def _whole(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_SIZE:
        raise ProtocolError(f"{name} is {_shown(value)}: give a whole number from 0 to 2^64-1")
    return value


def _number(name: str, value: Any) -> float:
    fits = type(value) in (int, float) and 0 <= value <= MAX_SIZE and isfinite(value)
    if not fits:
        raise ProtocolError(f"{name} is {_shown(value)}: give a number that is not negative")
    return float(value)


def _size(name: str, value: Any) -> int:
    if isinstance(value, str):
        try:
            return parse_size(value)
        except ConfigError as error:
            raise ProtocolError(f"{name}: {error}") from None
    return _whole(name, value)


def _shown(value: Any) -> str:
    text = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else None
    shown = ascii(value) if text is None else text
    return shown if len(shown) <= 40 else f"{shown[:40]}..."


_MEMBERS: Final[dict[str, tuple[str, Callable[[str, Any], float]]]] = {
    "PerClientRateLimitBytesPerSec": ("client_rate", _whole),
    "PerClientRateBurstBytes": ("client_burst", _whole),
    "ServerRateLimitBytesPerSec": ("server_rate", _whole),
    "ServerRateBurstBytes": ("server_burst", _whole),
    "AcceptConnectionLimit": ("accept_rate", _number),
    "AcceptConnectionBurst": ("accept_burst", _whole),
    "MaxHandshakes": ("max_handshakes", _whole),
    "MaxClients": ("max_clients", _whole),
    "MaxClientsPerIP": ("max_clients_per_ip", _whole),
    "MonthlyQuota": ("monthly_quota", _size),
}


def parse_limits(data: bytes, flags: Limits) -> Limits:
    """
    Read the file's content, as Go reads JSON: names in any case, unknown members ignored.

    :param flags: the limits the flags set.
    :raises ProtocolError: naming the member that is wrong, or saying that it is no JSON.
    """
    fields = _read(data)
    given: dict[str, Any] = {}
    for name, (attribute, read) in _MEMBERS.items():
        value = fields.get(name.lower())
        if value is not None:
            given[attribute] = read(name, value)
    limits = replace(flags, **given)
    if limits.accept_rate and not limits.accept_burst:
        limits = replace(limits, accept_burst=max(1, int(min(limits.accept_rate, MAX_SIZE))))
    return limits


def _read(data: bytes) -> Fields:
    try:
        return parse_object(data, "the file")
    except ProtocolError as error:
        where = error.__cause__
        if not isinstance(where, JSONDecodeError):
            raise
        raise ProtocolError(
            f"{error}: {where.msg.lower()}, at line {where.lineno} column {where.colno}"
        ) from None


def strange_members(data: bytes) -> dict[str, str]:
    """
    Find members that mean nothing here; like Go's decoder :func:`parse_limits` ignores them.

    :param data: what that has read.
    :return: their names, and the limit that each may have been meant for, or nothing. Names
        that begin with a sign (``"_comment"``) are nobody's mistake.
    """
    known = {name.lower(): name for name in _MEMBERS}
    strange = {}
    for name in json.loads(data.decode("utf-8", "replace")) or ():
        if name.lower() not in known and name[:1].isalpha():
            near = nearest(name.lower(), known)
            strange[name] = known.get(near, "")
    return strange


def accept_limits(rate: float, burst: int) -> tuple[float, int]:
    """Turn derper's flags into limits: an infinite rate is none."""
    return (0.0, 0) if rate == inf else (rate, burst)
