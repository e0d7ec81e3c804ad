"""
CPU of a relay per new client, and how many it takes per second.

Each client connects, completes a full TLS 1.3 handshake (no resumption), upgrades, logs in,
gets ServerInfo and closes; eight do so at a time. All offer the same key exchange, X25519 unless
``--groups`` says otherwise: a Go server and client left alone would take X25519MLKEM768, which
costs more and which an older OpenSSL does not have::

    python -m bench.connections --derper /path/derper
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bench.generator import Run
from bench.harness import Benchmark, Case, Metric, add_options, command


def cpu_per_client(run: Run) -> float | None:
    """ms of server CPU per client that came and went."""
    return run["server_cpu_ns"] / run["clients"] / 1e6 if run["clients"] else None


METRICS = [
    Metric("cpu_ms", "server CPU per new client, ms", cpu_per_client, digits=3),
    Metric(
        "clients_per_s",
        "new clients/s",
        lambda run: run["clients"] / run["seconds"],
        lower_is_better=False,
        digits=0,
    ),
    Metric(
        "login_p50",
        "from connect to ServerInfo p50, ms",
        lambda run: run["login"]["us"]["50"] / 1e3,
    ),
    Metric(
        "login_p99",
        "from connect to ServerInfo p99, ms",
        lambda run: run["login"]["us"]["99"] / 1e3,
    ),
]


def main(arguments: Sequence[str] | None = None) -> None:
    """Be ``python -m bench.connections``."""
    parser = argparse.ArgumentParser(
        prog="bench.connections", description=__doc__.partition("\n\n")[0]
    )
    add_options(parser, seconds=2)
    parser.add_argument("--workers", type=int, default=8, help="logins in progress (8)")

    def make(options: argparse.Namespace) -> Benchmark:
        load = ("connections", "--workers", str(options.workers))
        cases = [Case("fast start", (*load, "--fast-start")), Case("HTTP 101", load)]
        return Benchmark("connections", cases, METRICS)

    command(make, parser, arguments)


if __name__ == "__main__":
    main()
