"""Flags that say how much of the relay there is, and where it may be reached."""

from __future__ import annotations

import math
import os
from typing import Any, Final

from derp.addresses import Resolve, check_port, parse_listen_address
from derp.config import ListeningPlace, PlaceKind
from derp.errors import ConfigError
from derp.goflag import FlagValues
from derp.net.trusted_proxies import parse_proxies
from derp.quoting import quoted
from derp.sizes import parse_size

_PLACES: Final = "tcp:HOST:PORT, tls:HOST:PORT, unix:PATH or fd:NUMBER"
_MAX_PATH: Final = 107
"""Bytes of a unix socket's path (``sun_path``, with its final zero)."""
_MAX_FD: Final = 1 << 20


def limit_fields(flags: FlagValues) -> dict[str, Any]:
    """
    Read the limits.

    :raises ConfigError: naming the flag and the value that is wrong.
    """
    rate, burst = _accept(flags)
    return {
        "accept_connection_limit": rate,
        "accept_connection_burst": burst,
        "rate_config": flags.text("rate-config"),
        "server_rate_limit": _size(flags, "server-rate-limit"),
        "max_handshakes": _count(flags, "max-handshakes"),
        "max_clients": _count(flags, "max-clients"),
        "max_clients_per_ip": _count(flags, "max-clients-per-ip"),
        "monthly_quota": _size(flags, "monthly-quota"),
        "quota_state": flags.text("quota-state"),
    }


def _accept(flags: FlagValues) -> tuple[float, int]:
    rate = flags.float("accept-connection-limit")
    burst = flags.int("accept-connection-burst")
    if rate <= 0:
        raise ConfigError(
            f"--accept-connection-limit: {rate:g} would let nobody in: give connections per "
            "second, or leave it out"
        )
    if burst <= 0:
        raise ConfigError(
            f"--accept-connection-burst: {burst} would let nobody in: give at least 1, or leave "
            "it out"
        )
    if rate < math.inf and not flags.given("accept-connection-burst"):
        burst = max(1, min(burst, int(rate)))
    return rate, burst


def _count(flags: FlagValues, name: str) -> int:
    count = flags.int(name)
    if count < 0:
        raise ConfigError(f"--{name}: {count} is negative: give a number, or 0 for no limit")
    return count


def _size(flags: FlagValues, name: str) -> int:
    text = flags.text(name)
    if not text:
        return 0
    try:
        return parse_size(text)
    except ConfigError as error:
        raise ConfigError(f"--{name}: {error}") from None


def place_fields(flags: FlagValues, tls: bool, resolve: Resolve) -> dict[str, Any]:
    """
    Read where the relay listens besides ``-a``, and whom it believes there.

    :param tls: whether the main port speaks TLS, so that there are certificates.
    :raises ConfigError: naming the flag and the value that is wrong.
    """
    networks, unix = parse_proxies("--trusted-proxies", flags.text("trusted-proxies"))
    stun_host, stun_port = None, check_port("--stun-port", flags.int("stun-port"))
    if flags.text("stun-addr"):
        if flags.given("stun-port"):
            raise ConfigError("--stun-addr has a port already: leave --stun-port out")
        stun_host, stun_port = parse_listen_address("--stun-addr", flags.text("stun-addr"), resolve)
    return {
        "listen": tuple(_place(text, tls, resolve) for text in flags.texts("listen")),
        "stun_host": stun_host,
        "stun_port": stun_port,
        "trusted_proxies": networks,
        "trust_unix_sockets": unix,
    }


def _place(text: str, tls: bool, resolve: Resolve) -> ListeningPlace:
    kind, colon, rest = text.partition(":")
    if not colon or not rest or kind not in tuple(PlaceKind):
        raise ConfigError(f"--listen: {quoted(text)} is no place to listen: write {_PLACES}")
    if kind == PlaceKind.UNIX:
        if len(os.fsencode(rest)) > _MAX_PATH or "\0" in rest:
            raise ConfigError(
                f"--listen: {quoted(text)}: a unix socket's path has at most {_MAX_PATH} bytes: "
                "name a shorter one"
            )
        return ListeningPlace(PlaceKind.UNIX, path=rest)
    if kind == PlaceKind.FD:
        if not (rest.isascii() and rest.isdigit() and 3 <= int(rest[:8]) < _MAX_FD):
            raise ConfigError(
                f"--listen: {quoted(text)}: {quoted(rest)} is no inherited descriptor: give its "
                "number, 3 or more"
            )
        return ListeningPlace(PlaceKind.FD, fd=int(rest), tls=tls)
    host, port = parse_listen_address("--listen", rest, resolve)
    if kind == PlaceKind.TLS and not tls:
        raise ConfigError(
            f"--listen: {quoted(text)} needs certificates, and the main port has none: add --tls "
            "or a --certmode that means it, or listen on tcp:"
        )
    return ListeningPlace(PlaceKind(kind), host=host, port=port, tls=kind == PlaceKind.TLS)


def limit_notices(flags: FlagValues) -> list[str]:
    """Say which of the flags have nothing to work on, or do more than they say."""
    notices = []
    rate = flags.float("accept-connection-limit")
    if flags.given("accept-connection-burst") and rate == math.inf:
        notices.append("--accept-connection-burst has no effect without --accept-connection-limit")
    if rate < math.inf and not flags.given("accept-connection-burst"):
        notices.append(
            "no --accept-connection-burst given: one second's worth of connections at once"
        )
    if not flags.bool("stun") and flags.given("stun-addr"):
        notices.append("--stun-addr has no effect with --stun=false")
    return notices
