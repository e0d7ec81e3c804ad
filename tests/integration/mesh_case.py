"""Relays in processes of their own, every one meshed with every other, over wires to be cut."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from derp.net.relay_client import RelayClient
from derp.wire.messages import ReceivedPacket
from derp.wire.node_json import pin_of
from tests.exposition import Exposition
from tests.integration.child import RelayChild
from tests.integration.partition import Wire
from tests.integration.relay_case import HOST, MESH_KEY, Heard, RelayTestCase, reactor
from tests.integration.waiting import in_time

_ASK_EVERY_S = 0.05


class Node:
    """
    One place in the mesh: a relay may die and another take its place, with key and certificate.

    :ivar wires: how it reaches each node, itself included, by their numbers.
    """

    def __init__(self, number: int, directory: str, size: int) -> None:
        self.number = number
        self.directory = Path(directory).absolute()
        self.directory.mkdir(parents=True)
        self.wires = [Wire(reactor) for _ in range(size)]
        self.child: RelayChild
        (self.directory / "mesh.key").write_text(MESH_KEY.hex())
        (self.directory / "peers").write_text("")

    @property
    def flags(self) -> tuple[str, ...]:
        place = self.directory
        return (
            *("-a", f"{HOST}:0", "--http-port", "-1", "--stun=false", "--certmode", "manual"),
            *("--hostname", HOST, "--certdir", str(place / "certs"), "-c", str(place / "key")),
            *("--mesh-psk-file", str(place / "mesh.key"), "--mesh-with-file", str(place / "peers")),
        )

    @property
    def port(self) -> int:
        return self.child.port()

    def pin(self) -> str:
        """What clients and peers know its certificate by."""
        pem = (self.directory / "certs" / f"{HOST}.crt").read_text()
        return pin_of(ssl.PEM_cert_to_DER_cert(pem))

    def name_of(self, number: int) -> str:
        """What this node calls another one."""
        return f"{HOST}:{self.wires[number].port}"


class Talk:
    """A client that sends another numbered packets; who counts what arrives."""

    def __init__(self, sender: RelayClient, receiver: bytes, heard: Heard) -> None:
        self.sender = sender
        self.receiver = receiver
        self.heard = heard
        self.sent = 0
        self.arrived: list[int] = []

    def say(self, packets: int = 1) -> None:
        """Send some."""
        for _ in range(packets):
            assert self.sender.send(self.receiver, b"%08d" % self.sent + bytes(200))
            self.sent += 1

    def listen(self) -> int:
        """Take what has arrived by now; give how many that are altogether."""
        for message in self.heard.take():
            if isinstance(message, ReceivedPacket):
                self.arrived.append(int(message.packet[:8]))
        return len(self.arrived)


class MeshTestCase(RelayTestCase):
    """Starts meshes, and reads their books."""

    timeout = 300
    node_class = Node

    async def start_mesh(self, size: int) -> list[Node]:
        """Start so many relays, tell each of all, and see every link come up."""
        nodes = [self.node_class(number, self.mktemp(), size) for number in range(size)]
        for node in nodes:
            for wire in node.wires:
                self.addCleanup(wire.close)
            node.child = self.start_child(*node.flags)
        for node in nodes:
            await node.child.ready()
            self.lead_to(nodes, node)
        for node in nodes:
            self.write_peers(nodes, node)
            node.child.send("HUP")
        await self.whole(nodes)
        return nodes

    def lead_to(self, nodes: list[Node], node: Node) -> None:
        """Let every wire to a node end where it listens now."""
        for each in nodes:
            each.wires[node.number].leads_to = node.port

    def write_peers(self, nodes: list[Node], node: Node) -> None:
        """List every node, the one itself too, in a node's file."""
        lines = [f"{node.name_of(each.number)}#{each.pin()}" for each in nodes]
        (node.directory / "peers").write_text("# all of us\n" + "\n".join(lines) + "\n")

    async def restart(self, nodes: list[Node], node: Node) -> None:
        """Put a new process in the place of one that has ended."""
        node.child = self.start_child(*node.flags)
        await node.child.ready()
        self.lead_to(nodes, node)

    # -- the books -------------------------------------------------------------------------

    async def metrics(self, node: Node) -> Exposition:
        """What a relay counts."""
        answer = await self.get(node.port, "/metrics", tls=True)
        self.assertEqual(answer.status, 200)
        return Exposition.parse(answer.body.decode())

    async def eventually(self, condition: Any, what: str) -> None:
        """Ask until the answer is yes."""

        async def asking() -> None:
            while not await condition():
                await deferLater(reactor, _ASK_EVERY_S)

        await in_time(reactor, Deferred.fromCoroutine(asking()), what)

    async def whole(self, nodes: list[Node]) -> None:
        """See every relay linked to every other, and their books agree."""
        for node in nodes:
            others = [each for each in nodes if each is not node]
            await self.eventually(lambda: self.linked(node, others), f"links of {node.number}")  # noqa: B023
        await self.eventually(lambda: self.books_agree(nodes), "books that agree")
        for node in nodes:
            await self.eventually(lambda: self.check_is_okay(node), "a check that is okay")  # noqa: B023

    async def linked(self, node: Node, others: list[Node]) -> bool:
        """Whether a node says that it is linked to these, and to nobody else."""
        shown = await self.metrics(node)
        return {
            labels[0][1]: value
            for (name, labels), value in shown.samples.items()
            if name == "derp_mesh_peer_up" and value
        } == {node.name_of(each.number): 1.0 for each in others}

    async def books_agree(self, nodes: list[Node]) -> bool:
        """Whether each node believes of each other one as many clients as that one has."""
        shown = [await self.metrics(node) for node in nodes]
        return all(
            shown[a.number].value("derp_mesh_peer_clients", peer=a.name_of(b.number))
            == shown[b.number].value("derp_clients", location="local")
            for a in nodes
            for b in nodes
            if a is not b
        )

    async def check_is_okay(self, node: Node) -> bool:
        """Whether a relay finds its own books in order."""
        answer = await self.get(node.port, "/debug/check", tls=True)
        return answer.status == 200

    async def dropped(self, node: Node) -> float:
        """Packets a relay knows it lost, for whatever reason."""
        shown = await self.metrics(node)
        return sum(
            value
            for (name, _), value in shown.samples.items()
            if name == "derp_packets_dropped_total"
        )

    async def mesh_count(self, node: Node, name: str) -> float:
        """The sum of a counter over a node's links."""
        shown = await self.metrics(node)
        wanted = f"derp_mesh_{name}_total"
        return sum(value for (found, _), value in shown.samples.items() if found == wanted)
