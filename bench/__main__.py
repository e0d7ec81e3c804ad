"""
All benchmarks in a row, then the pictures: ``python -m bench --derper /path/derper``.

Options are those of the single commands and go to each of them. Results are written to
``--results`` (``build/bench``).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import connections, latency, memory, mixed, overload, plot, relay, stun
from bench.servers import ROOT

COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "relay": relay.main,
    "mixed": mixed.main,
    "latency": latency.main,
    "connections": connections.main,
    "memory": memory.main,
    "overload": overload.main,
    "stun": stun.main,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Be ``python -m bench``."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--skip", default="", metavar="NAMES", help="comma list of benchmarks")
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "bench", metavar="DIR")
    options, rest = parser.parse_known_args(arguments)
    skipped = options.skip.split(",")
    failures = []
    for name, run in COMMANDS.items():
        if name in skipped:
            continue
        path = options.results / f"{name}.json"
        try:
            run([*rest, "--json", str(path)])
            if name in plot.PLOTS:
                plot.main([str(path), "-o", str(path.with_suffix(".svg"))])
        except SystemExit as error:
            failures.append(str(error))
    if failures:
        raise SystemExit("\n".join(failures))


if __name__ == "__main__":
    main()
