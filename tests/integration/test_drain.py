"""How a real relay ends: what its clients are told, in which order they go, its exit code."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.task import LoopingCall, deferLater

from derp.net.drain import NOTICE, TRY_FOR_S
from derp.net.process_end import HARD_LIMIT_CODE, SECOND_SIGNAL_CODE
from derp.net.relay_client import RelayClient
from derp.wire.messages import Health, PeerGone, PeerPresent, Restarting
from tests.integration.child import Ending, RelayChild
from tests.integration.relay_case import HOST, MESH_KEY, STANDSTILL_S, Heard, RelayTestCase, reactor
from tests.integration.waiting import in_time

IN_ORDER = Ending(0, None)
FLAGS = ("-a", f"{HOST}:0", "--stun-port", "0", "-c", "derper.key")
CLIENTS = 20
HEAR_EVERY_S = 0.005
MORE_THAN_BUFFERS = 400
"""Packets of 64 KB: no pair of loopback sockets holds so much."""


class DrainCase(RelayTestCase):
    """A child over plain HTTP, and clients of it."""

    async def relay(self, *flags: str, **options: Any) -> RelayChild:
        """Start one and wait until it serves."""
        return await self.start_child(*FLAGS, *flags, **options).ready()

    async def plain_client(self, child: RelayChild, **options: Any) -> tuple[RelayClient, Heard]:
        """A client that has logged in."""
        return await self.client(child.port(), tls=False, **options)

    async def until_said(self, child: RelayChild, words: str) -> None:
        """Wait for words in the log of a child."""
        await self.until(lambda: words in child.log, f"{words!r} in the log of a child")

    def assert_clean(self, child: RelayChild) -> None:
        """Nothing went wrong, nothing is left."""
        self.assertNotIn("Traceback", child.everything)
        self.assertNotIn("Unhandled", child.everything)
        self.assertFalse((child.directory / "twistd.pid").exists())


class EndTests(DrainCase):
    """SIGTERM and SIGINT."""

    async def test_told_and_closed_in_order(self) -> None:
        """Everybody hears both frames, then goes, one after the other; the mesh peer is last."""
        mesh_file = Path(self.mktemp()).absolute()
        mesh_file.write_text(MESH_KEY.hex())
        child = await self.relay("--mesh-psk-file", str(mesh_file), "--drain-seconds", "20s")
        came = await gatherResults(self.plain_client_later(child) for _ in range(CLIENTS))
        peer, to_peer = await self.plain_client(child, mesh_key=MESH_KEY, watch_conns=True)
        gone: list[float] = []
        for client in [peer, *(client for client, _ in came)]:
            client.when_closed().addCallback(lambda _: gone.append(reactor.seconds()))
        steady = self.steady_time()
        before = reactor.seconds() - steady.seconds()
        child.send("TERM")
        self.assertEqual(await child.over(), IN_ORDER, child.everything)
        await self.until(lambda: len(gone) == CLIENTS + 1, "the end of every client")
        for _, heard in came:
            health, restarting = [each for each in heard.waiting if not isinstance(each, PeerGone)]
            self.assertEqual(health, Health(NOTICE))
            self.assertEqual(restarting.try_for_ms, TRY_FOR_S * 1000)
            self.assertTrue(20_000 <= restarting.reconnect_in_ms <= 40_000, restarting)
        about_us = [
            each for each in to_peer.waiting if not isinstance(each, PeerPresent | PeerGone)
        ]
        self.assertEqual([type(each) for each in about_us], [Restarting])
        watched = [each for each in to_peer.waiting if isinstance(each, PeerGone)]
        self.assertEqual(len(watched), CLIENTS, "who was there when all others had gone")
        stood_still_s = reactor.seconds() - steady.seconds() - before
        if stood_still_s < STANDSTILL_S:  # who has no time has to do all at once
            self.assertGreater(gone[-1] - gone[0], 0.5, "staggered")
        self.assert_clean(child)

    def plain_client_later(self, child: RelayChild) -> Any:
        """The same as :meth:`plain_client`, for many at once."""
        from twisted.internet.defer import Deferred

        return Deferred.fromCoroutine(self.plain_client(child))

    async def test_nobody_connected(self) -> None:
        """An empty relay ends at once, by either signal and with nothing but code 0."""
        for signal in ("TERM", "INT"):
            child = await self.relay("--drain-seconds", "1h")
            self.assertEqual(await child.end(signal), IN_ORDER, child.everything)
            self.assert_clean(child)

    async def test_signals_to_the_last(self) -> None:
        """None that comes while the process ends, until it is gone, is what it dies of."""
        for signal in ("HUP", "USR2"):
            child = await self.relay()
            child.send("TERM")
            storm = LoopingCall(child.send, signal)
            storm.start(0.001)
            try:
                ending = await child.over()
            finally:
                storm.stop()
            self.assertEqual(ending, IN_ORDER, child.everything)
            self.assert_clean(child)

    async def stalled(self, *flags: str) -> RelayChild:
        """A relay with a client that takes no bytes, and is never cut for it."""
        child = await self.relay("--tcp-write-timeout", "0", *flags)
        sleeper, _ = await self.plain_client(child)
        sleeper.pause_receiving()
        sender, _ = await self.plain_client(child)
        for _ in range(MORE_THAN_BUFFERS):
            while not sender.send(sleeper.public_key, bytes(65536)):
                await deferLater(reactor, 0)  # its own queue is full
        await in_time(reactor, sender.ping(timeout=30), "the relay to have read it all")
        await sender.close()
        return child

    async def test_hard_limit(self) -> None:
        """A client that takes no bytes delays the end by two seconds; the code is 3."""
        child = await self.stalled("--drain-seconds", "200ms")
        self.assertEqual(await child.end("TERM"), Ending(HARD_LIMIT_CODE, None), child.everything)
        self.assertIn("1 connections are cut", child.log)
        self.assert_clean(child)

    async def test_second_signal(self) -> None:
        """Whoever cannot wait says it twice; the code is 4."""
        child = await self.stalled("--drain-seconds", "1h")
        child.send("TERM")
        await self.until_said(child, "draining, then exiting")
        ending = await child.end("INT")
        self.assertEqual(ending, Ending(SECOND_SIGNAL_CODE, None), child.everything)
        self.assert_clean(child)


class WithoutExitTests(DrainCase):
    """SIGUSR2."""

    async def test_drained_and_alive(self) -> None:
        """Clients go and nobody comes, but who watches the relay can still ask it."""
        child = await self.relay("--drain-seconds", "20s", "--metrics-addr", f"{HOST}:0")
        main, watched = child.port(), child.port("--metrics-addr")
        client, heard = await self.plain_client(child)
        self.assertEqual((await self.get(main, "/readyz")).status, 200)
        child.send("USR2")
        await in_time(reactor, client.when_closed(), "the end of the client")
        self.assertEqual([type(each) for each in heard.waiting], [Health, Restarting])
        answer = await self.get(watched, "/readyz")
        self.assertEqual((answer.status, answer.body), (503, b"draining\n"))
        self.assertEqual((await self.get(watched, "/healthz")).status, 200)
        with socket.socket() as probe:
            self.assertRaises(ConnectionRefusedError, probe.connect, (HOST, main))
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            udp.bind((HOST, child.port("--stun-port")))  # it is free again
        self.assertIsNone(child.ending)
        self.assertEqual(await child.end("TERM"), IN_ORDER, child.everything)
        self.assert_clean(child)


class SystemdTests(DrainCase):
    """``Type=notify``."""

    async def test_what_systemd_hears(self) -> None:
        """Ready, a reload, signs of life, the end; and how many clients there are."""
        path = self.notify_socket()
        environ = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "500000"}
        child = await self.relay(environ=environ)
        await self.until_heard("READY=1")
        await self.until_heard("WATCHDOG=1")
        await self.until_heard("STATUS=ready, 0 clients")
        client, _ = await self.plain_client(child)
        await self.until_heard("STATUS=ready, 1 clients")
        await client.close()
        self.told.clear()
        child.send("HUP")
        await self.until_heard("READY=1")
        reload = [each for each in self.told if each.startswith(("RELOADING", "READY"))]
        self.assertRegex(reload[0], r"^RELOADING=1\nMONOTONIC_USEC=\d+$")
        self.assertEqual(reload[1:], ["READY=1"])
        self.assertEqual(await child.end("TERM"), IN_ORDER, child.everything)
        await self.until_heard("STOPPING=1")
        self.assert_clean(child)

    def notify_socket(self) -> str:
        """Be systemd."""
        self.told: list[str] = []
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.systemd.close)
        name = f"derp-test-{id(self)}"
        self.systemd.bind("\0" + name)
        self.systemd.setblocking(False)
        hearing = LoopingCall(self.hear)  # always: the kernel keeps no more than a few messages
        hearing.start(HEAR_EVERY_S)
        self.addCleanup(hearing.stop)
        return "@" + name

    def hear(self) -> None:
        """Take what has come."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.told.append(self.systemd.recv(4096).decode())

    async def until_heard(self, message: str) -> None:
        """Wait for a message."""
        await self.until(lambda: message in self.told, message)
