"""
Every sender to every receiver in turn: a relay that gains only from neat pairs loses here.

*closed*: trains of 16, each packet to another receiver, at most 31 in flight per sender.
*single*: one packet per write, at most 16 in flight. *open*: all that the sockets take; what
is lost there is part of the result (see ``bench.overload`` for goodput)::

    python -m bench.mixed --derper /path/derper
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bench.harness import Benchmark, Case, add_options, command
from bench.relay import CPU, RATE, SYSTEM, TRAIN, closed, one_way


def cases(size: int, pairs: int) -> list[Case]:
    """Give the three loads."""
    name = f"{size} B, {pairs} x {pairs}"
    saturated = ("--window", "0", "--records", str(TRAIN))
    return [
        Case(f"{name}, closed", closed("mix", size, pairs, TRAIN)),
        Case(f"{name}, single", closed("mix", size, pairs, 1)),
        Case(f"{name}, open", ("mix", "--size", str(size), "--pairs", str(pairs), *saturated)),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Be ``python -m bench.mixed``."""
    parser = argparse.ArgumentParser(prog="bench.mixed", description=__doc__.partition("\n\n")[0])
    add_options(parser, seconds=1.2)
    parser.add_argument("--size", type=int, default=1200, help="bytes of a packet (1200)")
    parser.add_argument("--pairs", type=int, default=10, help="senders and receivers (10)")

    def make(options: argparse.Namespace) -> Benchmark:
        metrics = [CPU, SYSTEM, RATE, one_way("50"), one_way("99")]
        loads = cases(options.size, options.pairs)
        return Benchmark("mixed", loads, metrics, fresh_servers=True)

    command(make, parser, arguments)


if __name__ == "__main__":
    main()
