"""The environment's knobs, turned on a running relay."""

from __future__ import annotations

import os
from ipaddress import ip_network
from typing import Any

from twisted.internet.address import IPv4Address

from derp.config import DebugKnobs
from derp.net.transport import StreamTransport
from derp.services import RelayService
from derp.wire.frames import MAX_PACKET
from derp.wire.keys import generate_private, public_of, short_key
from derp.wire.messages import ReceivedPacket
from tests.integration.relay_case import HOST, RelayTestCase, reactor
from tests.integration.virtual_time import VirtualTime


class QueueDepthTests(RelayTestCase):
    """``TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH``."""

    async def test_depth(self) -> None:
        """Of what a client is sent that does not read, the relay keeps so many, the newest."""
        depth = 5
        time = VirtualTime(reactor)  # stands still: nobody is cut for not reading
        config = self.config(tls=False, knobs=DebugKnobs(send_queue_depth=depth))
        service = self.start_relay(config, time)
        port = self.port_of(service)
        sender, _ = await self.client(port, tls=False)
        reader, heard = await self.client(port, tls=False)
        reader.pause_receiving()
        stats = service.relay.stats
        number = 0
        while stats.dropped < 3:
            data = number.to_bytes(4, "big") + bytes(MAX_PACKET - 4)
            self.assertTrue(sender.send(reader.public_key, data))
            await sender.ping(30.0)
            number += 1
        lost = stats.dropped
        reader.resume_receiving()
        got: list[int] = []
        while not got or got[-1] != number - 1:
            message = await heard.next()
            assert isinstance(message, ReceivedPacket)
            got.append(int.from_bytes(message.packet[:4], "big"))
        self.assertEqual(len(got), number - lost)
        self.assertEqual(got[-depth:], list(range(number - depth, number)))
        written = number - lost - depth
        self.assertEqual(got[:written], list(range(written)))


class VerboseDropsTests(RelayTestCase):
    """``TS_DEBUG_VERBOSE_DROPS``."""

    async def test_drops(self) -> None:
        """Drops to a listed key are logged, five at once, then one in 30 s; others are not."""
        listed, unlisted = (public_of(generate_private()) for _ in range(2))
        time = VirtualTime(reactor)
        lines = self.log_lines()
        knobs = DebugKnobs(verbose_drops=frozenset({listed}))
        service = self.start_relay(self.config(tls=False, stun=False, knobs=knobs), time)
        client, _ = await self.client(self.port_of(service), tls=False)
        wanted = f"drop ({short_key(client.public_key)}) unknown_dest -> {short_key(listed)}"
        for count, seconds in ((5, 0.0), (6, 30.5), (6, 1.0)):
            await time.pass_by(seconds)
            for _ in range(8):
                client.send(listed, b"to nobody")
                client.send(unlisted, b"to nobody")
            await client.ping(30.0)
            self.assertEqual([line for line in lines if line.startswith("drop")], [wanted] * count)
        self.assertEqual(service.relay.stats.dropped, 48)


class RTTStatsTests(RelayTestCase):
    """``TS_DERP_DISABLE_RTT_STATS``."""

    async def rtt_samples(self, **knobs: Any) -> dict[str, int]:
        """What was counted of two clients in half a minute."""
        time = VirtualTime(reactor)
        config = self.config(stun=False, knobs=DebugKnobs(**knobs))
        service: RelayService = self.start_relay(config, time)
        for fast_start in (True, False):
            await self.client(self.port_of(service), fast_start=fast_start)
        await time.pass_by(30.0)
        return service.relay.stats.tcp_rtt

    async def test_on(self) -> None:
        """Round-trip times are sampled all the time, from each connection."""
        counts = await self.rtt_samples()
        self.assertGreaterEqual(sum(counts.values()), 4)
        self.assertNotIn("error", counts)
        self.assertNotIn("non-tcp", counts)

    async def test_off(self) -> None:
        """Unless switched off."""
        self.assertEqual(await self.rtt_samples(disable_rtt_stats=True), {})


class EnvironmentTests(RelayTestCase):
    """The variables themselves, in the environment of a child."""

    async def test_environment(self) -> None:
        """They arrive: frames of probers and chosen drops are logged, debug pages opened."""
        nobody = public_of(generate_private())
        key_file = self.mktemp()
        with open(key_file, "w", encoding="ascii") as file:
            file.write("open-sesame\n")
        child = self.start_child(
            *("-a", f"{HOST}:0", "--stun=false", "-c", "derper.key"),
            environ={
                "DERP_PROBER_DEBUG_LOGS": "true",
                "TS_DEBUG_VERBOSE_DROPS": f"nonsense,{nobody.hex()}",
                "TS_DEBUG_KEY_PATH": os.path.abspath(key_file),
            },
        )
        await child.ready()
        prober, _ = await self.client(child.port(), tls=False, is_prober=True)
        client, _ = await self.client(child.port(), tls=False)
        for each in (prober, client):
            each.send(nobody, b"to nobody")
            await each.ping(30.0)
            drop = f"drop ({short_key(each.public_key)}) unknown_dest -> {short_key(nobody)}"
            await self.until(lambda drop=drop: drop in child.log, "a logged drop")  # type: ignore[misc]
        # By then the prober's ping, which came before the client's packet, is in the log.
        for frame in ("CLIENT_INFO", "SEND_PACKET of 41 bytes", "PING of 8 bytes"):
            self.assertIn(f"{short_key(prober.public_key)}: received {frame}", child.log)
        self.assertNotIn(f"{short_key(client.public_key)}: received", child.log)
        self.assertIn('TS_DEBUG_VERBOSE_DROPS: skipping "nonsense"', child.log)
        for key, status in (("open-sesame", 200), ("wrong", 403)):
            page = await self.get(
                child.port(), f"/debug/vars?debugkey={key}", "X-Forwarded-For: 203.0.113.7"
            )
            self.assertEqual(page.status, status)

    async def test_everybody(self) -> None:
        """With ``DERP_DEBUG_LOGS`` everybody's frames are logged, and nobody's without."""
        lines = self.log_lines()
        for debug_logs in (False, True):
            knobs = DebugKnobs(debug_logs=debug_logs)
            service = self.start_relay(self.config(tls=False, stun=False, knobs=knobs))
            client, _ = await self.client(self.port_of(service), tls=False)
            await client.ping(30.0)
            found = [line for line in lines if "received PING of 8 bytes" in line]
            self.assertEqual(len(found), debug_logs)


class DebugAccessTests(RelayTestCase):
    """Who may see debug pages, on a running relay; the peer is made a stranger."""

    STRANGER = "203.0.113.7"

    async def statuses(self, **knobs: Any) -> tuple[int, int]:
        """What a stranger gets for the index and a page, on the main and the plain port."""
        service = self.start_relay(self.config(knobs=DebugKnobs(**knobs)))
        main, plain = self.port_of(service), self.port_of(service, "--http-port")
        self.patch(StreamTransport, "getPeer", lambda _: IPv4Address("TCP", self.STRANGER, 4242))
        page = await self.get(plain, "/debug/varz")
        index = await self.get(main, "/debug/?debugkey=open+sesame", tls=True)
        return page.status, index.status

    async def test_stranger(self) -> None:
        """Nobody from outside is let in by default."""
        self.assertEqual(await self.statuses(), (403, 403))

    async def test_allowed_address(self) -> None:
        """``TS_ALLOW_DEBUG_IP`` lets one address in."""
        self.assertEqual(await self.statuses(allow_debug_ip=self.STRANGER), (200, 200))

    async def test_trusted_networks(self) -> None:
        """``TS_DEBUG_TRUSTED_CIDRS`` lets networks in."""
        networks = (ip_network("10.0.0.0/8"), ip_network("203.0.113.0/24"))
        self.assertEqual(await self.statuses(trusted_cidrs=networks), (200, 200))
        self.assertEqual(await self.statuses(trusted_cidrs=networks[:1]), (403, 403))

    async def test_key(self) -> None:
        """The key of ``TS_DEBUG_KEY_PATH`` opens what is asked for with it."""
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write("open sesame\n")
        self.assertEqual(await self.statuses(debug_key_path=path), (403, 200))
