"""
Memory of a relay per client that is logged in and says nothing, and what they cost it.

Two cases, each on a server that has done nothing before: a number of clients that stay silent,
then flood each other, then are silent again (what a relay does not give back); and a large
number that stays silent for a while (idle CPU). Kernel socket memory is not in the server's RSS;
its part, both ends, is shown by itself::

    python -m bench.memory --derper /path/derper
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from bench.generator import Run
from bench.harness import Benchmark, Case, Metric, add_options, command


def printed(name: str) -> Callable[[Run], float | None]:
    """Give a figure just as the generator printed it."""
    return lambda run: run.get(name)


METRICS = [
    Metric("idle_kib", "RSS per idle client, KiB", printed("idle_kib"), digits=1),
    Metric("idle_pss_kib", "PSS per idle client, KiB", printed("idle_pss_kib"), digits=1),
    Metric(
        "after_busy_kib", "RSS per client after traffic, KiB", printed("after_busy_kib"), digits=1
    ),
    Metric(
        "idle_cpu",
        "CPU while all are silent, ms per s",
        lambda run: run["server_cpu_ns"] / run["seconds"] / 1e6,
    ),
    Metric(
        "base_mib", "RSS with 20 clients, MiB", lambda run: run["base_rss_kib"] / 1024, digits=1
    ),
    Metric("slab_kib", "kernel slab per client, both ends, KiB", printed("slab_kib"), digits=1),
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Be ``python -m bench.memory``."""
    parser = argparse.ArgumentParser(prog="bench.memory", description=__doc__.partition("\n\n")[0])
    add_options(parser, seconds=5)
    parser.add_argument("--clients", type=int, default=2000, help="before and after (2000)")
    parser.add_argument("--busy", type=float, default=3, help="seconds of traffic between (3)")
    parser.add_argument("--many", type=int, default=5000, help="for idle CPU (5000); 0 = skip")

    def make(options: argparse.Namespace) -> Benchmark:
        traffic = ("--busy", str(options.busy), "--records", "16")
        clients = ("idle", "--clients", str(options.clients))
        cases = [Case(f"{options.clients} clients, silent, busy, silent", (*clients, *traffic))]
        if options.many:
            many = ("idle", "--clients", str(options.many))
            cases.append(Case(f"{options.many} silent clients", many))
        return Benchmark("memory", cases, METRICS, fresh_servers=True)

    command(make, parser, arguments)


if __name__ == "__main__":
    main()
