"""All checks against relays of ours in this process: alone, and meshed."""

from __future__ import annotations

import ssl
import time
from ipaddress import ip_address
from pathlib import Path

from derp.config import Config, MeshPeer
from derp.net.self_signed import make_self_signed
from derp.prober import first_packet
from derp.prober.bandwidth_check import bandwidth_check
from derp.prober.check import Check, ProbeFailed
from derp.prober.mesh_check import mesh_check
from derp.prober.queue_delay_check import queue_delay_check
from derp.prober.tls_check import tls_check
from derp.prober.udp_check import udp_check
from derp.wire.derp_map import Node
from derp.wire.node_json import pin_of
from tests.integration.partition import Wire
from tests.integration.relay_case import HOST, MESH_KEY, reactor
from tests.integration.waiting import PATIENCE_S
from tests.prober.check_case import CheckTestCase


class AllChecksCase(CheckTestCase):
    """Makes the checks of nodes, as a prober does."""

    def checks_of(self, node: Node, mesh_key: bytes | None = None) -> list[Check]:
        """The checks of one node."""
        targets = self.targets(mesh_key=mesh_key)
        return [
            tls_check(targets, self.region, node),
            udp_check(targets, self.region, node, "ipv4"),
        ]

    def checks_between(
        self, source: Node, destination: Node, mesh_key: bytes | None = None
    ) -> list[Check]:
        """The checks of one pair that end by themselves."""
        targets = self.targets(mesh_key=mesh_key, bandwidth_size=300_000)
        return [
            mesh_check(targets, self.region, source, destination),
            bandwidth_check(targets, self.region, source, destination),
        ]

    async def delays_are_measured(
        self, source: Node, destination: Node, mesh_key: bytes | None = None
    ) -> None:
        """See some packets arrive, and none lost."""
        targets = self.targets(mesh_key=mesh_key, qd_rate=500)
        check = queue_delay_check(targets, self.region, source, destination)
        await self.stopped(check, lambda: check.findings().get("sent", 0) > 20, "packets")
        self.assertEqual(check.findings()["lost"], 0)


class OneNodeTests(AllChecksCase):
    """A relay alone in its region, known by address and pin."""

    async def test_without_mesh_key(self) -> None:
        """All is well, though there is no mesh and no mesh key."""
        node = self.node_of(self.relay())
        for check in (*self.checks_of(node), *self.checks_between(node, node)):
            await self.passes(check)
            self.assertNotEqual(dict(check.findings()), {}, check.probe_class)
        await self.delays_are_measured(node, node)

    async def test_with_mesh_key(self) -> None:
        """With the relay's mesh key as well."""
        node = self.node_of(self.relay(mesh_key=MESH_KEY))
        for check in self.checks_between(node, node, MESH_KEY):
            await self.passes(check)

    async def test_with_another_mesh_key(self) -> None:
        """With another relay's key we are ordinary clients, whom this relay admits too."""
        node = self.node_of(self.relay(mesh_key=MESH_KEY))
        for check in self.checks_between(node, node, MESH_KEY[::-1]):
            await self.passes(check)


class MeshedTests(AllChecksCase):
    """Two relays in a mesh, over wires that can be cut."""

    others_connect = True

    def setUp(self) -> None:
        super().setUp()
        self.wires = [Wire(reactor), Wire(reactor)]
        for wire in self.wires:
            self.addCleanup(wire.close)
        certificates = [make_self_signed(ip_address(HOST), time.time()) for _ in self.wires]
        pins = [pin_of(ssl.PEM_cert_to_DER_cert(pem.decode())) for pem, _ in certificates]
        self.nodes = []
        for number, (pem, key) in enumerate(certificates):
            config = self.config(mesh_key=MESH_KEY, mesh_with=(self.peer(1 - number, pins),))
            self.keep(config, pem, key)
            service = self.start_relay(config)
            self.wires[number].leads_to = self.port_of(service)
            node = self.node(
                f"900{'ab'[number]}",
                self.port_of(service),
                stun_port=self.port_of(service, "--stun-port"),
                cert_name=pins[number],
            )
            self.nodes.append(node)

    def peer(self, number: int, pins: list[str]) -> MeshPeer:
        """What the other relay is told of this one."""
        port = self.wires[number].port
        return MeshPeer(name=f"{HOST}:{port}", host=HOST, port=port, pin=pins[number])

    def keep(self, config: Config, pem: bytes, key: bytes) -> None:
        """Put a relay's certificate where it looks for it."""
        place = Path(config.certdir)
        place.mkdir(parents=True)
        (place / f"{HOST}.crt").write_bytes(pem)
        (place / f"{HOST}.key").write_bytes(key)

    async def test_all(self) -> None:
        """Every check of every node and every pair is green, with the mesh key and without."""
        for mesh_key in (None, MESH_KEY):
            for source in self.nodes:
                for check in self.checks_of(source, mesh_key):
                    await self.passes(check)
                for destination in self.nodes:
                    for check in self.checks_between(source, destination, mesh_key):
                        await self.passes(check)
        await self.delays_are_measured(*self.nodes)

    async def test_cut(self) -> None:
        """A cut link is seen between the nodes, and on none of them; and so is its mending."""
        one, two = self.nodes
        (across, _), (alone, _) = self.checks_between(one, two), self.checks_between(one, one)
        await self.passes(across)
        self.patch(first_packet, "AGAIN_S", 0.1)
        self.patch(first_packet, "UNKNOWN_S", 0.5)
        for wire in self.wires:
            wire.cut()
        text = await self.fails(across)
        self.assertIn("node 900a (127.0.0.1) knows no client of node 900b (127.0.0.1)", text)
        self.assertIn("--mesh-with", text)
        await self.passes(alone)
        for check in self.checks_of(one) + self.checks_of(two):
            await self.passes(check)
        for wire in self.wires:
            wire.mend()
        await self.passes_in_the_end(across)

    async def passes_in_the_end(self, check: Check) -> None:
        """Run it until the relays have found each other again, which takes them a while."""
        give_up_at = reactor.seconds() + PATIENCE_S
        while True:
            try:
                await self.passes(check)
                return
            except ProbeFailed:
                self.assertLess(reactor.seconds(), give_up_at)
