"""
``derper health``: the health check of an image or a unit; exit code 0 or 1, one line.

What the relay's flags and variables are is found out as the relay does it, and from its command
line in ``/proc`` (:mod:`derp.running_relay`); flags given here take the place of those.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from derp.doctor.finding import Verdict
from derp.doctor.quick import TIMEOUT, check
from derp.durations import format_duration
from derp.errors import ConfigError
from derp.flags import FLAGS
from derp.goflag import Flag, FlagError, Kind, parse_flags
from derp.running_relay import doors_of, given_to_relay

USAGE: Final = f"""\
Usage: derper health [--timeout 3s] [flags of the relay]

Checks the relay on this machine: TLS, the upgrade to DERP, its greeting, a login if everybody is
admitted, STUN. Prints one line; exits with 0 if the relay is well, with 1 if it is not, with 2
for a wrong flag. The relay's flags are those of its process, or those given here; variables and
--config are read as the relay reads them. {format_duration(TIMEOUT)} is the longest it takes.
"""
_TIMEOUT_FLAG: Final = "timeout"
_OWN: Final = Flag(_TIMEOUT_FLAG, Kind.DURATION, TIMEOUT, "How long the check may take.")


def run(argv: Sequence[str]) -> int:
    """Check, say so, give the exit code."""
    try:
        parsed = parse_flags((*FLAGS, _OWN), argv)
    except FlagError as error:
        print(f"{USAGE}\nderper health: {error}", file=sys.stderr)
        return 2
    if parsed.help:
        print(USAGE, end="")
        return 0
    timeout = parsed.given.pop(_TIMEOUT_FLAG, TIMEOUT)
    assert isinstance(timeout, float)
    try:
        finding = check(doors_of(given_to_relay(parsed.given, os.environ)), timeout)
    except ConfigError as error:
        print(f"unhealthy: {error}")
        return 1
    if finding.verdict is Verdict.FAIL:
        cure = f": {finding.cure}" if finding.cure else ""
        print(f"unhealthy: {finding.said}{cure}")
        return 1
    print(f"healthy: {finding.said}")
    return 0
