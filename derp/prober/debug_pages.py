"""The pages under ``/debug/`` of a prober; who may see them is :mod:`derp.net.debug_access`."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource

from derp import __version__
from derp.durations import format_duration
from derp.net.debug import CollectPage, MutexProfilePage
from derp.net.derper_variables import process_variables
from derp.net.expvar import Computed, Variable, variables_json
from derp.net.metrics import MetricsPage
from derp.net.pprof import ProfilePages
from derp.net.process_info import shown_command_line
from derp.net.process_metrics import ProcessMetrics
from derp.net.varz import varz, version_sample
from derp.prober.probe_metrics import BARE_COUNTERS, ProbeMetrics
from derp.prober.prober import Prober

PROGRAM: Final = "derpprobe"
LINKS: Final = (
    ("vars", "Metrics (Go)"),
    ("varz", "Metrics (Prometheus)"),
    ("pprof/", "pprof (index)"),
    ("pprof/goroutine?debug=1", "Goroutines (collapsed)"),
    ("pprof/goroutine?debug=2", "Goroutines (full)"),
    ("gc", "force GC"),
    ("probe-run", "Run a probe"),
    ("probe-all", "Run all configured probes"),
)
"""What the index leads to, in the reference's order and words."""


def _command_line() -> Sequence[str]:
    return shown_command_line(sys.argv)


@dataclass(kw_only=True)
class ProcessFacts:
    """What is shown of this process; made once, at its start."""

    clock: Any
    version: str = __version__
    machine: str = field(default_factory=socket.gethostname)
    command_line: Sequence[str] = field(default_factory=_command_line)
    """Without the values of secret flags."""
    wall_time: Callable[[], float] = time.time
    start_unix_time: int = field(init=False)
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock.seconds()
        self.start_unix_time = int(self.wall_time())

    @property
    def uptime(self) -> int:
        """Whole seconds since the start."""
        return max(0, round(self.clock.seconds() - self.started))

    def variables(self) -> dict[str, Variable]:
        """By their raw names."""
        return {
            "cmdline": list(self.command_line),
            **process_variables(self.uptime, self.start_unix_time),
        }


class _Together(Collector):
    """Metrics of the process and of the probes, by name."""

    def __init__(self, prober: Prober) -> None:
        self._parts = (ProcessMetrics(), ProbeMetrics(prober))

    def collect(self) -> Iterable[Metric]:
        families = [family for part in self._parts for family in part.collect()]
        return sorted(families, key=lambda family: family.name)


def debug_pages(prober: Prober, facts: ProcessFacts) -> dict[str, IResource]:
    """Give every page by its path, ``/metrics`` among them; the pages of runs are elsewhere."""
    metrics = _Together(prober)
    registry = CollectorRegistry()
    registry.register(metrics)
    return {
        "/debug/": Index(prober, facts),
        "/debug/vars": VarsPage(facts),
        "/debug/varz": VarzPage(metrics, facts),
        "/debug/gc": CollectPage(),
        "/debug/pprof/": ProfilePages(facts.clock, facts.command_line),
        "/debug/set-mutex-profile-fraction": MutexProfilePage(),
        "/metrics": MetricsPage(registry),
    }


class Index(Resource):
    """``/debug/``: what runs here, and where to look closer."""

    isLeaf = True

    def __init__(self, prober: Prober, facts: ProcessFacts) -> None:
        super().__init__()
        self._prober = prober
        self._facts = facts

    def render(self, request: IRequest) -> bytes:
        """See ``IResource``."""
        request.setHeader(b"Content-Type", b"text/html; charset=utf-8")
        facts = self._facts
        items = [
            f"<b>{key}:</b> {escape(value)}"
            for key, value in (
                ("Uptime", format_duration(facts.uptime)),
                ("Version", facts.version),
                ("Machine", facts.machine),
                ("Probes", str(len(self._prober.probes))),
            )
        ]
        items += [
            f'<a href="/debug/{path}">/debug/{path}</a> ({escape(description)})'
            for path, description in LINKS
        ]
        listing = "".join(f"<li>{item}</li>\n" for item in items)
        page = f"<html><body>\n<h1>{PROGRAM} debug</h1>\n<ul>\n{listing}</ul>\n</body></html>\n"
        return page.encode("utf-8")


class VarsPage(Resource):
    """``/debug/vars``: the process' variables as JSON."""

    isLeaf = True

    def __init__(self, facts: ProcessFacts) -> None:
        super().__init__()
        self._facts = facts

    def render(self, request: IRequest) -> bytes:
        """See ``IResource``."""
        request.setHeader(b"Content-Type", b"application/json; charset=utf-8")
        variables = {**self._facts.variables(), "version": Computed(self._facts.version)}
        return variables_json(variables).encode("ascii")


class VarzPage(Resource):
    """``/debug/varz``: the metrics, then the process' variables, for Prometheus."""

    isLeaf = True

    def __init__(self, metrics: Collector, facts: ProcessFacts) -> None:
        super().__init__()
        self._metrics = metrics
        self._facts = facts

    def render(self, request: IRequest) -> bytes:
        """See ``IResource``."""
        request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
        version = version_sample(self._facts.version, PROGRAM)
        text = varz(self._facts.variables()) + version + "\n"
        return _with_bare_counters(generate_latest(self._metrics)) + text.encode("utf-8")


def _with_bare_counters(exposition: bytes) -> bytes:
    """Call counters counters whose names the text format allows and the library does not."""
    for name in BARE_COUNTERS:
        line = f"# TYPE {name} ".encode("ascii")
        exposition = exposition.replace(line + b"untyped\n", line + b"counter\n")
    return exposition
