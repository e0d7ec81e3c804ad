"""
What a relay delivers when it is offered more than it can carry.

Open loop: senders write trains of 16 at a given rate, whatever comes out at the other end, up to
*all* that their sockets take. A good server delivers its peak and pushes the rest back (the
senders' sockets fill: *refused*); a bad one reads everything and delivers little (receive
livelock). Its peak is the best it delivered under any load of as many pairs, the closed loop
included::

    python -m bench.overload --derper /path/derper
    python -m bench.plot build/bench/overload.json -o overload.svg
"""

from __future__ import annotations

import argparse
import re
import ssl
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from typing import Any

from bench import report
from bench.generator import Run
from bench.harness import Benchmark, Case, Metric, add_options, command
from bench.relay import CPU, RATE, TRAIN, closed, numbers, plural
from bench.servers import RunningServer

DEFAULT_RATES = [50_000, 100_000, 200_000, 300_000, 400_000, 600_000]


def lost_share(run: Run) -> float | None:
    """Packets that were taken from the sender and never delivered, in percent."""
    return 100 * run["lost"] / run["sent_in_all"] if run["sent_in_all"] else None


def dropped(varz: str) -> int | None:
    """Sum ``derp_packets_dropped`` over its labels; ``None`` if there is no such counter."""
    counts = re.findall(r"^derp_packets_dropped\{[^}]*\} (\d+)$", varz, re.MULTILINE)
    return sum(int(count) for count in counts) if counts else None


def ask_drops(server: RunningServer, run: Run) -> None:
    """Note how many packets the server itself says it dropped, if it can be asked."""
    request = f"https://127.0.0.1:{server.port}/debug/varz"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(request, timeout=5, context=context) as answer:
            if answer.status == 200:
                run["counted_drops"] = dropped(answer.read().decode("utf-8", "replace"))
    except (OSError, HTTPException):
        return


def uncounted(run: Run) -> float | None:
    """Lost packets that are in no counter of the server: in nobody's books."""
    counted = run.get("counted_drops")
    return None if counted is None else float(max(run["lost"] - counted, 0))


METRICS = [
    RATE,
    Metric(
        "accepted_per_s",
        "packets/s taken from the senders",
        lambda run: run["sent"] / run["seconds"],
        lower_is_better=False,
        digits=0,
    ),
    Metric("lost_percent", "of those taken, never delivered, %", lost_share, digits=1),
    Metric("uncounted", "lost, and counted by no drop counter, packets", uncounted, digits=0),
    CPU,
]


def cases(size: int, pair_counts: Sequence[int], rates: Sequence[int]) -> list[Case]:
    """Give, for each number of pairs, the closed loop, the rates, and all at once."""
    found = []
    for pairs in pair_counts:
        head = plural(pairs)
        shape = ("--size", str(size), "--pairs", str(pairs), "--records", str(TRAIN))
        found.append(Case(f"{head}, closed loop", closed("pairs", size, pairs, TRAIN)))
        found += [
            Case(f"{head}, {rate}/s", ("overload", *shape, "--rate", str(rate))) for rate in rates
        ]
        found.append(Case(f"{head}, all the senders can", ("open", *shape)))
    return found


def goodput_table(result: Mapping[str, Any]) -> str:
    """Show what each server delivers of its own peak with as many pairs, in percent."""
    names = list(result["servers"])
    medians: dict[str, dict[str, float]] = {}
    for case in result["cases"]:
        summaries = {
            name: report.Summary.of(case["figures"].get(RATE.name, {}).get(name, ()))
            for name in names
        }
        medians[case["name"]] = {name: s.median for name, s in summaries.items() if s}
    rows = [["case", *names]]
    for case_name, rates in medians.items():
        head = case_name.partition(",")[0]
        row = [case_name]
        for name in names:
            same = [
                other.get(name, 0) for case, other in medians.items() if case.startswith(head + ",")
            ]
            row.append(f"{rates[name] / max(same):.0%}" if name in rates and max(same) else "-")
        rows.append(row)
    return "goodput as part of the server's own peak\n\n" + report.table(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Be ``python -m bench.overload``."""
    parser = argparse.ArgumentParser(
        prog="bench.overload", description=__doc__.partition("\n\n")[0]
    )
    add_options(parser, seconds=2, warmup=2)  # until the kernel's buffers are full
    parser.add_argument("--size", type=int, default=1200, help="bytes of a packet (1200)")
    parser.add_argument("--pairs", type=numbers, default=[10, 100], metavar="LIST")
    parser.add_argument("--rates", type=numbers, default=DEFAULT_RATES, metavar="LIST")

    def make(options: argparse.Namespace) -> Benchmark:
        loads = cases(options.size, options.pairs, options.rates)
        return Benchmark("overload", loads, METRICS, fresh_servers=True, inspect=ask_drops)

    command(make, parser, arguments, lambda result: print("\n" + goodput_table(result)))


if __name__ == "__main__":
    main()
