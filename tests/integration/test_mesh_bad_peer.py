"""A mesh peer that floods, stalls or lies: bounded for us, and unnoticed by other clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from derp.config import MeshPeer
from derp.core.announced_keys import MAX_KEYS
from derp.core.consistency import check
from derp.net import relay_client
from derp.net.link_state import LinkFailure, LinkState
from derp.net.mesh_link import MeshLink
from derp.services import RelayService
from derp.wire.frames import FrameType, encode_frame, encode_peer_present
from derp.wire.messages import ReceivedPacket
from derp.wire.node_json import pin_of
from tests.integration.relay_case import HOST, MESH_KEY, RelayTestCase, reactor
from tests.net.relay_fakes import (
    FakeRelay,
    FakeRelayFactory,
    ServerTLS,
    make_credentials,
    over_tls,
)

PACKET = bytes(60_000)


def most_unsent() -> int:
    """Bytes: 1 MiB kept for a link, and what the kernel may take of it on loopback."""
    memory = (Path(f"/proc/sys/net/ipv4/tcp_{each}mem").read_text() for each in "rw")
    return (1 << 20) + sum(int(text.split()[-1]) for text in memory)


def key(number: int) -> bytes:
    """Some key."""
    return number.to_bytes(32, "big")


class BadPeerTests(RelayTestCase):
    """Our relay in this process, and a peer that is none."""

    def setUp(self) -> None:
        credentials = make_credentials([HOST])
        self.peers = FakeRelayFactory()
        port = reactor.listenTCP(0, over_tls(self.peers, ServerTLS(credentials)), interface=HOST)
        self.addCleanup(port.stopListening)
        number = port.getHost().port
        peer = MeshPeer(
            name=f"{HOST}:{number}", host=HOST, port=number, pin=pin_of(credentials.der)
        )
        config = self.config(mesh_key=MESH_KEY, mesh_with=(peer,))
        self.service: RelayService = self.start_relay(config, self.steady_time())
        (self.link,) = self.service.mesh.links

    async def peer(self) -> FakeRelay:
        """The peer, as soon as it is asked for its clients."""

        def watched() -> FakeRelay | None:
            for relay in self.peers.relays:
                if (FrameType.WATCH_CONNS, b"") in relay.frames and not relay.lost:
                    return relay
            return None

        peer: FakeRelay = await self.until(watched, "a peer that is watched")
        assert peer.client_info is not None
        self.assertEqual(peer.client_info.mesh_key, MESH_KEY)
        return peer

    async def up(self) -> tuple[FakeRelay, MeshLink]:
        """See the link come up, with one client there."""
        peer = await self.peer()
        peer.send(encode_peer_present(key(1), None, 0, 1))
        await self.until(lambda: self.link.state is LinkState.UP, "a link that is up")
        return peer, self.link

    async def pair(self) -> tuple[Any, Any, Any]:
        """Two clients of ours, and what the second hears."""
        port = self.port_of(self.service)
        alice, _ = await self.client(port)
        bob, heard = await self.client(port)
        return alice, bob, heard

    async def talk(self, alice: Any, bob: Any, heard: Any) -> None:
        """See a packet arrive."""
        alice.send(bob.public_key, b"hello")
        self.assertEqual(await heard.next(), ReceivedPacket(alice.public_key, b"hello"))

    async def test_flood(self) -> None:
        """It announces more clients than a relay can have: some are believed, ours talk on."""
        peer, link = await self.up()
        link.announced._limit = 1000
        self.assertEqual(MAX_KEYS, 200_000)
        alice, bob, heard = await self.pair()
        frames = b"".join(encode_peer_present(key(n), None, 0, 1) for n in range(2, 20_002))
        peer.send(frames)
        while link.announced.refused < 19_001:
            await self.talk(alice, bob, heard)
        self.assertEqual(len(self.service.relay.forwarders), 1000)
        self.assertIs(link.state, LinkState.UP)
        self.assertEqual(check(self.service.relay), [])

    async def test_lie(self) -> None:
        """It claims our clients as its own, and takes them back: they are reached here."""
        peer, link = await self.up()
        alice, bob, heard = await self.pair()
        peer.send(encode_peer_present(bob.public_key, None, 0, 1))
        await self.until(lambda: bob.public_key in link.announced, "the lie")
        await self.talk(alice, bob, heard)
        peer.send(encode_frame(FrameType.PEER_GONE, bob.public_key + b"\0"))
        await self.until(lambda: bob.public_key not in link.announced, "another one")
        await self.talk(alice, bob, heard)
        self.assertNotIn(FrameType.FORWARD_PACKET, [kind for kind, _ in peer.frames])

    async def test_old_forms(self) -> None:
        """PeerPresent without flags, and without address, is as good as the whole."""
        peer = await self.peer()
        whole = encode_peer_present(key(1), None, 0, 1)[5:]
        for number, length in enumerate((32, 48, 50, 51, 60)):
            payload = key(number) + (whole + bytes(32))[32:length]
            peer.send(encode_frame(FrameType.PEER_PRESENT, payload))
        peer.send(encode_frame(FrameType.PEER_PRESENT, bytes(31)))
        peer.send(encode_frame(FrameType.PEER_GONE, key(0)))
        await self.until(lambda: set(self.link.announced) == {key(n) for n in (1, 2, 3, 4)}, "all")

    async def test_stall(self) -> None:
        """It reads no more: what it cannot be sent is dropped and counted, then it is cut."""
        self.patch(relay_client, "FORWARD_TIMEOUT", 1.0)
        peer, link = await self.up()
        alice, bob, heard = await self.pair()
        assert peer.transport is not None
        peer.transport.pauseProducing()
        sent = 0
        while not link.dropped and link.state is LinkState.UP:
            for _ in range(10):
                sent += alice.send(key(1), PACKET)
            await self.talk(alice, bob, heard)
        self.assertLess(link.forwarded * len(PACKET), most_unsent())
        await alice.ping(30.0)
        await self.until(lambda: link.failures[LinkFailure.LOST], "the end of the link")
        await self.talk(alice, bob, heard)
        stats = self.service.relay.stats
        self.assertEqual(stats.packets_forwarded_out, sent)
        self.assertEqual(link.forwarded + link.dropped, sent)
        self.assertEqual(stats.dropped, link.dropped)
        self.assertEqual(link.unconfirmed, link.forwarded)
        self.assertIn("took no packet to forward", link.problem)
