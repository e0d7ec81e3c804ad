"""
When what works is too bad to be called working: too slow, or too much lost.

Applied to what a run has found, so that a slow answer is a failure with its own sentence, and an
alert like any other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from derp.durations import format_duration
from derp.prober.check import Check, ProbeFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What is put up with; 0 is everything."""

    latency: float = 0.0
    """Seconds that a STUN answer, or a packet through relays, may take (``--max-latency``)."""
    loss: float = 0.0
    """Share of the last STUN requests that may be lost, 0 to 1 (``--max-loss``)."""


def within(tolerance: Tolerance, check: Check) -> Check:
    """Make a check that fails as well if what it finds is not put up with."""
    if tolerance == Tolerance():
        return check

    async def run() -> None:
        await check.run()
        findings = check.findings()
        for key, what in (("rtt_ms", "the STUN answer"), ("packet_ms", "the packet")):
            taken_ms = findings.get(key)
            if isinstance(taken_ms, int | float):
                _judge_latency(tolerance, what, taken_ms / 1000)
        loss = findings.get("loss")
        if tolerance.loss and isinstance(loss, int | float) and loss > tolerance.loss:
            raise ProbeFailed(
                f"{findings.get('lost')} of the last {findings.get('sent')} STUN requests were "
                f"lost ({loss:.1%}), more than --max-loss allows ({tolerance.loss:.1%})"
            )

    return replace(check, run=run)


def _judge_latency(tolerance: Tolerance, what: str, taken: float) -> None:
    if tolerance.latency and taken > tolerance.latency:
        raise ProbeFailed(
            f"{what} took {format_duration(round(taken, 4))}, longer than --max-latency allows "
            f"({format_duration(tolerance.latency)})"
        )
