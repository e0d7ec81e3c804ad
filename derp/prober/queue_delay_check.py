"""
How long do packets wait on their way from one node to another?

A continuous check: it sends packets at a steady rate until something fails. That one is lost
is no failure but a number; that none arrives for a while is one.

A packet is its number (8 bytes, big-endian) and random bytes, 260 in all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from secrets import token_bytes
from typing import Final

from prometheus_client.metrics_core import Metric
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IDelayedCall

from derp.core.client_session import ClientEvent
from derp.core.delay_histogram import DelayHistogram, LatestDelays
from derp.prober.check import Check, ProbeFailed
from derp.prober.first_packet import send_first_packet
from derp.prober.pair import Pair, run_pair
from derp.prober.targets import Targets, pair_labels
from derp.wire.derp_map import Node, Region
from derp.wire.messages import ReceivedPacket

PACKET_LEN: Final = 260
NUMBER_LEN: Final = 8
MIN_TICK_S: Final = 0.005
"""Faster rates send several packets at once."""
MAX_BURST_S: Final = 1.0
"""What was not sent for a longer time, as our own process stood still, is left out."""
MAX_IN_FLIGHT: Final = 100_000
"""Packets we remember at a time; only absurd rates and time-outs come that far."""
MAX_GIVEN_UP: Final = 1000
"""Packets given up of which we still want to know whether they are lost, or only late."""
SILENCE_S: Final = 1.0
"""So long after two time-outs without any packet the way counts as broken."""


def queue_delay_check(targets: Targets, region: Region, source: Node, destination: Node) -> Check:
    """
    Make the check.

    Findings: ``p50_ms``, ``p90_ms``, ``p99_ms``, ``sent``, ``lost``, ``loss``.
    """
    delays = _QueueDelayCheck(targets, source.name, destination.name)
    return Check(
        probe_class="derp_qd",
        labels=pair_labels(region, source, destination),
        run=delays.run,
        metrics=delays.metrics,
        findings=delays.findings,
    )


class _QueueDelayCheck:
    """What was measured on one pair, over all runs."""

    def __init__(self, targets: Targets, source: str, destination: str) -> None:
        self._targets = targets
        self._names = source, destination
        self._histogram = DelayHistogram()
        self._latest = LatestDelays()
        self._lost = 0

    async def run(self) -> None:
        if self._targets.qd_rate < 1:
            raise ProbeFailed("queuing delay is not measured at less than one packet a second")
        await run_pair(self._targets, *self._names, self._exchange, is_prober=False)

    def arrived(self, delay: float) -> None:
        self._histogram.observe(delay)
        self._latest.arrived(delay)

    def lost(self) -> None:
        self._lost += 1
        self._latest.lost()

    def metrics(self) -> Iterable[Metric]:
        # By hand: this counter has no _total, and prometheus_client knows none without.
        dropped = Metric(
            "derpprobe_derp_qd_probe_dropped_packets",
            "Total packets dropped by the queuing delay prober",
            "counter",
        )
        dropped.add_sample(dropped.name, {}, self._lost)
        yield dropped
        delays = Metric(
            "derpprobe_derp_qd_probe_delays_seconds",
            "Distribution of queuing delays",
            "histogram",
        )
        counts = self._histogram.buckets
        for bound, count in counts.items():
            delays.add_sample(f"{delays.name}_bucket", {"le": f"{bound:g}"}, count)
        delays.add_sample(f"{delays.name}_bucket", {"le": "+Inf"}, self._histogram.count)
        delays.add_sample(f"{delays.name}_sum", {}, self._histogram.sum)
        delays.add_sample(f"{delays.name}_count", {}, self._histogram.count)
        yield delays

    def findings(self) -> Mapping[str, str | int | float]:
        found: dict[str, str | int | float] = {}
        percents = 50, 90, 99
        for percent, delay in zip(percents, self._latest.percentiles(*percents), strict=False):
            found[f"p{percent}_ms"] = round(delay * 1000, 3)
        if len(self._latest):
            sent, lost = len(self._latest), self._latest.losses
            found |= {"sent": sent, "lost": lost, "loss": round(lost / sent, 4)}
        return found

    async def _exchange(self, pair: Pair) -> None:
        await send_first_packet(self._targets, pair)
        stream = _Stream(self._targets, pair, self)
        try:
            await stream.runs()
        except CancelledError:
            raise ProbeFailed("the measurement was stopped") from None
        finally:
            stream.stop()


class _Stream:
    """Packets at a steady rate, from a login to a failure."""

    def __init__(self, targets: Targets, pair: Pair, measured: _QueueDelayCheck) -> None:
        self._reactor = targets.reactor
        self._rate = targets.qd_rate
        self._timeout = targets.qd_timeout
        self._pair = pair
        self._measured = measured
        self._tail = token_bytes(PACKET_LEN - NUMBER_LEN)
        self._flying: OrderedDict[int, float] = OrderedDict()
        """When each packet was sent that has not arrived, by its number, oldest first."""
        self._given_up: OrderedDict[int, float] = OrderedDict()
        self._late_by = 0.0
        """What the last packet took that came too late."""
        self._number = 0
        self._failed = pair.wait()
        self._tick: IDelayedCall | None = None
        self._due_since = self._heard_at = self._reactor.seconds()
        pair.stage = f"packets {pair.way}"
        pair.heard_by_destination = self._delivered

    async def runs(self) -> None:
        """Send, until something fails."""
        self._send_due()
        await self._failed

    def stop(self) -> None:
        """Send no more; what is on its way is not counted."""
        if self._tick is not None and self._tick.active():
            self._tick.cancel()

    def _send_due(self) -> None:
        """Send what is due, give up what is too old, and come again."""
        now = self._reactor.seconds()
        self._due_since = max(self._due_since, now - MAX_BURST_S)
        while self._due_since <= now and not self._failed.called:
            self._due_since += 1 / self._rate
            self._send(now)
        self._expire(now)
        if not self._failed.called:
            wait = max(self._due_since - now, MIN_TICK_S)
            self._tick = self._reactor.callLater(wait, self._send_due)

    def _send(self, now: float) -> None:
        self._number += 1
        packet = self._number.to_bytes(NUMBER_LEN, "big") + self._tail
        if len(self._flying) < MAX_IN_FLIGHT and self._pair.send(packet):
            self._flying[self._number] = now
        else:
            self._measured.lost()

    def _expire(self, now: float) -> None:
        while self._flying:
            number, sent_at = next(iter(self._flying.items()))
            if now - sent_at <= self._timeout:
                break
            del self._flying[number]
            self._give_up(number, sent_at)
        silent = now - self._heard_at
        if silent > 2 * self._timeout + SILENCE_S and not self._failed.called:
            self._failed.errback(ProbeFailed(self._explain(silent)))

    def _give_up(self, number: int, sent_at: float) -> None:
        self._measured.lost()
        self._given_up[number] = sent_at
        if len(self._given_up) > MAX_GIVEN_UP:
            self._given_up.popitem(last=False)

    def _explain(self, silent: float) -> str:
        """Say why no packet has been in time."""
        way = self._pair.way
        if self._late_by:
            return (
                f"the packets {way} take {self._late_by * 1000:.0f} ms, longer than the"
                f" {self._timeout * 1000:g} ms that -qd-packet-timeout allows: is the relay"
                " overloaded, or the way to it, or is the time too short?"
            )
        return (
            f"none of the packets {way} has arrived for {silent:.1f} s: is the link between the"
            " relays cut, or the relay overloaded?"
        )

    def _delivered(self, message: ClientEvent) -> None:
        if not isinstance(message, ReceivedPacket):
            return
        number, tail = message.packet[:NUMBER_LEN], message.packet[NUMBER_LEN:]
        if message.source != self._pair.source.public_key or tail != self._tail:
            return
        self._arrived(int.from_bytes(number, "big"), self._reactor.seconds())

    def _arrived(self, number: int, now: float) -> None:
        sent_at = self._flying.pop(number, None)
        if sent_at is not None and now - sent_at > self._timeout:
            self._give_up(number, sent_at)
            sent_at = None
        if sent_at is not None:
            self._heard_at, self._late_by = now, 0.0
            self._measured.arrived(now - sent_at)
        elif number in self._given_up:
            self._late_by = now - self._given_up.pop(number)
