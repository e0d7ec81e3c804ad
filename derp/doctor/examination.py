"""
Examinations and their order.

An examination is one thing that is looked at. It starts when those it follows have ended, beside
whatever else can run; it ends by itself within a few steps of :attr:`Patient.timeout`, and is
ended if it does not. What goes wrong with the doctor is a finding, too, and never the end of the
others.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, TimeoutError

from derp.doctor.finding import Finding, Verdict, fail, skip
from derp.doctor.patient import Chart, Patient
from derp.net.outcome import Outcome

STEPS: Final = 3
"""How many times :attr:`Patient.timeout` a whole examination may take."""


@dataclass(frozen=True, slots=True)
class Examination:
    """One of them."""

    name: str
    """As the report calls it."""
    run: Callable[[Patient, Chart], Coroutine[Deferred[Any], Any, Sequence[Finding]]]
    after: tuple[str, ...] = ()
    """Names of those that must have ended."""
    needs: Callable[[Chart], str] = lambda chart: ""
    """Why it makes no sense any more; empty if it does."""


@dataclass(frozen=True, slots=True)
class Examined:
    """One examination's findings."""

    name: str
    findings: Sequence[Finding]


async def examine(
    examinations: Sequence[Examination], patient: Patient, chart: Chart
) -> list[Examined]:
    """Run them all; the order of the results is that of the examinations."""
    ended: dict[str, Outcome[None]] = {each.name: Outcome() for each in examinations}

    async def one(examination: Examination) -> Examined:
        for name in examination.after:
            if name in ended:
                await ended[name].when()
        findings = await _findings(examination, patient, chart)
        ended[examination.name].succeed(None)
        return Examined(examination.name, findings)

    running = [Deferred.fromCoroutine(one(each)) for each in examinations]
    results = await DeferredList(running, fireOnOneErrback=True)
    return [result for _, result in results]


async def _findings(examination: Examination, patient: Patient, chart: Chart) -> Sequence[Finding]:
    why_not = examination.needs(chart)
    if why_not:
        return [skip(why_not)]
    seconds = STEPS * patient.timeout
    try:
        running = Deferred.fromCoroutine(examination.run(patient, chart))
        return await running.addTimeout(seconds, patient.reactor)
    except TimeoutError:
        return [fail(f"not done within {seconds:g} s", "try again, with a longer --timeout")]
    except Exception as error:
        said = f"the doctor cannot examine this: {type(error).__name__}: {error}"
        return [fail(said, "please report it, with this line")]


def worst(results: Sequence[Examined]) -> Verdict:
    """The worst verdict of a whole pass; ``OK`` for one that found nothing."""
    order = (Verdict.FAIL, Verdict.WARN, Verdict.OK)
    found = {finding.verdict for each in results for finding in each.findings}
    return next((verdict for verdict in order if verdict in found), Verdict.OK)
