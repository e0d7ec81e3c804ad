"""What the system knows of this process (:mod:`derp.net.process_info`), as metrics."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from derp.net.process_info import PROC, network_bytes

UNLIMITED: Final = 2.0**64 - 1
"""What stands for "no limit" in ``process_virtual_memory_max_bytes``."""


class ProcessMetrics(Collector):
    """
    The ``process_…`` metrics, sorted by name: prometheus-client's, and three it lacks.

    The three are what Go's client library adds to them, from the same sources.
    """

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._standard = ProcessCollector(proc=str(proc), registry=None)

    def collect(self) -> Iterable[Metric]:
        families = [*self._standard.collect(), *self._additional()]
        return sorted(families, key=lambda family: family.name)

    def _additional(self) -> Iterator[Metric]:
        octets = network_bytes(self._proc)
        if octets is None:
            return
        for direction, verb, count in zip(
            ("receive", "transmit"), ("received", "sent"), octets, strict=True
        ):
            yield CounterMetricFamily(
                f"process_network_{direction}_bytes",
                f"Bytes {verb} by the network namespace of the process.",
                value=count,
            )
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        yield GaugeMetricFamily(
            "process_virtual_memory_max_bytes",
            "How much virtual memory the process may use.",
            value=UNLIMITED if limit == resource.RLIM_INFINITY else limit,
        )
