"""Tests of :mod:`derp.net.relay_life` in a whole relay in this process."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from typing import Any

from twisted.logger import capturedLogs

from derp.config import ListeningPlace, PlaceKind
from derp.core.lifecycle import Phase, Unfit
from derp.core.stun_stats import STUNStats
from derp.errors import ConfigError
from derp.net import relay_life
from derp.net.inherited_sockets import InheritedSocket
from derp.net.predecessor import Predecessor
from derp.net.relay_life import RelayLife
from derp.services import RelayService
from derp.wire.messages import Health, Restarting
from derp.wire.stun import encode_binding_request
from tests.integration.relay_case import HOST, RelayTestCase, reactor
from tests.integration.waiting import in_time
from tests.net.udp_sockets import is_silent, receive, udp_socket
from tests.net.unhurried import Unhurried


class RelayLifeTests(RelayTestCase):
    """What follows from a phase."""

    def relay(self, **fields: Any) -> RelayService:
        """A relay over plain HTTP, with every port it can have."""
        fields = {"tls": False, "metrics_addr": f"{HOST}:0", "drain_seconds": 0.5} | fields
        return self.start_relay(self.config(**fields), Unhurried(reactor))

    async def readiness(self, relay: RelayService, flag: str = "-a") -> tuple[int, str]:
        """What a port says."""
        answer = await self.get(self.port_of(relay, flag), "/readyz")
        return answer.status, answer.body.decode().strip()

    async def test_ready(self) -> None:
        """A relay that has started is ready; one that has not is starting."""
        relay = RelayService(self.config(tls=False), reactor)
        self.assertIs(relay.life.state.phase, Phase.STARTING)
        relay = self.relay()
        for flag in ("-a", "--metrics-addr"):
            self.assertEqual(await self.readiness(relay, flag), (200, "ready"))

    async def test_unfit(self) -> None:
        """A relay that is unfit says so, and goes on to answer STUN and probes."""
        relay = self.relay()
        relay.life.state.note(Unfit.OVERLOAD, True)
        self.assertEqual(await self.readiness(relay), (503, "overloaded"))
        self.assertEqual((await self.get(self.port_of(relay), "/derp/probe")).status, 200)
        assert relay.stun is not None
        self.assertTrue(relay.stun.answering)
        await self.client(self.port_of(relay), tls=False)

    async def test_full(self) -> None:
        """With ``--max-clients`` connected the relay is overloaded, until one has left."""
        relay = self.relay(max_clients=1)
        client, _ = await self.client(self.port_of(relay), tls=False)
        self.assertEqual(await self.readiness(relay), (503, "overloaded"))
        await client.close()
        await self.until(lambda: relay.life.state.is_ready, "room for another client")
        self.assertEqual(await self.readiness(relay), (200, "ready"))

    async def test_out_of_descriptors(self) -> None:
        """So it is while a port cannot accept for want of descriptors."""
        relay = self.relay()
        port = relay.listeners[0].opened
        assert port is not None
        for exhausted, ready in ((True, False), (False, True)):
            port.exhausted = exhausted
            port.when_exhausted()
            self.assertEqual(relay.life.state.is_ready, ready)

    async def test_certificate(self) -> None:
        """An expired certificate makes the relay unfit until there is a good one."""
        relay = self.start_relay(self.config())
        certificates = relay.certificates
        assert certificates is not None
        (status,) = certificates.statuses()
        self.assertEqual(relay.life.state.word, "ready")
        before, status.not_after = status.not_after, 1.0
        with capturedLogs():
            certificates.watchdog.check()
        self.assertEqual(await self.readiness(relay, "--http-port"), (503, "certificate invalid"))
        status.not_after = before
        certificates.watchdog.check()
        self.assertEqual(await self.readiness(relay, "--http-port"), (200, "ready"))

    async def test_stun_follows(self) -> None:
        """If it is to follow, STUN falls silent for every reason, and comes back."""
        relay = self.relay(stun_follows_readiness=True)
        udp = udp_socket(HOST)
        self.addCleanup(udp.close)
        udp.connect((HOST, self.port_of(relay, "--stun-port")))
        seen: STUNStats = relay.stun_stats
        relay.life.state.note(Unfit.QUOTA, True)
        udp.send(encode_binding_request(b"unanswered!!"))
        self.assertEqual((await self.get(self.port_of(relay), "/derp/probe")).status, 503)
        await self.until(lambda: seen.withheld, "the request to be thrown away")
        relay.life.state.note(Unfit.QUOTA, False)
        udp.send(encode_binding_request(b"answered now"))
        await self.until(lambda: seen.success, "an answer")
        (answer,) = receive(udp, 1)
        self.assertEqual(answer[8:20], b"answered now")
        self.assertTrue(is_silent(udp))

    async def test_drain(self) -> None:
        """Ports close at once, but the one for who watches; both who ask hear of the end."""
        relay = self.relay()
        main = self.port_of(relay)
        client, heard = await self.client(main, tls=False)
        ends = [relay.life.drain(), relay.life.drain()]
        with socket.socket() as probe:
            self.assertRaises(ConnectionRefusedError, probe.connect, (HOST, main))
        self.assertEqual(await self.readiness(relay, "--metrics-addr"), (503, "draining"))
        for each in ends:
            self.assertTrue(await in_time(reactor, each, "the end of the drain"))
        self.assertTrue(await relay.life.drain())
        await in_time(reactor, client.when_closed(), "the end of the client")
        health, restarting = heard.take()
        self.assertIsInstance(health, Health)
        self.assertGreaterEqual(restarting.reconnect_in_ms, 500)

    async def test_stopped(self) -> None:
        """The end, after a drain as without one."""
        relay = self.relay()
        self.assertTrue(await relay.life.drain())
        await relay.stopService()
        self.assertIs(relay.life.state.phase, Phase.STOPPED)

    async def test_stopped_while_draining(self) -> None:
        """A stop does not wait for a drain, and leaves nothing of it in the reactor."""
        relay = self.relay(drain_seconds=3600.0)
        client, _ = await self.client(self.port_of(relay), tls=False)
        relay.life.drain()
        await relay.stopService()
        await in_time(reactor, client.when_closed(), "the end of the client")

    async def test_replaced(self) -> None:
        """With a successor at the ports clients may come back at once, and all ports close."""
        relay = self.relay(drain_seconds=5.0)
        client, heard = await self.client(self.port_of(relay), tls=False)
        watched = self.port_of(relay, "--metrics-addr")
        self.assertEqual(len(relay.life._offer()), 3)
        relay.life._replaced()
        await in_time(reactor, client.when_closed(), "the end of the client")
        restarting = next(each for each in heard.take() if isinstance(each, Restarting))
        self.assertLess(restarting.reconnect_in_ms, 1100)
        with socket.socket() as probe:
            self.assertRaises(ConnectionRefusedError, probe.connect, (HOST, watched))

    async def test_replaced_with_somebody_at_the_door(self) -> None:
        """Whom it had accepted before the successor came gets an answer; else nothing waits."""
        for replaced in (True, False):
            relay = self.relay(drain_seconds=5.0)
            waiting = await self.wire(self.port_of(relay))
            await self.until(lambda relay=relay: relay.entrance.arriving == 1, "the connection")
            (relay.life._replaced if replaced else relay.life.drain)()
            self.assertEqual(relay.life._drained, None if replaced else True)
            if replaced:
                waiting.transport.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = await in_time(reactor, waiting.answer(), "an answer")
                self.assertEqual(answer.body, b"ok\n")
                await in_time(reactor, relay.life.drain(), "the end of the drain")

    async def test_unix_path(self) -> None:
        """The path of a unix socket goes with the ports, unless a successor listens there."""
        for replaced in (False, True):
            place = tempfile.mkdtemp()
            self.addCleanup(shutil.rmtree, place, ignore_errors=True)
            path = f"{place}/derp"
            relay = self.relay(listen=(ListeningPlace(PlaceKind.UNIX, path=path),))
            self.assertTrue(os.path.exists(path))
            (relay.life._replaced if replaced else relay.life.drain)()
            self.assertEqual(os.path.exists(path), replaced)

    def successor(self, old: RelayService, path: str, **fields: Any) -> RelayService:
        """What is to take an old relay's place, and has not begun; its path is the unix socket."""
        handed = [InheritedSocket(key, sock.dup()) for key, sock in old.life._offer().items()]
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        self.word = theirs
        predecessor = Predecessor(ours, handed)
        self.patch(relay_life, "find_predecessor", lambda where: predecessor)
        listen = (ListeningPlace(PlaceKind.UNIX, path=path),)
        fields |= {"tls": False, "stun": False, "listen": listen, "drain_seconds": 0.5}
        return RelayService(self.config(handover_socket=f"{path}.handover", **fields), reactor)

    def knock(self, path: str) -> None:
        """See that somebody listens on a unix socket."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(path)

    async def test_successor_that_fails(self) -> None:
        """It leaves the unix socket alone that the old process goes on to serve."""
        place = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, place, ignore_errors=True)
        path = f"{place}/derp"
        old = self.relay(listen=(ListeningPlace(PlaceKind.UNIX, path=path),))
        with socket.create_server((HOST, 0)) as taken:
            address = f"{HOST}:{taken.getsockname()[1]}"
            failing = self.successor(old, path, metrics_addr=address)
            error = self.assertRaises(ConfigError, failing.startService)
        self.assertIn("--metrics-addr", str(error))
        self.knock(path)

    async def test_successor_that_is_stopped(self) -> None:
        """One that ends before it took over lets the old one be; afterwards the path is its own."""
        for running in (False, True):
            place = tempfile.mkdtemp()
            self.addCleanup(shutil.rmtree, place, ignore_errors=True)
            path = f"{place}/derp"
            old = self.relay(listen=(ListeningPlace(PlaceKind.UNIX, path=path),))
            new = self.successor(old, path)
            self.addCleanup(new.stopService)
            self.patch(new.life, "_take_over", lambda: None)
            new.startService()
            self.knock(path)
            if running:
                quicker, word = socket.socketpair()
                self.addCleanup(word.close)
                self.patch(relay_life, "find_rival", lambda path, found: Predecessor(quicker))  # noqa: B023
                RelayLife._take_over(new.life)
                self.assertEqual(word.recv(9), b"go\n")
                old.life._replaced()
            await new.life.drain()
            RelayLife._take_over(new.life)
            new.life.stopped()
            self.assertEqual(os.path.exists(path), not running)
            self.word.setblocking(False)
            self.assertEqual(self.word.recv(9), b"go\n" if running else b"")

    async def test_inherited(self) -> None:
        """A passed socket serves in the place of the one that was asked for."""
        tcp = socket.create_server((HOST, 0))
        self.addCleanup(tcp.close)
        port = tcp.getsockname()[1]
        found = [InheritedSocket("derp", tcp)]
        self.patch(relay_life, "systemd_sockets", lambda environ, pid, taken: found)
        relay = self.relay(port=1)
        self.assertEqual(self.port_of(relay), port)
        await self.client(port, tls=False)

    def test_inherited_without_use(self) -> None:
        """One that nobody needs stops the start, and leaves no port open."""
        tcp = socket.create_server((HOST, 0))
        self.addCleanup(tcp.close)
        found = [InheritedSocket("", tcp)]
        self.patch(relay_life, "systemd_sockets", lambda environ, pid, taken: found)
        relay = RelayService(self.config(tls=False), reactor)
        self.assertRaises(ConfigError, relay.startService)
        self.assertTrue(all(each.opened is None for each in relay.listeners))

    def test_bad_handover_path(self) -> None:
        """A path that is no socket stops the start."""
        path = self.mktemp()
        with open(path, "w"):
            relay = RelayService(self.config(tls=False, handover_socket=path), reactor)
            self.assertRaisesRegex(ConfigError, "--handover-socket", relay.startService)
