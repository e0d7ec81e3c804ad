"""
The environment variables that derper's server reads, as :class:`derp.config.DebugKnobs`.

An empty variable is one that is not set. Default paths (``HOME``, ``XDG_CACHE_HOME``) and the
mesh key of ``--dev`` are read where the flags are, in :mod:`derp.command_line`.

Source: Go ``envknob``, ``tsweb``, ``derpserver``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from derp.config import DebugKnobs
from derp.errors import ConfigError, ProtocolError
from derp.goflag import parse_bool
from derp.quoting import quoted
from derp.wire.keys import parse_untyped_public

QUEUE_DEPTH: Final = "TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH"
VERBOSE_DROPS: Final = "TS_DEBUG_VERBOSE_DROPS"
DEBUG_LOGS: Final = "DERP_DEBUG_LOGS"
PROBER_DEBUG_LOGS: Final = "DERP_PROBER_DEBUG_LOGS"
DISABLE_RTT_STATS: Final = "TS_DERP_DISABLE_RTT_STATS"
ALLOW_DEBUG_IP: Final = "TS_ALLOW_DEBUG_IP"
TRUSTED_CIDRS: Final = "TS_DEBUG_TRUSTED_CIDRS"
DEBUG_KEY_PATH: Final = "TS_DEBUG_KEY_PATH"
LOG_RATE: Final = "TS_DEBUG_LOG_RATE"

MAX_QUEUE_DEPTH: Final = 1 << 20
"""Our own bound; a million waiting packets of one client are gigabytes."""

_DECIMAL: Final = re.compile(r"[+-]?[0-9]{1,9}")
_PREFIX: Final = re.compile(r"[0-9A-Fa-f.:]+/[0-9]{1,3}")


def read_knobs(environ: Mapping[str, str]) -> tuple[DebugKnobs, list[str]]:
    """
    Read the variables of a server process.

    :returns: the values, and a sentence to log for each entry that was skipped.
    :raises ConfigError: naming the variable, if a value does not fit.
    """
    verbose_drops, skipped = _keys(environ)
    knobs = DebugKnobs(
        send_queue_depth=_queue_depth(environ),
        verbose_drops=verbose_drops,
        debug_logs=_bool(environ, DEBUG_LOGS),
        prober_debug_logs=_bool(environ, PROBER_DEBUG_LOGS),
        disable_rtt_stats=_bool(environ, DISABLE_RTT_STATS),
        allow_debug_ip=environ.get(ALLOW_DEBUG_IP, ""),
        trusted_cidrs=_networks(environ),
        debug_key_path=environ.get(DEBUG_KEY_PATH, ""),
        log_rate_all=environ.get(LOG_RATE, "") == "all",
    )
    return knobs, skipped


def _bool(environ: Mapping[str, str], name: str) -> bool:
    text = environ.get(name, "")
    if not text:
        return False
    try:
        return parse_bool(text)
    except ConfigError as error:
        raise ConfigError(f"environment variable {name}: {error}") from None


def _queue_depth(environ: Mapping[str, str]) -> int:
    text = environ.get(QUEUE_DEPTH, "")
    if not text:
        return DebugKnobs.send_queue_depth
    depth = int(text) if _DECIMAL.fullmatch(text) else 0
    if not 1 <= depth <= MAX_QUEUE_DEPTH:
        raise ConfigError(
            f"environment variable {QUEUE_DEPTH}: {quoted(text)} is not a number of packets from "
            f"1 to {MAX_QUEUE_DEPTH}"
        )
    return depth


def _keys(environ: Mapping[str, str]) -> tuple[frozenset[bytes], list[str]]:
    """Keys whose drops are logged; as in derper, what is no key is skipped."""
    text = environ.get(VERBOSE_DROPS, "")
    keys: set[bytes] = set()
    skipped: list[str] = []
    for item in text.split(",") if text else ():
        try:
            keys.add(parse_untyped_public(item))
        except ProtocolError:
            skipped.append(
                f"environment variable {VERBOSE_DROPS}: skipping {quoted(item)}, "
                "which is not a node key of 64 hex digits"
            )
    return frozenset(keys), skipped


def _networks(environ: Mapping[str, str]) -> tuple[IPv4Network | IPv6Network, ...]:
    found: list[IPv4Network | IPv6Network] = []
    for item in (part.strip() for part in environ.get(TRUSTED_CIDRS, "").split(",")):
        if not item:
            continue
        try:
            if not _PREFIX.fullmatch(item):
                raise ValueError
            found.append(ip_network(item, strict=False))
        except ValueError:
            raise ConfigError(
                f"environment variable {TRUSTED_CIDRS}: {quoted(item)} is not a network: "
                "write addresses with a prefix length, such as 10.0.0.0/8"
            ) from None
    return tuple(found)
