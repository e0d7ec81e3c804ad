"""
How fast does a payload go from one node to another, or through the one there is?

Our clients say that they are ordinary ones. At most :data:`IN_FLIGHT` packets are on their way
at a time: a relay drops what a client's queue has no room for, and a queue holds 32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from derp.core.client_session import ClientEvent
from derp.prober.check import Check, ProbeFailed
from derp.prober.first_packet import send_first_packet
from derp.prober.packets import Packets, packets_for_size
from derp.prober.pair import Pair, run_pair
from derp.prober.targets import Targets, pair_labels
from derp.wire.derp_map import Node, Region
from derp.wire.keys import short_key
from derp.wire.messages import PeerGone, ReceivedPacket

IN_FLIGHT: Final = 30


def bandwidth_check(targets: Targets, region: Region, source: Node, destination: Node) -> Check:
    """Make the check; findings: ``mbit_per_second``, ``seconds``."""
    bandwidth = _BandwidthCheck(targets, source.name, destination.name)
    return Check(
        probe_class="derp_bw",
        labels={**pair_labels(region, source, destination), "tcp_in_tcp": "false"},
        run=bandwidth.run,
        metrics=bandwidth.metrics,
        findings=lambda: bandwidth.findings,
    )


class _BandwidthCheck:
    """Transfers of one pair; the time they took adds up."""

    def __init__(self, targets: Targets, source: str, destination: str) -> None:
        self.findings: Mapping[str, float] = {}
        self._targets = targets
        self._names = source, destination
        self._seconds = 0.0

    async def run(self) -> None:
        self.findings = {}
        await run_pair(self._targets, *self._names, self._exchange, is_prober=False)

    def metrics(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "derpprobe_derp_bw_probe_size_bytes",
            "Payload size of the bandwidth prober",
            value=self._targets.bandwidth_size,
        )
        yield CounterMetricFamily(
            "derpprobe_derp_bw_transfer_time_seconds",
            "Time it took to transfer data",
            value=self._seconds,
        )

    async def _exchange(self, pair: Pair) -> None:
        await send_first_packet(self._targets, pair)
        packets = packets_for_size(self._targets.bandwidth_size)
        reactor = self._targets.reactor
        transfer = _Transfer(pair, packets)
        began = reactor.seconds()
        try:
            await transfer.finish()
        finally:
            seconds = reactor.seconds() - began
            self._seconds += seconds
        rate = packets.size * 8 / 1e6 / max(seconds, 1e-6)
        self.findings = {"mbit_per_second": round(rate, 3), "seconds": round(seconds, 6)}


class _Transfer:
    """One payload on its way."""

    def __init__(self, pair: Pair, packets: Packets) -> None:
        self._pair = pair
        self._packets = packets
        self._sent = self._received = 0
        self._done = pair.wait()
        pair.heard_by_destination = self._delivered
        pair.heard_by_source = self._answered
        pair.source.client.on_writable = self._send

    async def finish(self) -> None:
        """Send everything; return when all of it has arrived."""
        self._send()
        await self._done

    def _send(self) -> None:
        """Send what may be on its way and our connection takes."""
        while (
            self._sent < len(self._packets)
            and self._sent - self._received < IN_FLIGHT
            and self._pair.source.client.writable
            and not self._done.called
        ):
            packet = self._packets[self._sent]
            self._sent += 1
            if not self._pair.send(packet):
                self._fail(f"{self._pair.source.name} takes no packet any more")
        self._tell_stage()

    def _tell_stage(self) -> None:
        self._pair.stage = (
            f"packet {self._received + 1} of {len(self._packets)} {self._pair.way}"
            f" ({self._sent} were sent)"
        )

    def _delivered(self, message: ClientEvent) -> None:
        if not isinstance(message, ReceivedPacket) or self._done.called:
            return
        problem = self._problem_with(message)
        if problem:
            self._fail(problem)
            return
        self._received += 1
        if self._received == len(self._packets):
            self._done.callback(None)
        else:
            self._send()

    def _problem_with(self, message: ReceivedPacket) -> str:
        number, way = self._received + 1, self._pair.way
        if message.source != self._pair.source.public_key:
            return f"a packet of {short_key(message.source)} came instead of ours {way}"
        if self._received < self._sent and message.packet == self._packets[self._received]:
            return ""
        if message.packet in self._packets[number : self._sent]:
            return (
                f"packet {number} of {len(self._packets)} was lost {way}: the relay has dropped"
                " it, see its derp_packets_dropped_total"
            )
        return f"packet {number} of {len(self._packets)} came changed {way}"

    def _answered(self, message: ClientEvent) -> None:
        if isinstance(message, PeerGone) and message.key == self._pair.destination.public_key:
            self._fail(
                f"{self._pair.source.name} knows no client of {self._pair.destination.name}"
                f" (any more), after {self._received} of {len(self._packets)} packets: are they"
                " meshed?"
            )

    def _fail(self, problem: str) -> None:
        if not self._done.called:
            self._done.errback(ProbeFailed(problem))
