"""Relays in processes of their own, a prober that watches them through wires, and its alerts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from derp.probe_config import ProbeConfig
from derp.probe_services import ProbeService, build
from derp.prober import webhook
from derp.prober.alerts import AlertConfig
from derp.prober.map_checks import Intervals
from tests.integration.child import RelayChild
from tests.integration.lossy_udp import LossyUDP
from tests.integration.mesh_case import MeshTestCase, Node
from tests.integration.partition import Wire
from tests.integration.relay_case import HOST, reactor
from tests.integration.waiting import in_time
from tests.net.admission_fakes import FakeServer, respond
from tests.net.unhurried import Unhurried
from tests.prober.maps import map_json, region

INTERVAL_S = 1.0
REGION = "zero"


class STUNNode(Node):
    """A node of a mesh that answers STUN as well."""

    @property
    def flags(self) -> tuple[str, ...]:
        """See :class:`Node`."""
        kept = [flag for flag in super().flags if flag != "--stun=false"]
        return (*kept, "--stun-port", "0")


class Way:
    """How a prober reaches one relay: wires of the tests."""

    def __init__(self, time: Unhurried, child: RelayChild) -> None:
        self.closed = False
        self.tcp = Wire(time)
        self.tcp.leads_to = child.port()
        self.udp = LossyUDP(time, child.port("--stun-port"))

    async def close(self) -> None:
        """Take both wires away."""
        if not self.closed:
            self.closed = True
            await self.tcp.close()
            await self.udp.close()


class ProbedTestCase(MeshTestCase):
    """Watches relays, and hears the alerts."""

    node_class = STUNNode

    async def setUp(self) -> None:
        """Somebody to hear alerts, who is told at once."""
        self.patch(webhook, "GROUP_WAIT_S", 0.001)
        self.time = self.steady_time()
        self.receiver = await FakeServer(respond(b"")).listen()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.receiver.stop()))
        self.map_file = Path(self.mktemp()).absolute()

    def way_to(self, child: RelayChild) -> Way:
        """Make wires to a relay."""
        way = Way(self.time, child)
        self.addCleanup(lambda: Deferred.fromCoroutine(way.close()))
        return way

    def describe(self, name: str, way: Way, pin: str = "", **fields: Any) -> dict[str, Any]:
        """A node as a map has it, at the near end of its wires."""
        return {
            "Name": name,
            "HostName": HOST,
            "CertName": pin,
            "IPv4": HOST,
            "IPv6": "none",
            "DERPPort": way.tcp.port,
            "STUNPort": way.udp.port,
            **fields,
        }

    def watch(self, *nodes: dict[str, Any], **fields: Any) -> ProbeService:
        """Start a prober of these nodes."""
        self.map_file.write_bytes(map_json(region(REGION, *nodes)))
        interval = fields.pop("every", INTERVAL_S)
        config = ProbeConfig(
            derp_map=f"file://{self.map_file}",
            host=HOST,
            port=0,
            spread=False,
            interval=interval,
            intervals=Intervals(mesh=interval, stun=interval, tls=interval),
            alerts=AlertConfig(url=self.receiver.url),
        )
        service = build(replace(config, **fields), self.time, {})
        self.addCleanup(service.stopService)
        service.privilegedStartService()
        service.startService()
        self.prober = service.prober
        return service

    # -- what is seen and told -------------------------------------------------------------

    async def all_good(self, probes: int) -> None:
        """See that many probes, and the last run of each succeed."""

        def good() -> bool:
            found = [probe.history.last_status for probe in self.prober.probes.values()]
            return len(found) == probes and set(found) == {"succeeded"}

        await self.until(good, f"{probes} good probes: {self.seen()}")

    def seen(self) -> dict[str, str]:
        """What the prober knows of each probe, for failures."""
        probes = self.prober.probes.items()
        return {name: probe.history.error or probe.history.status for name, probe in probes}

    def told(self, status: str) -> dict[str, str]:
        """The probes that were told to be ``firing`` or ``resolved``, with the words."""
        found = {}
        for request in self.receiver.requests:
            body = json.loads(request.partition(b"\r\n\r\n")[2])
            for alert in body["alerts"]:
                if alert["status"] == status:
                    found[alert["labels"]["probe"]] = alert["annotations"]["summary"]
        return found

    async def alerted(self, *names: str) -> dict[str, str]:
        """
        Wait for alerts that are due now.

        :return: the words of each.
        """
        runs = {name: self._runs(name) for name in names}
        heard = self.receiver.when(lambda: set(names) <= set(self.told("firing")))
        await in_time(reactor, heard, f"alerts of {names}, there are {self.told('firing')}")
        for name, (good, bad) in runs.items():
            good_now, bad_now = self._runs(name)
            # One may have been under way; two failures are an alert; it takes a moment to come.
            self.assertLessEqual(good_now - good, 1, name)
            self.assertLessEqual(bad_now - bad, 3, name)
        return self.told("firing")

    async def recovered(self, *names: str) -> None:
        """Wait until it is told that these work again."""
        heard = self.receiver.when(lambda: set(names) <= set(self.told("resolved")))
        await in_time(reactor, heard, f"the end of alerts of {names}")

    def _runs(self, name: str) -> tuple[int, int]:
        history = self.prober.probes[name].history
        return history.ok_runs, history.failed_runs
