"""Tests of the checks of pairs: packets, payloads and queues between scripted relays."""

from __future__ import annotations

import re
from typing import Any

from derp.prober import first_packet, pair
from derp.prober import queue_delay_check as qd_module
from derp.prober.bandwidth_check import IN_FLIGHT, bandwidth_check
from derp.prober.check import Check
from derp.prober.first_packet import PACKET_LEN
from derp.prober.mesh_check import mesh_check
from derp.prober.pair import GOSSIP_S
from derp.prober.queue_delay_check import queue_delay_check
from derp.wire.derp_map import DERPMap, Node, Region
from derp.wire.disco import looks_like_disco
from derp.wire.frames import FrameType, PeerGoneReason, encode_frame, encode_recv_packet
from derp.wire.node_json import pin_of
from tests.integration.relay_case import HOST, MESH_KEY, reactor
from tests.net.relay_fakes import FakeRelayFactory, ServerTLS, metacert, over_tls
from tests.prober.chains import make_ca
from tests.prober.check_case import CheckTestCase
from tests.prober.relaying import Deliver, RelayingFake, Room, faithfully

LONE = make_ca().leaf()
KEYS = r"^\[[\w+/]{5}\] to \[[\w+/]{5}\]: "


def samples(check: Check) -> dict[tuple[str, str], float]:
    """What a check shows of itself: by name and bound."""
    return {
        (sample.name.removeprefix("derpprobe_derp_"), sample.labels.get("le", "")): sample.value
        for metric in check.metrics()
        for sample in metric.samples
    }


class PairCase(CheckTestCase):
    """Two nodes that are one scripted relay: meshed, if it wants."""

    def setUp(self) -> None:
        super().setUp()
        self.room = Room()
        self.relays = FakeRelayFactory(self.room.enter)
        factory = over_tls(self.relays, ServerTLS(LONE, [metacert()]))
        port = self.closing(reactor.listenTCP(0, factory, interface=HOST))
        pin = pin_of(LONE.der)
        self.one = self.node("900a", port, cert_name=pin)
        self.two = self.node("900b", port, cert_name=pin)

    def deliver(self, deliver: Deliver, behind: int = 0) -> None:
        """Treat packets this way, but for a first packet and so many others."""

        def delivering(source: bytes, packet: bytes) -> bytes:
            nonlocal behind
            if len(packet) == PACKET_LEN:
                return faithfully(source, packet)
            behind -= 1
            return (deliver if behind < 0 else faithfully)(source, packet)

        self.room.deliver = delivering

    def about(self, found: Any, wanted: float, within: float) -> None:
        """Compare what is measured."""
        self.assertLessEqual(abs(float(found) - wanted), within, (found, wanted))

    def clients(self) -> list[RelayingFake]:
        relays: Any = self.relays.relays
        return list(relays)


class MeshTests(PairCase):
    """A packet from node to node."""

    def check(self, source: Node | None = None, destination: Node | None = None) -> Check:
        return mesh_check(self.targets(), self.region, source or self.one, destination or self.two)

    async def test_labels(self) -> None:
        """The labels of the source, and whether the mesh is on the way."""
        node = {"region": "test", "region_id": "900", "hostname": HOST}
        self.assertEqual(self.check().labels, {**node, "derp_path": "mesh"})
        self.assertEqual(self.check(self.one, self.one).labels, {**node, "derp_path": "single"})
        self.assertEqual(self.check().probe_class, "derp_mesh")

    async def test_delivered(self) -> None:
        """Eight bytes, from one client to another, both of which are probers with new keys."""
        check = self.check()
        packets = []
        self.room.deliver = lambda s, p: packets.append(p) or faithfully(s, p)
        for _ in range(2):
            await self.passes(check)
        self.assertEqual([len(packet) for packet in packets], [8, 8])
        self.assertNotEqual(*packets)
        self.assertEqual(len({client.client_key for client in self.clients()}), 4)
        for client in self.clients():
            assert client.client_info is not None
            self.assertTrue(client.client_info.is_prober)
            self.assertIsNone(client.client_info.mesh_key)
        self.assertGreater(float(check.findings()["packet_ms"]), 0)

    async def test_mesh_key(self) -> None:
        """With the mesh key our clients are peers of the mesh."""
        check = mesh_check(self.targets(mesh_key=MESH_KEY), self.region, self.one, self.two)
        await self.passes(check)
        for client in self.clients():
            assert client.client_info is not None
            self.assertEqual(client.client_info.mesh_key, MESH_KEY)

    async def test_time_for_gossip(self) -> None:
        """Two relays get a moment to tell each other; one needs none."""
        check = self.check()
        self.assertGreaterEqual(await self.took(lambda: self.passes(check)), GOSSIP_S)
        self.patch(pair, "GOSSIP_S", 60.0)
        await self.passes(self.check(self.one, self.one))

    async def test_gossip(self) -> None:
        """A relay that has not heard of the destination yet is asked again."""
        self.patch(first_packet, "AGAIN_S", 0.02)
        self.room.unknown_for = 3
        await self.passes(self.check())
        self.assertEqual(self.room.packets, 4)

    async def test_not_meshed(self) -> None:
        """One that does not hear of it at all is not meshed, and that is said."""
        self.patch(first_packet, "AGAIN_S", 0.02)
        self.patch(first_packet, "UNKNOWN_S", 0.1)
        self.room.unknown_for = 1000
        text = await self.fails(self.check())
        self.assertIn("node 900a (127.0.0.1) knows no client of node 900b (127.0.0.1)", text)
        self.assertIn("--mesh-with", text)
        self.assertRegex(text, KEYS)

    async def test_unknown_on_one_node(self) -> None:
        """On a single node there is no gossip to wait for."""
        self.patch(first_packet, "AGAIN_S", 0.02)
        self.room.unknown_for = 1000
        text = await self.fails(self.check(self.one, self.one))
        self.assertIn("says it has no such client, though both of ours are logged in", text)
        self.assertLess(self.room.packets, 5)

    async def test_too_late(self) -> None:
        """A packet that comes when others were sent is as good, and disturbs nothing after."""
        self.patch(first_packet, "AGAIN_S", 0.02)
        packets: list[bytes] = []

        def later(source: bytes, packet: bytes) -> bytes:
            packets.append(packet)
            if len(packets) < 5:
                return b""
            return b"".join(faithfully(source, each) for each in packets)

        self.room.deliver = later
        check = bandwidth_check(self.targets(bandwidth_size=1), self.region, self.one, self.two)
        await self.passes(check)
        first, *others, payload = packets
        self.assertEqual((len(first), len(payload)), (8, 1))
        for other in others:
            self.assertTrue(looks_like_disco(other))

    async def test_other_messages(self) -> None:
        """Whatever else a relay tells is ignored; so is who else is gone."""
        gone = encode_frame(FrameType.PEER_GONE, bytes(32) + bytes((PeerGoneReason.NOT_HERE,)))
        news = (
            encode_frame(FrameType.KEEP_ALIVE)
            + encode_frame(FrameType.HEALTH, b"ill")
            + encode_frame(0x77, b"what?")
            + gone
        )

        def deliver(source: bytes, packet: bytes) -> bytes:
            self.room.clients[source].send(news)
            return news + faithfully(source, packet)

        self.room.deliver = deliver
        self.patch(first_packet, "UNKNOWN_S", 0.0)
        await self.passes(self.check())

    async def test_lost(self) -> None:
        """A connection that ends while the packet is on its way ends the run."""
        for which in (0, 1):

            def hang_up(source: bytes, packet: bytes, which: int = which) -> bytes:
                keys = [source, *(key for key in self.room.clients if key != source)]
                self.room.clients[keys[which]].hang_up()
                return b""

            self.room.clients.clear()
            self.room.deliver = hang_up
            text = await self.fails(self.check())
            self.assertIn(f"node 900{'ab'[which]} ({HOST}): connection lost", text)
            self.assertIn("while waiting for the packet that was sent from node 900a", text)

    async def test_follows_the_map(self) -> None:
        """Nodes are looked up by name at each run: moved ones are found, others missed."""
        check = self.check()
        gone = self.map
        self.map = DERPMap(regions={900: Region(region_id=900, nodes=(self.one,))})
        self.assertIn("node 900b is in the DERP map no more", await self.fails(check))
        self.map = gone
        await self.passes(check)

    async def test_stun_only(self) -> None:
        """A node that the map says is for STUN only is dialed all the same."""
        node = self.node("900c", self.one.derp_port, cert_name=self.one.cert_name, stun_only=True)
        await self.passes(self.check(node, node))


class BandwidthTests(PairCase):
    """A payload from node to node."""

    def check(self, size: int = 1_000_000) -> Check:
        return bandwidth_check(self.targets(bandwidth_size=size), self.region, self.one, self.two)

    async def test_labels(self) -> None:
        """As of a mesh check, and how it was measured."""
        self.assertEqual(self.check().labels["tcp_in_tcp"], "false")
        self.assertEqual(self.check().labels["derp_path"], "mesh")
        self.assertEqual(self.check().probe_class, "derp_bw")

    async def test_delivered(self) -> None:
        """All of it arrives; the time it takes adds up, the size stays."""
        sizes: list[int] = []
        self.deliver(lambda s, p: sizes.append(len(p)) or faithfully(s, p))
        check = self.check()
        self.assertEqual(samples(check)["bw_probe_size_bytes", ""], 1_000_000)
        self.assertEqual(samples(check)["bw_transfer_time_seconds_total", ""], 0)
        await self.passes(check)
        self.assertEqual((sum(sizes), max(sizes)), (1_000_000, 65536))
        seconds = samples(check)["bw_transfer_time_seconds_total", ""]
        found = check.findings()
        self.about(found["seconds"], seconds, 1e-5)
        self.about(float(found["mbit_per_second"]), 8 / seconds, 0.1)
        await self.passes(check)
        self.assertGreater(samples(check)["bw_transfer_time_seconds_total", ""], seconds)
        for client in self.clients():
            assert client.client_info is not None
            self.assertFalse(client.client_info.is_prober)

    async def test_small(self) -> None:
        """A payload of one byte is a payload."""
        await self.passes(self.check(1))

    async def test_in_flight(self) -> None:
        """No more than thirty packets are on their way at a time."""
        kept: list[bytes] = []
        self.deliver(lambda source, packet: kept.append(packet) or b"")
        check = self.check(100 * 65536)
        seen_at = 0.0

        def a_while_after() -> bool:
            nonlocal seen_at
            if len(kept) >= IN_FLIGHT and not seen_at:
                seen_at = self.clock.seconds()
            return bool(seen_at) and self.clock.seconds() > seen_at + 0.2

        text = await self.stopped(check, a_while_after, "thirty packets")
        self.assertEqual(len(kept), IN_FLIGHT)
        self.assertIn("packet 1 of 100 from node 900a", text)
        self.assertIn("(30 were sent)", text)
        self.assertNotIn("mbit_per_second", check.findings())
        self.assertGreater(
            samples(check)["bw_transfer_time_seconds_total", ""], 0.1, "failures take time too"
        )

    async def test_dropped(self) -> None:
        """A packet that was dropped is missed when the next one comes."""
        count = 0

        def drop_third(source: bytes, packet: bytes) -> bytes:
            nonlocal count
            count += 1
            return b"" if count == 3 else faithfully(source, packet)

        self.deliver(drop_third)
        text = await self.fails(self.check())
        self.assertIn("packet 3 of 16 was lost from node 900a", text)
        self.assertIn("derp_packets_dropped_total", text)

    async def test_changed(self) -> None:
        """A packet that was changed, cut, or made up."""
        for deliver, words in (
            (
                lambda s, p: faithfully(s, p[:-1] + bytes((p[-1] ^ 1,))),
                "packet 1 of 16 came changed",
            ),
            (lambda s, p: faithfully(s, p[:-1]), "packet 1 of 16 came changed"),
            (lambda s, p: faithfully(s, p) + faithfully(s, p), "packet 2 of 16 came changed"),
            (lambda s, p: encode_recv_packet(bytes(32), p), "instead of ours"),
        ):
            self.deliver(deliver)
            self.assertIn(words, await self.fails(self.check()))

    async def test_peer_gone(self) -> None:
        """A destination that its relay lost is told at once."""

        def gone(source: bytes, packet: bytes) -> bytes:
            self.room.unknown_for = 1
            return faithfully(source, packet)

        self.deliver(gone, 4)
        text = await self.fails(self.check())
        self.assertIn("knows no client of node 900b (127.0.0.1) (any more), after", text)


class QueueDelayTests(PairCase):
    """Packets at a steady rate."""

    def check(self, **fields: Any) -> Check:
        targets = self.targets(**{"qd_rate": 200, "qd_timeout": 0.2, **fields})
        return queue_delay_check(targets, self.region, self.one, self.two)

    async def test_labels(self) -> None:
        """As of a mesh check."""
        self.assertEqual(self.check().labels["derp_path"], "mesh")
        self.assertEqual(self.check().probe_class, "derp_qd")

    async def test_measured(self) -> None:
        """Packets of 260 bytes, numbered, at the rate; their delays are counted."""
        packets: list[bytes] = []
        self.deliver(lambda s, p: packets.append(p) or faithfully(s, p))
        check = self.check()
        shown = samples(check)
        self.assertEqual(shown["qd_probe_dropped_packets", ""], 0)
        self.assertEqual(
            [bound for name, bound in shown if name.endswith("_bucket")],
            ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "+Inf"],
        )
        began = self.clock.seconds()
        text = await self.stopped(check, lambda: check.findings().get("sent", 0) >= 40, "packets")
        self.assertIn("was stopped", text)
        self.assertGreaterEqual(self.clock.seconds() - began, 39 / 200)
        self.assertEqual({len(packet) for packet in packets}, {260})
        numbers = [int.from_bytes(packet[:8], "big") for packet in packets]
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))
        found, shown = check.findings(), samples(check)
        self.assertEqual(shown["qd_probe_delays_seconds_count", ""], found["sent"])
        self.assertEqual(shown["qd_probe_delays_seconds_bucket", "+Inf"], found["sent"])
        self.assertLessEqual(int(found["sent"]), len(packets))
        self.assertEqual(found["loss"], 0)
        self.assertLessEqual(float(found["p50_ms"]), float(found["p99_ms"]))
        total = shown["qd_probe_delays_seconds_sum", ""]
        self.assertGreater(total * 1000, float(found["p50_ms"]))

    def send_later(self, seconds: float, client: RelayingFake, frame: bytes) -> None:
        """Let a relay send; not any more, when the test is over."""
        sending = self.clock.callLater(seconds, client.send, frame)
        self.addCleanup(lambda: sending.active() and sending.cancel())

    async def test_delayed(self) -> None:
        """What waits shows in the percentiles and in the buckets."""

        def later(source: bytes, packet: bytes) -> bytes:
            key = next(key for key in self.room.clients if key != source)
            self.send_later(0.06, self.room.clients[key], faithfully(source, packet))
            return b""

        self.deliver(later)
        check = self.check(qd_rate=50, qd_timeout=5.0)
        await self.stopped(check, lambda: check.findings().get("sent", 0) > 5, "some packets")
        self.assertGreaterEqual(float(check.findings()["p50_ms"]), 60)
        shown = samples(check)
        self.assertEqual(shown["qd_probe_delays_seconds_bucket", "0.05"], 0)
        self.assertGreater(shown["qd_probe_delays_seconds_bucket", "1"], 5)

    async def test_late(self) -> None:
        """If all of them take too long, that is a failure, and it says how long."""
        self.patch(qd_module, "SILENCE_S", 0.1)

        def later(source: bytes, packet: bytes) -> bytes:
            key = next(key for key in self.room.clients if key != source)
            self.send_later(0.1, self.room.clients[key], faithfully(source, packet))
            return b""

        self.deliver(later, 3)
        check = self.check(qd_timeout=0.05)
        text = await self.fails(check)
        found = re.search(
            r"the packets from node 900a .* take (\d+) ms, longer than the 50 ms", text
        )
        assert found is not None, text
        self.assertGreaterEqual(int(found[1]), 100)
        self.assertIn("-qd-packet-timeout", text)
        shown = samples(check)
        self.assertGreater(shown["qd_probe_dropped_packets", ""], 5)
        self.assertEqual(shown["qd_probe_delays_seconds_bucket", "+Inf"], 3)

    async def test_lost(self) -> None:
        """Packets that do not arrive within the time are lost, which ends nothing."""
        self.deliver(lambda s, p: faithfully(s, p) if p[7] % 4 else b"")
        check = self.check()
        text = await self.stopped(check, lambda: check.findings().get("sent", 0) > 80, "packets")
        self.assertIn("was stopped", text)
        found, shown = check.findings(), samples(check)
        self.assertEqual(shown["qd_probe_dropped_packets", ""], found["lost"])
        self.about(found["loss"], 0.25, 0.2)

    async def test_broken(self) -> None:
        """If none arrives any more the way is broken; the numbers outlive the run."""
        self.patch(qd_module, "SILENCE_S", 0.1)
        self.deliver(lambda s, p: b"", 5)
        check = self.check(qd_timeout=0.1)
        text = await self.fails(check)
        self.assertIn("none of the packets from node 900a (127.0.0.1) to node 900b", text)
        self.assertIn("link between the relays", text)
        lost = samples(check)["qd_probe_dropped_packets", ""]
        self.assertGreater(lost, 5)
        await self.fails(check)
        self.assertGreater(samples(check)["qd_probe_dropped_packets", ""], lost)

    async def test_hung_up(self) -> None:
        """A connection that ends, ends the run."""

        def hang_up(source: bytes, packet: bytes) -> bytes:
            self.room.clients[source].hang_up()
            return b""

        self.deliver(hang_up, 5)
        text = await self.fails(self.check())
        self.assertIn("node 900a (127.0.0.1): connection lost", text)
        self.assertIn("while waiting for packets from node 900a", text)

    async def test_strangers(self) -> None:
        """What is none of our packets is not counted, whoever sends how much of it."""
        other = encode_recv_packet(bytes(32), bytes(260))

        def deliver(source: bytes, packet: bytes) -> bytes:
            short = faithfully(source, packet[:-1])
            changed = faithfully(source, packet[:8] + bytes(252))
            return other + short + other + changed

        self.deliver(deliver)
        check = self.check()
        await self.stopped(check, lambda: check.findings().get("lost", 0) > 5, "lost packets")
        found = check.findings()
        self.assertEqual(samples(check)["qd_probe_delays_seconds_count", ""], 0)
        self.assertNotIn("p50_ms", found)
        self.assertEqual(found["loss"], 1)

    async def test_no_rate(self) -> None:
        """Without a rate there is nothing to measure."""
        self.assertIn("packet a second", await self.fails(self.check(qd_rate=0)))
