"""
CPU of a relay per packet it delivers, lossless, on one CPU.

Loads: *trains* (16 packets per write(2) of a sender, at most 31 in flight per pair), *single*
(one packet per write, at most 16 in flight per pair), *paced* (packets at a fixed rate, too few
to be batched). All are closed loops but the last, so that no server gets more than it can take::

    python -m bench.relay --derper /path/derper
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bench.generator import Run
from bench.harness import Benchmark, Case, Metric, add_options, command

TRAIN = 16
WINDOW = 16
PACED_PAIRS = 20


def cpu_per_packet(run: Run) -> float | None:
    """µs of server CPU per delivered packet."""
    return run["server_cpu_ns"] / run["delivered"] / 1e3 if run["delivered"] else None


def system_per_packet(run: Run) -> float | None:
    """The part of :func:`cpu_per_packet` spent in the kernel."""
    if not run["delivered"] or not run["server_user_ns"] + run["server_system_ns"]:
        return None
    share = run["server_system_ns"] / (run["server_user_ns"] + run["server_system_ns"])
    return run["server_cpu_ns"] * share / run["delivered"] / 1e3


def packets_per_second(run: Run) -> float:
    """Delivered packets/s."""
    return float(run["delivered"] / run["seconds"])


def one_way(percentile: str) -> Metric:
    """A percentile of the time from a sender's write to the receiver's read."""
    return Metric(
        f"one_way_p{percentile}",
        f"one-way latency p{percentile}, µs",
        lambda run: run["one_way"]["us"][percentile] if run["one_way"]["count"] else None,
        digits=0,
    )


CPU = Metric("cpu_us", "server CPU per delivered packet, µs", cpu_per_packet)
SYSTEM = Metric("system_us", "of it in the kernel, µs", system_per_packet)
RATE = Metric(
    "packets_per_s",
    "delivered packets/s",
    packets_per_second,
    lower_is_better=False,
    digits=0,
)


def plural(pairs: int) -> str:
    """``1 pair``, ``10 pairs``."""
    return f"{pairs} pair{'s' if pairs != 1 else ''}"


def closed(mode: str, size: int, pairs: int, records: int) -> tuple[str, ...]:
    """Give the generator's arguments for a closed loop."""
    return (
        *(mode, "--size", str(size), "--pairs", str(pairs)),
        *("--records", str(records), "--window", str(WINDOW)),
    )


def cases(sizes: Sequence[int], pair_counts: Sequence[int], rate: int) -> list[Case]:
    """Give the loads: small sizes in trains and single, the largest single, one paced."""
    found = []
    for size in sizes:
        for shape, records in (("trains", TRAIN), ("single", 1)):
            if shape == "trains" and size * TRAIN > 1 << 19:
                continue  # a train of the largest packets is not a load anyone has
            for pairs in pair_counts:
                name = f"{size} B, {shape}, {plural(pairs)}"
                found.append(Case(name, closed("pairs", size, pairs, records)))
    if rate > 0:
        load = ("paced", "--pairs", str(PACED_PAIRS), "--rate", str(rate))
        found.append(Case(f"1200 B, paced {rate}/s, {PACED_PAIRS} pairs", load))
    return found


def numbers(text: str) -> list[int]:
    """Read a comma list."""
    return [int(word) for word in text.split(",")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Be ``python -m bench.relay``."""
    parser = argparse.ArgumentParser(prog="bench.relay", description=__doc__.partition("\n\n")[0])
    add_options(parser, seconds=1.2)
    parser.add_argument("--sizes", type=numbers, default=[1200, 64, 65535], metavar="LIST")
    parser.add_argument("--pairs", type=numbers, default=[1, 10, 100], metavar="LIST")
    parser.add_argument("--rate", type=int, default=20000, help="of the paced load; 0 = none")

    def make(options: argparse.Namespace) -> Benchmark:
        loads = cases(options.sizes, options.pairs, options.rate)
        metrics = [CPU, SYSTEM, RATE, one_way("50"), one_way("99")]
        return Benchmark("relay", loads, metrics, lossless=True)

    command(make, parser, arguments)


if __name__ == "__main__":
    main()
