"""The doctor over the network, where all is well."""

from __future__ import annotations

from derp.doctor.finding import Finding, Verdict
from derp.doctor.rounds import node_of
from derp.wire.keys import generate_private, public_of
from derp.wire.node_json import pin_of
from tests.doctor.doctor_case import NAME, DoctorTestCase, NamingReactor
from tests.integration.relay_case import HOST, MESH_KEY
from tests.net.udp_sockets import NO_IPV6


class HealthyTests(DoctorTestCase):
    """Real relays of this process, that clients would be content with."""

    def assert_well(self, found: dict[str, list[Finding]]) -> None:
        """Everything was examined, and found well."""
        bad = [
            f"{name}: {each.verdict} {each.said}"
            for name, findings in found.items()
            for each in findings
            if each.verdict is not Verdict.OK
        ]
        self.assertEqual(bad, [])

    async def test_all(self) -> None:
        """Every examination is ok, within a few seconds; nothing is held against anybody."""
        service = self.start_healthy()
        patient = self.relay_patient(service)
        begun = patient.reactor.seconds()
        found = await self.examined(patient)
        self.assertLess(patient.reactor.seconds() - begun, 5.0)
        self.assert_well(found)
        self.assertEqual(
            list(found),
            [
                *("DNS", "TCP", "TLS", "SNI", "upgrade", "fast start", "login", "WebSocket"),
                *("generate_204", "plain HTTP", "clock", "STUN", "home"),
            ],
        )
        self.assert_found(found["login"], Verdict.OK, "a packet of 1200 bytes came through")
        self.assert_found(found["STUN"], Verdict.OK, "our own address")
        self.assertEqual(self.chart.server_keys, {service.relay.public.hex()})
        self.assertEqual(service.relay.stats.protocol_errors, 0)
        self.assertEqual(service.relay.stats.dropped, 0)
        await self.until(lambda: not service.server.protocols, "that the doctor has gone")
        node = node_of(patient, self.chart)
        assert node is not None
        self.assertEqual((node.hostname, node.cert_name), (NAME, ""))
        self.assertEqual((node.derp_port, node.stun_port), (patient.port, patient.stun_port))

    async def test_both_versions(self) -> None:
        """Over IPv4 and IPv6: ports, upgrades and STUN of each, and one relay behind them."""
        service = self.start_healthy(host="")
        names = NamingReactor({NAME: [HOST, "::1"]})
        found = await self.examined(self.relay_patient(service, reactor=names))
        self.assert_well(found)
        for name, words in (("TCP", "is open"), ("upgrade", "greeted"), ("STUN", "our own")):
            for host in (HOST, "::1"):
                said = [each.said for each in found[name] if words in each.said]
                self.assertEqual(len([line for line in said if host in line]), 1, said)
        found = await self.examined(self.relay_patient(service, reactor=names, families=(6,)))
        self.assert_well(found)
        self.assertEqual(self.chart.reached, {6: "::1"})

    test_both_versions.skip = NO_IPV6 or None  # type: ignore[attr-defined]

    async def test_pinned_address(self) -> None:
        """A relay known by its address, with its own certificate and the pin for it."""
        service = self.start_relay(self.config())
        assert service.certificates is not None
        pin = service.certificates.pin()
        found = await self.examined(self.relay_patient(service, host=HOST, cert_name=pin))
        self.assert_well(found)
        self.assert_found(found["TLS"], Verdict.OK, "as pinned")
        found = await self.examined(self.relay_patient(service, host=HOST))
        self.assert_found(found["TLS"], Verdict.WARN, "only by its pin", "--pin CertName")
        self.assertEqual(self.chart.suggested_pin, pin)
        self.assertEqual(pin, pin_of(self.chart.chain[0]))

    async def test_without_tls(self) -> None:
        """A relay without TLS, as a proxy sees it."""
        service = self.start_relay(self.config(tls=False, stun=False))
        patient = self.patient(self.port_of(service), host=HOST, tls=False)
        found = await self.examined(patient)
        self.assert_well(found)
        self.assertIsNone(node_of(patient, self.chart), "clients cannot use it")
        self.assertNotIn("TLS", found)

    async def test_mesh_key(self) -> None:
        """Where strangers are refused, the key of the mesh opens."""
        service = self.start_healthy(allow_clients=self.empty_list(), mesh_key=MESH_KEY)
        found = await self.examined(self.relay_patient(service, mesh_key=MESH_KEY))
        self.assert_well(found)
        self.assert_found(found["login"], Verdict.OK, "came through")

    async def test_client_key(self) -> None:
        """So does the key of an admitted client, which then writes to itself."""
        private = generate_private()
        path = self.mktemp()
        with open(path, "w") as file:
            file.write(f"nodekey:{public_of(private).hex()}\n")
        service = self.start_healthy(allow_clients=path)
        found = await self.examined(self.relay_patient(service, private_key=private))
        self.assert_well(found)
        self.assert_found(found["login"], Verdict.OK, "came through")

    def empty_list(self) -> str:
        """A file that admits nobody."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("# nobody\n")
        return path
