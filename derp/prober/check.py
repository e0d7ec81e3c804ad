"""
A check: what one probe does, bound to its target, without a schedule or a history.

A check succeeds by returning. It fails by raising: :class:`ProbeFailed` with a sentence for
people, or any other exception, whose type and text are shown then. It is ended by cancelling
its Deferred, after which nothing of it may be left: no socket, no delayed call.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.metrics_core import Metric

from derp.errors import DERPError


class ProbeFailed(DERPError):
    """What was probed does not work; the text says what was tried, what came and what to do."""


def no_metrics() -> Iterable[Metric]:
    """Of a check that has no metrics of its own."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one probe does each time it is due."""

    probe_class: str
    """Its class as metrics label it: ``derp_map``, ``tls``, ``derp_udp``, ``derp_mesh``,
    ``derp_bw`` or ``derp_qd``."""
    labels: Mapping[str, str]
    """Labels of its metrics besides name and class."""
    run: Callable[[], Coroutine[Any, Any, None]]
    """One run. A continuous check returns only when it fails."""
    metrics: Callable[[], Iterable[Metric]] = no_metrics
    """
    Metrics of its own, as ``derpprobe_<name>``, without labels: the prober adds all of those.
    Samples have the names and the labels (``le``) that are theirs alone.
    """
    findings: Callable[[], Mapping[str, str | int | float]] = dict
    """What the last run has found, for the page: ``days_left``, ``mapped_address``, ``loss``…"""
