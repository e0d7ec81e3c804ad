"""
Pictures of result files: goodput against offered load, and latency by percentile.

    python -m bench.plot build/bench/overload.json -o overload.svg
    python -m bench.plot build/bench/latency.json -o latency.svg
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import report
from bench.svg import Axis, Line, Panel, chart

PERCENTILES = ("0", "10", "50", "75", "90", "95", "99", "99.5", "99.9", "99.95", "99.99")
SHOWN = ("0", "50", "90", "99", "99.9", "99.99")


def _rate(runs: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Median of a count per second, in thousands."""
    rates = [run[name] / run["seconds"] / 1e3 for run in runs]
    return statistics.median(rates) if rates else None


def _goodput(cases: Sequence[Mapping[str, Any]], server: str) -> list[tuple[float, float]]:
    """
    Offered and delivered packets/s of a server, in thousands.

    Where senders push all they can, every server is offered what the least resisting one took.
    """
    points: list[tuple[float, float]] = []
    for case in cases:
        runs = case["runs"]
        if case["load"][0] == "open":
            taken = [_rate(those, "offered") or 0 for those in runs.values()]
            offered: float | None = max([*taken, *(point[0] for point in points)])
        else:
            offered = _rate(runs.get(server, []), "offered")
        delivered = _rate(runs.get(server, []), "delivered")
        if offered is not None and delivered is not None:
            points.append((offered, delivered))
    return sorted(points)


def overload_panels(result: Mapping[str, Any]) -> list[Panel]:
    """One panel for each number of pairs."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for case in result["cases"]:
        if case["load"][0] != "pairs":
            groups.setdefault(case["name"].partition(",")[0], []).append(case)
    x = Axis("offered, thousand packets/s")
    y = Axis("delivered, thousand packets/s")
    panels = []
    for name, cases in groups.items():
        lines = [Line(server, _goodput(cases, server)) for server in result["servers"]]
        best = max((point[1] for line in lines for point in line.points), default=1.0)
        ideal = Line("all that is offered", [(0, 0), (best, best)], dashed=True, grey=True)
        panels.append(Panel(name, x, y, [*lines, ideal]))
    return panels


def nines(percentile: str) -> float:
    """Place a percentile so that 90, 99, 99.9 are equally far apart."""
    return -math.log10(1 - float(percentile) / 100)


def _latency_line(label: str, runs: Sequence[Mapping[str, Any]], histogram: str) -> Line | None:
    runs = [run for run in runs if run[histogram]["count"]]
    if not runs:
        return None
    points = [
        (nines(at), statistics.median(run[histogram]["us"][at] for run in runs))
        for at in PERCENTILES
        if at in runs[0][histogram]["us"]
    ]
    return Line(label, points)


def latency_panels(result: Mapping[str, Any]) -> list[Panel]:
    """One panel per case: the lone packet's way, one line per server."""
    x = Axis("percentile", ticks=[(nines(at), at) for at in SHOWN])
    y = Axis("one way, µs", logarithmic=True)
    panels = []
    for case in result["cases"]:
        lines = [
            _latency_line(server, case["runs"].get(server, []), "one_way")
            for server in result["servers"]
        ]
        panels.append(Panel(case["name"], x, y, [line for line in lines if line is not None]))
    return panels


PLOTS = {
    "overload": ("Goodput against offered load", overload_panels),
    "latency": ("Latency through the relay", latency_panels),
}


def draw(result: Mapping[str, Any]) -> str:
    """
    Give the picture of a result.

    :raises ValueError: if there is no picture for its benchmark.
    """
    if result["benchmark"] not in PLOTS:
        raise ValueError(f"no picture for {result['benchmark']}: only {', '.join(PLOTS)}")
    title, panels = PLOTS[result["benchmark"]]
    machine = result["machine"]
    where = f"{title} ({machine['cpu']}, one CPU per server, {result['taken'][:10]})"
    return chart(where, panels(result))


def main(arguments: Sequence[str] | None = None) -> None:
    """Be ``python -m bench.plot``."""
    parser = argparse.ArgumentParser(prog="bench.plot", description=__doc__.partition("\n\n")[0])
    parser.add_argument("result", type=Path, help="result file of overload or latency")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.svg")
    options = parser.parse_args(arguments)
    try:
        options.output.write_text(draw(report.read_json(options.result)))
    except (OSError, ValueError) as error:
        raise SystemExit(f"bench.plot: {error}") from error


if __name__ == "__main__":
    main()
