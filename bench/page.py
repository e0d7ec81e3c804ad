"""
The documentation's page of figures, from the results that the project stands by.

    python -m bench.page            # docs/figures.rst and its pictures from bench/results/*.json

A test fails while the page says something else than the results do.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench import plot, report
from bench.servers import ROOT

RESULTS: Final = ROOT / "bench" / "results"
DOCS: Final = ROOT / "docs"

SHOWN: Final[Mapping[str, tuple[str, ...]]] = {
    "relay": ("cpu_us",),
    "mixed": ("cpu_us", "packets_per_s"),
    "overload": ("packets_per_s", "lost_percent", "uncounted"),
    "latency": ("one_way_p50", "one_way_p99"),
    "connections": ("cpu_ms",),
    "memory": ("idle_kib", "after_busy_kib", "base_mib", "idle_cpu"),
    "stun": ("cpu_us",),
}
"""Benchmarks in the page's order, and which of their metrics it has."""

TITLES: Final = {
    "relay": "Packets, each sender to a receiver of its own",
    "mixed": "Packets, every sender to every receiver",
    "overload": "More than can be carried",
    "latency": "Latency",
    "connections": "New clients",
    "memory": "Silent clients",
    "stun": "STUN",
}

PICTURES: Final = {"overload": "goodput.svg", "latency": "latency.svg"}

_HEAD: Final = """\
.. Written by python -m bench.page from bench/results: measure anew, then write it anew.

Figures
=======

Medians, with the lowest and the highest run behind them; in brackets, how many times derper's
figure that is. What the loads are and how they are measured is told in
`Benchmarks <benchmarks.rst>`_; what the figures mean, and where the time goes, in
`Performance <performance.rst>`_.
"""


def results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Read those that are there, in the page's order."""
    paths = {name: folder / f"{name}.json" for name in SHOWN}
    return {name: report.read_json(path) for name, path in paths.items() if path.exists()}


def _cell(figures: Mapping[str, Sequence[float]], server: str, reference: str, digits: int) -> str:
    summary = report.Summary.of(figures.get(server) or ())
    if summary is None:
        return ""
    factor = report.ratio(summary, report.Summary.of(figures.get(reference) or ()))
    said = "" if factor is None or server == reference else f" (**{factor:.2f}**)"
    return f"{summary.text(digits)}{said}"


def _table(result: Mapping[str, Any], metric: Mapping[str, Any]) -> Iterator[str]:
    """One metric of all cases as a list-table."""
    servers = list(result["servers"])
    yield f".. list-table:: {metric['title']}"
    yield "   :header-rows: 1"
    yield ""
    yield "   * - load"
    yield from (f"     - {server}" for server in servers)
    for case in result["cases"]:
        figures = case["figures"].get(metric["name"]) or {}
        cells = [_cell(figures, name, result["reference"], metric["digits"]) for name in servers]
        if not any(cells):
            continue
        yield f"   * - {case['name']}"
        yield from (f"     - {cell}".rstrip() for cell in cells)
    yield ""


def _machine(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    return (
        f"{result['taken'][:10]}, {machine['cpu']}, {machine['cpus']} CPUs, Linux "
        f"{machine['kernel']}, CPython {machine['python']}, {machine['openssl']}, commit "
        f"{machine['commit']}."
    )


def page(read: Mapping[str, Mapping[str, Any]]) -> str:
    """Write the page."""
    lines = [_HEAD]
    for name, result in read.items():
        title = TITLES[name]
        lines += [title, "-" * len(title), "", _machine(result), ""]
        if name in PICTURES:
            lines += [f".. image:: {PICTURES[name]}", f"   :alt: {plot.PLOTS[name][0]}", ""]
        metrics = {metric["name"]: metric for metric in result["metrics"]}
        for wanted in SHOWN[name]:
            if wanted in metrics:
                lines += _table(result, metrics[wanted])
    return "\n".join(lines).rstrip("\n") + "\n"


def files(read: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Give the page and its pictures by name."""
    made = {"figures.rst": page(read)}
    for name, picture in PICTURES.items():
        if name in read:
            made[picture] = plot.draw(read[name])
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Be ``python -m bench.page``."""
    parser = argparse.ArgumentParser(prog="bench.page", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    options = parser.parse_args(arguments)
    for name, text in files(results(options.results)).items():
        (DOCS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
