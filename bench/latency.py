"""
How long a packet takes through a relay, alone and beside other traffic.

One packet at a time goes to a peer and comes back. *One way* is from the write of a client to
the read of the other, both in one process on one clock, so no clocks need to agree. The second
case adds a paced load of other pairs, whose own packets are measured too. The last two show what
a client that floods does to the others: half of what a server can carry, and the same beside
clients that send all their sockets take::

    python -m bench.latency --derper /path/derper
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bench.generator import Run
from bench.harness import Benchmark, Case, Metric, add_options, command
from bench.relay import CPU

PERCENTILES = ("50", "99", "99.9")


def percentile(histogram: str, title: str, at: str) -> Metric:
    """A percentile of one of the generator's histograms."""

    def value(run: Run) -> float | None:
        return run[histogram]["us"][at] if run[histogram]["count"] else None

    return Metric(f"{histogram}_p{at}", f"{title} p{at}, µs", value, digits=0)


METRICS = [
    *(percentile("one_way", "one way", at) for at in PERCENTILES),
    *(percentile("load_one_way", "one way of the other traffic", at) for at in PERCENTILES),
    percentile("round_trip", "round trip", "50"),
    CPU,
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Be ``python -m bench.latency``."""
    parser = argparse.ArgumentParser(prog="bench.latency", description=__doc__.partition("\n\n")[0])
    add_options(parser, seconds=4)
    parser.add_argument("--size", type=int, default=1200, help="bytes of a packet (1200)")
    parser.add_argument("--pairs", type=int, default=20, help="pairs of the load (20)")
    parser.add_argument("--rate", type=int, default=20000, help="packets/s of the load (20000)")
    parser.add_argument("--half", type=int, default=40000, help="packets/s beside a flood (40000)")
    parser.add_argument("--flood", type=int, default=1, help="clients that send all they can (1)")
    parser.add_argument("--gap-us", type=float, default=0, help="pause before the next ping (0)")

    def make(options: argparse.Namespace) -> Benchmark:
        alone = ("latency", "--size", str(options.size), "--gap-us", str(options.gap_us))
        pairs = ("--pairs", str(options.pairs), "--rate")
        flood = ("--flood", str(options.flood))
        size, rate, half = f"{options.size} B", str(options.rate), str(options.half)
        loads = [
            Case(f"{size}, idle", alone),
            Case(f"{size}, beside {rate}/s", (*alone, *pairs, rate)),
            Case(f"{size}, beside {half}/s", (*alone, *pairs, half)),
            Case(
                f"{size}, beside {half}/s and {options.flood} flooding",
                (*alone, *pairs, half, *flood),
            ),
        ]
        return Benchmark("latency", loads, METRICS, lossless=True)

    command(make, parser, arguments)


if __name__ == "__main__":
    main()
