"""Limits in a whole relay: real sockets, virtual time where time matters."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.protocol import Protocol
from twisted.logger import capturedLogs, formatEvent

from derp.core.limits import Limits
from derp.core.session import LoginRequest
from derp.errors import ConfigError
from derp.net.rate_config import read_limits
from derp.net.volume_quota import SAVE_S, read_months
from derp.services import RelayService, build
from derp.wire.keys import generate_private
from derp.wire.messages import Health, ReceivedPacket
from tests.integration.relay_case import HOST, MESH_KEY, RelayTestCase
from tests.integration.virtual_time import VirtualTime
from tests.net.unhurried import Unhurried
from tests.vectors import load

PACKET = b"p" * 968
"""Costs 1000 bytes."""


class Silent(Protocol):
    """Connects and says nothing."""

    def __init__(self) -> None:
        self.lost = False

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True


class LimitedRelayCase(RelayTestCase):
    def limited(
        self, limits: dict[str, Any] | None = None, clock: Any = None, **flags: Any
    ) -> RelayService:
        """A plain relay with these members in its rate config."""
        if limits is not None:
            self.path = Path(self.mktemp())
            self.path.write_text(json.dumps(limits))
            flags["rate_config"] = str(self.path)
        config = self.config(tls=False, stun=False, **flags)
        Path(config.key_file).parent.mkdir(parents=True)
        relay = self.start_relay(config, clock)
        self.port: int = relay.listeners[0].opened.getHost().port  # type: ignore[union-attr]
        return relay

    async def join(self, **options: Any) -> Any:
        return await self.client(self.port, tls=False, **options)

    async def silent(self) -> Silent:
        silent: Silent = await self.connect(Silent(), self.port)
        return silent

    async def refused(self) -> None:
        """A login is refused: the connection ends without ServerInfo."""
        failure = await self.assertFailure(self._attempt(), Exception)
        self.assertNotIsInstance(failure, AssertionError)

    def _attempt(self) -> Any:
        return Deferred.fromCoroutine(self.join())


class RateTests(LimitedRelayCase):
    async def send_all(self, clock: VirtualTime, relay: RelayService, packets: int) -> int:
        """Send at once; give how many had arrived ten seconds later."""
        sender, _ = await self.join()
        receiver, heard = await self.join()
        for _ in range(packets):
            sender.send(receiver.public_key, PACKET)
        await self.until(lambda: relay.limits.own_waits + relay.limits.share_waits, "a wait")
        await clock.pass_by(10.0)
        await self.until(lambda: True, "the last of them")
        self.heard = heard
        return relay.relay.stats.packets_received

    async def test_own_rate(self) -> None:
        """A client is held to its rate within 5 %; nothing is lost."""
        clock = VirtualTime(reactor)
        relay = self.limited({"PerClientRateLimitBytesPerSec": 20_000}, clock)
        arrived = await self.send_all(clock, relay, 400)
        self.assertLess(abs(arrived - 265.5) / 265.5, 0.05, arrived)
        for _ in range(40):
            await clock.pass_by(0.5)
        await self.until(lambda: len(self.heard.waiting) == 400, "all packets")

    async def test_common_rate(self) -> None:
        """All clients together are held to the common rate."""
        clock = VirtualTime(reactor)
        relay = self.limited({"ServerRateLimitBytesPerSec": 20_000}, clock)
        arrived = await self.send_all(clock, relay, 400)
        self.assertLess(abs(arrived - 265.5) / 265.5, 0.05, arrived)
        self.assertGreater(relay.limits.share_waits, 0)

    async def test_removed_while_waiting(self) -> None:
        """When the limit goes, who waits goes on at once."""
        relay = self.limited({"PerClientRateLimitBytesPerSec": 1}, VirtualTime(reactor))
        sender, _ = await self.join()
        receiver, heard = await self.join()
        for _ in range(200):
            sender.send(receiver.public_key, PACKET)
        await self.until(lambda: relay.limits.own_waits, "a wait")
        self.path.write_text("{}")
        relay.reloader.reload_all()
        await self.until(lambda: len(heard.waiting) == 200, "all packets")

    async def test_comes_while_connected(self) -> None:
        """A limit that comes holds who is connected already; mesh peers stay free."""
        clock = VirtualTime(reactor)
        relay = self.limited({}, clock, mesh_key=MESH_KEY)
        sender, _ = await self.join()
        peer, _ = await self.join(mesh_key=MESH_KEY)
        receiver, heard = await self.join()
        self.path.write_text('{"PerClientRateLimitBytesPerSec": 1}')
        relay.reloader.reload_all()
        for _ in range(200):
            peer.send(receiver.public_key, PACKET)
        await self.until(lambda: len(heard.waiting) == 200, "the peer's packets")
        for _ in range(200):
            sender.send(receiver.public_key, PACKET)
        await self.until(lambda: relay.limits.own_waits, "a wait")
        await self.until(lambda: len(heard.waiting) >= 265, "what the bucket holds")
        self.assertEqual(len(heard.waiting), 265)

    async def test_leaving_while_waiting(self) -> None:
        """Who leaves while it waits leaves no timer and no place in line."""
        relay = self.limited({"ServerRateLimitBytesPerSec": 1})
        sender, _ = await self.join()
        for _ in range(200):
            sender.send(generate_private(), PACKET)
        await self.until(lambda: relay.limits.share_waits, "a wait")
        sender.transport.abortConnection()
        await self.until(lambda: not relay.server.protocols, "the loss")
        self.assertEqual(relay.limits._share.waiting, 0)  # type: ignore[union-attr]
        self.assertEqual(relay.limits._by_member, {})

    async def test_order(self) -> None:
        """What was held comes first and in order, in time that passes by itself, too."""
        limits = {"PerClientRateLimitBytesPerSec": 200_000}
        relay = self.limited(limits, Unhurried(reactor))
        sender, _ = await self.join()
        receiver, heard = await self.join()
        for number in range(150):
            sender.send(receiver.public_key, b"%04d" % number + PACKET)
        await self.until(lambda: len(heard.waiting) == 150, "all packets")
        packets = [m.packet[:4] for m in heard.waiting if isinstance(m, ReceivedPacket)]
        self.assertEqual(packets, [b"%04d" % number for number in range(150)])
        self.assertGreater(relay.limits.own_waits, 0)


class RateConfigTests(LimitedRelayCase):
    async def test_reference_at_start(self) -> None:
        """Every file the reference was started with: the same log, metrics or refusal."""
        for case in load("config.json")["rate_config_at_start"]:
            path = Path(self.mktemp())
            if not case["file"].startswith("("):
                path.write_text(case["file"])
            if case["result"] == "exits":
                error = self.assertRaises(ConfigError, read_limits, str(path), Limits())
                self.assertIn("--rate-config: ", str(error))
                self.assertIn(str(path), str(error))
                continue
            relay = self.limited(json.loads(case["file"]))
            varz = await self.varz(self.port)
            for name, value in case["varz"].items():
                self.assertEqual(f"{varz.value(name):g}", f"{float(value):g}", (case["file"], name))
            await relay.stopService()

    async def test_reference_reload(self) -> None:
        """Every file it was given later; one that is broken changes nothing."""
        relay = self.limited({"PerClientRateLimitBytesPerSec": 1})
        for case in load("config.json")["rate_config_reload_by_sighup"]:
            self.path.write_text(case["file"])
            relay.reloader.reload_all()
            varz = await self.varz(self.port)
            for name, value in case["varz"].items():
                self.assertEqual(f"{varz.value(name):g}", f"{float(value):g}", (case["file"], name))
        (file,) = relay.reloader.files
        self.assertEqual((file.name, file.loads, file.failures), ("rate_config", 2, 1))

    async def test_no_flag(self) -> None:
        """Without --rate-config derper's variables of it do not exist."""
        self.limited()
        answer = await self.get(self.port, "/debug/varz")
        self.assertNotIn(b"rate_limit", answer.body)

    async def test_told(self) -> None:
        """The log has all limits that hold now, and the members that it does not know."""
        with capturedLogs() as events:
            self.limited({"MaxClient": 5, "MaxHandshakes": 7})
        lines = [formatEvent(event) for event in events]
        applied = "rate config applied: client-rate=0 bytes/sec, client-burst=0 bytes"
        self.assertIn(f"{applied}, max-handshakes=7", lines)
        ignored = 'there is no limit "MaxClient", it is ignored; did you mean MaxClients?'
        self.assertTrue(any(ignored in str(line) for line in lines))

    def test_unreadable(self) -> None:
        """A file that cannot be read or is too big is named with what to do."""
        path = Path(self.mktemp())
        path.write_bytes(b" " * 70_000)
        error = self.assertRaises(ConfigError, read_limits, str(path), Limits())
        self.assertIn("has more than 65536 bytes", str(error))
        error = self.assertRaises(ConfigError, read_limits, "", Limits())
        self.assertIn('--rate-config: cannot read ""', str(error))
        error = self.assertRaises(ConfigError, read_limits, "/tmp", Limits())
        self.assertIn("is a directory", str(error))


class DoorTests(LimitedRelayCase):
    async def test_accept_limit(self) -> None:
        """What is over the limit is closed at once; the relay goes on serving."""
        clock = VirtualTime(reactor)
        relay = self.limited(clock=clock, accept_connection_limit=1.0, accept_connection_burst=2)
        there = [await self.silent() for _ in range(5)]
        await self.until(lambda: sum(each.lost for each in there) == 3, "three closed")
        stats = relay.listeners[0].stats
        self.assertEqual((stats.accepted_connections, stats.rejected_connections), (2, 3))
        await clock.pass_by(1.0)
        self.assertEqual((await self.get(self.port, "/derp/probe")).status, 200)

    async def test_handshakes(self) -> None:
        """Silent connections take up their number and no more; their deadline ends them."""
        clock = VirtualTime(reactor)
        relay = self.limited(clock=clock, max_handshakes=3)
        there = [await self.silent() for _ in range(5)]
        await self.until(lambda: sum(each.lost for each in there) == 2, "two closed")
        self.assertEqual(relay.limits.door.handshakes, 3)
        await clock.pass_by(31.0)
        await self.until(lambda: all(each.lost for each in there), "the others' end")
        await clock.pass_by(2.0)
        await self.until(lambda: relay.limits.door.handshakes == 0, "their places")
        await self.join()
        self.assertEqual(relay.limits.door.handshakes, 0, "a client has arrived")

    async def test_silence_makes_room(self) -> None:
        """Who says nothing for a second makes room for a newcomer, the oldest first."""
        clock = VirtualTime(reactor)
        relay = self.limited(clock=clock, max_handshakes=3)
        there = [await self.silent() for _ in range(3)]
        await self.until(lambda: relay.limits.door.handshakes == 3, "all places taken")
        await clock.pass_by(1.1)
        self.assertEqual((await self.get(self.port, "/derp/probe")).status, 200)
        await self.until(lambda: there[0].lost, "the oldest is cut")
        self.assertEqual([each.lost for each in there], [True, False, False])
        self.assertEqual(relay.limits.door.cut_for_silence, 1)
        await self.join()

    async def test_handshakes_over_tls(self) -> None:
        """A place is given back when TLS fails, and when the first request comes."""
        config = self.config(stun=False, http_port=-1, max_handshakes=1)
        relay = self.start_relay(config)
        self.port = relay.listeners[0].opened.getHost().port  # type: ignore[union-attr]
        exchange = await self.wire(self.port)
        exchange.transport.write(b"GET / HTTP/1.1\r\n\r\n")
        await self.until(lambda: relay.listeners[0].stats.handshake_failures, "the failure")
        exchange.transport.abortConnection()
        await self.until(lambda: not relay.limits.door.handshakes, "the place")
        for _ in range(3):
            await self.client(self.port)
            self.assertEqual(relay.limits.door.handshakes, 0)


class ClientTests(LimitedRelayCase):
    async def test_clients(self) -> None:
        """One too many is refused at its login; a place that is free again can be had."""
        relay = self.limited(max_clients=1)
        first, _ = await self.join()
        await self.refused()
        first.transport.abortConnection()
        await self.until(lambda: not relay.limits.occupancy.clients, "the place")
        await self.join()
        self.assertEqual(relay.limits.occupancy.refused_for_count, 1)

    async def test_clients_while_admission_is_asked(self) -> None:
        """Who is admitted at the same time is counted as well: the first comes in, no other."""
        relay = self.limited(max_clients=1)
        asked: list[Deferred[str | None]] = []

        def ask(request: LoginRequest) -> Deferred[str | None]:
            asked.append(Deferred())
            return asked[-1]

        relay.server.admission = ask
        logins = [self._attempt() for _ in range(3)]
        await self.until(lambda: len(asked) == 3, "the questions")
        for each in asked:
            each.callback(None)
        results = await DeferredList(logins, consumeErrors=True)
        self.assertEqual(sorted(came for came, _ in results), [False, False, True])
        self.assertEqual(relay.limits.occupancy.clients, 1)
        self.assertEqual(relay.limits.occupancy.refused_for_count, 2)

    async def test_quota_used_up_while_admission_is_asked(self) -> None:
        """A relay that has stopped relaying meanwhile takes nobody."""
        relay = self.limited()
        asked: Deferred[str | None] = Deferred()
        relay.server.admission = lambda request: asked
        login = self._attempt()
        await self.until(lambda: asked.callbacks, "the question")
        relay.limits.close("the volume is used up")
        asked.callback(None)
        self.assertNotIsInstance(await self.assertFailure(login, Exception), AssertionError)
        self.assertEqual(relay.limits.logins_refused, 1)

    async def test_clients_per_address(self) -> None:
        """One address has its own number."""
        relay = self.limited(max_clients_per_ip=2)
        await self.join()
        await self.join()
        await self.refused()
        self.assertEqual(relay.limits.occupancy.refused_for_address, 1)
        self.assertEqual(relay.relay.stats.logins_refused, 1)


class QuotaTests(LimitedRelayCase):
    async def test_used_up(self) -> None:
        """Clients are told and their packets thrown away; logins are refused; pages go on."""
        clock = VirtualTime(reactor)
        relay = self.limited(clock=clock, monthly_quota=2000)
        sender, told = await self.join()
        receiver, heard = await self.join()
        sender.send(receiver.public_key, PACKET)
        self.assertIsInstance(await heard.next(), ReceivedPacket)
        await clock.pass_by(1.0)
        message = await told.next()
        self.assertIsInstance(message, Health)
        self.assertIn("this relay's volume of 2 kB a month is used up until", message.problem)
        sender.send(receiver.public_key, PACKET)
        await self.until(lambda: relay.limits.packets_refused == 1, "the refusal")
        self.assertEqual(relay.relay.stats.packets_received, 1)
        await self.refused()
        ready = await self.get(self.port, "/readyz")
        self.assertEqual((ready.status, ready.body.strip()), (503, b"over quota"))
        metrics = (await self.get(self.port, "/metrics")).body.decode()
        for line in (
            "derp_quota_exhausted 1.0",
            "derp_quota_refused_packets_total 1.0",
            'derp_limit_refused_logins_total{limit="quota"} 1.0',
        ):
            self.assertIn(line, metrics)

    async def test_restart_and_next_month(self) -> None:
        """A restart changes nothing; with the next month, or more quota, it relays again."""
        clock = VirtualTime(reactor)
        relay = self.limited({"MonthlyQuota": 2000}, clock)
        await self.join()
        sender, _ = await self.join()
        sender.send(sender.public_key, PACKET)
        await self.until(lambda: relay.relay.stats.packets_sent, "the packet")
        await relay.stopService()
        again = build(relay.config, clock)
        self.addCleanup(again.stopService)
        again.startService()
        self.port = again.listeners[0].opened.getHost().port  # type: ignore[union-attr]
        await self.refused()
        wall_time = again.quota._wall_time
        again.quota._wall_time = lambda: wall_time() + 32 * 86400
        await clock.pass_by(1.0)
        _, heard = await self.join()
        again.quota._wall_time = wall_time
        await clock.pass_by(1.0)
        self.assertIsInstance(await heard.next(), Health)
        self.path.write_text('{"MonthlyQuota": "1GB"}')
        again.reloader.reload_all()
        await clock.pass_by(1.0)
        message = await heard.next()
        self.assertEqual((type(message), message.problem), (Health, ""))

    async def test_remembered(self) -> None:
        """What passed is written down at the end, long before it is too much."""
        clock = VirtualTime(reactor)
        relay = self.limited(clock=clock, monthly_quota=10**9)
        sender, _ = await self.join()
        sender.send(sender.public_key, PACKET)
        await self.until(lambda: relay.relay.stats.packets_sent, "the packet")
        await relay.stopService()
        again = build(relay.config, clock)
        self.addCleanup(again.stopService)
        self.assertEqual(sum(again.quota.quota.months.values()), 2 * (5 + 1000))

    async def test_shared(self) -> None:
        """Two processes that take turns at the ports count together, whoever writes when."""
        clock = VirtualTime(reactor)
        old = self.limited(clock=clock, monthly_quota=10**9)
        sender, _ = await self.join()
        new = build(old.config, clock)
        self.addCleanup(new.stopService)
        new.startService()
        sender.send(sender.public_key, PACKET)
        await self.until(lambda: old.relay.stats.packets_sent, "the old one's packet")
        self.port = new.listeners[0].opened.getHost().port  # type: ignore[union-attr]
        other, _ = await self.join()
        for _ in range(2):
            other.send(other.public_key, PACKET)
        await self.until(lambda: new.relay.stats.packets_sent == 2, "the new one's packets")
        await clock.pass_by(SAVE_S)
        await old.stopService()
        await clock.pass_by(SAVE_S)
        self.assertEqual(sum(new.quota.quota.months.values()), 3 * 2 * (5 + 1000))
        again = build(old.config, clock)
        self.addCleanup(again.stopService)
        self.assertEqual(sum(again.quota.quota.months.values()), 3 * 2 * (5 + 1000))

    async def test_remembered_at_a_drain(self) -> None:
        """What passed is written down before a drain, whose end may be a sudden one."""
        clock = VirtualTime(reactor)
        relay = self.limited(clock=clock, monthly_quota=10**9)
        sender, _ = await self.join()
        sender.send(sender.public_key, PACKET)
        await self.until(lambda: relay.relay.stats.packets_sent, "the packet")
        relay.life.drain()
        again = build(relay.config, clock)
        self.addCleanup(again.stopService)
        self.assertEqual(sum(again.quota.quota.months.values()), 2 * (5 + 1000))

    async def test_spoilt_while_running(self) -> None:
        """What somebody else writes there is no reason to forget anything."""
        clock = VirtualTime(reactor)
        relay = self.limited(clock=clock, monthly_quota=10**9)
        sender, _ = await self.join()
        sender.send(sender.public_key, PACKET)
        await self.until(lambda: relay.relay.stats.packets_sent, "the packet")
        path = Path(relay.config.key_file).with_name("derper.quota")
        for content in (b"{", b'{"months": {}}', None):
            path.unlink() if content is None else path.write_bytes(content)
            await clock.pass_by(SAVE_S)
            self.assertEqual(sum(read_months(path).values()), 2 * (5 + 1000))

    def test_unwritable_state(self) -> None:
        """A place where nothing can be written stops the start, not the check before it."""
        config = self.config(tls=False, stun=False, monthly_quota=1)
        Path(config.key_file).parent.mkdir(parents=True)
        config = replace(config, quota_state="/proc/derper.quota")
        relay = build(config, reactor)
        self.addCleanup(relay.stopService)
        error = self.assertRaises(ConfigError, relay.startService)
        self.assertIn("--quota-state: ", str(error))

    def test_bad_state(self) -> None:
        """A state file that is not ours stops the start and says what to do."""
        for content in ("{", "[]", '{"months": {"2026-13": 1}}', '{"months": {"2026-11": -1}}'):
            config = self.config(tls=False, stun=False, monthly_quota=1)
            Path(config.key_file).parent.mkdir(parents=True)
            Path(config.key_file).with_name("derper.quota").write_text(content)
            error = self.assertRaises(ConfigError, build, config, reactor)
            self.assertIn("does not hold what this relay writes there: remove it", str(error))
        self.assertEqual(HOST, "127.0.0.1")
