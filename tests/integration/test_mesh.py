"""
Three relays in one mesh: killed, restarted, partitioned and stopped, while clients talk.

Every lost packet must be in a counter. Per test phase, with all figures from outside::

    lost                   = sent by one client - arrived at the other
    dropped                = what the sender's relay says it dropped (derp_packets_dropped_total)
    unconfirmed            = what its broken links took last (derp_mesh_unconfirmed_packets_total)
    dropped <= lost <= dropped + unconfirmed
"""

from __future__ import annotations

from pathlib import Path

from derp.net.relay_client import RelayClient
from derp.wire.keys import generate_private
from tests.integration.child import ANY_PORTS
from tests.integration.mesh_case import MeshTestCase, Node, Talk
from tests.integration.relay_case import HOST, MESH_KEY, Heard
from tests.integration.waiting import PATIENCE_S

OTHER_KEY = MESH_KEY[::-1]


class MeshTests(MeshTestCase):
    """A whole mesh, and what happens to it."""

    async def setUp(self) -> None:
        self.nodes = await self.start_mesh(3)
        self.alices, self.bobs = self.nodes[0], self.nodes[1]
        self.bob_key = generate_private()
        self.alice, _ = await self.client(self.alices.port)
        self.bob, heard = await self.log_in_bob()
        self.carol, _ = await self.client(self.nodes[2].port)
        self.talk = Talk(self.alice, self.bob.public_key, heard)
        await self.whole(self.nodes)

    async def log_in_bob(self) -> tuple[RelayClient, Heard]:
        return await self.client(self.bobs.port, private_key=self.bob_key)

    async def say_and_hear(self, packets: int) -> None:
        """Send packets that must all arrive."""
        before = self.talk.listen()
        self.talk.say(packets)
        await self.until(lambda: self.talk.listen() == before + packets, "packets that arrive")

    async def counted(self) -> tuple[float, float]:
        """What the sender's relay has dropped, and its links left unconfirmed."""
        unconfirmed = await self.mesh_count(self.alices, "unconfirmed_packets")
        return await self.dropped(self.alices), unconfirmed

    async def take_in(self, client: RelayClient) -> None:
        """See a relay through with all that a client has sent it."""
        await client.ping(PATIENCE_S)

    async def assert_explained(self, before: tuple[float, float], lost: int) -> None:
        """Find the lost packets in the counters."""
        await self.take_in(self.alice)
        dropped, unconfirmed = await self.counted()
        dropped -= before[0]
        unconfirmed -= before[1]
        self.assertTrue(dropped <= lost <= dropped + unconfirmed, (dropped, lost, unconfirmed))

    async def test_whole(self) -> None:
        """All packets arrive, are counted on both sides, and take one link only."""
        await self.say_and_hear(200)
        shown = [await self.metrics(node) for node in self.nodes]
        forwarded = [
            (
                each.value("derp_packets_forwarded_total", direction="out"),
                each.value("derp_packets_forwarded_total", direction="in"),
            )
            for each in shown
        ]
        self.assertEqual(forwarded, [(200, 0), (0, 200), (0, 0)])
        peer = self.alices.name_of(1)
        self.assertEqual(shown[0].value("derp_mesh_forwarded_packets_total", peer=peer), 200)
        self.assertEqual(shown[0].value("derp_mesh_connects_total", peer=peer), 1)
        index = await self.get(self.alices.port, "/debug/", tls=True)
        self.assertIn(f"<b>Mesh {peer}:</b> up, ", index.body.decode())
        own = self.alices.name_of(0)
        self.assertIn(f"<b>Mesh {own}:</b> this relay itself", index.body.decode())
        self.assertEqual(self.alices.wires[0].taken, 1)

    async def test_partition(self) -> None:
        """While two relays are cut off, their clients miss each other, and then no more."""
        await self.say_and_hear(10)
        before = await self.counted()
        self.talk.say(100)
        self.alices.wires[1].cut()
        self.bobs.wires[0].cut()
        self.talk.say(100)
        await self.take_in(self.alice)
        await self.eventually(self.cut_off, "the end of the link")
        self.talk.say(100)
        await self.take_in(self.alice)
        self.alices.wires[1].mend()
        self.bobs.wires[0].mend()
        await self.whole(self.nodes)
        await self.say_and_hear(100)
        self.assertEqual(self.talk.arrived[-100:], list(range(310, 410)))
        lost = self.talk.sent - self.talk.listen()
        self.assertGreaterEqual(lost, 100)
        await self.assert_explained(before, lost)

    async def cut_off(self) -> bool:
        others = [node for node in self.nodes[1:] if node is not self.bobs]
        return await self.linked(self.alices, others)

    async def test_kill_and_restart(self) -> None:
        """A relay that is killed is missed; the one in its place is a full member again."""
        await self.say_and_hear(10)
        before = await self.counted()
        self.talk.say(100)
        await self.bobs.child.end()
        await self.bob.when_closed()
        self.talk.say(100)
        await self.take_in(self.alice)
        await self.eventually(self.cut_off, "the end of the link")
        self.talk.say(100)
        lost = self.talk.sent - self.talk.listen()
        await self.restart(self.nodes, self.bobs)
        self.bob, self.talk.heard = await self.log_in_bob()
        await self.whole(self.nodes)
        await self.say_and_hear(100)
        self.assertGreaterEqual(lost, 100)
        await self.assert_explained(before, lost)

    async def test_restart_of_the_senders(self) -> None:
        """The other side is restarted: its client comes back and is heard again."""
        await self.say_and_hear(10)
        await self.alices.child.end("TERM")
        await self.alice.when_closed()
        await self.restart(self.nodes, self.alices)
        self.talk.sender, _ = await self.client(self.alices.port)
        await self.whole(self.nodes)
        await self.say_and_hear(100)

    async def test_stop_and_continue(self) -> None:
        """A relay that stands still for a moment loses nothing that fits on the link."""
        await self.say_and_hear(10)
        before = await self.counted()
        self.bobs.child.send("STOP")
        self.talk.say(100)
        await self.take_in(self.alice)
        self.bobs.child.resume()
        await self.until(lambda: self.talk.listen() == 110, "packets that arrive")
        self.assertEqual(await self.counted(), before)
        await self.whole(self.nodes)

    async def test_list_changes(self) -> None:
        """A relay that is struck off the list is left at once, and taken back as fast."""
        peers = self.alices.directory / "peers"
        listed = peers.read_text()
        peers.write_text(f"{self.alices.name_of(2)}#{self.nodes[2].pin()}\n")
        self.alices.child.send("HUP")
        await self.eventually(self.cut_off, "the end of the link")
        before = await self.counted()
        self.talk.say(50)
        await self.assert_explained(before, 50)
        peers.write_text(listed)
        self.alices.child.send("HUP")
        await self.whole(self.nodes)
        await self.say_and_hear(50)


class NoMeshTests(MeshTestCase):
    """Lists and keys that do not fit."""

    def node(self) -> Node:
        node = Node(0, self.mktemp(), 1)
        self.addCleanup(node.wires[0].close)
        return node

    async def test_wrong_key(self) -> None:
        """A peer with another key is told apart from one that is not there."""
        (right,) = await self.start_mesh(1)
        wrong = self.node()
        (wrong.directory / "mesh.key").write_text(OTHER_KEY.hex())
        wrong.wires[0].leads_to = right.port
        gone = Node(1, self.mktemp(), 1)
        self.addCleanup(gone.wires[0].close)
        gone.wires[0].cut()
        refusing, unreachable = (f"{HOST}:{each.wires[0].port}" for each in (wrong, gone))
        (wrong.directory / "peers").write_text(f"{refusing}#{right.pin()}\n{unreachable}\n")
        wrong.child = self.start_child(*wrong.flags)
        await wrong.child.ready()

        async def both_failed() -> bool:
            shown = await self.metrics(wrong)
            failures = {
                labels
                for (name, labels), value in shown.samples.items()
                if name == "derp_mesh_failures_total" and value
            }
            return failures == {
                (("peer", refusing), ("reason", "refused")),
                (("peer", unreachable), ("reason", "unreachable")),
            }

        await self.eventually(both_failed, "both failures")
        log = wrong.child.log
        self.assertIn(f'mesh("{refusing}"): refused: it answers, but closed', log)
        self.assertIn(f'mesh("{unreachable}"): unreachable: ', log)
        self.assertNotIn(OTHER_KEY.hex(), log)
        shown = await self.metrics(right)
        self.assertEqual(shown.value("derp_watchers"), 0)

    async def test_wrong_pin(self) -> None:
        """A peer that shows another certificate than the pinned one is not told our key."""
        (other,) = await self.start_mesh(1)
        node = self.node()
        node.wires[0].leads_to = other.port
        name = f"{HOST}:{node.wires[0].port}"
        (node.directory / "peers").write_text(f"{name}#sha256-raw:{'0' * 64}\n")
        node.child = self.start_child(*node.flags)
        await node.child.ready()
        await self.until(lambda: "unreachable: " in node.child.log, "a failure")
        self.assertIn(other.pin(), node.child.log)
        shown = await self.metrics(other)
        self.assertEqual(shown.value("derp_accepts_total"), 1, "its own link to itself")

    async def test_refused_starts(self) -> None:
        """A bad list, a missing key and a bad one each end the start with one sentence."""
        bad_key = Path(self.mktemp())
        bad_key.write_text("0123")
        for flags, words in (
            (("--mesh-with", "a.test,,b.test"), '--mesh-with: "" is no relay to mesh with'),
            (("--mesh-with", "a.test"), "--mesh-with needs the key that the relays share"),
            (("--mesh-with-file", "/nowhere/at/all"), "--mesh-with-file"),
            (("--mesh-psk-file", str(bad_key.absolute())), "holds no mesh key"),
        ):
            child = self.start_child(*ANY_PORTS, "-c", str(Path(self.mktemp()).absolute()), *flags)
            ending = await child.over()
            self.assertEqual(ending.code, 1, child.everything)
            (line,) = child.errors.strip().split("\n")
            self.assertIn(words, line)
