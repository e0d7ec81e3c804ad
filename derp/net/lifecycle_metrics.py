"""Whether a relay is ready, as metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from derp.core.lifecycle import Lifecycle, Phase, Unfit


def lifecycle_metrics(lifecycle: Lifecycle) -> Iterator[Metric]:
    """Make the metrics of one relay's life."""
    yield GaugeMetricFamily("derp_ready", "Whether /readyz says so.", value=lifecycle.is_ready)
    phases = GaugeMetricFamily("derp_phase", "1 for the phase of its life.", labels=["phase"])
    for phase in Phase:
        phases.add_metric([phase.value], phase is lifecycle.phase)
    yield phases
    unfit = GaugeMetricFamily(
        "derp_unfit", "Whether a reason against readiness holds.", labels=["reason"]
    )
    count = CounterMetricFamily(
        "derp_unfit_periods", "How often a reason against readiness began.", labels=["reason"]
    )
    for reason in Unfit:
        unfit.add_metric([reason.value], reason in lifecycle.unfit)
        count.add_metric([reason.value], lifecycle.unfit_counts[reason])
    yield from (unfit, count)
