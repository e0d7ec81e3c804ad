"""Tests for :mod:`derp.prober.site` and its pages, on a real port."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from prometheus_client.metrics_core import Metric
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from derp.config import DebugKnobs
from derp.errors import ConfigError
from derp.net.timer_wheel import TimerWheel
from derp.prober import site as module
from derp.prober.check import ProbeFailed
from derp.prober.prober import Prober
from derp.prober.site import ProberPort, prober_site
from tests.exposition import Exposition
from tests.integration.waiting import in_time, until
from tests.net.http_exchange import Answer, Exchange
from tests.prober.checks import FakeCheck, failing, nothing
from tests.wall_clock import WallClock

LONG_AGO = 1_000_000_000.0
"""2001-09-09 01:46:40 UTC: what the wall shows."""

HOST = "127.0.0.1"
ELSEWHERE = "X-Forwarded-For: 192.0.2.1"
"""Makes us a stranger to the debug pages."""


class SiteTestCase(TestCase):
    """A prober that serves its pages."""

    timeout = 60

    def setUp(self) -> Any:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.lines: list[str] = []
        observer: Any = self._observe
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.prober = Prober(reactor, spread=False)
        self.addCleanup(self.prober.stop)
        wheel = TimerWheel(reactor)
        self.addCleanup(wheel.stop)
        wall = WallClock(reactor, LONG_AGO)
        site = prober_site(reactor, wall.seconds, self.prober, DebugKnobs(), wheel, 15.0)
        self.port = ProberPort(reactor, HOST, 0, site)
        self.port.start()
        self.addCleanup(self.port.stop)
        self.good = self.add("good", nothing)

    def _observe(self, event: Any) -> None:
        if event.get("log_namespace", "").startswith("derp"):
            self.lines.append(formatEvent(event))

    def add(self, name: str, at_once: Any, interval: float = 1000.0) -> FakeCheck:
        """Add a probe whose runs end at once, or never if there is nothing to call."""
        fake = FakeCheck(self.reactor)
        fake.at_once = at_once
        self.prober.add(name, interval, fake.check)
        return fake

    async def ask(self, path: str, *headers: str, method: str = "GET") -> Answer:
        """One request over a connection of its own."""
        exchange = await self.send(path, *headers, method=method)
        answer: Answer = await in_time(self.reactor, exchange.answer(method), f"an answer: {path}")
        exchange.transport.abortConnection()
        return answer

    async def send(self, path: str, *headers: str, method: str = "GET") -> Exchange:
        """Send a request, and read nothing yet."""
        _, _, number = self.port.where().rpartition(":")
        exchange = Exchange()
        endpoint = TCP4ClientEndpoint(self.reactor, HOST, int(number))
        await connectProtocol(endpoint, exchange)
        self.addCleanup(exchange.transport.abortConnection)
        lines = [f"{method} {path} HTTP/1.1", "Host: prober.test", *headers, "", ""]
        exchange.transport.write("\r\n".join(lines).encode())
        return exchange


class PagesTests(SiteTestCase):
    """Who gets what."""

    async def test_health(self) -> None:
        """Everybody, and nothing of it in the log."""
        answer = await self.ask("/healthz", ELSEWHERE)
        self.assertEqual((answer.status, answer.body), (200, b"ok\n"))
        self.assertTrue((answer.header("Content-Type") or "").startswith("text/plain"))
        self.assertEqual(self.lines, [])

    async def test_status_page(self) -> None:
        """Everybody, at any path that is nothing else."""
        for path in ("/", "/anything"):
            answer = await self.ask(path, ELSEWHERE)
            self.assertEqual(answer.status, 200)
            self.assertIn(b"<!doctype html>", answer.body[:100].lower())
            self.assertIn(b"<title>DERP Prober</title>", answer.body)

    async def test_strangers(self) -> None:
        """Strangers see no debug page, no metrics, and run nothing."""
        before = len(self.good.begun)
        for path in (
            "/debug/",
            "/debug/varz",
            "/debug/vars",
            "/debug/gc",
            "/debug/pprof/",
            "/debug/probe-run?name=good",
            "/debug/probe-all",
            "/metrics",
        ):
            answer = await self.ask(path, ELSEWHERE)
            self.assertEqual(answer.status, 403, path)
            self.assertIn(b"debug access denied", answer.body)
        self.assertEqual(len(self.good.begun), before)

    async def test_debug_pages(self) -> None:
        """The standard ones are there, and the index leads to all."""
        index = await self.ask("/debug/")
        self.assertIn(b"<h1>derpprobe debug</h1>", index.body)
        links = re.findall(rb'href="(/debug/[^"]*)"', index.body)
        self.assertEqual(len(links), 8)
        for link in links:
            answer = await self.ask(link.decode())
            expected = 400 if link.endswith(b"probe-run") else 200
            self.assertEqual(answer.status, expected, link)

    async def test_varz(self) -> None:
        """Metrics of the process and of the probes, and variables as the reference has them."""
        answer = await self.ask("/debug/varz")
        shown = Exposition.parse(answer.body.decode())
        labels = {"class": "fake", "name": "good"}
        self.assertEqual(shown.value("derpprobe_result", **labels), 1)
        names = {name for name, _ in shown.samples}
        for name in ("process_open_fds", "goroutines", "memstats_sys", "process_start_unix_time"):
            self.assertIn(name, names)
        self.assertIn("uptime_sec", names)
        self.assertRegex(answer.body, rb'\nversion\{version="[^"]+",binary="derpprobe"\} 1\n')

    async def test_bare_counter(self) -> None:
        """On the reference's page a counter without ``_total`` is a counter."""

        def metrics() -> list[Metric]:
            dropped = Metric("derpprobe_derp_qd_probe_dropped_packets", "Lost", "counter")
            dropped.add_sample(dropped.name, {}, 4)
            return [dropped]

        check = replace(FakeCheck(self.reactor).check, metrics=metrics)
        self.prober.add("lasts", -10.0, check)
        shown = Exposition.parse((await self.ask("/debug/varz")).body.decode())
        self.assertEqual(shown.types["derpprobe_derp_qd_probe_dropped_packets"], "counter")

    async def test_metrics(self) -> None:
        """The same metrics without the variables, in the form that is asked for."""
        plain = await self.ask("/metrics")
        names = {name for name, _ in Exposition.parse(plain.body.decode()).samples}
        self.assertIn("derpprobe_interval_secs", names)
        self.assertNotIn("goroutines", names)
        fancy = await self.ask("/metrics", "Accept: application/openmetrics-text;version=1.0.0")
        self.assertIn(b"# EOF", fancy.body)

    async def test_vars(self) -> None:
        """Variables as JSON, without what may be secret."""
        answer = await self.ask("/debug/vars")
        variables = json.loads(answer.body)
        self.assertLess({"cmdline", "counter_uptime_sec", "version"}, set(variables))


class RunTests(SiteTestCase):
    """Runs out of turn."""

    async def test_success(self) -> None:
        """Text, and how it went before."""
        answer = await self.ask("/debug/probe-run?name=good")
        self.assertEqual(answer.status, 200)
        self.assertRegex(
            answer.body.decode(),
            r"\AProbe succeeded in [0-9.]+\S*s\n"
            r"Last 2 probes \(including this one\): success rate 100%, median latency \S+s\n\Z",
        )

    async def test_failure(self) -> None:
        """424, with the reason."""
        self.add("bad", failing(ProbeFailed("no answer")))
        answer = await self.ask("/debug/probe-run?name=bad")
        self.assertEqual(answer.status, 424)
        self.assertEqual(
            answer.body.decode(),
            "Probe failed: no answer\n"
            "Last 2 probes (including this one): success rate 0%, median latency 0s\n",
        )

    async def test_json(self) -> None:
        """For who accepts exactly that."""
        answer = await self.ask("/debug/probe-run?name=good", "Accept: application/json")
        self.assertEqual(answer.header("Content-Type"), "application/json")
        said = json.loads(answer.body)
        self.assertEqual(said["ProbeInfo"]["Status"], "succeeded")
        self.assertEqual(said["ProbeInfo"]["RecentResults"], [True, True])
        self.assertEqual(said["PreviousSuccessRatio"], 1.0)
        self.assertIsInstance(said["PreviousMedianLatency"], int)
        other = await self.ask("/debug/probe-run?name=good", "Accept: application/json, */*")
        self.assertTrue(other.body.startswith(b"Probe succeeded"))

    async def test_bad_json(self) -> None:
        """Of a failure, too."""
        self.add("bad", failing(ProbeFailed("no answer")))
        answer = await self.ask("/debug/probe-run?name=bad", "Accept: application/json")
        said = json.loads(answer.body)["ProbeInfo"]
        self.assertEqual((answer.status, said["Error"]), (424, "no answer"))

    async def test_unknown(self) -> None:
        """No name, no such name, and none that runs all the time."""
        self.add("lasts", None, -10.0)
        answer = await self.ask("/debug/probe-run")
        self.assertEqual((answer.status, answer.body), (400, b"missing name parameter\n"))
        for name in ("lasts", "nothing"):
            answer = await self.ask(f"/debug/probe-run?name={name}")
            expected = f'unknown probe "{name}"\n'.encode()
            self.assertEqual((answer.status, answer.body), (404, expected))

    async def test_all(self) -> None:
        """All but continuous and excluded ones; 424 if one has failed."""
        self.add("lasts", None, -10.0)
        self.add("fine", nothing)
        answer = await self.ask("/debug/probe-all")
        self.assertEqual(answer.status, 200)
        self.assertEqual(set(json.loads(answer.body)["Results"]), {"good", "fine"})
        self.add("bad", failing(ProbeFailed("no answer")))
        answer = await self.ask("/debug/probe-all?exclude=good&exclude=other")
        results = json.loads(answer.body)["Results"]
        self.assertEqual((answer.status, set(results)), (424, {"fine", "bad"}))
        self.assertEqual(results["bad"]["ProbeInfo"]["Status"], "failed")
        answer = await self.ask("/debug/probe-all?exclude=bad")
        self.assertEqual(answer.status, 200)

    async def test_removed(self) -> None:
        """A probe that is removed while it is waited for: it was not run."""
        self.add("slow", None)
        waiting = await self.send("/debug/probe-run?name=slow")
        probe = self.prober.probes["slow"]
        await until(self.reactor, lambda: probe._asked, "a run that is asked for")
        self.prober.remove("slow")
        answer = await in_time(self.reactor, waiting.answer("GET"), "an answer")
        self.assertEqual((answer.status, answer.body), (503, b"not run: the probe was removed\n"))

    async def test_client_leaves(self) -> None:
        """Nobody waits any more; nothing fails."""
        slow = self.add("slow", None)
        slow.succeed()
        waiting = await self.send("/debug/probe-run?name=slow")
        await until(self.reactor, lambda: slow.open, "a run")
        waiting.transport.abortConnection()
        await until(self.reactor, lambda: self.lines, "a line of the log")
        slow.succeed()
        self.assertIn("the client left", self.lines[-1])
        self.assertEqual(list(self.prober.probes["slow"].history.results), [True, True])


class AccessLogTests(SiteTestCase):
    """One line for each request for a page or a run."""

    async def record(self, path: str, *headers: str) -> dict[str, Any]:
        """What is logged of a request."""
        await self.ask(path, *headers)
        await until(self.reactor, lambda: self.lines, "a line of the log")
        record = json.loads(self.lines.pop())
        self.assertEqual(self.lines, [])
        assert isinstance(record, dict)
        return record

    async def test_fields(self) -> None:
        """What there is to say, and nothing that is empty."""
        record = await self.record("/debug/probe-run?name=good", "User-Agent: curl/8")
        time, duration = record.pop("time"), record.pop("duration")
        self.assertRegex(time, r"\A2001-09-09T\d\d:\d\d:\d\d(\.\d+)?Z\Z")
        self.assertTrue(0 <= duration < 10, duration)
        self.assertRegex(record.pop("remote_addr"), r"\A127\.0\.0\.1:\d+\Z")
        size = record.pop("bytes")
        self.assertGreater(size, 50)
        self.assertEqual(
            record,
            {
                "proto": "HTTP/1.1",
                "host": "prober.test",
                "method": "GET",
                "request_uri": "/debug/probe-run?name=good",
                "user_agent": "curl/8",
                "code": 200,
            },
        )

    async def test_error(self) -> None:
        """Why, if it was none that was asked for."""
        record = await self.record("/debug/probe-run?name=x")
        self.assertEqual((record["code"], record["err"]), (404, 'unknown probe "x"'))

    async def test_secret(self) -> None:
        """The debug key is in no log."""
        record = await self.record("/debug/probe-run?debugkey=sesame&name=good")
        self.assertEqual(record["request_uri"], "/debug/probe-run?debugkey=<hidden>&name=good")

    async def test_files(self) -> None:
        """The page is a line; the dozen files that belong to it are none."""
        self.assertEqual((await self.ask("/static/page.css")).status, 200)
        self.assertEqual(self.lines, [])

    async def test_page(self) -> None:
        """The page is logged; scrapes and the debug pages are not."""
        self.assertEqual((await self.record("/"))["request_uri"], "/")
        for path in ("/debug/varz", "/metrics", "/debug/"):
            await self.ask(path)
        self.assertEqual(self.lines, [])


class PortTests(SiteTestCase):
    """The port itself."""

    async def test_in_use(self) -> None:
        """The start ends with a sentence."""
        number = int(self.port.where().rpartition(":")[2])
        other = ProberPort(self.reactor, HOST, number, self.port.site)
        error = self.assertRaises(ConfigError, other.open)
        self.assertIn(f"--listen: cannot listen on {HOST}:{number}", str(error))

    async def test_crowd(self) -> None:
        """More connections than there is room for are closed."""
        self.patch(module, "MAX_CONNECTIONS", 2)
        for _ in range(2):
            exchange = await self.send("/healthz")
            await exchange.answer("GET")
        late = await self.send("/healthz")
        await until(self.reactor, lambda: late.closed, "a closed connection")

    async def test_ends(self) -> None:
        """Open connections, streams among them, are cut at the end."""
        stream = await self.send("/events")
        await until(self.reactor, lambda: b"event:" in stream.buffer, "an event")
        await self.port.stop()
        await until(self.reactor, lambda: stream.closed, "the end of a stream")

    async def test_both_families(self) -> None:
        """Without a host both families, and IPv4 clients are called by their own address."""
        await self.port.stop()
        self.port = ProberPort(self.reactor, "", 0, self.port.site)
        self.port.start()
        self.addCleanup(self.port.stop)
        self.assertTrue(self.port.where().startswith("*:"))
        self.assertEqual((await self.ask("/debug/")).status, 200)
        await self.ask("/")
        self.assertIn('"remote_addr":"127.0.0.1:', self.lines[-1])
