"""Who listens on the relay's ports, by ``/proc/net``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

from derp.doctor.finding import Finding, fail, ok, skip, warn
from derp.doctor.local_relay import LocalRelay
from derp.doctor.patient import Chart, Patient

_LISTEN: Final = "0A"
_UNBOUND: Final = "07"
MAX_DESCRIPTORS: Final = 100_000
"""Of all processes, looked at to find whose a socket is."""


async def examine_listeners(relay: LocalRelay, patient: Patient, chart: Chart) -> Sequence[Finding]:
    """Find each of the relay's ports among those that are open."""
    config = relay.config
    if config is None:
        return [skip("the relay's settings are not known")]
    wanted = [("-a", "tcp", config.port)]
    if config.tls and config.http_port >= 0:
        wanted.append(("--http-port", "tcp", config.http_port))
    if config.stun:
        wanted.append(("--stun-port", "udp", config.stun_port))
    findings = []
    for flag, protocol, port in wanted:
        if port:
            findings.append(_judge(relay, flag, protocol, port))
    for place in config.listen:
        if place.path and not os.path.exists(place.path):
            said = f"the unix socket {place.path} (--listen) is not there"
            findings.append(fail(said, "start the relay, or look whether something removes it"))
    return findings


def _judge(relay: LocalRelay, flag: str, protocol: str, port: int) -> Finding:
    what = f"{protocol.upper()} port {port} ({flag})"
    inodes = set(_inodes(relay.proc, protocol, port))
    if not inodes:
        return fail(f"nobody listens on {what}", "start the relay, and look into its log")
    pid, name = _owner(relay.proc, inodes)
    if pid is None:
        return ok(f"{what} is open; whose it is may not be seen by this user")
    if relay.pid is not None and pid != relay.pid and name != _name(relay.proc, relay.pid):
        said = f"{what} is taken by {name} (process {pid}), not by the relay"
        return fail(said, f"stop {name}, or give the relay another port")
    if relay.pid is None:
        return warn(f"{what} is open, by {name} (process {pid})", "is that the relay?")
    return ok(f"{what} is the relay's")


def _inodes(proc: str, protocol: str, port: int) -> Iterator[str]:
    """Sockets that are bound to a port, by either IP version."""
    state = _LISTEN if protocol == "tcp" else _UNBOUND
    for table in (protocol, f"{protocol}6"):
        try:
            with open(f"{proc}/net/{table}", encoding="ascii") as file:
                lines = file.read().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == state:
                yield fields[9]


def _owner(proc: str, inodes: set[str]) -> tuple[int | None, str]:
    """Which process has one of these sockets, among those we may look at."""
    links = {f"socket:[{inode}]" for inode in inodes}
    looked_at = 0
    for name in os.listdir(proc):
        if not name.isdigit():
            continue
        try:
            descriptors = os.listdir(f"{proc}/{name}/fd")
        except OSError:
            continue
        for descriptor in descriptors:
            looked_at += 1
            try:
                if os.readlink(f"{proc}/{name}/fd/{descriptor}") in links:
                    return int(name), _name(proc, int(name))
            except OSError:
                continue
        if looked_at > MAX_DESCRIPTORS:
            break
    return None, ""


def _name(proc: str, pid: int) -> str:
    try:
        with open(f"{proc}/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "a process that has ended"
