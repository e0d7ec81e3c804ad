"""Clock skew: what time the relay, or its proxy, has in its HTTP answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from derp.doctor.finding import Finding, fail, ok, skip, warn
from derp.doctor.patient import Chart, Patient

NOTICEABLE_S: Final = 30.0
"""Whoever synchronises clocks is nearer than that."""
HARMFUL_S: Final = 300.0
"""Certificates that have just been issued, tokens and logs are wrong from here on."""

_CURE: Final = "synchronise the clock that is wrong (timedatectl set-ntp true), there or here"


async def examine_clocks(patient: Patient, chart: Chart) -> Sequence[Finding]:
    """Compare the Date header with this machine's clock."""
    for answer in chart.answers:
        try:
            moment = parsedate_to_datetime(answer.header("date"))
        except (TypeError, ValueError):
            continue
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return [_judge(moment.timestamp() - patient.wall_time())]
    return [skip("no answer of the relay has a Date")]


def _judge(skew: float) -> Finding:
    """:param skew: seconds by which the relay's clock is ahead."""
    facts = {"skew_s": round(skew, 1)}
    if abs(skew) < NOTICEABLE_S:
        return ok("the relay's clock agrees with this machine's", **facts)
    where = "ahead of" if skew > 0 else "behind"
    said = f"the relay's clock is {_length(abs(skew))} {where} this machine's"
    if abs(skew) < HARMFUL_S:
        return warn(said, _CURE, **facts)
    return fail(f"{said}: certificates seem invalid to one of them", _CURE, **facts)


def _length(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
