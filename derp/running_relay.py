"""
The relay that runs on this machine, as its command line tells: for the health check and the doctor.

A health check is started beside the relay, with the same environment but without its flags
(``HEALTHCHECK CMD ["derper", "health"]``). Those are found in ``/proc``: process 1 first, which
in a container is the relay or the init that started it with the relay's flags behind its own.

Nothing here imports Twisted: this runs every half a minute on machines that are small.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from derp.addresses import check_port, parse_listen_address
from derp.derper_settings import read_settings
from derp.doctor.doors import Doors
from derp.flags import FLAGS, IMPLY_TLS
from derp.goflag import FlagError, FlagValues, Value, parse_flags

DEV_PORT: Final = 3340
TLS_PORT: Final = 443

VERBS: Final = frozenset({"doctor", "health"})
"""What ``derper`` does besides being a relay."""

_PROC: Final = "/proc"
_SCRIPT: Final = "derper"
_MODULES: Final = frozenset({"derp.derper_script", "derp.derper_command"})
_TWISTD: Final = "twistd"
_MAX_PROCESSES: Final = 20000
_FOR_PATHS: Final = ("HOME", "XDG_CACHE_HOME")
"""Variables that a relay reads under twistd as well."""
_LIMITS: Final = (
    "max-clients",
    "max-clients-per-ip",
    "monthly-quota",
    "rate-config",
    "accept-connection-limit",
)
"""Flags by which a login of our own could be refused, and counted as somebody's abuse."""
_ADMISSION: Final = ("verify-clients", "verify-client-url", "allow-clients")


@dataclass(frozen=True, slots=True)
class RunningRelay:
    """A process that is a relay."""

    pid: int
    words: tuple[str, ...]
    """What stands behind ``derper`` on its command line."""
    reads_environment: bool
    """Not under twistd."""


def find_relays(proc: str = _PROC) -> Iterator[RunningRelay]:
    """Find relays that this user may ask about, process 1 first."""
    own, user = os.getpid(), os.geteuid()
    try:
        pids = sorted(int(name) for name in os.listdir(proc) if name.isdigit())
    except OSError:
        return
    for pid in pids[:_MAX_PROCESSES]:
        try:
            with open(f"{proc}/{pid}/cmdline", "rb") as file:
                argv = os.fsdecode(file.read(1 << 16)).split("\0")[:-1]
        except OSError:
            continue
        found = _relay_words(argv)
        if found is None or pid == own:
            continue
        seen = user == 0 or pid == 1 or user_of(pid, proc) == user
        if seen and _network_of(pid, proc) in (None, _network_of(own, proc)):
            yield RunningRelay(pid, *found)


def _network_of(pid: int, proc: str) -> str | None:
    """
    Name the network namespace of a process; ``None`` if it may not be seen.

    A relay in a container listens in one of its own, and its files are not where it says.
    """
    try:
        return os.readlink(f"{proc}/{pid}/ns/net")
    except OSError:
        return None


def user_of(pid: int, proc: str = _PROC) -> int | None:
    """
    Say as whom a process runs.

    Its files in ``/proc`` belong to root if it has capabilities of its program file.
    """
    try:
        with open(f"{proc}/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("Uid:"):
                    return int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return None


def directory_of(relay: RunningRelay, proc: str = _PROC) -> str:
    """Where relative paths of its flags begin."""
    return f"{proc}/{relay.pid}/cwd"


def _relay_words(argv: Sequence[str]) -> tuple[tuple[str, ...], bool] | None:
    """The flags of a relay in a command line, and whether it reads the environment."""
    for position, word in enumerate(argv[:16]):
        if word in _MODULES or os.path.basename(word) == _SCRIPT:
            words = tuple(argv[position + 1 :])
            if words[:1] and words[0] in VERBS:
                return None
            by_twistd = any(os.path.basename(each) == _TWISTD for each in argv[:position])
            return words, not by_twistd
    return None


def flags_of(relay: RunningRelay) -> dict[str, Value] | None:
    """Read a relay's flags; ``None`` if they are none of ours."""
    try:
        return parse_flags(FLAGS, relay.words).given
    except FlagError:
        return None


def given_to_relay(
    flags: Mapping[str, Value], environ: Mapping[str, str], proc: str = _PROC
) -> dict[str, Value]:
    """
    Put together what the relay here was given: flags, environment, file.

    :param flags: of the relay, if they are known; else they are looked for.
    :param environ: our environment, for want of a process to read it from.
    :raises ConfigError: if there is nothing to go by, or it is wrong.
    """
    if not flags:
        for relay in find_relays(proc):
            found = flags_of(relay)
            if found is not None:
                flags, environ = found, environ_of(relay, environ, proc)
                break
    return read_settings(flags, environ, socket.gethostname()).given


def environ_of(relay: RunningRelay, own: Mapping[str, str], proc: str = _PROC) -> Mapping[str, str]:
    """
    The variables that count for a relay.

    :param own: ours, which are the same in a container; they are taken where the process's may
        not be read, as when its program file has capabilities.
    """
    if not relay.reads_environment:
        return {name: own[name] for name in _FOR_PATHS if name in own}
    try:
        with open(f"{proc}/{relay.pid}/environ", "rb") as file:
            pairs = os.fsdecode(file.read(1 << 20)).split("\0")
    except OSError:
        return own
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs) if name}


def doors_of(given: Mapping[str, Value]) -> Doors:
    """
    Say where a relay with these settings is reached from its own machine.

    :raises ConfigError: if a value is wrong.
    """
    flags = FlagValues(FLAGS, given)
    dev = flags.bool("dev")
    host, port = ("", DEV_PORT) if dev else parse_listen_address("-a", flags.text("a"))
    asks = any(not flags.is_default(name) for name in IMPLY_TLS)
    tls = port == TLS_PORT or flags.text("certmode") == "manual" or asks or flags.bool("tls")
    limited = any(not flags.is_default(name) for name in (*_LIMITS, *_ADMISSION))
    places = (text.partition(":") for text in flags.texts("listen"))
    return Doors(
        hostname="localhost" if dev else flags.text("hostname"),
        host=reachable(host or _own_address(flags, tls)),
        port=port,
        tls=tls,
        derp=flags.bool("derp"),
        unix=tuple(path for kind, _, path in places if kind == "unix"),
        stun=_stun(flags, host),
        stun_may_be_silent=flags.bool("stun-follows-readiness"),
        admits_strangers=not limited,
    )


def _own_address(flags: FlagValues, tls: bool) -> str:
    """
    The address to dial if certificates are got for the one that was dialed; else nothing.

    Such a relay has none to show on loopback.
    """
    by_acme = tls and flags.text("certmode") != "manual" and not flags.texts("acme-ip-address")
    hostname = flags.text("hostname")
    return hostname if by_acme and is_address(hostname) else ""


def is_address(hostname: str) -> bool:
    """Whether this is an IP address, and no name."""
    try:
        ip_address(hostname)
    except ValueError:
        return False
    return True


def _stun(flags: FlagValues, host: str) -> tuple[str, int] | None:
    if not flags.bool("stun"):
        return None
    port = check_port("--stun-port", flags.int("stun-port"))
    if flags.text("stun-addr"):
        host, port = parse_listen_address("--stun-addr", flags.text("stun-addr"))
    return reachable(host), port


def reachable(host: str) -> str:
    """From a listening address to one that can be connected to on the same machine."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
