"""
The metrics of all probes, under the reference's names.

Each has the probe's labels: name, class, region, region_id, hostname and those of its class
(the map probe has the first two only). A probe that was removed takes its series with it.

================================  =======  ==================================================
metric                            type     meaning
================================  =======  ==================================================
derpprobe_interval_secs           gauge    negative: continuous
derpprobe_start_secs              gauge    Unix seconds of the last start
derpprobe_end_secs                gauge    Unix seconds of the last end
derpprobe_latency_millis          gauge    of the last run, if it succeeded
derpprobe_result                  gauge    1 or 0
derpprobe_in_flight               gauge    runs under way
derpprobe_attempts_total          counter  runs that ended, by ``status`` ok or fail
derpprobe_seconds_total           counter  how long they took, by the same
================================  =======  ==================================================

A check's own metrics stand beside them. What differs from the reference: latency has its
fraction; a continuous probe has no end before the first one, and its result is 1 while it works
instead of 0 for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from derp.prober.probe import Probe
from derp.prober.prober import Prober

PREFIX: Final = "derpprobe_"
BARE_COUNTERS: Final = ("derpprobe_derp_qd_probe_dropped_packets",)
"""The reference's counters without ``_total``."""
SETTLED_S: Final = 30.0
"""How long a continuous probe has to run to count as working."""

_DESCRIPTIONS: Final = {
    "interval_secs": ("gauge", "Seconds between two runs, negative if they follow each other"),
    "start_secs": ("gauge", "When the last run began (Unix seconds)"),
    "end_secs": ("gauge", "When the last run that ended did (Unix seconds)"),
    "latency_millis": ("gauge", "How long the last run took if it succeeded (milliseconds)"),
    "result": ("gauge", "Whether the last run succeeded: 1 or 0"),
    "in_flight": ("gauge", "Runs under way"),
    "attempts": ("counter", "Runs that ended"),
    "seconds": ("counter", "How long runs took (seconds)"),
}

Sample = tuple[str, dict[str, str], float]
"""Which metric, labels beside the probe's, value."""


class ProbeMetrics(Collector):
    """Reads everything when asked."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober

    def collect(self) -> Iterable[Metric]:
        """See ``Collector``: families sorted by name."""
        families = {
            name: Metric(f"{PREFIX}{name}", description, kind)
            for name, (kind, description) in _DESCRIPTIONS.items()
        }
        own: dict[str, Metric] = {}
        for probe in self._prober.probes.values():
            for name, labels, value in _samples(probe):
                suffix = "_total" if families[name].type == "counter" else ""
                all_labels = {**probe.labels, **labels}
                families[name].add_sample(f"{PREFIX}{name}{suffix}", all_labels, value)
            for metric in probe.check.metrics():
                family = own.setdefault(
                    metric.name, Metric(metric.name, metric.documentation, _type_of(metric))
                )
                for sample in metric.samples:
                    family.add_sample(sample.name, {**probe.labels, **sample.labels}, sample.value)
        found = [*(each for each in families.values() if each.samples), *own.values()]
        return sorted(found, key=lambda family: family.name)


def _type_of(metric: Metric) -> str:
    """A counter whose name lacks ``_total`` is none to prometheus-client, nor to OpenMetrics."""
    bare = metric.type == "counter" and any(each.name == metric.name for each in metric.samples)
    return "unknown" if bare else metric.type


def _samples(probe: Probe) -> Iterator[Sample]:
    history = probe.history
    yield "interval_secs", {}, probe.interval
    yield "in_flight", {}, probe.in_flight
    if history.started is not None:
        yield "start_secs", {}, int(history.started)
    if history.ended is not None:
        yield "end_secs", {}, int(history.ended)
        if history.latency is not None:
            yield "latency_millis", {}, round(history.latency * 1000, 3)
        for name, ok, failed in (
            ("attempts", history.ok_runs, history.failed_runs),
            ("seconds", history.ok_seconds, history.failed_seconds),
        ):
            yield name, {"status": "ok"}, ok
            yield name, {"status": "fail"}, failed
    works = _works(probe)
    if works is not None:
        yield "result", {}, int(works)


def _works(probe: Probe) -> bool | None:
    """Whether what is probed works; ``None`` if that is not known yet."""
    history = probe.history
    if probe.continuous and probe.in_flight and probe.lasted >= SETTLED_S:
        return True  # it ends only by failing, so that to last is to succeed
    return None if history.ended is None else not history.error
