"""The relay of this machine: what it was told, and which process it is."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from dataclasses import dataclass

from derp.config import Config
from derp.doctor.finding import Finding, fail, ok, warn
from derp.doctor.patient import Chart, Patient


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRelay:
    """What is known of it before it is examined."""

    config: Config | None = None
    """``None`` if its settings are not to be found, or wrong."""
    problem: str = ""
    """Why, in the words that stop a start."""
    pid: int | None = None
    """``None`` if no process was found."""
    uid: int | None = None
    """Of that process."""
    proc: str = "/proc"

    @property
    def user(self) -> str:
        """Who the process runs as, for people."""
        return user_name(os.geteuid() if self.uid is None else self.uid)


def user_name(uid: int) -> str:
    """The name of a user; its number if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


async def examine_settings(relay: LocalRelay, patient: Patient, chart: Chart) -> Sequence[Finding]:
    """Is there a relay, and can its settings be read?"""
    findings = []
    if relay.pid is not None:
        findings.append(ok(f"runs as process {relay.pid}, user {relay.user}", pid=relay.pid))
    else:
        said = "no such derper process is to be seen here"
        cure = "start it; if it runs as another user, or in a container, examine as that user there"
        findings.append(warn(said, cure))
    if relay.problem:
        cure = "give the relay's flags behind --: derper doctor --local -- -hostname ..."
        findings.append(fail(relay.problem, cure))
    elif relay.config is not None:
        findings += [warn(notice, "take it out, or see the README") for notice in _telling(relay)]
    return findings


def _telling(relay: LocalRelay) -> list[str]:
    """Notices of the settings that say that something has no effect."""
    assert relay.config is not None
    return [notice for notice in relay.config.notices if "no effect" in notice]
