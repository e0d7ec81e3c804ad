"""
From flags and environment to one :class:`derp.config.Config`, or one sentence that says why not.

A value is checked here if that needs nothing but the value, another flag or the environment;
key file and certificates are read where they are used. Where derper lets one flag override
another in silence, a notice says so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from derp.acme_flags import acme_fields, acme_notices, check_certificates
from derp.addresses import Resolve, check_port, parse_listen_address, resolve_host
from derp.config import CertMode, Config, MeshPeer
from derp.config_file import with_config_file
from derp.core.admission import Policy
from derp.durations import format_duration
from derp.environment import read_knobs
from derp.errors import ConfigError
from derp.flags import FLAGS, IMPLY_TLS
from derp.goflag import FlagValues, Value
from derp.limit_flags import limit_fields, limit_notices, place_fields
from derp.mesh_key_file import find_mesh_key, mesh_key_path
from derp.net.http_url import check_admission_url
from derp.net.key_file import key_path
from derp.net.socket_address import host_port
from derp.quoting import quoted
from derp.setec_flags import secrets_cache, secrets_url

DEV_PORT: Final = 3340
TLS_PORT: Final = 443

MAX_KEEPALIVE_TIME: Final = 32767.0
"""Seconds; largest ``TCP_KEEPIDLE`` (Linux ``MAX_TCP_KEEPIDLE``)."""
MAX_USER_TIMEOUT: Final = ((1 << 31) - 1) / 1000
"""Seconds; ``TCP_USER_TIMEOUT`` is a C ``int`` of milliseconds."""

MAX_DRAIN: Final = 3600.0
"""Seconds; our own bound."""
MIN_REVERIFY: Final = 1.0
MAX_REVERIFY: Final = 366 * 86400.0
"""Seconds; our own bounds."""


def config_from_flags(
    given: Mapping[str, Value],
    environ: Mapping[str, str],
    *,
    is_root: bool | None = None,
    resolve: Resolve = resolve_host,
) -> Config:
    """
    Make the configuration of a relay. Reads ``--config`` and the mesh key file, no other.

    :param given: the flags of the command line by name, without those left at their default.
    :param environ: the process environment.
    :param is_root: whether root's default key file may be used; ``None`` asks the system.
    :param resolve: looks a host name up.
    :raises ConfigError: one sentence naming the flag, variable or file, and the cure.
    """
    flags = FlagValues(FLAGS, with_config_file(given))
    knobs, skipped = read_knobs(environ)
    dev = flags.bool("dev")
    host, port = ("", DEV_PORT) if dev else parse_listen_address("-a", flags.text("a"), resolve)
    certmode = _certmode(flags)
    certdir = flags.text("certdir") if flags.given("certdir") else default_certdir(environ)
    tls = _tls(flags, port, certmode)
    if tls:
        _check_tls(flags, port, certmode, certdir)
    mesh_key, mesh_notices = find_mesh_key(flags, environ)
    return Config(
        dev=dev,
        host=host,
        port=port,
        http_port=_http_port(flags),
        key_file="" if dev else _key_file(flags, is_root),
        certmode=certmode,
        certdir=certdir,
        hostname=flags.text("hostname"),
        tls=tls,
        **acme_fields(flags),
        stun=flags.bool("stun"),
        stun_generic=flags.bool("stun-generic"),
        derp=flags.bool("derp"),
        home=_home(flags),
        bootstrap_dns_names=_names(flags, "bootstrap-dns-names"),
        unpublished_bootstrap_dns_names=_names(flags, "unpublished-bootstrap-dns-names"),
        mesh_key=mesh_key,
        mesh_psk_file=mesh_key_path(flags, environ),
        mesh_with=_mesh_with(flags),
        secrets_url="" if dev else secrets_url(flags),
        secrets_path_prefix=flags.text("secrets-path-prefix"),
        secrets_cache_dir=secrets_cache(flags, environ),
        mesh_with_file=flags.text("mesh-with-file"),
        mesh_ca_file=flags.text("mesh-ca-file"),
        verify_clients=flags.bool("verify-clients"),
        socket=flags.texts("socket"),
        verify_client_url=tuple(map(check_admission_url, flags.texts("verify-client-url"))),
        verify_client_url_fail_open=flags.bool("verify-client-url-fail-open"),
        allow_clients=flags.text("allow-clients"),
        verify_policy=_verify_policy(flags),
        reverify_interval=_reverify_interval(flags),
        **limit_fields(flags),
        **place_fields(flags, tls, resolve),
        drain_seconds=_duration(flags, "drain-seconds", MAX_DRAIN, least=0.0),
        handover_socket=flags.text("handover-socket"),
        stun_follows_readiness=flags.bool("stun-follows-readiness"),
        tcp_keepalive_time=_duration(flags, "tcp-keepalive-time", MAX_KEEPALIVE_TIME),
        tcp_user_timeout=_duration(flags, "tcp-user-timeout", MAX_USER_TIMEOUT, least=0.0),
        tcp_write_timeout=_duration(flags, "tcp-write-timeout", MAX_USER_TIMEOUT, least=0.0),
        ace=flags.bool("ace"),
        metrics_addr=_metrics_addr(flags, resolve),
        knobs=knobs,
        notices=(
            *_notices(flags, tls),
            *acme_notices(flags, certmode, tls),
            *limit_notices(flags),
            *mesh_notices,
            *skipped,
        ),
    )


def default_certdir(environ: Mapping[str, str]) -> str:
    """Where derper keeps certificates; empty if the environment names no home."""
    cache = environ.get("XDG_CACHE_HOME", "")
    if not cache and environ.get("HOME"):
        cache = os.path.join(environ["HOME"], ".cache")
    return os.path.join(cache, "tailscale", "derper-certs") if os.path.isabs(cache) else ""


def _certmode(flags: FlagValues) -> CertMode:
    text = flags.text("certmode")
    try:
        return CertMode(text)
    except ValueError:
        modes = ", ".join(CertMode)
        raise ConfigError(
            f"--certmode: there is no mode {quoted(text)}: use one of {modes}"
        ) from None


def _tls(flags: FlagValues, port: int, certmode: CertMode) -> bool:
    """Whether the main port speaks TLS: derper's rule, ``--tls``, or a flag that implies it."""
    implied = [name for name in IMPLY_TLS if not flags.is_default(name)]
    forced = port == TLS_PORT or certmode is CertMode.MANUAL or bool(implied)
    if forced and flags.given("tls") and not flags.bool("tls"):
        cause = "port 443 in -a" if port == TLS_PORT else "--certmode manual"
        cause = next((f"--{name}" for name in implied), cause)
        raise ConfigError(f"--tls=false contradicts {cause}, which asks for TLS: drop one of them")
    return forced or flags.bool("tls")


def _check_tls(flags: FlagValues, port: int, certmode: CertMode, certdir: str) -> None:
    """What TLS needs of the other flags."""
    check_certificates(flags, certmode, certdir)
    if port and flags.int("http-port") == port:
        raise ConfigError(
            f"--http-port {port} is the port of -a already: give another one, or -1 for none"
        )


def _http_port(flags: FlagValues) -> int:
    port = flags.int("http-port")
    return -1 if port < 0 else check_port("--http-port", port)


def _key_file(flags: FlagValues, is_root: bool | None) -> str:
    return key_path(flags.text("c"), is_root=os.getuid() == 0 if is_root is None else is_root)


def _verify_policy(flags: FlagValues) -> str:
    text = flags.text("verify-policy")
    if text not in tuple(Policy):
        raise ConfigError(f"--verify-policy: there is no policy {quoted(text)}: give all or any")
    return text


def _reverify_interval(flags: FlagValues) -> float:
    seconds = _duration(flags, "reverify-interval", MAX_REVERIFY, least=0.0)
    if 0 < seconds < MIN_REVERIFY:
        raise ConfigError(
            f"--reverify-interval: {format_duration(seconds)} is too short: "
            f"give at least {format_duration(MIN_REVERIFY)}, or 0 for never"
        )
    return seconds


def _home(flags: FlagValues) -> str:
    home = flags.text("home")
    if home in ("", "blank") or home.startswith(("http://", "https://")):
        return home
    raise ConfigError(
        f"--home: unknown value {quoted(home)}: leave it out, or give blank or a URL "
        "(http:// or https://) to redirect to"
    )


def _mesh_with(flags: FlagValues) -> tuple[MeshPeer, ...]:
    text = flags.text("mesh-with")
    if not text:
        return ()
    from derp.net.mesh_peers import parse_peers  # what dials other relays is behind it

    return parse_peers("--mesh-with", text.split(","))


def _names(flags: FlagValues, name: str) -> tuple[str, ...]:
    return tuple(item for part in flags.text(name).split(",") if (item := part.strip()))


def _duration(flags: FlagValues, name: str, most: float, *, least: float | None = None) -> float:
    """A duration that the system can be told."""
    seconds = flags.float(name)
    if seconds > most:
        raise ConfigError(
            f"--{name}: {format_duration(seconds)} is too long: "
            f"give at most {format_duration(most)}"
        )
    if least is not None and seconds < least:
        raise ConfigError(
            f"--{name}: {format_duration(seconds)} is negative: give a duration, or 0 for none"
        )
    return seconds


def _metrics_addr(flags: FlagValues, resolve: Resolve) -> str:
    text = flags.text("metrics-addr")
    if not text:
        return ""
    host, port = parse_listen_address("--metrics-addr", text, resolve)
    return host_port(host, port)


def _notices(flags: FlagValues, tls: bool) -> list[str]:
    """Say which of the given flags change nothing, as in derper, and which file was chosen."""
    notices = []
    if flags.bool("dev"):
        if flags.given("a"):
            notices.append(f"--dev listens on port {DEV_PORT}: -a has no effect")
        if flags.given("c"):
            notices.append("--dev makes a key that is forgotten at the end: -c has no effect")
    elif not flags.text("c"):
        notices.append(f"no -c given: the key file is {key_path('', is_root=True)}")
    if not tls:
        notices += [
            f"--{name} has no effect on plain HTTP: TLS is asked for with --tls or port 443"
            for name in ("certmode", "certdir", "http-port")
            if flags.given(name)
        ]
    notices += _admission_notices(flags)
    if not flags.bool("stun"):
        notices += [
            f"--{name} has no effect with --stun=false"
            for name in ("stun-port", "stun-generic")
            if flags.given(name)
        ]
    return notices


def _admission_notices(flags: FlagValues) -> list[str]:
    """Say which flags of admission have nothing to work on."""
    urls = flags.texts("verify-client-url")
    asked = flags.bool("verify-clients") or urls or flags.text("allow-clients")
    notices = []
    if flags.texts("socket") and not flags.bool("verify-clients"):
        notices.append("--socket has no effect without --verify-clients")
    if flags.given("verify-client-url-fail-open") and not urls:
        notices.append("--verify-client-url-fail-open has no effect without --verify-client-url")
    if not asked:
        notices += [
            f"--{name} has no effect: nothing says who may use this relay (--verify-clients, "
            "--verify-client-url or --allow-clients)"
            for name in ("verify-policy", "reverify-interval")
            if flags.given(name)
        ]
    return notices
