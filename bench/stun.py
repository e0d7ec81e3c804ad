"""
CPU time of STUN servers per response: saturated, and at a rate that wakes them for each request.

Runs of all servers are interleaved, medians shown with their spread. The generator is
``stunload.c``, built into a temporary directory. ``{port}`` in a server's command line stands
for a number free as UDP and TCP port of 127.0.0.1: STUN must listen there on UDP, and something
on TCP to tell that it does::

    python bench/stun.py --derper /path/derper
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import report
from bench.generator import Run, built_generator, pin
from bench.harness import Metric, figures, finish, progress
from bench.servers import OURS, ROOT, BenchmarkError, RunningServer, ServerSpec, parse_other, twistd

WINDOW = 256
"""Requests in flight of the saturated load; fewer than the smallest usual receive buffer holds."""
SPARE_TIME_S = 30.0
LOST_SHARE = 0.001
"""A larger share of lost requests makes a run doubtful."""

DERPER = (
    "-a 127.0.0.1:{port} -stun-port {port} -certmode manual -certdir {dir} -hostname 127.0.0.1 "
    "-http-port -1 -c {dir}/derper.key -verify-clients=false"
)
RELAY = (
    "-n --pidfile= --logfile={dir}/log derper -a 127.0.0.1:{port} --stun-port {port} --certmode "
    "manual --certdir {dir} --hostname 127.0.0.1 --http-port -1 -c {dir}/derper.key"
)
"""The whole relay: there the STUN socket lives in the hub, beside everybody's connections."""
KINDS = ("plain-twisted",)
"""Of :mod:`bench.stun_server`: STUN and nothing else."""


def _answers_per_second(run: Run) -> float:
    return float(run["answered"]) / float(run["seconds"])


def _cpu_us(run: Run) -> float | None:
    return run["server_cpu_ns"] / run["answered"] / 1e3 if run["answered"] else None


METRICS = [
    Metric("cpu_us", "server CPU per response, µs", _cpu_us),
    Metric("rate", "responses per second", _answers_per_second, lower_is_better=False, digits=0),
]


def choose(options: argparse.Namespace) -> list[ServerSpec]:
    """Give the servers to compare, the one that others are measured against first."""
    specs = [parse_other(text) for text in options.other]
    if options.derper is not None:
        program = str(Path(options.derper).resolve())
        specs.insert(0, ServerSpec("derper", (program, *DERPER.split())))
    specs.append(ServerSpec(OURS, (sys.executable, twistd(), *RELAY.split())))
    kinds = [*KINDS, "alone", "single"] if options.alone else KINDS
    specs += [
        ServerSpec(kind, (sys.executable, "-m", "bench.stun_server", kind, "{port}"))
        for kind in kinds
    ]
    if len({spec.name for spec in specs}) < len(specs):
        raise BenchmarkError("two servers have the same name: choose another for --other")
    return specs


def load_once(
    program: Path, server: RunningServer, options: argparse.Namespace, rate: float
) -> Run:
    """
    Put one load on a server.

    :raises BenchmarkError: if the generator gives up, with what it and the server said.
    """
    numbers = (server.port, server.pid, options.seconds, WINDOW, rate)
    words = [str(program), *map(str, numbers)]
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            check=False,
            timeout=options.seconds + SPARE_TIME_S,
            preexec_fn=lambda: pin(options.generator_cpu),
        )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError("the generator did not end") from error
    if done.returncode != 0:
        raise BenchmarkError(f"{server.spec.name}: {done.stderr.strip()}\n{server.log_tail()}")
    run: Run = json.loads(done.stdout)
    return run


Runs = dict[str, dict[str, list[Run]]]
"""By case and server."""


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Take every round; give the result, in the form of a result file."""
    specs = choose(options)
    cases = {f"saturated, {WINDOW} in flight": 0.0, f"paced, {options.rate:.0f}/s": options.rate}
    runs: Runs = {case: {spec.name: [] for spec in specs} for case in cases}
    problems = []
    with built_generator("stunload", ()) as program, ExitStack() as stack:
        servers = [stack.enter_context(RunningServer(spec, options.server_cpu)) for spec in specs]
        for round_ in range(options.rounds):
            turn = round_ % len(servers)
            for case, rate in cases.items():
                for server in [*servers[turn:], *servers[:turn]]:
                    name = server.spec.name
                    progress(f"round {round_ + 1}/{options.rounds}: {case}: {name}")
                    run = load_once(program, server, options, rate)
                    runs[case][name].append(run)
                    if run["lost"] > LOST_SHARE * run["asked"]:
                        problems.append(f"{name}, {case}: {run['lost']} of {run['asked']} lost")
    progress("")
    return result_of(options, specs, cases, runs, problems)


def result_of(
    options: argparse.Namespace,
    specs: Sequence[ServerSpec],
    cases: Mapping[str, float],
    runs: Runs,
    problems: Sequence[str],
) -> dict[str, Any]:
    """Put a result file's contents together (see :mod:`bench.report`)."""
    return {
        "format": report.FORMAT,
        "benchmark": "stun",
        "taken": report.now(),
        "machine": report.machine(ROOT),
        "options": {
            name: str(value) if isinstance(value, Path) else value
            for name, value in sorted(vars(options).items())
        },
        "reference": specs[0].name,
        "servers": {spec.name: " ".join(spec.command) for spec in specs},
        "metrics": [metric.described() for metric in METRICS],
        "problems": list(problems),
        "cases": [
            {
                "name": case,
                "load": [f"window={WINDOW}", f"rate={rate:.0f}"],
                "runs": runs[case],
                "figures": figures(METRICS, runs[case]),
            }
            for case, rate in cases.items()
        ],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Be ``python bench/stun.py``."""
    parser = argparse.ArgumentParser(prog="bench.stun", description=__doc__.partition("\n\n")[0])
    add = parser.add_argument
    add("--derper", metavar="PATH", help="compare with this build of the Go derper")
    other = "compare with any server; {port} and {dir} are filled in; may be repeated"
    add("--other", action="append", default=[], metavar="NAME=COMMAND", help=other)
    add("--alone", action="store_true", help="also ours without a relay, and without batches")
    add("--rounds", type=int, default=5, help="runs of each case (5)")
    add("--seconds", type=float, default=1.0, help="measured per run (1)")
    add("--rate", type=float, default=20_000, help="requests a second of the paced load (20000)")
    add("--json", type=Path, help="result file (build/bench/stun.json)")
    add("--server-cpu", type=int, default=0, help="CPU of the servers (0)")
    add("--generator-cpu", type=int, default=1, help="CPU of the generator (1)")
    options, rest = parser.parse_known_args(arguments)
    if arguments is None and rest:
        parser.error(f"unknown options: {' '.join(rest)}")
    try:
        result = measure(options)
    except BenchmarkError as error:
        raise SystemExit(f"{parser.prog}: {error}") from error
    finish(result, options)


if __name__ == "__main__":
    main()
