"""Tests for :mod:`derp.probe_services`: the prober put together, on real sockets."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from derp import probe_services
from derp.errors import ConfigError
from derp.probe_config import ProbeConfig
from derp.probe_services import ProbeService, build
from derp.probe_supervision import ProbeSupervision, supervise
from derp.prober import webhook
from derp.prober.alerts import AlertConfig
from derp.prober.map_checks import MAP_PROBE, Intervals
from tests.integration.waiting import in_time, until
from tests.net.admission_fakes import FakeServer, respond
from tests.prober.maps import map_json, node, region

NOTHING_LISTENS = node("1a", HostName="127.0.0.1", IPv4="127.0.0.1", IPv6="none", DERPPort=1)
OFF = Intervals(mesh=0, stun=0, tls=0)


class ServiceTestCase(TestCase):
    """Starts probers, and ends them with the test."""

    timeout = 240

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.lines: list[str] = []
        observer: Any = self._observe
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.path = Path(self.mktemp()).absolute()
        self.path.write_bytes(map_json(region("zero", NOTHING_LISTENS)))

    def _observe(self, event: Any) -> None:
        if event.get("log_namespace", "").startswith("derp"):
            self.lines.append(formatEvent(event))

    def config(self, **fields: Any) -> ProbeConfig:
        """A prober on loopback that probes at once."""
        config = ProbeConfig(
            derp_map=f"file://{self.path}", host="127.0.0.1", port=0, spread=False, intervals=OFF
        )
        return replace(config, **fields)

    def start(self, **fields: Any) -> ProbeService:
        """A prober that runs."""
        service = build(self.config(**fields), self.reactor, {})
        self.addCleanup(service.stopService)
        service.privilegedStartService()
        service.startService()
        return service

    async def when(self, condition: Any, what: str) -> Any:
        return await until(self.reactor, condition, what)


class ProbeServiceTests(ServiceTestCase):
    """:class:`ProbeService`."""

    async def test_map(self) -> None:
        """It begins with the map, and probes what that says."""
        service = self.start(intervals=Intervals(mesh=0, stun=0, tls=5.0))
        await self.when(lambda: "derp/zero/1a/tls" in service.prober.probes, "a probe of the map")
        probe = service.prober.probes["derp/zero/1a/tls"]
        await self.when(lambda: probe.history.error, "a failure")
        self.assertEqual(service.status(), "2 probes, 1 failing")

    async def test_refresh(self) -> None:
        """A map that has changed is read at SIGHUP."""
        service = self.start(intervals=Intervals(mesh=0, stun=0, tls=5.0))
        await self.when(lambda: len(service.prober.probes) == 2, "a probe of the map")
        self.path.write_bytes(map_json(region("zero", {**NOTHING_LISTENS, "Name": "1b"})))
        service.refresh()
        await self.when(lambda: "derp/zero/1b/tls" in service.prober.probes, "the new probe")

    async def test_start_lines(self) -> None:
        """What is said at the start: everything but secrets."""
        service = self.start(
            alerts=AlertConfig(url="http://127.0.0.1:9/secret-path"),
            mesh_key=bytes(range(32)),
            qd_rate=5,
            region_code="zero",
            intervals=Intervals(bandwidth=60.0),
        )
        assert service.port is not None
        block = next(line for line in self.lines if " is ready\n" in line)
        for part in (
            f"listening    {service.port.where()}",
            f"DERP map     file://{self.path} every 15s, region zero only",
            "TLS every 15s, STUN every 15s, packets every 15s, bandwidth (1 MB) every 1m0s",
            "queuing delay by 5 packets per second",
            "mesh key     set",
            "alerts       after 2 failures in a row (--alert-url), not signed",
        ):
            self.assertIn(part, block)
        self.assertNotIn("secret-path", block)

    async def test_bad_start(self) -> None:
        """What is unusable ends the start: file, alert and port."""
        for fields, words in (
            ({"derp_map": "file:///nowhere"}, "--derp-map"),
            ({"alerts": AlertConfig(url="ftp://x")}, "--alert-url"),
            ({"alerts": AlertConfig(url="http://x", secret_file="/no")}, "--alert-secret-file"),
        ):
            error = self.assertRaises(ConfigError, build, self.config(**fields), self.reactor, {})
            self.assertTrue(str(error).startswith(words), str(error))
        first = self.start()
        assert first.port is not None
        number = int(first.port.where().rpartition(":")[2])
        other = build(self.config(port=number), self.reactor, {})
        error = self.assertRaises(ConfigError, other.privilegedStartService)
        self.assertIn("--listen: cannot listen", str(error))

    async def test_drain(self) -> None:
        """A drain stops all probes; a second one has nothing left to do."""
        service = self.start(intervals=Intervals(tls=5.0))
        await self.when(lambda: len(service.prober.probes) > 1, "a probe of the map")
        for _ in range(2):
            self.assertTrue(await service.drain())
        self.assertEqual(service.prober.probes, {})

    async def test_alerts(self) -> None:
        """A probe that goes on failing is told to who was named."""
        self.patch(webhook, "GROUP_WAIT_S", 0.01)
        server = await FakeServer(respond(b"")).listen()
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        self.start(intervals=Intervals(mesh=0, stun=0, tls=0.1), alerts=AlertConfig(url=server.url))
        await in_time(self.reactor, server.when(lambda: bool(server.requests)), "an alert")
        self.assertIn(b"derp/zero/1a/tls", server.requests[0])


class SetecTests(ServiceTestCase):
    """A mesh key that comes later."""

    async def setec(self, answer: bytes) -> FakeServer:
        server = await FakeServer(answer).listen()
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        return server

    def url(self, server: FakeServer) -> str:
        return server.url.rpartition("/")[0]

    async def test_waits(self) -> None:
        """Nothing is probed before it has come; the page is there."""
        server = await self.setec(respond(b"", "503 Not Yet"))
        service = self.start(secrets_url=self.url(server))
        await in_time(self.reactor, server.when(lambda: bool(server.requests)), "a question")
        self.assertEqual(service.prober.probes, {})
        waits = "; trying again, and probing nothing"
        await self.when(lambda: any(waits in line for line in self.lines), "a word about it")
        assert service.port is not None
        self.assertIn("127.0.0.1:", service.port.where())
        value = b64encode(b"0123456789abcdef" * 4).decode()
        server.answer = respond(json.dumps({"Value": value, "Version": 1}).encode())
        await self.when(lambda: MAP_PROBE in service.prober.probes, "the first probe")
        self.assertIn(b'"prod/derp/meshkey"', server.requests[0])

    async def test_once_in_vain(self) -> None:
        """With --once it is not waited for for ever."""
        self.patch(probe_services, "SECRET_S", 0.05)
        server = await self.setec(respond(b"", "503 Not Yet"))
        service = self.start(secrets_url=self.url(server), once=True)
        assert service.once is not None
        self.assertEqual(await in_time(self.reactor, service.once, "the end"), 1)
        self.assertTrue(any("gave no mesh key within" in line for line in self.lines))


class OnceTests(ServiceTestCase):
    """``--once``."""

    async def test_good(self) -> None:
        """It does not listen, and ends with 0 if all is good."""
        service = self.start(once=True)
        self.assertIsNone(service.port)
        assert service.once is not None
        self.assertEqual(await in_time(self.reactor, service.once, "the end"), 0)
        self.assertTrue(self.lines[-1].startswith("good: derpmap-probe: "))

    async def test_bad(self) -> None:
        """With 1 if one is bad."""
        service = self.start(once=True, intervals=Intervals(mesh=5, stun=0, tls=5))
        assert service.once is not None
        self.assertEqual(await in_time(self.reactor, service.once, "the end"), 1)
        said = [line.partition(": ")[2].partition(": ")[0] for line in self.lines[-3:]]
        self.assertEqual(said, ["derpmap-probe", "derp/zero/1a/1a/mesh", "derp/zero/1a/tls"])


class FakeReactor:
    """The real one, which is not to be stopped by a test."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.stopped: Deferred[None] = Deferred()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def stop(self) -> None:
        self.stopped.callback(None)


class SupervisionTests(ServiceTestCase):
    """:class:`ProbeSupervision`."""

    def supervised(self, **fields: Any) -> ProbeSupervision:
        """A prober under supervision, that runs."""
        self.fake = FakeReactor(self.reactor)
        service = build(self.config(**fields), self.reactor, {})
        supervision = supervise(service, self.fake, clean_up=lambda: None)
        # Its backstop, a thread, would end this process some seconds after the test.
        supervision._end._leave = lambda code: None
        self.addCleanup(supervision._end.restore)
        self.addCleanup(supervision._hang_up.restore)
        self.addCleanup(supervision.stopService)
        supervision.privilegedStartService()
        supervision.startService()
        return supervision

    async def test_once(self) -> None:
        """The process ends by itself, with the report's exit code."""
        supervision = self.supervised(once=True, intervals=Intervals(mesh=0, stun=0, tls=5))
        await in_time(self.reactor, self.fake.stopped, "the end")
        self.assertEqual(supervision.exit_code, 1)

    async def test_once_good(self) -> None:
        """With 0 if all is good."""
        supervision = self.supervised(once=True)
        await in_time(self.reactor, self.fake.stopped, "the end")
        self.assertEqual(supervision.exit_code, 0)

    async def test_once_interrupted(self) -> None:
        """Without a report nothing is good."""
        supervision = self.supervised(
            once=True, derp_map="http://127.0.0.1:9/", interval=500.0, spread=True
        )
        supervision._end.end("SIGINT")
        await in_time(self.reactor, self.fake.stopped, "the end")
        self.assertEqual(supervision.exit_code, 1)

    async def test_ends_by_signal(self) -> None:
        """One that watches ends well when it is told to."""
        supervision = self.supervised()
        supervision._end.end("SIGTERM")
        await in_time(self.reactor, self.fake.stopped, "the end")
        self.assertEqual(supervision.exit_code, 0)
