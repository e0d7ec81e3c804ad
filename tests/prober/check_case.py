"""Checks under test: against relays of this process, and bounded in time as a prober does it."""

from __future__ import annotations

import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.internet.tcp import BaseClient, Connection

from derp.prober.check import Check, ProbeFailed
from derp.prober.targets import Targets
from derp.services import RelayService
from derp.wire.derp_map import DERPMap, Node, Region
from derp.wire.node_json import pin_of
from tests.integration.relay_case import HOST, RelayTestCase, reactor
from tests.integration.waiting import in_time
from tests.net.unhurried import Unhurried


def connections(kind: type) -> set[Any]:
    """Sockets of this process: ``BaseClient`` are those that connect, or have."""
    known = [*reactor.getReaders(), *reactor.getWriters()]
    return {each for each in known if isinstance(each, kind)}


class CheckTestCase(RelayTestCase):
    """Makes nodes and checks of them."""

    others_connect = False
    """Whether connections are made here that are none of a check's."""

    def setUp(self) -> None:
        self.addCleanup(self.others_close)
        self.clock = Unhurried(reactor)
        self.map = DERPMap()
        self.region = Region(region_id=900, code="test", name="Test")

    async def others_close(self) -> None:
        """Let servers see that we have closed."""
        await self.until(lambda: not connections(Connection), "closed connections")

    def relay(self, **fields: Any) -> RelayService:
        """Start a relay of ours."""
        config = self.config(**fields)
        service = self.start_relay(config)
        service.test_pin = pin_of(  # type: ignore[attr-defined]
            ssl.PEM_cert_to_DER_cert(Path(config.certdir, f"{HOST}.crt").read_text())
        )
        return service

    def node_of(self, service: RelayService, name: str = "900a", **fields: Any) -> Node:
        """Describe a relay of ours, as its owner would: by address and pin."""
        return self.node(
            name,
            self.port_of(service),
            stun_port=self.port_of(service, "--stun-port") if service.stun else None,
            cert_name=service.test_pin,  # type: ignore[attr-defined]
            **fields,
        )

    def node(self, name: str, port: int, **fields: Any) -> Node:
        """Describe a node on loopback, and put it into the map."""
        options = {"host_name": HOST, "ipv4": HOST, "ipv6": "none", **fields}
        node = Node(name=name, region_id=900, derp_port=port, **options)
        self.region = replace(self.region, nodes=(*self.region.nodes, node))
        self.map = DERPMap(regions={900: self.region})
        return node

    def targets(self, **fields: Any) -> Targets:
        options = {"reactor": self.clock, "current_map": lambda: self.map, **fields}
        return Targets(**options)

    async def passes(self, check: Check, seconds: float = 20.0) -> None:
        """Run a check as a prober does: cancelled when its time is over, which ends it."""
        running = Deferred.fromCoroutine(check.run())
        ended_at_once = []

        def cancel() -> None:
            running.cancel()
            ended_at_once.append(running.called)

        open_before = connections(BaseClient)
        cancelling = self.clock.callLater(seconds, cancel)
        try:
            await in_time(reactor, running, "a check to end")
        finally:
            if cancelling.active():
                cancelling.cancel()
            self.assertNotIn(False, ended_at_once)
            await deferLater(reactor, 0)
            left = connections(BaseClient) - open_before
            self.assertTrue(self.others_connect or not left, f"left open: {left}")

    async def fails(self, check: Check, seconds: float = 20.0) -> str:
        """Give the sentence a check fails with."""
        try:
            await self.passes(check, seconds)
        except ProbeFailed as problem:
            return str(problem)
        self.fail("the check succeeded")

    async def stopped(self, check: Check, condition: Callable[[], Any], what: str) -> str:
        """Cancel a check when something is the case; give its sentence."""
        running = Deferred.fromCoroutine(check.run())
        time_goes_on = self.clock.callLater(3600, running.cancel)
        try:
            await self.until(lambda: condition() or running.called, what)
        finally:
            time_goes_on.cancel()
            running.cancel()
        try:
            await in_time(reactor, running, "a check to end")
        except ProbeFailed as problem:
            return str(problem)
        self.fail("the check succeeded")

    async def took(self, work: Callable[[], Awaitable[Any]]) -> float:
        """Measure in wall-clock seconds."""
        began = time.monotonic()
        await work()
        return time.monotonic() - began

    def closing(self, listening: IListeningPort) -> int:
        """Stop listening with the test; give the port."""
        self.addCleanup(listening.stopListening)
        port: int = listening.getHost().port
        return port
