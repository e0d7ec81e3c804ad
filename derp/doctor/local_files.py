"""The key file and the certificate directory: there, readable to the relay and to nobody else?"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from derp.config import CertMode, Config
from derp.doctor.finding import Finding, fail, ok, skip, warn
from derp.doctor.local_relay import LocalRelay, user_name
from derp.doctor.patient import Chart, Patient
from derp.errors import ConfigError
from derp.net.cert_files import complaints, manual_paths, parse_ip, read_manual
from derp.net.key_file import parse_key_file
from derp.wire.keys import format_node_public, public_of

_OTHERS = stat.S_IRWXO
_GROUP = stat.S_IRWXG
MAX_FILES = 1000
"""Of a certificate directory, looked at."""


async def examine_key_file(relay: LocalRelay, patient: Patient, chart: Chart) -> Sequence[Finding]:
    """Read it as the relay does, but never make one."""
    config = relay.config
    if config is None or not config.key_file:
        return [skip("there is none (--dev)" if config else "the relay's settings are not known")]
    path = Path(config.key_file)
    try:
        content = path.read_bytes()[: 1 << 17]
        private = parse_key_file(config.key_file, content)
    except FileNotFoundError:
        cure = "the relay makes one when it starts; restore the old one if clients know its key"
        return [warn(f"{path} is missing", cure)]
    except OSError as error:
        said = f"{path} cannot be read here ({error.strerror})"
        return [fail(said, f"examine as {relay.user}, or: chown {relay.user} {path}")]
    except ConfigError as error:
        said, _, cure = str(error).rpartition("; ")
        return [fail(said, cure)]
    problems = list(_permissions(path, relay))
    key = format_node_public(public_of(private))
    return problems or [ok(f"{path}: {key[:24]}…, private", public_key=key)]


async def examine_certificates(
    relay: LocalRelay, patient: Patient, chart: Chart
) -> Sequence[Finding]:
    """Look into ``--certdir``."""
    config = relay.config
    if config is None or not config.tls:
        return [skip("there are none without TLS" if config else "the settings are not known")]
    place = Path(config.certdir)
    if not place.is_dir():
        if config.certmode is CertMode.MANUAL:
            return [fail(f"--certdir {place} is missing", "make it, and put the certificate there")]
        return [warn(f"--certdir {place} is missing", "the relay makes it when it starts")]
    findings = list(_loose_keys(place, relay))
    if config.certmode is CertMode.MANUAL:
        findings += _manual(config, chart, patient)
    else:
        findings += _acquired(config, place, relay)
    return findings


def _permissions(path: Path, relay: LocalRelay) -> Iterator[Finding]:
    """What is wrong with the mode and owner of a file with a secret."""
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    cure = f"chmod 600 {path}"
    if mode & _OTHERS:
        yield fail(f"{path} is open to everybody on this machine ({mode:04o})", cure)
    elif mode & _GROUP:
        yield warn(f"{path} is open to its group ({mode:04o})", cure)
    if relay.uid is not None and status.st_uid != relay.uid and relay.uid != 0:
        said = f"{path} belongs to {user_name(status.st_uid)}, and the relay runs as {relay.user}"
        yield warn(said, f"chown {relay.user} {path}")


def _loose_keys(place: Path, relay: LocalRelay) -> Iterator[Finding]:
    """Private keys in the directory that others can read."""
    try:
        names = sorted(os.listdir(place))[:MAX_FILES]
    except OSError as error:
        said = f"--certdir {place} cannot be listed here ({error.strerror})"
        yield fail(said, f"examine as {relay.user}, or: chown -R {relay.user} {place}")
        return
    for name in names:
        path = place / name
        if (name.endswith(".key") or "+" in name) and path.is_file():
            yield from _permissions(path, relay)


def _manual(config: Config, chart: Chart, patient: Patient) -> list[Finding]:
    try:
        chain = read_manual(config.certdir, config.hostname)
    except ConfigError as error:
        made_at_start = parse_ip(config.hostname) is not None and not all(
            path.exists() for path in manual_paths(config.certdir, config.hostname)
        )
        if made_at_start:
            cure = "the relay makes one when it starts"
            return [warn(f"there is no certificate for {config.hostname} yet", cure)]
        said, _, cure = str(error).rpartition("; ")
        return [fail(said or cure, cure)]
    now = patient.wall_time()
    findings = [
        warn(complaint, "see above") for complaint in complaints(chain, config.hostname, now)
    ]
    if chart.chain and chart.chain[0] != chain.leaf_der:
        said = "the certificate in the files is not the one that is served"
        cure = "the relay reads changed files within seconds: does a proxy in front end TLS?"
        findings.append(warn(said, cure))
    number = len(chain.certificates)
    return findings or [ok(f"{config.certdir}: files for {config.hostname}, {number} in the chain")]


def _acquired(config: Config, place: Path, relay: LocalRelay) -> list[Finding]:
    """What ACME has brought so far."""
    findings = []
    if not os.access(place, os.W_OK | os.X_OK) and (relay.uid in (None, os.geteuid())):
        said = f"the relay may not write to --certdir {place}"
        cure = f"chown -R {relay.user} {place}: else it gets new certificates at each start"
        findings.append(fail(said, cure))
    if parse_ip(config.hostname) is None and not (place / config.hostname.lower()).exists():
        said = f"no certificate for {config.hostname} has been got yet"
        cure = (
            "it is got when the first client comes; ports 443 or 80 must be reachable from "
            "everywhere for that, and the relay's log says what is in the way"
        )
        findings.append(warn(said, cure))
    return findings or [ok(f"{place}: writable, with a certificate for {config.hostname}")]
