"""
What becomes of measured runs: medians, tables, JSON, and the machine they were taken on.

A result file::

    {"format": 1, "benchmark": "relay", "taken": "2026-01-31T12:00:00+00:00",
     "machine": {…}, "options": {…}, "reference": "derper",
     "servers": {"derper": "/path/derper -a …", …},
     "metrics": [{"name": "cpu_us", "title": …, "lower_is_better": true, "digits": 2}, …],
     "cases": [{"name": "1200 B, trains, 10 pairs", "load": ["pairs", "--pairs", "10", …],
                "runs": {"derper": [{what the generator printed}, …], …},
                "figures": {"cpu_us": {"derper": [4.1, 4.3, …], …}, …}}, …]}

``figures`` holds one number per run and server, in the order of the rounds.
"""

from __future__ import annotations

import json
import os
import platform
import ssl
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

FORMAT = 1


@dataclass(frozen=True)
class Summary:
    """Several runs of one thing: their median and how far they spread."""

    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Summary | None:
        """Summarize; ``None`` for no values."""
        known = sorted(values)
        if not known:
            return None
        return cls(statistics.median(known), known[0], known[-1], len(known))

    def overlaps(self, other: Summary) -> bool:
        """Tell whether the spreads touch: then a difference may be noise."""
        return self.low <= other.high and other.low <= self.high

    def text(self, digits: int) -> str:
        """Give ``median [low..high]``."""
        if self.runs == 1:
            return f"{self.median:,.{digits}f}"
        return f"{self.median:,.{digits}f} [{self.low:,.{digits}f}..{self.high:,.{digits}f}]"


def ratio(value: Summary | None, reference: Summary | None) -> float | None:
    """Divide medians, where that has a meaning."""
    if value is None or reference is None or reference.median <= 0:
        return None
    return value.median / reference.median


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows (the first is the head) in columns; the first column is left-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def metric_table(result: Mapping[str, Any], metric: Mapping[str, Any]) -> str | None:
    """
    Show one metric of a result: cases down, servers across, ratios to the reference.

    ``None`` if no case has it.
    """
    names, reference = list(result["servers"]), result["reference"]
    head = ["case"]
    for name in names:
        head += [name] if name == reference else [name, f"÷ {reference}"]
    rows = [head]
    for case in result["cases"]:
        figures = case["figures"].get(metric["name"], {})
        summaries = {name: Summary.of(figures.get(name, ())) for name in names}
        if not any(summaries.values()):
            continue
        row = [case["name"]]
        for name in names:
            summary = summaries[name]
            row.append(summary.text(metric["digits"]) if summary else "-")
            if name != reference:
                share = ratio(summary, summaries.get(reference))
                row.append("-" if share is None else f"{share:.2f}x")
        rows.append(row)
    if len(rows) == 1:
        return None
    better = "lower is better" if metric["lower_is_better"] else "higher is better"
    return f"{metric['title']} ({better})\n\n{table(rows)}"


def print_result(result: Mapping[str, Any]) -> None:
    """Print every table of a result."""
    machine = result["machine"]
    rounds = result["options"]["rounds"]
    print(f"\n{result['benchmark']}: medians of {rounds} interleaved runs [min..max]")
    print(f"{machine['cpu']}, {machine['cpus']} CPUs, Linux {machine['kernel']}, ", end="")
    print(f"CPython {machine['python']}, {machine['openssl']}, commit {machine['commit']}")
    for metric in result["metrics"]:
        text = metric_table(result, metric)
        if text:
            print(f"\n{text}")


def _first_line(path: str, field: str) -> str:
    try:
        for line in Path(path).read_text().splitlines():
            if line.startswith(field):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return "unknown"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def _commit(root: Path) -> str:
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:  # no git here
        return "unknown"
    return described.stdout.strip() or "unknown"


def machine(root: Path) -> dict[str, Any]:
    """Describe where and on what the figures were taken."""
    return {
        "cpu": _first_line("/proc/cpuinfo", "model name"),
        "cpus": os.cpu_count(),
        "memory": _first_line("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "interpreter": sys.executable,
        "openssl": ssl.OPENSSL_VERSION,
        "twisted": _version("Twisted"),
        "pyopenssl": _version("pyOpenSSL"),
        "cryptography": _version("cryptography"),
        "commit": _commit(root),
        "load_average": os.getloadavg(),
    }


def now() -> str:
    """Give the time for a result."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result file, making its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """
    Read a result file.

    :raises ValueError: if it is none.
    """
    try:
        result = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} holds no JSON: {error}") from error
    if not isinstance(result, dict) or result.get("format") != FORMAT:
        raise ValueError(f"{path} is no result of this suite (format {FORMAT})")
    return result
