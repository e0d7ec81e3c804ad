"""Tests of :mod:`derp.prober.event_stream`."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionLost
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from derp.core.tls_request_stats import TLSRequestStats
from derp.net.http_deadlines import HTTPTiming
from derp.net.mux import Mux
from derp.net.timer_wheel import TimerWheel
from derp.net.web import WebSite
from derp.prober import event_stream
from derp.prober.event_stream import GATHER_S, MAX_PER_HOST, STALLED_S, TICK_S
from tests.integration.waiting import until
from tests.net.http_exchange import Exchange
from tests.net.sites import AbortableTransport, Visit, get
from tests.prober.shown_prober import INTERVAL, ShownProber

reactor: Any = global_reactor

TLS = "derp/nyc/1a/tls"


def events(data: bytes) -> list[tuple[str, Any]]:
    """The events in what a server sent, by kind and data."""
    found = []
    for block in data.replace(b"\r\n", b"\n").split(b"\n\n"):
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line[:8])
        if b"event" in fields:
            found.append((fields[b"event"].decode(), json.loads(fields[b"data"])))
    return found


class StreamCase(SynchronousTestCase):
    """A site with the page at its root."""

    def setUp(self) -> None:
        """Probe one node, with nobody listening."""
        self.shown = ShownProber()
        self.shown.add_node("nyc", 1, "1a", "derp1.example.com")
        self.shown.pass_time(1)
        clock = self.shown.clock
        # A deadline far shorter than these tests take: a stream must not be subject to it.
        timing = HTTPTiming(clock, TimerWheel(clock), 5.0)
        self.page = self.shown.resource()
        self.live = self.page._live
        self.site = WebSite(Mux({"/": self.page}), timing, TLSRequestStats())

    def listen(self, *headers: str, peer: str = "127.0.0.1") -> tuple[Visit, list[Any]]:
        """Begin to listen; the connection, and what was told at once."""
        visit = Visit(self.site, AbortableTransport(peer))
        answer = visit.send(get("/events", *headers))
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 OK\r\n"), answer)
        return visit, events(answer)

    def take(self, visit: Visit) -> list[tuple[str, Any]]:
        """What was told since."""
        return events(visit.take())

    def leave(self, visit: Visit) -> None:
        """A listener goes."""
        visit.channel.connectionLost(Failure(ConnectionLost()))


class StreamTests(StreamCase):
    """What listeners are told."""

    def test_head(self) -> None:
        """The answer is a stream of events that no proxy shall keep."""
        visit = Visit(self.site)
        head, _, rest = visit.send(get("/events")).partition(b"\r\n\r\n")
        self.assertIn(b"Content-Type: text/event-stream; charset=utf-8", head)
        self.assertIn(b"Cache-Control: no-store", head)
        self.assertIn(b"X-Accel-Buffering: no", head)
        self.assertIn(b"retry: 3000\n", rest)

    def test_snapshot_first(self) -> None:
        """First of all there is everything."""
        _, told = self.listen()
        ((kind, data),) = told
        self.assertEqual((kind, data["summary"]["total"]), ("snapshot", 4))
        self.assertEqual(set(data["probes"]), set(self.shown.prober.probes))

    def test_reconnected(self) -> None:
        """Whatever a browser has seen last, it gets everything, too."""
        for last in ("7", "nonsense", "9" * 4000):
            _, told = self.listen(f"Last-Event-ID: {last}")
            self.assertEqual([kind for kind, _ in told], ["snapshot"])

    def test_change(self) -> None:
        """A failure is told within a second, with its reason; what is unchanged is not."""
        visit, _ = self.listen()
        self.shown.checks[TLS].error = "it has expired"
        self.shown.pass_time(INTERVAL - 1)
        self.take(visit)
        self.shown.pass_time(0.041 + GATHER_S)
        ((kind, data),) = self.take(visit)
        self.assertEqual((kind, data["summary"]["failing"]), ("probes", 1))
        views = {view["name"]: view for view in data["probes"]}
        self.assertEqual(views[TLS]["state"], "failing")
        self.assertEqual(views[TLS]["reason"], "it has expired")
        self.assertEqual(data["failures"][0]["reason"], "it has expired")
        self.shown.prober.run_now("derp/nyc/1a/udp")
        self.shown.pass_time(GATHER_S)
        ((_, data),) = self.take(visit)
        self.assertEqual([view["name"] for view in data["probes"]], ["derp/nyc/1a/udp"])
        self.assertNotIn("failures", data)

    def test_gathered(self) -> None:
        """Many changes within a second are one message, of the state they lead to."""
        visit, _ = self.listen()
        for _ in range(10):
            self.shown.prober.run_now(TLS)
            self.shown.pass_time(0.05)
        self.shown.pass_time(GATHER_S)
        ((kind, data),) = self.take(visit)
        self.assertEqual((kind, len(data["probes"])), ("probes", 1))
        self.assertEqual(data["probes"][0]["runs"], 11)

    def test_numbered(self) -> None:
        """Each event has a number of its own."""
        visit, _ = self.listen()
        self.shown.pass_time(2 * INTERVAL)
        ids = [line for line in visit.take().split(b"\n") if line.startswith(b"id: ")]
        self.assertGreater(len(ids), 1)
        self.assertEqual(len(ids), len(set(ids)))

    def test_tick(self) -> None:
        """If nothing happens something is said all the same, and the time is told."""
        visit, _ = self.listen()
        for name in list(self.shown.prober.probes):
            self.shown.prober.remove(name)
        self.shown.pass_time(2)
        self.take(visit)
        self.shown.pass_time(2 * TICK_S)
        told = self.take(visit)
        self.assertEqual([kind for kind, _ in told], ["tick", "tick"])
        self.assertApproximates(told[-1][1]["now"], self.shown.clock.seconds(), 2)

    def test_added_and_removed(self) -> None:
        """When probes come or go there is a new snapshot."""
        visit, _ = self.listen()
        self.shown.add("derp/fra/2a/tls", "tls", {"region": "fra", "region_id": "2"})
        self.shown.pass_time(GATHER_S)
        self.assertEqual([kind for kind, _ in self.take(visit)], ["snapshot"])
        self.shown.prober.remove(TLS)
        self.shown.pass_time(GATHER_S)
        ((kind, data),) = self.take(visit)
        self.assertEqual(kind, "snapshot")
        self.assertNotIn(TLS, data["probes"])
        self.assertEqual(len(data["regions"]), 2)

    def test_failure_after_a_removal(self) -> None:
        """A new failure is told, though with a removed probe as many have gone."""
        labels = {"region": "nyc", "region_id": "1"}
        for name in ("a", "b"):
            self.shown.add(f"derp/nyc/{name}/tls", "tls", labels, interval=1e6, error="broken")
        visit, _ = self.listen()
        self.shown.pass_time(GATHER_S)
        self.shown.prober.remove("derp/nyc/a/tls")
        self.shown.pass_time(GATHER_S)
        self.take(visit)
        self.shown.checks[TLS].error = "broken as well"
        self.shown.pass_time(2 * INTERVAL)
        told = [data["failures"] for kind, data in self.take(visit) if "failures" in data]
        self.assertIn("broken as well", [each["reason"] for each in told[0]])

    def test_continuous(self) -> None:
        """What a continuous probe finds is told although it never ends."""
        name = "derp/nyc/1a/1a/qd"
        fake = self.shown.add(name, "derp_qd", {"region": "nyc"}, interval=-10, latency_s=1e9)
        visit, _ = self.listen()
        self.shown.pass_time(TICK_S)
        self.take(visit)
        fake.found = {"p99_ms": 17.5}
        self.shown.pass_time(2 * TICK_S)
        found = [
            view["findings"]
            for kind, data in self.take(visit)
            if kind == "probes"
            for view in data["probes"]
            if view["name"] == name
        ]
        self.assertEqual(found[-1], {"p99_ms": 17.5})

    def test_no_deadline(self) -> None:
        """A stream outlives every deadline of the port."""
        visit, _ = self.listen()
        self.shown.pass_time(3600)
        self.assertFalse(visit.closing)
        self.assertEqual(len(self.live.streams), 1)

    def test_nobody_listens(self) -> None:
        """Nothing ticks before the first listener has come, or after the last has gone."""
        calls = len(self.shown.clock.getDelayedCalls())
        one, _ = self.listen()
        two, _ = self.listen()
        self.leave(one)
        self.assertTrue(self.live._rounds.running)
        self.leave(two)
        self.assertFalse(self.live._rounds.running)
        self.assertEqual(self.live.streams, [])
        self.shown.pass_time(60)
        self.assertLessEqual(len(self.shown.clock.getDelayedCalls()), calls + 1)  # the wheel's

    def test_remembers_nobody(self) -> None:
        """Probes that come and go while nobody listens leave nothing behind."""
        for number in range(50):
            self.shown.add(f"derp/nyc/{number}/tls", "tls", {"region": "nyc"})
            self.shown.pass_time(1)
            self.shown.prober.remove(f"derp/nyc/{number}/tls")
        self.live.snapshot()
        self.assertEqual(self.live._changed, set())
        names = set(self.shown.prober.probes)
        self.assertEqual(
            (set(self.live._views._views), set(self.live._views._memories)), (names,) * 2
        )

    def test_comes_back(self) -> None:
        """After everybody has gone the next listener is told as the first one was."""
        visit, _ = self.listen()
        self.leave(visit)
        self.shown.pass_time(INTERVAL)
        visit, told = self.listen()
        self.assertEqual(told[0][1]["probes"][TLS]["runs"], 2)
        self.shown.pass_time(INTERVAL)
        self.assertIn("probes", [kind for kind, _ in self.take(visit)])


class SlowReaderTests(StreamCase):
    """Listeners that do not read, and too many of them."""

    def test_misses_changes(self) -> None:
        """Nothing is kept for who does not read; when there is room it gets a snapshot."""
        slow, _ = self.listen()
        fast, _ = self.listen()
        slow.transport.producer.pauseProducing()
        self.shown.pass_time(2 * INTERVAL)
        self.assertEqual(slow.take(), b"")
        self.assertGreater(len(self.take(fast)), 2)
        slow.transport.producer.resumeProducing()
        ((kind, data),) = self.take(slow)
        self.assertEqual((kind, data["probes"][TLS]["runs"]), ("snapshot", 3))

    def test_missed_nothing(self) -> None:
        """A short pause in which nothing was told has no consequence."""
        slow, _ = self.listen()
        slow.transport.producer.pauseProducing()
        slow.transport.producer.resumeProducing()
        self.assertEqual(slow.take(), b"")

    def test_dropped(self) -> None:
        """Who has not read for a minute is cut off, and forgotten."""
        slow, _ = self.listen()
        slow.transport.producer.pauseProducing()
        self.shown.pass_time(STALLED_S - 2)
        self.assertEqual(len(self.live.streams), 1)
        self.shown.pass_time(4)
        self.assertTrue(slow.transport.aborted)
        self.assertEqual(self.live.streams, [])
        self.assertFalse(self.live._rounds.running)

    def refused(self, peer: str) -> None:
        answer = Visit(self.site, AbortableTransport(peer)).send(get("/events"))
        self.assertTrue(answer.startswith(b"HTTP/1.1 503 "), answer)
        self.assertIn(b"too many are watching", answer)

    def test_too_many_of_one(self) -> None:
        """One address cannot take all the room there is."""
        for _ in range(MAX_PER_HOST):
            visit, _ = self.listen(peer="192.0.2.1")
        self.refused("192.0.2.1")
        self.listen(peer="192.0.2.2")
        self.leave(visit)
        self.listen(peer="192.0.2.1")

    def test_too_many(self) -> None:
        """There is a bound for all together."""
        self.patch(event_stream, "MAX_LISTENERS", 3)
        for number in range(3):
            self.listen(peer=f"192.0.2.{number}")
        self.refused("192.0.2.9")


class OverTCPTests(TestCase):
    """A listener on a real connection who stops reading."""

    async def test_does_not_read(self) -> None:
        """It fills what the kernel holds for it, is cut off soon after, and is forgotten."""
        self.patch(event_stream, "GATHER_S", 0.005)
        self.patch(event_stream, "STALLED_S", 0.1)
        shown = ShownProber()
        for number in range(8):
            shown.add_node(f"r{number}", number, "1a", "derp1.example.com", hours=6)
        page = shown.resource(reactor=reactor)
        wheel = TimerWheel(reactor)
        self.addCleanup(wheel.stop)
        site = WebSite(Mux({"/": page}), HTTPTiming(reactor, wheel, 300.0), TLSRequestStats())
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        reader = await connectProtocol(endpoint, Exchange())
        reader.transport.write(get("/events"))
        await until(reactor, lambda: page._live.streams, "a listener")
        reader.transport.pauseProducing()
        snapshots = 0
        while page._live.streams:
            name = f"derp/new/{snapshots}/tls"
            shown.add(name, "tls", {"region": "new"})  # so that there is a snapshot each time
            snapshots += 1
            self.assertLess(snapshots, 2000, "it is never held back")
            await deferLater(reactor, 0.006)
        reader.transport.resumeProducing()
        await reader.end()
