"""
Running a benchmark: build the generator, start the servers, interleave the runs, collect.

Runs are interleaved because machines drift: round 1 takes case 1 from every server, then case 2
from every server, and so on, and the next round begins with the next server. What is compared
was taken within seconds; how far rounds differ is shown as ``[min..max]``.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import report
from bench.generator import Run, built_generator, generate
from bench.servers import ROOT, BenchmarkError, RunningServer, ServerSpec, choose

BUSY_GENERATOR = 0.95
SHARED_CPU = 0.85
MOST_FAILURES = 3


@dataclass(frozen=True)
class Metric:
    """A figure taken from a run; ``None`` where the run does not have it."""

    name: str
    title: str
    value: Callable[[Run], float | None]
    lower_is_better: bool = True
    digits: int = 2

    def described(self) -> dict[str, Any]:
        """Give what a result file says of it."""
        return {
            "name": self.name,
            "title": self.title,
            "lower_is_better": self.lower_is_better,
            "digits": self.digits,
        }


@dataclass(frozen=True)
class Case:
    """A load: the generator's mode and options."""

    name: str
    load: tuple[str, ...]


@dataclass(frozen=True)
class Benchmark:
    """What one command of this suite measures."""

    name: str
    cases: Sequence[Case]
    metrics: Sequence[Metric]
    fresh_servers: bool = False
    """Whether each run needs a server that has done nothing before."""
    lossless: bool = False
    """Whether a lost packet spoils a run."""
    inspect: Callable[[RunningServer, Run], None] | None = None
    """Asks the server after a run and adds what it says to the run."""


def add_options(parser: argparse.ArgumentParser, seconds: float, warmup: float = 0.5) -> None:
    """Declare the options that every benchmark has."""
    add = parser.add_argument
    add("--derper", metavar="PATH", help="compare with this build of the Go derper")
    other = "compare with any server; {port} and {dir} are filled in; may be repeated"
    add("--other", action="append", default=[], metavar="NAME=COMMAND", help=other)
    add("--only", metavar="NAMES", help="compare only these servers (comma list)")
    add("--rounds", type=int, default=5, help="runs of each case (5)")
    add("--seconds", type=float, default=seconds, help=f"measured per run ({seconds})")
    add("--warmup", type=float, default=warmup, help=f"before that ({warmup})")
    add("--match", default="", metavar="REGEX", help="only cases whose name matches")
    add("--json", type=Path, help="result file (build/bench/BENCHMARK.json)")
    add("--server-cpu", type=int, default=0, help="CPU of the servers (0)")
    add("--generator-cpu", type=int, default=1, help="CPU of the generator (1)")
    add("--cipher", default="TLS_AES_128_GCM_SHA256", help="TLS 1.3 suite of all clients")
    add("--groups", default="X25519", help="key exchange of all clients (X25519)")


@dataclass
class Session:
    """The runs of one benchmark."""

    benchmark: Benchmark
    options: argparse.Namespace
    program: Path
    specs: Sequence[ServerSpec]
    cases: Sequence[Case]
    runs: dict[str, dict[str, list[Run]]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)

    def run_all(self) -> None:
        """Take every round."""
        self.runs = {case.name: {spec.name: [] for spec in self.specs} for case in self.cases}
        for round_ in range(self.options.rounds):
            turn = round_ % len(self.specs)
            order = [*self.specs[turn:], *self.specs[:turn]]
            with ExitStack() as stack:
                servers: dict[str, RunningServer] = {}
                for case in self.cases:
                    for spec in order:
                        self._step(round_, case, spec, servers, stack)

    def _step(
        self,
        round_: int,
        case: Case,
        spec: ServerSpec,
        servers: dict[str, RunningServer],
        stack: ExitStack,
    ) -> None:
        """One run, on this round's server or on a fresh one."""
        progress(f"round {round_ + 1}/{self.options.rounds}: {case.name}: {spec.name}")
        if self.benchmark.fresh_servers:
            with RunningServer(spec, self.options.server_cpu) as server:
                self._run(case, server)
            return
        if spec.name not in servers or servers[spec.name].died():
            server = RunningServer(spec, self.options.server_cpu)
            servers[spec.name] = stack.enter_context(server)
        self._run(case, servers[spec.name])

    def _run(self, case: Case, server: RunningServer) -> None:
        name = server.spec.name
        try:
            run = generate(self.program, case.load, server, self.options)
        except BenchmarkError as error:
            self.failures[name] = self.failures.get(name, 0) + 1
            self.problems.append(f"{name}, {case.name}: {error}")
            if self.failures[name] == MOST_FAILURES:
                raise BenchmarkError("\n".join(self.problems)) from error
            return
        if self.benchmark.inspect is not None:
            self.benchmark.inspect(server, run)
        self.problems += [
            f"{name}, {case.name}: {text}" for text in doubts(run, self.benchmark.lossless)
        ]
        self.runs[case.name][name].append(run)

    def result(self, reference: str) -> dict[str, Any]:
        """Give the result, in the form of a result file."""
        options = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in sorted(vars(self.options).items())
        }
        return {
            "format": report.FORMAT,
            "benchmark": self.benchmark.name,
            "taken": report.now(),
            "machine": report.machine(ROOT),
            "options": options,
            "reference": reference,
            "servers": {spec.name: " ".join(spec.command) for spec in self.specs},
            "metrics": [metric.described() for metric in self.benchmark.metrics],
            "problems": self.problems,
            "failed_runs": self.failures,
            "cases": [
                {
                    "name": case.name,
                    "load": list(case.load),
                    "runs": self.runs[case.name],
                    "figures": figures(self.benchmark.metrics, self.runs[case.name]),
                }
                for case in self.cases
            ],
        }


def figures(
    metrics: Sequence[Metric], runs: dict[str, list[Run]]
) -> dict[str, dict[str, list[float]]]:
    """Take the metrics of a case's runs: one list of numbers per metric and server."""
    found: dict[str, dict[str, list[float]]] = {}
    for metric in metrics:
        by_server = {}
        for name, those in runs.items():
            values = [metric.value(run) for run in those]
            by_server[name] = [value for value in values if value is not None]
        if any(by_server.values()):
            found[metric.name] = by_server
    return found


def doubts(run: Run, lossless: bool) -> list[str]:
    """Say what makes a run doubtful."""
    found = []
    if run.get("corrupt") or run.get("reordered"):
        found.append(
            f"{run['corrupt']} packets altered or misrouted, {run['reordered']} out of order"
        )
    if lossless and run.get("lost"):
        found.append(f"{run['lost']} of {run.get('sent_in_all', '?')} packets lost")
    if run.get("stalls"):
        found.append(f"{run['stalls']} times a sender got nothing back for 2 s")
    if run.get("failed"):
        found.append(f"{run['failed']} connections failed, the last {run['last_failure']}")
    if run.get("late", 0) > run.get("offered", 0) / 100:
        found.append(f"the generator was too slow for {run['late']} packets")
    return found


def progress(text: str) -> None:
    """Show where a long benchmark is, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def generator_bound(result: dict[str, Any]) -> list[str]:
    """Name the cases in which the generator had no time left in most runs."""
    names = []
    for case in result["cases"]:
        for server, runs in case["runs"].items():
            busy = report.Summary.of(
                run["generator_busy"] for run in runs if "generator_busy" in run
            )
            if busy is not None and busy.median > BUSY_GENERATOR:
                names.append(f"{case['name']} ({server})")
    return names


def shared_cpu(result: dict[str, Any]) -> int:
    """
    Count closed-loop runs in which neither side was busy.

    One of the two always has work there, so a third party had the CPU meanwhile.
    """
    return sum(
        run.get("window", 0) > 0
        and run["server_cpu_ns"] < SHARED_CPU * run["seconds"] * 1e9
        and run["generator_busy"] < SHARED_CPU
        for case in result["cases"]
        for runs in case["runs"].values()
        for run in runs
    )


def _check_cpus(options: argparse.Namespace) -> None:
    available = os.sched_getaffinity(0)
    for name in ("server_cpu", "generator_cpu"):
        cpu = getattr(options, name)
        if cpu >= 0 and cpu not in available:
            option = name.replace("_", "-")
            raise BenchmarkError(
                f"--{option} {cpu}: this machine offers CPUs {sorted(available)}; "
                "choose one, or -1 to leave the process free"
            )


def measure(benchmark: Benchmark, options: argparse.Namespace) -> dict[str, Any]:
    """Run a benchmark and give its result."""
    _check_cpus(options)
    specs = choose(options.other, options.only, options.derper)
    cases = [case for case in benchmark.cases if re.search(options.match, case.name)]
    if not cases:
        raise BenchmarkError(f"--match {options.match}: no case has such a name")
    with built_generator() as program:
        session = Session(benchmark, options, program, specs, cases)
        session.run_all()
    progress("")
    return session.result(specs[0].name)


def finish(result: dict[str, Any], options: argparse.Namespace) -> None:
    """Print a result and write its file."""
    report.print_result(result)
    bound = generator_bound(result)
    if bound:
        print(
            f"\nThe generator was over {BUSY_GENERATOR:.0%} busy, so that rates are its own "
            f"limit there (the CPU per packet holds):\n  " + "\n  ".join(bound)
        )
    shared = shared_cpu(result)
    if shared:
        print(f"\nSomething else ran on the servers' CPU during {shared} runs: mind the spread.")
    if result["problems"]:
        print("\nDoubtful runs:\n  " + "\n  ".join(result["problems"]))
    path = options.json or ROOT / "build" / "bench" / f"{result['benchmark']}.json"
    report.write_json(path, result)
    print(f"\nwritten to {path}")


def command(
    make: Callable[[argparse.Namespace], Benchmark],
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None = None,
    after: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Be a benchmark's command: parse, measure, show. ``after`` may print more."""
    options = parser.parse_args(arguments)
    try:
        result = measure(make(options), options)
    except BenchmarkError as error:
        raise SystemExit(f"{parser.prog}: {error}") from error
    finish(result, options)
    if after is not None:
        after(result)
    if result["failed_runs"]:
        failed = ", ".join(f"{count} of {name}" for name, count in result["failed_runs"].items())
        raise SystemExit(f"{parser.prog}: runs failed: {failed}")
