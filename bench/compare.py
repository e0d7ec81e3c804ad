"""
Two result files of the same benchmark side by side, for example before and after a change.

Shown are medians and B ÷ A. ``~`` marks a difference inside the spread of the runs. Figures of
two files were not taken interleaved: between them the machine may have changed more than the
code. The column of a server that did not change (a derper, say) tells how much::

    python -m bench.compare before.json after.json
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import report


def _figures(result: Mapping[str, Any], metric: str) -> dict[tuple[str, str], report.Summary]:
    """Summaries of a metric by case and server."""
    found = {}
    for case in result["cases"]:
        for server, values in case["figures"].get(metric, {}).items():
            summary = report.Summary.of(values)
            if summary is not None:
                found[case["name"], server] = summary
    return found


def change(before: report.Summary, after: report.Summary) -> str:
    """``0.85x``, with ``~`` if it may be noise."""
    share = report.ratio(after, before)
    if share is None:
        return "-"
    return f"{share:.2f}x{'~' if after.overlaps(before) else ' '}"


def comparison(a: Mapping[str, Any], b: Mapping[str, Any], metric: Mapping[str, Any]) -> str | None:
    """Show one metric of both; ``None`` if they share no figure of it."""
    before, after = _figures(a, metric["name"]), _figures(b, metric["name"])
    shared = [key for key in before if key in after]
    if not shared:
        return None
    servers = [name for name in a["servers"] if any(server == name for _, server in shared)]
    head = ["case"]
    for server in servers:
        head += [f"{server} A", "B", "B ÷ A"]
    rows = [head]
    for case in dict.fromkeys(case for case, _ in shared):
        row = [case]
        for server in servers:
            one, two = before.get((case, server)), after.get((case, server))
            if one is None or two is None:
                row += ["-", "-", "-"]
                continue
            digits = metric["digits"]
            row += [f"{one.median:,.{digits}f}", f"{two.median:,.{digits}f}", change(one, two)]
        rows.append(row)
    better = "lower is better" if metric["lower_is_better"] else "higher is better"
    return f"{metric['title']} ({better})\n\n{report.table(rows)}"


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """
    Show all that two results share.

    :raises ValueError: if they are of different benchmarks.
    """
    if a["benchmark"] != b["benchmark"]:
        raise ValueError(f"A is of {a['benchmark']}, B of {b['benchmark']}: nothing to compare")
    lines = []
    for letter, result in (("A", a), ("B", b)):
        machine = result["machine"]
        lines.append(
            f"{letter}: {result['taken']}, commit {machine['commit']}, {machine['cpu']}, "
            f"CPython {machine['python']}, {result['options']['rounds']} runs"
        )
    lines += [
        "\n" + text for metric in a["metrics"] if (text := comparison(a, b, metric)) is not None
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Be ``python -m bench.compare``."""
    parser = argparse.ArgumentParser(prog="bench.compare", description=__doc__.partition("\n\n")[0])
    parser.add_argument("a", type=Path, help="result file, the one before")
    parser.add_argument("b", type=Path, help="result file, the one after")
    options = parser.parse_args(arguments)
    try:
        print(compare(report.read_json(options.a), report.read_json(options.b)))
    except ValueError as error:
        raise SystemExit(f"bench.compare: {error}") from error


if __name__ == "__main__":
    main()
