"""
A prober and relays in processes of their own, which come to harm in six ways.

Each harm has to be seen by its probe, named, and told to the receiver of alerts within two
intervals, if the first failure is to be told (``--alert-failures 1``).
"""

from __future__ import annotations

import json
import os
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.web.resource import Resource
from twisted.web.server import Site

from derp.probe_config import ProbeConfig
from derp.probe_services import ProbeService, build
from derp.prober.alerts import AlertConfig
from derp.prober.map_checks import Intervals
from derp.prober.tolerance import Tolerance
from tests.integration.child import RelayChild
from tests.integration.lossy_udp import LossyUDP
from tests.integration.partition import Wire
from tests.integration.relay_case import HOST, MESH_KEY, RelayTestCase, reactor
from tests.net.relay_fakes import Credentials
from tests.net.unhurried import Unhurried
from tests.prober.chains import make_ca

INTERVAL_S = 3.0
SLACK_S = 1.5
"""For a machine that has other things to do."""
ROOT = make_ca()


class Receiver(Resource):
    """
    Gets alerts.

    :ivar told: when, which status, and what, by probe; the latest of each status.
    """

    isLeaf = True

    def __init__(self, time: Unhurried) -> None:
        super().__init__()
        self._time = time
        self.told: dict[tuple[str, str], tuple[float, str]] = {}

    def render_POST(self, request: Any) -> bytes:
        for alert in json.loads(request.content.read())["alerts"]:
            key = alert["labels"]["probe"], alert["status"]
            self.told[key] = self._time.seconds(), " ".join(map(str, alert["annotations"].values()))
        return b""


class FaultTests(RelayTestCase):
    """Two meshed relays in a region, one of them by a slow way in another too; and one alone."""

    timeout = 300

    async def setUp(self) -> None:
        roots = self.mktemp()
        Path(roots).write_bytes(ROOT.credentials.pem)
        environ = {"SSL_CERT_FILE": str(Path(roots).absolute()), "SSL_CERT_DIR": os.devnull}
        patched = patch.dict(os.environ, environ)
        patched.start()
        self.addCleanup(patched.stop)
        self.time = self.steady_time()
        self.wires = [Wire(self.time) for _ in range(2)]
        self.slow = Wire(self.time)
        for wire in (*self.wires, self.slow):
            self.addCleanup(wire.close)
        self.receiver = Receiver(self.time)
        self.relays = [self.relay(number) for number in range(3)]
        for child in self.relays:
            await child.ready()
        for wire, child in zip(self.wires, self.relays, strict=False):
            wire.leads_to = child.port()
        self.slow.leads_to = self.relays[0].port()
        self.stun = [LossyUDP(self.time, child.port("--stun-port")) for child in self.relays]
        for way in self.stun:
            self.addCleanup(way.close)

    # -- relays ----------------------------------------------------------------------------

    def relay(self, number: int) -> RelayChild:
        """Start one."""
        place = Path(self.mktemp()).absolute()
        (place / "certs").mkdir(parents=True)
        (place / "mesh.key").write_text(MESH_KEY.hex())
        self.certs = place / "certs"
        self.certify(ROOT.leaf())
        meshed = ("--mesh-with", f"{HOST}:{self.wires[1 - number].port}") if number < 2 else ()
        return self.start_child(
            *("-a", f"{HOST}:0", "--http-port", "-1", "--stun-port", "0"),
            *("--certmode", "manual", "--hostname", HOST, "--certdir", str(self.certs)),
            *("-c", str(place / "key"), "--mesh-psk-file", str(place / "mesh.key"), *meshed),
        )

    def certify(self, leaf: Credentials) -> None:
        """Give the relay that was started last this certificate."""
        key = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        (self.certs / f"{HOST}.crt").write_bytes(leaf.pem)
        (self.certs / f"{HOST}.key").write_bytes(key)

    # -- the prober ------------------------------------------------------------------------

    def map(self) -> str:
        """Write the map; give its URL."""
        one, two = (
            self.node(f"900{'ab'[n]}", 900, self.relays[n].port(), self.stun[n].port)
            for n in range(2)
        )
        alone = self.node("901a", 901, self.relays[2].port(), self.stun[2].port)
        slow = self.node("902a", 902, self.slow.port, -1)
        regions = {
            "900": {"RegionID": 900, "RegionCode": "mesh", "Nodes": [one, two]},
            "901": {"RegionID": 901, "RegionCode": "alone", "Nodes": [alone]},
            "902": {"RegionID": 902, "RegionCode": "slow", "Nodes": [slow]},
        }
        path = Path(self.mktemp()).absolute()
        path.write_text(json.dumps({"Regions": regions}))
        return f"file://{path}"

    def node(self, name: str, region: int, port: int, stun_port: int) -> dict[str, Any]:
        return {
            "Name": name,
            "RegionID": region,
            "HostName": HOST,
            "IPv4": HOST,
            "DERPPort": port,
            "STUNPort": stun_port,
        }

    def prober(self) -> ProbeService:
        """Start one that tells of every failure."""
        site = Site(self.receiver)
        site.noisy = False
        listening = reactor.listenTCP(0, site, interface=HOST)
        self.addCleanup(listening.stopListening)
        config = ProbeConfig(
            derp_map=self.map(),
            host=HOST,
            port=0,
            spread=False,
            interval=600.0,
            intervals=Intervals(mesh=INTERVAL_S, stun=INTERVAL_S, tls=INTERVAL_S),
            qd_rate=20,
            qd_timeout=0.15,
            tolerance=Tolerance(latency=0.3, loss=0.05),
            mesh_key=MESH_KEY,
            alerts=AlertConfig(
                url=f"http://{HOST}:{listening.getHost().port}/", failures=1, successes=1
            ),
        )
        service = build(config, self.time, {})
        self.addCleanup(service.stopService)
        service.privilegedStartService()
        service.startService()
        return service

    def healthy(self, service: ProbeService) -> bool:
        """Whether every probe has seen that all is well."""
        probes = service.prober.probes
        if len(probes) < 1 + 4 + 3 + 6 + 6:
            return False
        running = [probe for probe in probes.values() if probe.interval < 0]
        ended = [probe for probe in probes.values() if probe.interval > 0]
        return all(probe.check.findings() for probe in running) and all(
            probe.history.results and probe.history.results[-1] for probe in ended
        )

    async def told(self, name: str, status: str = "firing") -> tuple[float, str]:
        """Wait for an alert; give when it came, and what it said."""
        key = name, status
        await self.until(lambda: key in self.receiver.told, f"the alert of {name}")
        return self.receiver.told[key]

    async def test_faults(self) -> None:
        """All at once, each found by its own probe; and what is well stays well."""
        service = self.prober()
        await self.until(lambda: self.healthy(service), "probes that are all green")
        self.receiver.told.clear()

        await self.stun[0].close()
        self.stun[1].loses = lambda number: True
        every_other = cycle((True, False))
        self.stun[2].loses = lambda number: next(every_other)
        for wire in self.wires:
            wire.cut()
        self.slow.delay_s = 0.2
        self.certify(ROOT.leaf(ends=timedelta(seconds=-1)))
        self.relays[2].send("HUP")
        began = self.time.seconds()

        for name, *words in (
            ("derp/mesh/900a/udp", "node 900a", "nobody listens on UDP"),
            ("derp/mesh/900b/udp", "node 900b", "no STUN answer from", "--stun"),
            ("derp/mesh/900a/900b/mesh", "the packet that was sent from node 900a"),
            ("derp/mesh/900b/900a/mesh", "the packet that was sent from node 900b"),
            ("derp/alone/901a/tls", "node 901a", "it has expired"),
            ("derp/alone/901a/udp", "node 901a", "--max-loss"),
            ("derp/slow/902a/902a/qd", "node 902a", "longer than the 150 ms"),
            ("derp/slow/902a/902a/mesh", "node 902a", "--max-latency"),
        ):
            at, text = await self.told(name)
            self.assertLess(at - began, 2 * INTERVAL_S + SLACK_S, name)
            for each in words:
                self.assertIn(each, text)
        failing = {name for name, status in self.receiver.told if status == "firing"}
        for node in ("900a", "900b"):
            self.assertNotIn(f"derp/mesh/{node}/tls", failing)
            self.assertNotIn(f"derp/mesh/{node}/{node}/mesh", failing)

        self.slow.delay_s = 0.0
        _, text = await self.told("derp/slow/902a/902a/mesh", "resolved")
        self.assertIn("works again", text)
