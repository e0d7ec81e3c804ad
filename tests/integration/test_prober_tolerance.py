"""A relay that works, and so badly that its users would not say so: seen, named and told."""

from __future__ import annotations

from itertools import count

from derp.prober import udp_check
from derp.prober.tolerance import Tolerance
from tests.integration.probed_case import ProbedTestCase


class ToleranceTests(ProbedTestCase):
    """One relay, at the end of ways that get worse."""

    async def test_slow_and_lossy(self) -> None:
        """
        Packets take 200 ms longer, and every second STUN request is lost.

        There is an answer to everything all the same; what is lost in this way, and how much
        too slow the rest is, is told after two runs, and that it is well again after two more.
        """
        self.patch(udp_check, "ANSWER_S", 0.2)
        self.patch(udp_check, "AGAIN_S", 0.01)
        (node,) = await self.start_mesh(1)
        way = self.way_to(node.child)
        pinned = self.describe("1a", way, node.pin())
        self.watch(pinned, every=2.0, tolerance=Tolerance(latency=0.15, loss=0.05))
        await self.all_good(4)
        way.tcp.delay_s = 0.1
        later = count()
        way.udp.loses = lambda number: next(later) % 2 == 0
        stun, packet = "derp/zero/1a/udp", "derp/zero/1a/1a/mesh"
        words = await self.alerted(stun, packet)
        self.assertEqual(set(words), {stun, packet})
        self.assertRegex(
            words[packet], r"the packet took [2-9]\d\d(\.\d+)?ms, longer than --max-la"
        )
        self.assertRegex(
            words[stun], r"\d of the last \d+ STUN requests were lost \(\d+\.\d%\), more than --max"
        )
        self.assertIn("rtt_ms", self.prober.probes[stun].check.findings())
        way.tcp.delay_s = 0.0
        await self.recovered(packet)
