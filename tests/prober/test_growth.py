"""What is left of a check's runs: nothing that grows with their number."""

from __future__ import annotations

import gc

from twisted.internet.task import deferLater
from twisted.logger import Logger

from derp.prober.bandwidth_check import bandwidth_check
from derp.prober.check import Check, ProbeFailed
from derp.prober.mesh_check import mesh_check
from derp.prober.queue_delay_check import queue_delay_check
from derp.prober.tls_check import tls_check
from derp.prober.udp_check import udp_check
from tests.integration.relay_case import reactor
from tests.prober.check_case import CheckTestCase

RUNS = 15
LEFT = 3 * RUNS
"""Fewer objects than that are noise; a connection or a check that is kept has tens."""
LOOKS = 20
"""So often do we look, some 0.1 s each: a relay may not have closed yet. What leaks stays."""


async def objects() -> int:
    """How many the garbage collector knows, without those that the reactor will drop."""
    calls = [reactor.callLater(600, int) for _ in range(1000)]
    await deferLater(reactor, 0)
    for call in calls:  # so many cancelled calls make it drop them all
        call.cancel()
    await deferLater(reactor, 0)
    gc.collect()
    return len(gc.get_objects())


class GrowthTests(CheckTestCase):
    """Runs of each check, good and bad, over and over again."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(Logger, "emit", lambda *said, **fields: None)  # trial -j keeps what is logged

    async def leaves_nothing(self, check: Check) -> None:
        """Run it often; let it leave less than three objects for each time."""
        for _ in range(RUNS):  # caches are filled, histories too
            await self.once(check)
        await self.others_close()
        before = await objects()
        for _ in range(RUNS):
            await self.once(check)
        for _ in range(LOOKS):
            left = await objects() - before
            if left < LEFT:
                break
        self.assertLess(left, LEFT)

    async def once(self, check: Check) -> None:
        if check.probe_class == "derp_qd":
            sent = int(check.findings().get("sent", 0))
            await self.stopped(check, lambda: check.findings().get("sent", 0) > sent, "a packet")
            return
        try:
            await self.passes(check)
        except ProbeFailed as problem:
            problem.__traceback__ = None

    async def test_good(self) -> None:
        """A node that is well."""
        node = self.node_of(self.relay())
        targets = self.targets(bandwidth_size=100_000)
        pair = targets, self.region, node, node
        for check in (
            tls_check(targets, self.region, node),
            udp_check(targets, self.region, node, "ipv4"),
            mesh_check(*pair),
            bandwidth_check(*pair),
        ):
            await self.leaves_nothing(check)

    async def test_bad(self) -> None:
        """One that is not there."""
        node = self.node("900a", 1, stun_port=1)
        targets = self.targets()
        for check in (
            tls_check(targets, self.region, node),
            udp_check(targets, self.region, node, "ipv4"),
            mesh_check(targets, self.region, node, node),
        ):
            await self.leaves_nothing(check)

    async def test_continuous(self) -> None:
        """One that is never let finish."""
        node = self.node_of(self.relay())
        check = queue_delay_check(self.targets(qd_rate=500), self.region, node, node)
        await self.leaves_nothing(check)
