"""What the system lets a relay have: files, socket buffers, queues, tracked connections."""

from __future__ import annotations

import re
import resource
from collections.abc import Sequence
from typing import Final

from derp.doctor.finding import Finding, ok, skip, warn
from derp.doctor.local_relay import LocalRelay
from derp.doctor.patient import Chart, Patient
from derp.net.open_files import COMFORTABLE

LEAST_BUFFER: Final = 212992
"""Bytes: Linux's own default for sockets; whoever has less has lowered it."""
LEAST_BACKLOG: Final = 1024
"""Connections that wait to be accepted when all clients come back at once."""
FULL: Final = 0.8
"""Of the table of tracked connections: from here on packets of new ones will soon be dropped."""

_OPEN_FILES: Final = re.compile(r"^Max open files\s+(\d+|unlimited)", re.MULTILINE)


async def examine_open_files(
    relay: LocalRelay, patient: Patient, chart: Chart
) -> Sequence[Finding]:
    """Each client takes one."""
    limit = _of_process(relay)
    if limit is None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit < 0:
        return [ok("any number of files may be open")]
    if limit < COMFORTABLE:
        said = f"at most {limit} files may be open, so fewer clients than that can be served"
        cure = "raise LimitNOFILE= (systemd) or --ulimit nofile= (Docker)"
        return [warn(said, cure, limit=limit)]
    return [ok(f"{limit} files may be open", limit=limit)]


def _of_process(relay: LocalRelay) -> int | None:
    """The limit in force in the relay; negative is none, ``None`` is unknown."""
    if relay.pid is None:
        return None
    try:
        with open(f"{relay.proc}/{relay.pid}/limits", encoding="ascii") as file:
            found = _OPEN_FILES.search(file.read())
    except OSError:
        return None
    if found is None:
        return None
    return -1 if found[1] == "unlimited" else int(found[1])


async def examine_kernel(relay: LocalRelay, patient: Patient, chart: Chart) -> Sequence[Finding]:
    """Read what concerns sockets."""
    findings = [
        _at_least(relay, "net/core/rmem_max", LEAST_BUFFER, "STUN loses requests in bursts"),
        _at_least(relay, "net/core/wmem_max", LEAST_BUFFER, "clients far away get packets slowly"),
        _at_least(
            relay, "net/core/somaxconn", LEAST_BACKLOG, "some wait when all clients come back"
        ),
        _tracked_connections(relay),
    ]
    return [finding for finding in findings if finding is not None] or [
        skip("this system shows no limits of its kernel")
    ]


def _at_least(relay: LocalRelay, name: str, least: int, otherwise: str) -> Finding | None:
    value = _number(relay, name)
    setting = name.replace("/", ".")
    if value is None:
        return None
    facts = {"setting": setting, "value": value}
    if value < least:
        return warn(f"{setting} is {value}: {otherwise}", f"sysctl -w {setting}={least}", **facts)
    return ok(f"{setting} is {value}", **facts)


def _tracked_connections(relay: LocalRelay) -> Finding | None:
    """How full the firewall's table is; ``None`` where there is none, or not for us to see."""
    most = _number(relay, "net/netfilter/nf_conntrack_max")
    count = _number(relay, "net/netfilter/nf_conntrack_count")
    if not most or count is None:
        return None
    said = f"{count} of {most} connections are tracked by the firewall (nf_conntrack)"
    facts = {"tracked": count, "limit": most}
    if count < FULL * most:
        return ok(said, **facts)
    cure = (
        f"sysctl -w net.netfilter.nf_conntrack_max={4 * most}, and let STUN and the relay's port "
        "go untracked (nft: notrack)"
    )
    return warn(f"{said}: when it is full, new clients are dropped", cure, **facts)


def _number(relay: LocalRelay, name: str) -> int | None:
    try:
        with open(f"{relay.proc}/sys/{name}", encoding="ascii") as file:
            return int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return None
