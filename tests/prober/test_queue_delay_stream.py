"""Tests of the stream in :mod:`derp.prober.queue_delay_check`: its pace and its bounds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.prober import queue_delay_check as module
from derp.prober.check import ProbeFailed
from derp.prober.targets import Targets
from derp.wire.derp_map import DERPMap
from derp.wire.messages import ReceivedPacket

SOURCE = bytes(range(32))


class FakePair:
    """Two clients that take what they are sent, and keep it."""

    meshed = False
    way = "through node 900a (derp.example.com)"
    stage = ""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.takes = True
        self.source = SimpleNamespace(public_key=SOURCE)
        self.heard_by_destination: Any = None
        self.failed: Deferred[Any] = Deferred()

    def wait(self) -> Deferred[Any]:
        return self.failed

    def send(self, packet: bytes) -> bool:
        if self.takes:
            self.packets.append(packet)
        return self.takes

    def deliver(self, packet: bytes) -> None:
        self.heard_by_destination(ReceivedPacket(SOURCE, packet))


class StreamTests(SynchronousTestCase):
    """One stream, in a time that is advanced by hand."""

    def start(self, rate: int = 10, timeout: float = 5.0) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.pair = FakePair()
        targets = Targets(reactor=self.clock, current_map=DERPMap, qd_rate=rate, qd_timeout=timeout)
        self.measured = module._QueueDelayCheck(targets, "900a", "900a")
        pair: Any = self.pair
        self.stream = module._Stream(targets, pair, self.measured)
        self.running = Deferred.fromCoroutine(self.stream.runs())

    def pass_time(self, seconds: float, step: float = 0.001) -> None:
        for _ in range(round(seconds / step)):
            self.clock.advance(step)

    def numbers(self) -> list[int]:
        return [int.from_bytes(packet[:8], "big") for packet in self.pair.packets]

    def test_pace(self) -> None:
        """Packets come at the rate, the first one at once, also above the pace of the ticks."""
        for rate in (1, 10, 100, 3000):
            self.start(rate)
            self.assertGreaterEqual(len(self.pair.packets), 1)
            self.pass_time(2)
            self.assertLessEqual(abs(len(self.pair.packets) - 2 * rate), 0.006 * rate + 1)
            self.assertEqual(self.numbers(), list(range(1, len(self.pair.packets) + 1)))
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_standstill(self) -> None:
        """After a time in which nothing could be sent, not all of it is made up for."""
        self.start(10, timeout=60.0)
        self.clock.advance(30)
        self.assertLessEqual(len(self.pair.packets), 1 + 11)

    def test_delay(self) -> None:
        """The time between sending and arrival counts; twice the same packet counts once."""
        self.start()
        self.pass_time(0.03)
        for _ in range(2):
            self.pair.deliver(self.pair.packets[0])
        self.assertEqual(self.measured.findings()["p50_ms"], 30)
        self.assertEqual(self.measured.findings()["sent"], 1)

    def test_time_out(self) -> None:
        """A packet is lost after its time, not before, and not a second time if it is late."""
        self.start(1)
        self.pass_time(4.999)
        self.assertNotIn("lost", self.measured.findings())
        self.pass_time(0.2)
        self.assertEqual(self.measured.findings()["lost"], 1)
        self.pair.deliver(self.pair.packets[0])
        self.assertEqual(self.measured.findings()["lost"], 1)

    def test_late_between_ticks(self) -> None:
        """Nor does it arrive if its time is over and nobody has looked since."""
        self.start(1, timeout=0.5)
        self.pass_time(0.6)
        self.pair.deliver(self.pair.packets[0])
        found = self.measured.findings()
        self.assertEqual((found["sent"], found["lost"]), (1, 1))

    def test_not_taken(self) -> None:
        """What our own connection does not take is lost at once."""
        self.start()
        self.pair.takes = False
        self.pass_time(0.55)
        self.assertEqual(self.measured.findings()["lost"], 5)

    def test_bounds(self) -> None:
        """Neither packets under way nor those given up grow without end."""
        self.patch(module, "MAX_IN_FLIGHT", 20)
        self.patch(module, "MAX_GIVEN_UP", 10)
        self.start(100, timeout=1.0)
        self.pass_time(0.9)
        self.assertEqual(len(self.stream._flying), 20)
        self.assertGreater(int(self.measured.findings()["lost"]), 60)
        self.pass_time(1.0)
        self.assertEqual(len(self.stream._given_up), 10)

    def test_silence(self) -> None:
        """Twice the time-out and a second without any packet end the run, and its timer."""
        self.start(10, timeout=2.0)
        self.pass_time(1.0)
        self.pair.deliver(self.pair.packets[0])
        self.pass_time(4.9)
        self.assertNoResult(self.running)
        self.pass_time(0.3)
        text = str(self.failureResultOf(self.running, ProbeFailed).value)
        self.assertIn(f"none of the packets {self.pair.way} has arrived for 5.", text)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late_once(self) -> None:
        """That a packet was late long ago does not explain that none comes now."""
        self.start(10, timeout=0.5)
        self.pass_time(0.7)
        self.pair.deliver(self.pair.packets[0])
        self.pair.deliver(self.pair.packets[-1])
        self.pass_time(3)
        text = str(self.failureResultOf(self.running, ProbeFailed).value)
        self.assertIn("none of the packets", text)

    def test_stop(self) -> None:
        """A stopped stream leaves no timer."""
        self.start()
        self.stream.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
