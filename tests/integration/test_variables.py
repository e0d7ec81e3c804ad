"""derper's variables as a running relay serves them, against the recorded pages."""

from __future__ import annotations

import json
from typing import Any

from derp.net.relay_client import RelayClient
from derp.services import RelayService
from derp.wire.disco import DISCO_MAGIC
from derp.wire.keys import public_of
from tests.exposition import Exposition
from tests.integration.relay_case import HOST, MESH_KEY, RelayTestCase, reactor
from tests.integration.test_stun import Asker
from tests.integration.virtual_time import VirtualTime
from tests.net.test_derper_variables import OF_THE_MOMENT, ONLY_GO, derpers
from tests.shown_relay import ALICE_PRIVATE, BOB_PRIVATE, NOBODY
from tests.vectors import load

GOOD_STUN = bytes.fromhex(load("stun.json")["cases"][0]["request"])
OF_THE_VISIT = (
    "derp_buffered_write_frames",
    "derp_tcp_rtt",
    "derper_tls_",
    "process_",
    "tls_listener_",
)
"""Depends on how writes were bundled, or on how often somebody looked."""


class VariablesTests(RelayTestCase):
    """``/debug/varz`` and ``/debug/vars`` over TLS."""

    def setUp(self) -> None:
        super().setUp()
        time = VirtualTime(reactor)  # stands still: the relay has just been started, always
        self.service: RelayService = self.start_relay(self.config(mesh_key=MESH_KEY), time)
        self.port = self.port_of(self.service)

    async def page(self) -> Exposition:
        """The text form, as derper's: without what only Go has."""
        return (await self.varz(self.port, tls=True)).without(*ONLY_GO)

    async def traffic(self) -> tuple[RelayClient, RelayClient]:
        """Let two clients do what they did when ``…-traffic`` was recorded."""
        alice, to_alice = await self.client(self.port, private_key=ALICE_PRIVATE)
        bob, to_bob = await self.client(self.port, private_key=BOB_PRIVATE, fast_start=False)
        alice.note_preferred(True)
        for _ in range(3):
            alice.send(bob.public_key, bytes(100))
        alice.send(bob.public_key, DISCO_MAGIC + bytes(70 - len(DISCO_MAGIC)))
        await alice.ping(30.0)
        for _ in range(4):
            await to_bob.next()
        bob.send(NOBODY, bytes(10))
        bob.send(NOBODY, DISCO_MAGIC + bytes(62 - len(DISCO_MAGIC)))
        await to_bob.next()  # peer gone
        asker = Asker()
        port = reactor.listenUDP(0, asker, interface=HOST)
        self.addCleanup(port.stopListening)
        for datagram in (b"not STUN", GOOD_STUN):
            asker.transport.write(datagram, (HOST, self.port_of(self.service, "--stun-port")))
        await asker.next()
        self.assertEqual((to_alice.waiting, to_bob.waiting), ([], []))
        return alice, bob

    async def test_names_and_types(self) -> None:
        """Names, types and labels are derper's, whether something happened or not."""
        for recorded in ("varz-idle.txt", "varz-traffic.txt"):
            page, expected = await self.page(), derpers(recorded)
            for name in expected.without("process_").types:
                self.assertEqual(page.types.get(name), expected.types[name], name)
            missing = set(expected.without("version", "derp_tcp_rtt").samples) - set(page.samples)
            self.assertEqual(missing, set())
            if recorded == "varz-idle.txt":
                await self.traffic()

    async def test_process(self) -> None:
        """The process' own metrics stand first, under the names every exporter uses."""
        page = await self.page()
        self.assertEqual(page.types["process_resident_memory_bytes"], "gauge")
        self.assertEqual(page.types["process_cpu_seconds_total"], "counter")
        first = [name for name, _ in page.samples if name.startswith("process_")]
        self.assertEqual([name for name, _ in page.samples][: len(first) - 1], first[:-1])

    async def test_traffic(self) -> None:
        """The recorded traffic gives the recorded numbers."""
        await self.traffic()
        left_out = (*OF_THE_MOMENT, *OF_THE_VISIT)
        page = (await self.page()).without(*left_out)
        expected = derpers("varz-traffic.txt").without(*left_out)
        self.assertEqual(page.samples, expected.samples)

    async def test_tls(self) -> None:
        """Clients count as TLS connections for as long as they are connected."""
        await self.traffic()
        page = await self.page()
        self.assertEqual(page.value("derper_tls_active_version", version="1.3"), 3)
        self.assertEqual(page.value("derper_tls_request_version", version="1.3"), 3)
        self.assertEqual(page.value("tls_listener_accepted_connections"), 3)

    async def test_json(self) -> None:
        """The JSON form has derper's keys in derper's order, and its numbers."""
        await self.traffic()
        answer = await self.get(self.port, "/debug/vars", tls=True)
        shown: dict[str, Any] = json.loads(answer.body)
        expected: dict[str, Any] = load("vars-traffic.json")
        names = [name for name in expected if not name.startswith("go_")]
        self.assertEqual([name for name in shown if name in names], names)
        self.assertEqual(list(shown["derp"]), list(expected["derp"]))
        for name in names:
            self.assertIs(type(shown[name]), type(expected[name]), name)
        for name, value in expected["derp"].items():
            if name.startswith(("packets_", "bytes_", "counter_packets", "gauge_clients_")):
                self.assertEqual(shown["derp"][name], value, name)

    async def test_no_secrets(self) -> None:
        """Neither page tells the relay's private key or the mesh key."""
        private = self.service.relay.private
        self.assertEqual(public_of(private), self.service.relay.public)
        for path in ("/debug/vars", "/debug/varz", "/debug/", "/metrics"):
            text = (await self.get(self.port, path, tls=True)).body.decode()
            for secret in (private.hex(), MESH_KEY.hex()):
                self.assertNotIn(secret, text, path)
