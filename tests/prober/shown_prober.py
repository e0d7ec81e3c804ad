"""A real prober with checks that do as they are told, in a time that is advanced by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from twisted.internet.task import Clock, deferLater

from derp.prober.check import Check, ProbeFailed
from derp.prober.prober import Prober
from derp.prober.status_page import page_resource

START = 1_763_719_200.0
"""2025-11-21 10:00:00 UTC."""
INTERVAL = 15.0


class FakeCheck:
    """
    A check that takes its time, and then succeeds or fails.

    :ivar error: why its next run fails; empty if it does not.
    :ivar latency_s: how long a run takes.
    """

    def __init__(self, clock: Clock, probe_class: str, labels: Mapping[str, str]) -> None:
        self.error = ""
        self.latency_s = 0.02
        self.found: dict[str, Any] = {}
        self._clock = clock
        self.check = Check(
            probe_class=probe_class, labels=labels, run=self._run, findings=lambda: self.found
        )

    async def _run(self) -> None:
        await deferLater(self._clock, self.latency_s)
        if self.error:
            raise ProbeFailed(self.error)


class ShownProber:
    """A prober, and what it probes."""

    def __init__(self, start: float = START) -> None:
        self.clock = Clock()
        self.clock.rightNow = start
        self.prober = Prober(self.clock, spread=False, wall_time=self.clock.seconds)
        self.checks: dict[str, FakeCheck] = {}

    def add(
        self,
        name: str,
        probe_class: str,
        labels: Mapping[str, str],
        *,
        interval: float = INTERVAL,
        error: str = "",
        latency_s: float = 0.02,
        hours: float = 0,
        **found: Any,
    ) -> FakeCheck:
        """Begin a probe; with ``hours``, as if it had been running for so long."""
        fake = self.checks[name] = FakeCheck(self.clock, probe_class, labels)
        fake.error, fake.latency_s, fake.found = error, latency_s, found
        probe = self.prober.add(name, interval, fake.check)
        if hours:
            fill_history(probe.history, self.clock.seconds(), hours, latency_s, name)
        return fake

    def add_node(self, region: str, number: int, node: str, host: str, *, hours: float = 0) -> None:
        """Begin the probes of one node: TLS, STUN of both families, a packet to itself."""
        labels = {"region": region, "region_id": str(number), "hostname": host}
        head = f"derp/{region}/{node}"
        v4, v6 = {"address_family": "ipv4"}, {"address_family": "ipv6"}
        more: dict[str, Any] = {"hours": hours}
        self.add(
            f"{head}/tls", "tls", labels, latency_s=0.041, days_left=61, tls_version="1.3", **more
        )
        self.add(
            f"{head}/udp", "derp_udp", labels | v4, latency_s=0.012, rtt_ms=11.8, loss=0.0,
            mapped_address="203.0.113.7:41641", **more,
        )  # fmt: skip
        self.add(
            f"{head}/udp6", "derp_udp", labels | v6, latency_s=0.013, rtt_ms=12.4, loss=0.02,
            mapped_address="[2001:db8::7]:41641", **more,
        )  # fmt: skip
        self.add_pair(region, number, node, node, host, hours=hours)

    def add_pair(
        self, region: str, number: int, source: str, to: str, host: str, *,
        latency_s: float = 0.12, hours: float = 0, packet_ms: float = 9.3,
    ) -> None:  # fmt: skip
        """Begin the mesh probe of a pair."""
        path = "single" if source == to else "mesh"
        labels = {"region": region, "region_id": str(number), "hostname": host, "derp_path": path}
        self.add(
            f"derp/{region}/{source}/{to}/mesh",
            "derp_mesh",
            labels,
            latency_s=latency_s,
            hours=hours,
            packet_ms=packet_ms,
        )

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        until = self.clock.seconds() + seconds
        while (now := self.clock.seconds()) < until:
            due = min((call.getTime() for call in self.clock.getDelayedCalls()), default=until)
            self.clock.advance(max(min(due, until) - now, 1e-6))

    def resource(self, **more: Any) -> Any:
        """The status page; its own clock is the same, unless told."""
        parts: dict[str, Any] = {"reactor": self.clock, "may_run": lambda request: False}
        return page_resource(self.prober, wall_time=self.clock.seconds, **(parts | more))


def fill_history(history: Any, now: float, hours: float, latency_s: float, seed: str) -> None:
    """Make up runs of the past, always the same ones."""
    dice = random.Random(seed)
    runs = int(hours * 3600 / INTERVAL)
    for number in range(runs, 0, -1):
        at = now - number * INTERVAL
        daily = 1 + 0.25 * math.sin(at / 4000)
        latency = (
            latency_s * daily * (0.9 + 0.3 * dice.random()) * (3 if dice.random() < 0.01 else 1)
        )
        history.begin(at)
        history.end(at + latency, latency, "" if dice.random() > 0.001 else "nothing came back")
