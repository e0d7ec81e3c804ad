"""Tests of :mod:`derp.net.drain`: who is told what, and who goes when."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.error import ConnectionDone

from derp.net import drain
from derp.net.drain import ARRIVAL_S, HARD_LIMIT_S, JITTER_S, NOTICE, TRY_FOR_S, Drain
from derp.wire.frames import FrameType
from derp.wire.messages import Health, Restarting, parse_message
from tests.net.relay_sides import FakeTransport, RelayCase, Side, lose

STEP_S = 0.01


class DrainCase(RelayCase):
    """A relay with clients, whose ends are noted."""

    def setUp(self) -> None:
        super().setUp()
        self.ends: list[tuple[str, float]] = []
        self.results: list[bool] = []
        self.sides: dict[str, tuple[Any, FakeTransport, Side]] = {}

    def come(self, *names: str, mesh: bool = False) -> None:
        """Have clients log in."""
        for name in names:
            self.sides[name] = self.log_in(name, mesh=mesh)

    def drain(self, seconds: float = 5.0, **options: Any) -> Drain:
        """Begin to drain."""
        drain = Drain(self.clock, self.server, seconds=seconds, random=Random(7), **options)
        drain.over.addCallback(self.results.append)
        self.addCleanup(drain.cancel)
        self.began_at = self.clock.seconds()
        drain.start()
        self.notice_ends()
        return drain

    def notice_ends(self) -> None:
        """Play the network: what was closed is lost, and noted."""
        now = self.clock.seconds() - self.began_at
        for name, (protocol, transport, _) in list(self.sides.items()):
            if transport.disconnecting or transport.disconnected:
                self.ends.append((name, now))
                lose(protocol, ConnectionDone())
                del self.sides[name]

    def pass_time(self, seconds: float) -> None:
        """Let time pass in small steps."""
        for _ in range(round(seconds / STEP_S)):
            self.clock.advance(STEP_S)
            self.notice_ends()

    def heard(self, name: str) -> list[Any]:
        """What a client was told since it was asked last."""
        _, transport, side = self.sides[name]
        data = transport.value()
        transport.clear()
        return [parse_message(kind, payload) for kind, payload in side.frames(data)]


class DrainTests(DrainCase):
    """The order of things."""

    def test_nobody(self) -> None:
        """An empty relay is drained at once."""
        self.drain()
        self.assertEqual(self.results, [True])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_is_on_the_way(self) -> None:
        """Who was let in gets to a first request, within a bound."""
        on_the_way = 2
        self.drain(arriving=lambda: on_the_way)
        self.pass_time(1.0)
        self.assertEqual(self.results, [])
        on_the_way = 0
        self.pass_time(0.1)
        self.assertEqual(self.results, [True])
        for seconds in (5.0, 1.0):
            self.results.clear()
            self.drain(seconds, arriving=lambda: 1)
            self.pass_time(min(ARRIVAL_S, seconds) - 0.1)
            self.assertEqual(self.results, [])
            self.pass_time(0.2)
            self.assertEqual(self.results, [True])

    def test_everybody_is_told_at_once(self) -> None:
        """Clients hear both frames, mesh peers only when to come back; before anybody goes."""
        self.come("a", "b")
        self.come("peer", mesh=True)
        self.drain(ports_stay=True)
        self.assertEqual(self.ends, [])
        for name in ("a", "b"):
            health, restarting = self.heard(name)
            self.assertEqual(health, Health(NOTICE))
            self.assertEqual(restarting.try_for_ms, TRY_FOR_S * 1000)
        self.assertEqual([type(each) for each in self.heard("peer")], [Restarting])

    def test_other_trouble_is_kept(self) -> None:
        """A Health frame replaces the one before, so it says everything."""
        self.come("a")
        self.relay.health.report("certificate", "the certificate is out of date")
        self.heard("a")
        self.drain()
        health, _ = self.heard("a")
        self.assertEqual(health, Health(f"{NOTICE}; the certificate is out of date"))

    def test_staggered(self) -> None:
        """One after the other, all within the time, mesh peers last."""
        names = [f"client {number}" for number in range(200)]
        self.come(*names)
        self.come("peer", mesh=True)
        self.drain(seconds=5.0)
        self.pass_time(5.0)
        self.assertEqual(self.results, [True])
        self.assertEqual(self.ends[-1][0], "peer")
        self.assertEqual({name for name, _ in self.ends}, {*names, "peer"})
        times = [when for _, when in self.ends]
        self.assertGreaterEqual(times[0], 0.25)
        self.assertLess(times[-1], 5.0)
        self.assertLess(max(times.count(when) for when in times), 10)
        self.assertNotEqual([name for name, _ in self.ends[:-1]], names)

    def test_few_are_quick(self) -> None:
        """Three clients need not wait for the whole time."""
        self.come("a", "b", "c")
        self.drain(seconds=30.0)
        self.pass_time(0.5)
        self.assertEqual(self.results, [True])

    def test_company(self) -> None:
        """Who talk to each other go one after the other, unless that is too much to look at."""
        self.come(*(f"{side}{number}" for number in range(50) for side in "ab"))
        for number in range(50):
            one, two = (self.sides[f"{side}{number}"][0].session.conn for side in "ab")
            two.heard = {one.key, b"somewhere else"}
        for most, together in ((100, True), (99, False)):
            self.patch(drain, "MOST_TALKS", most)
            begun = self.drain(seconds=5.0)
            order = [conn.key for conn, _ in begun._clients]
            begun.cancel()
            self.assertEqual((len(order), len(set(order))), (100, 100))
            places = {key: place for place, key in enumerate(order)}
            apart = [
                abs(places[conns[0].key] - places[conns[1].key])
                for conns in (
                    [self.sides[f"{side}{number}"][0].session.conn for side in "ab"]
                    for number in range(50)
                )
            ]
            self.assertEqual(max(apart) == 1, together)

    def test_many_are_told_in_pieces(self) -> None:
        """Two thousand at once would stop all traffic; all the same they are told early."""
        self.come(*(f"client {number}" for number in range(700)))
        self.drain(seconds=5.0)
        told = [name for name in self.sides if self.heard(name)]
        self.assertEqual(len(told), 500)
        self.pass_time(0.1)
        self.assertEqual(len([name for name in self.sides if self.heard(name)]), 200)

    def test_newcomers(self) -> None:
        """Who was about to log in is closed; who tries while we drain is refused."""
        self.come("a")
        _, early = self.connect()
        self.drain()
        self.assertTrue(early.disconnecting)
        protocol, late = self.connect()
        side = Side("late")
        protocol.dataReceived(side.login(self.relay.public))
        self.assertTrue(late.disconnecting)
        self.assertNotIn(FrameType.SERVER_INFO, side.types(late.value()))
        self.assertEqual(self.relay.stats.logins_refused, 1)
        for each in (self.connect()[1], early, late):
            each.loseConnection()
        self.assertEqual(self.results, [])

    def test_cancel(self) -> None:
        """A service that stops meanwhile leaves nothing behind."""
        self.come("a")
        self.drain().cancel()
        self.pass_time(10)
        self.assertEqual((self.ends, self.results), ([], []))


class BackTimeTests(DrainCase):
    """When clients are told to come back."""

    def back_times(self, **options: Any) -> tuple[dict[str, float], dict[str, float]]:
        """When each client may come back, and when it was closed; in seconds from the start."""
        names = [f"client {number}" for number in range(100)]
        self.come(*names)
        self.drain(seconds=4.0, **options)
        back = {name: self.heard(name)[1].reconnect_in_ms / 1000 for name in names}
        self.pass_time(4.0)
        self.assertEqual(self.results, [True])
        return back, dict(self.ends)

    def test_ports_stay(self) -> None:
        """Each just after its own end, not all at the same distance."""
        back, ends = self.back_times(ports_stay=True)
        waits = [back[name] - ends[name] for name in back]
        self.assertGreater(min(waits), -0.05)
        self.assertLess(max(waits), JITTER_S + 0.01)
        self.assertGreater(len({round(wait, 2) for wait in waits}), 20)

    def test_ports_go(self) -> None:
        """After the drain is over, and spread over as long again."""
        back, _ = self.back_times()
        self.assertGreaterEqual(min(back.values()), 4.0)
        self.assertLessEqual(max(back.values()), 8.0)
        self.assertGreater(max(back.values()) - min(back.values()), 2.0)


class HardLimitTests(DrainCase):
    """Clients that do not take their bytes."""

    def test_slow_client_gets_its_bytes(self) -> None:
        """A full socket is waited for; the notice arrives when it empties."""
        self.come("slow")
        protocol, transport, _ = self.sides["slow"]
        self.server.write_timeout_s = 0.0
        protocol.pauseProducing()
        self.drain(seconds=2.0)
        self.pass_time(3.0)
        self.assertEqual((self.ends, self.results, transport.value()), ([], [], b""))
        protocol.resumeProducing()
        self.assertEqual(len(self.heard("slow")), 2)
        self.pass_time(0.1)
        self.assertEqual(([name for name, _ in self.ends], self.results), (["slow"], [True]))

    def test_hard_limit(self) -> None:
        """One that never takes them is cut two seconds after the time, and that is told."""
        self.server.write_timeout_s = 0.0
        self.come("slow", "a")
        protocol, transport, _ = self.sides["slow"]
        protocol.pauseProducing()
        self.drain(seconds=2.0)
        self.pass_time(2.0 + HARD_LIMIT_S - 0.1)
        self.assertEqual(([name for name, _ in self.ends], self.results), (["a"], []))
        self.pass_time(0.2)
        self.assertTrue(transport.aborted)
        self.assertEqual(self.results, [False])
        self.assertIn("1 connections are cut", self.lines[-1])
        self.pass_time(1.0)
        self.assertEqual(self.results, [False])
