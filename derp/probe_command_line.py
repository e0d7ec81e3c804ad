"""From the prober's flags to one :class:`derp.probe_config.ProbeConfig`, or one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from derp.addresses import Resolve, parse_listen_address, resolve_host
from derp.durations import format_duration
from derp.environment import read_knobs
from derp.errors import ConfigError
from derp.goflag import FlagValues, Value
from derp.mesh_key_file import find_mesh_key
from derp.probe_config import ProbeConfig
from derp.probe_flags import ALERTS, FLAGS
from derp.prober.alerts import AlertConfig
from derp.prober.map_checks import Intervals
from derp.prober.tolerance import Tolerance
from derp.setec_flags import secrets_cache, secrets_url

MIN_INTERVAL: Final = 0.05
MAX_INTERVAL: Final = 366 * 86400.0
"""Seconds; our own bounds, as the next two."""
MAX_RATE: Final = 10_000
MAX_SIZE: Final = 1 << 30


def probe_config_from_flags(
    given: Mapping[str, Value],
    environ: Mapping[str, str],
    *,
    resolve: Resolve = resolve_host,
) -> ProbeConfig:
    """
    Make the configuration of a prober. Reads the mesh key file, no other.

    :param given: the flags of the command line by name, without those left at their default.
    :param environ: the process environment.
    :param resolve: looks a host name up.
    :raises ConfigError: one sentence naming the flag, variable or file, and the cure.
    """
    # derper looks for a key file in two places if none is given; derpprobe does not.
    flags = FlagValues(FLAGS, {"mesh-psk-file": "", **given})
    if flags.text("bw-tun-ipv4-addr"):
        raise ConfigError(
            "--bw-tun-ipv4-addr: bandwidth through a TUN device is not offered: leave the flag "
            "out, then --bw-interval measures without one"
        )
    once = flags.bool("once")
    host, port = (
        ("", 0) if once else parse_listen_address("--listen", flags.text("listen"), resolve)
    )
    mesh_key, mesh_notices = find_mesh_key(flags, environ)
    setec = "" if flags.bool("dev") else secrets_url(flags)
    knobs, _ = read_knobs(environ)
    return ProbeConfig(
        derp_map=flags.text("derp-map"),
        host=host,
        port=port,
        once=once,
        spread=flags.bool("spread"),
        interval=_map_interval(flags),
        intervals=Intervals(
            mesh=_interval(flags, "mesh-interval"),
            stun=_interval(flags, "stun-interval"),
            tls=_interval(flags, "tls-interval"),
            bandwidth=_interval(flags, "bw-interval"),
        ),
        region_code=flags.text("region-code"),
        bandwidth_size=_count(flags, "bw-probe-size-bytes", MAX_SIZE, "bytes"),
        qd_rate=_count(flags, "qd-packets-per-second", MAX_RATE, "packets per second"),
        qd_timeout=_qd_timeout(flags),
        tolerance=_tolerance(flags),
        mesh_key=mesh_key,
        secrets_url=setec,
        secrets_path_prefix=flags.text("secrets-path-prefix"),
        secrets_cache_dir=secrets_cache(flags, environ),
        alerts=_alerts(flags),
        knobs=knobs,
        notices=(*_notices(flags, mesh_key), *mesh_notices),
    )


def _map_interval(flags: FlagValues) -> float:
    seconds = _interval(flags, "interval")
    if not seconds:
        raise ConfigError(
            "--interval: the DERP map has to be read again some time: give a duration such as 15s"
        )
    return seconds


def _interval(flags: FlagValues, name: str) -> float:
    """Seconds; 0 for whatever means never."""
    seconds = max(flags.float(name), 0.0)
    if seconds and not MIN_INTERVAL <= seconds <= MAX_INTERVAL:
        raise ConfigError(
            f"--{name}: {format_duration(seconds)} is no usable interval: give "
            f"{format_duration(MIN_INTERVAL)} to {format_duration(MAX_INTERVAL)}"
        )
    return seconds


def _count(flags: FlagValues, name: str, most: int, unit: str) -> int:
    count = max(flags.int(name), 0)
    if count > most:
        raise ConfigError(f"--{name}: {count} is too much: give at most {most} {unit}")
    return count


def _qd_timeout(flags: FlagValues) -> float:
    seconds = flags.float("qd-packet-timeout")
    if not MIN_INTERVAL <= seconds <= MAX_INTERVAL:
        raise ConfigError(
            f"--qd-packet-timeout: within {format_duration(seconds)} no packet arrives that ever "
            "will: give a duration such as 5s"
        )
    return seconds


def _tolerance(flags: FlagValues) -> Tolerance:
    latency, loss = flags.float("max-latency"), flags.float("max-loss")
    if not 0 <= latency <= MAX_INTERVAL:
        raise ConfigError(
            f"--max-latency: nothing arrives within {format_duration(latency)}: give a duration "
            "such as 200ms, or 0 for any"
        )
    if not 0 <= loss < 100:
        raise ConfigError(
            f"--max-loss: {loss:g} is no percentage to stay below: give a number below 100, or 0 "
            "not to count"
        )
    return Tolerance(latency=latency, loss=loss / 100)


def _alerts(flags: FlagValues) -> AlertConfig:
    repeat = flags.float("alert-repeat")
    if repeat and not 1 <= repeat <= MAX_INTERVAL:
        raise ConfigError(
            f"--alert-repeat: {format_duration(repeat)} is no usable time: give 1s to "
            f"{format_duration(MAX_INTERVAL)}"
        )
    return AlertConfig(
        url=flags.text("alert-url"),
        format=flags.text("alert-format"),
        secret_file=flags.text("alert-secret-file"),
        failures=flags.int("alert-failures"),
        successes=flags.int("alert-successes"),
        repeat_s=repeat or None,
        state_file=flags.text("alert-state-file"),
        page_url=flags.text("alert-page-url"),
    )


def _notices(flags: FlagValues, mesh_key: bytes | None) -> list[str]:
    """Say which of the given flags change nothing, and what is missing."""
    notices = []
    if flags.bool("once"):
        notices += [
            f"--{name} has no effect with --once"
            for name in ("listen", *(flag.name for flag in ALERTS))
            if flags.given(name)
        ]
    elif not flags.text("alert-url"):
        notices += [
            f"--{flag.name} has no effect without --alert-url"
            for flag in ALERTS
            if flags.given(flag.name)
        ]
    if mesh_key is None and not (flags.text("secrets-url") and not flags.bool("dev")):
        notices.append(
            "no mesh key: to the relays the probes are clients like any others, whom admission "
            "may refuse and limits slow down"
        )
    return notices
