"""A real child under load: everything arrives, and who does not read harms only himself."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from derp.net import relay_connector
from derp.net.relay_client import RelayClient
from derp.net.relay_connector import connect
from derp.wire.derp_map import Node, Region
from derp.wire.frames import MAX_PACKET
from derp.wire.handshake import ServerInfo
from derp.wire.keys import generate_private
from derp.wire.messages import PeerGone, ReceivedPacket
from tests.exposition import Exposition
from tests.integration.child import ANY_PORTS, RelayChild
from tests.integration.relay_case import HOST, RelayTestCase, reactor
from tests.integration.waiting import PATIENCE_S, in_time

TLS_FLAGS = ("-certmode", "manual", "-certdir", "certs", "-hostname", HOST)
CLIENTS = 30
PER_PAIR = 3
"""Packets from each client to each, all under way at once. No receiver has more: the relay
keeps 32 for one that reads slowly."""
WRITE_TIMEOUT_S = 2.0
"""derper's ``--tcp-write-timeout`` where nothing else is said."""

_POOL = random.Random(20260801).randbytes(4 * MAX_PACKET)


def packet(chance: random.Random, size: int) -> bytes:
    """Bytes of this size that look like no other's."""
    at = chance.randrange(len(_POOL) - size)
    return _POOL[at : at + size]


def sizes(chance: random.Random) -> Iterator[int]:
    """Mostly ordinary sizes, and all the odd ones."""
    while True:
        yield chance.choice((0, 1, MAX_PACKET - 1, MAX_PACKET))
        yield from (int(2 ** chance.uniform(0, 16)) for _ in range(5))


class Member:
    """
    A client that knows what must come next from whom.

    :ivar received: packets so far.
    """

    client: RelayClient

    def __init__(self) -> None:
        self.awaited: dict[bytes, deque[bytes]] = {}
        self.received = 0
        self.faults: list[str] = []
        self.others: list[Any] = []
        """Messages that are no packets."""
        self.logged_in: Deferred[None] = Deferred()
        self.on_packet: Any = None
        self.numbers: list[int] | None = None
        """Where the numbers of a flood go; its packets are not awaited."""

    @property
    def key(self) -> bytes:
        return self.client.public_key

    def send(self, to: Member, data: bytes) -> None:
        """Send what the other side then waits for."""
        to.awaited.setdefault(self.key, deque()).append(data)
        if not self.client.send(to.key, data):
            self.faults.append("the client did not send a packet")

    def heard(self, message: Any) -> None:
        if isinstance(message, ReceivedPacket):
            self.received += 1
            if self.numbers is None:
                self._check(message)
            else:
                self.numbers.append(int.from_bytes(message.packet[:4], "big"))
            if self.on_packet is not None:
                self.on_packet()
        elif isinstance(message, ServerInfo):
            self.logged_in.callback(None)
        else:
            self.others.append(message)

    def _check(self, message: ReceivedPacket) -> None:
        awaited = self.awaited.get(message.source)
        if not awaited:
            self.faults.append(f"a packet of {len(message.packet)} bytes nobody sent")
        elif (wanted := awaited.popleft()) != message.packet:
            sizes = f"{len(wanted)} bytes, got {len(message.packet)}"
            self.faults.append(f"lost, reordered or altered: awaited {sizes}")


class Flow:
    """Packets from one to another without end, a few under way at any time."""

    def __init__(self, chance: random.Random, source: Member, sink: Member) -> None:
        self._chance = chance
        self._source = source
        self._sink = sink
        self._going = True
        sink.on_packet = self._next

    def start(self, under_way: int = 4) -> None:
        for _ in range(under_way):
            self._next()

    def _next(self) -> None:
        if self._going:
            size = self._chance.randrange(1500)
            self._source.send(self._sink, packet(self._chance, size))

    def stop(self) -> None:
        self._going = False

    @property
    def arrived(self) -> int:
        return self._sink.received

    @property
    def over(self) -> bool:
        return not any(self._sink.awaited.values())


class LoadTests(RelayTestCase):
    """``twistd -n derper`` with TLS in manual mode for an address; clients know it by its pin."""

    timeout = 300

    async def child(self) -> RelayChild:
        child = self.start_child(*ANY_PORTS, "-c", "derper.key", *TLS_FLAGS)
        return await child.ready()

    def region(self, child: RelayChild) -> Region:
        pin = child.log.partition('"CertName": "')[2].partition('"')[0]
        self.assertRegex(pin, "^sha256-raw:[0-9a-f]{64}$")
        node = Node(name="900a", host_name=HOST, cert_name=pin, derp_port=child.port())
        return Region(region_id=900, code="test", nodes=(node,))

    async def members(self, child: RelayChild, count: int) -> list[Member]:
        """Log so many clients in, all at once."""
        members = [Member() for _ in range(count)]
        region = self.region(child)
        self.patch(relay_connector, "NODE_TIMEOUT", PATIENCE_S)
        connecting = [
            connect(
                reactor, region, generate_private(), on_message=member.heard, timeout=PATIENCE_S
            )
            for member in members
        ]
        for member, connected in zip(members, await gatherResults(connecting), strict=True):
            member.client = connected
            self.addCleanup(connected.close)
        for member in members:
            await in_time(reactor, member.logged_in, "a login")
            self.assertEqual(member.client.tls_version, "TLSv1.3")
        return members

    def assert_no_faults(self, members: list[Member]) -> None:
        self.assertEqual([fault for member in members for fault in member.faults], [])

    def assert_explained(self, page: Exposition) -> None:
        """Every packet and every byte the relay took was sent or is counted as dropped."""
        for what in ("packets", "bytes"):
            dropped = sum(
                value for (name, _), value in page.samples.items() if name == f"derp_{what}_dropped"
            )
            self.assertEqual(
                page.value(f"derp_{what}_received"), page.value(f"derp_{what}_sent") + dropped
            )

    async def test_all_to_all(self) -> None:
        """Thirty clients send each other packets of all sizes: all arrive, whole, in order."""
        child = await self.child()
        members = await self.members(child, CLIENTS)
        chance = random.Random(30)
        size = sizes(chance)
        sent_bytes = 0
        for distance in range(CLIENTS):  # round by round, the first one to themselves
            for number, member in enumerate(members):
                to = members[(number + distance) % CLIENTS]
                for _ in range(PER_PAIR):
                    data = packet(chance, next(size))
                    sent_bytes += len(data)
                    member.send(to, data)
            due = (distance + 1) * PER_PAIR
            await self.until(
                lambda due=due: all(member.received >= due for member in members),  # type: ignore[misc]
                f"the packets of round {distance}",
            )
        self.assert_no_faults(members)
        self.assertEqual([member.others for member in members], [[]] * CLIENTS)
        page = await self.varz(child.port("--http-port"))
        self.assertEqual(page.value("derp_packets_received"), CLIENTS * CLIENTS * PER_PAIR)
        self.assertEqual(page.value("derp_packets_sent"), CLIENTS * CLIENTS * PER_PAIR)
        self.assertEqual(page.value("derp_bytes_received"), sent_bytes)
        self.assert_explained(page)
        self.assertEqual(page.value("derp_current_connections"), CLIENTS)
        self.assertEqual(page.value("derp_accepts"), CLIENTS)

    async def test_one_stops_reading(self) -> None:
        """It loses its own packets and is cut after 2 s; nobody else notices."""
        child = await self.child()
        victim, flooder, *others = await self.members(child, 8)
        everybody = [flooder, *others]
        chance = random.Random(2)
        flows = [Flow(chance, a, b) for a, b in zip([flooder, *others[1:]], others, strict=True)]
        for flow in flows:
            flow.start()
        victim.send(flooder, b"so that the flooder hears when the victim goes")
        await self.until(lambda: not flooder.awaited[victim.key], "the victim's packet")

        victim.numbers = []
        victim.client.pause_receiving()
        began = reactor.seconds()
        flooded = await self.flood(child, flooder, victim)
        time = self.steady_time()
        frozen_at = time.seconds()
        at_freeze = [flow.arrived for flow in flows]
        gone = PeerGone(victim.key, 0)
        await self.until(lambda: gone in flooder.others, "the end of the victim")
        self.assertGreaterEqual(reactor.seconds() - began, WRITE_TIMEOUT_S)
        for before, flow in zip(at_freeze, flows, strict=True):
            awaited = 10 * (time.seconds() - frozen_at)
            self.assertGreater(flow.arrived - before, awaited, "a flow stood still")

        for flow in flows:
            flow.stop()
        await self.until(lambda: all(flow.over for flow in flows), "what was under way")
        self.assert_no_faults(everybody)
        page = await self.varz(child.port("--http-port"))
        self.assertEqual(page.value("derp_sclient_write_timeouts"), 1)
        self.assertEqual(page.value("derp_current_connections"), len(everybody))
        self.assert_explained(page)
        arrived = sum(member.received for member in everybody)
        dropped = page.value("derp_packets_received") - page.value("derp_packets_sent")
        written = page.value("derp_packets_sent") - arrived
        self.assertEqual(written + dropped, flooded, "only the victim's own were lost")
        victim.client.resume_receiving()
        self.assertIsNotNone(await in_time(reactor, victim.client.when_closed(), "the cut"))
        self.assertLessEqual(victim.received, written)
        self.assertEqual(victim.numbers, sorted(victim.numbers), "in order as far as they came")

    async def flood(self, child: RelayChild, flooder: Member, victim: Member) -> int:
        """Send to the victim until packets are dropped; give how many were sent."""
        flooded = 0
        while True:
            for number in range(flooded, flooded + 8):
                data = number.to_bytes(4, "big") + _POOL[: MAX_PACKET - 4]
                self.assertTrue(flooder.client.send(victim.key, data))
            flooded += 8
            await flooder.client.ping(30.0)  # the relay has taken them all
            if flooded % 64 == 0:
                page = await self.varz(child.port("--http-port"))
                labels = {"reason": "queue_head", "kind": "other"}
                if page.value("derp_packets_dropped", **labels):
                    return flooded
