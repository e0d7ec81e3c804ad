"""What admission counts, as metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric

from derp.core.admission import AdmissionStats


def admission_metrics(stats: AdmissionStats) -> Iterator[Metric]:
    """Make the ``derp_admission_…`` metrics of one relay."""
    answers = CounterMetricFamily(
        "derp_admission_answers",
        "What was said about clients, by whom.",
        labels=["source", "verdict"],
    )
    for (kind, verdict), count in stats.answers.items():
        answers.add_metric([kind.value, verdict.value], count)
    yield answers
    logins = CounterMetricFamily(
        "derp_admission_logins",
        "Logins that were asked about, by what became of them.",
        labels=["outcome"],
    )
    for outcome, count in stats.logins.items():
        logins.add_metric([outcome.value], count)
    yield logins
    spared = CounterMetricFamily(
        "derp_admission_spared_questions",
        "Questions that were not asked: answered lately (fresh), answered before while there is "
        "no answer to be had (stale), or being asked already (joined).",
        labels=["reason"],
    )
    for reason, count in (
        ("fresh", stats.cached),
        ("stale", stats.stale),
        ("joined", stats.joined),
    ):
        spared.add_metric([reason], count)
    yield spared
    rechecks = CounterMetricFamily(
        "derp_admission_rechecks",
        "Connected clients asked about again; unreachable is where nobody knew.",
        labels=["verdict"],
    )
    for verdict, count in stats.rechecks.items():
        rechecks.add_metric([verdict.value], count)
    yield rechecks
    yield CounterMetricFamily(
        "derp_clients_revoked",
        "Connections closed since their client is no longer admitted.",
        value=stats.revoked,
    )
