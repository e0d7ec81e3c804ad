"""Tests for :mod:`derp.core.relay`, through clients that logged in."""

from __future__ import annotations

import gc
import weakref

from twisted.trial.unittest import SynchronousTestCase

from derp.core import relay as relay_module
from derp.core.registry import DuplicatePolicy
from derp.core.relay import Relay, RelayIdentity
from derp.core.stats import DropReason, PacketKind
from derp.wire.frames import (
    PeerGoneReason,
    encode_close_peer,
    encode_forward_packet,
    encode_note_preferred,
    encode_ping,
)
from derp.wire.handshake import ClientInfo, ServerInfo, parse_server_key
from derp.wire.keys import ZERO_KEY, parse_mesh_key
from derp.wire.messages import PeerGone, Pong, ReceivedPacket
from tests.core.fakes import (
    MESH_KEY,
    NOBODY,
    SERVER_PRIVATE,
    FakeClient,
    FakeForwarder,
    disco,
    make_relay,
    public_key,
)


def gone(key: bytes) -> PeerGone:
    return PeerGone(key, PeerGoneReason.DISCONNECTED)


def not_here(key: bytes) -> PeerGone:
    return PeerGone(key, PeerGoneReason.NOT_HERE)


class RelayCase(SynchronousTestCase):
    """A relay and some clients."""

    def setUp(self) -> None:
        self.relay = make_relay()
        self.stats = self.relay.stats

    def client(self, name: str, **kwargs: object) -> FakeClient:
        return FakeClient(self.relay, name, **kwargs)  # type: ignore[arg-type]

    def dropped(self, reason: DropReason, kind: PacketKind = PacketKind.OTHER) -> int:
        """Packets lost for a reason; nothing else may be lost."""
        found = self.stats.packets_dropped[kind][reason]
        self.assertEqual(self.stats.dropped, found)
        return found


class IdentityTests(SynchronousTestCase):
    """Who the relay is."""

    def test_greeting(self) -> None:
        """The greeting holds the relay's own public key."""
        relay = make_relay()
        self.assertEqual(parse_server_key(relay.greeting[5:]), relay.public)

    def test_mesh_key(self) -> None:
        """A mesh peer is who offers the relay's own mesh key, if there is one."""
        other = bytes(31) + b"\x01"
        for own, offered, is_peer in (
            (None, None, False),
            (None, MESH_KEY, False),
            (MESH_KEY, None, False),
            (MESH_KEY, other, False),
            (MESH_KEY, MESH_KEY, True),
        ):
            relay = Relay(RelayIdentity(SERVER_PRIVATE, own))
            self.assertEqual(relay.is_mesh_key(offered), is_peer)
            client = FakeClient(relay, "c", ClientInfo(mesh_key=offered))
            self.assertEqual(client.conn.is_mesh, is_peer)

    def test_mesh_key_of_a_file(self) -> None:
        """The key as an operator writes it is the key clients offer."""
        relay = make_relay(mesh_key=parse_mesh_key(" 0123456789ABCDEF" + "0123456789abcdef" * 3))
        self.assertTrue(relay.is_mesh_key(MESH_KEY))

    def test_queue_depth(self) -> None:
        """Connections get the depth that the relay was given; 32 if none."""
        for depth, relay in ((64, make_relay(outbox_depth=64)), (32, make_relay())):
            receiver, sender = FakeClient(relay, "r"), FakeClient(relay, "s")
            receiver.block()
            for _ in range(100):
                sender.send(receiver, b"x")
            assert receiver.conn.outbox is not None
            self.assertEqual(len(receiver.conn.outbox), depth)


class RelayingTests(RelayCase):
    """Packets between clients of one relay."""

    def test_server_info_comes_first(self) -> None:
        """The first thing after login is ServerInfo, of version 2 and without limits."""
        self.assertEqual(self.client("a").server_info, ServerInfo(2))

    def test_three_clients(self) -> None:
        """Packets arrive at the addressee only, with the sender's key."""
        zero, one, two = (self.client(name) for name in "012")
        zero.send(one, b"hello 1")
        one.send(two, b"hello 2")
        self.assertEqual(zero.take(), [])
        self.assertEqual(one.take(), [ReceivedPacket(zero.key, b"hello 1")])
        self.assertEqual(two.take(), [ReceivedPacket(one.key, b"hello 2")])
        self.assertEqual((self.stats.packets_received, self.stats.packets_sent), (2, 2))

    def test_to_oneself(self) -> None:
        """A client may send to its own key, and is not told of its own end."""
        client = self.client("a")
        client.send(client, b"myself")
        self.assertEqual(client.take_packets(), [(client.key, b"myself")])
        client.leave()
        self.assertEqual(client.take(), [])

    def test_a_receiver_that_stands_still(self) -> None:
        """A full socket disturbs neither the sender nor other receivers."""
        sender, still, other = (self.client(name) for name in "abc")
        still.block()
        for number in range(200):
            sender.send(still, b"%d" % number)
            sender.send(other, b"%d" % number)
        self.assertEqual(other.take_packets(), [(sender.key, b"%d" % n) for n in range(200)])
        self.assertEqual(still.take(), [])
        self.assertEqual(self.dropped(DropReason.QUEUE_HEAD), 200 - 32)
        still.unblock()
        expected = [(sender.key, b"%d" % number) for number in range(168, 200)]
        self.assertEqual(still.take_packets(), expected)

    def test_sender_cardinality(self) -> None:
        """The number of senders is exact; repeats do not raise it."""
        receiver = self.client("r")
        self.assertEqual(len(receiver.conn.heard or ()), 0)
        for number in range(100):
            sender = self.client(f"s{number % 10}")
            sender.send(receiver, b"x")
            sender.send(receiver, b"y")
            sender.leave()
        self.assertEqual(len(receiver.conn.heard or ()), 10)

    def test_traffic_counters(self) -> None:
        """What a connection sent and was sent, frames with their headers."""
        one, two = self.client("1"), self.client("2")
        one.send(two, b"12345")
        one.send(two, b"")
        one.feed(encode_ping(b"12345678"))
        one.feed(b"\x20\0\0\0\x03abc")
        self.assertEqual(one.conn.recv_bytes, 42 + 37 + 13 + 8)
        self.assertEqual(two.conn.sent_bytes, 42 + 37)
        self.assertEqual((one.conn.sent_bytes, two.conn.recv_bytes), (0, 0))


class LookupTests(RelayCase):
    """Where a packet for a key goes."""

    def test_local_before_link(self) -> None:
        """An active local connection wins over any link."""
        sender, client = self.client("s"), self.client("c")
        link = FakeForwarder()
        self.relay.add_forwarder(client.key, link)
        sender.send(client, b"x")
        self.assertEqual(client.take_packets(), [(sender.key, b"x")])
        self.assertEqual(link.forwarded, [])
        self.assertEqual(self.stats.packets_forwarded_out, 0)

    def test_link_for_others(self) -> None:
        """A key that is not here is forwarded to, counted, and no drop."""
        sender, link = self.client("s"), FakeForwarder()
        self.relay.add_forwarder(NOBODY, link)
        sender.send(NOBODY, b"x")
        sender.send(NOBODY, disco())
        self.assertEqual(
            link.forwarded, [(sender.key, NOBODY, b"x"), (sender.key, NOBODY, disco())]
        )
        self.assertEqual(self.stats.packets_forwarded_out, 2)
        self.assertEqual(self.stats.packets_received, 2)
        self.assertEqual(self.stats.disco_received, 1)
        self.assertEqual(self.stats.packets_sent, 0)
        self.assertEqual(self.stats.dropped, 0)
        self.assertEqual(sender.take(), [])

    def test_unknown(self) -> None:
        """Nobody has it: dropped, and silence unless it was disco."""
        sender = self.client("s")
        sender.send(NOBODY, b"123")
        self.assertEqual(sender.take(), [])
        self.assertEqual(self.dropped(DropReason.UNKNOWN_DEST), 1)
        self.assertEqual(self.stats.bytes_dropped[PacketKind.OTHER][DropReason.UNKNOWN_DEST], 3)

    def test_duplicates_none_of_which_is_active(self) -> None:
        """Dropped for that reason; no link is asked, no PeerGone sent, until one is active."""
        relay = self.relay = make_relay(policy=DuplicatePolicy.DISABLE_FIGHTERS)
        self.stats = relay.stats
        sender, one, two = self.client("s"), self.client("d"), self.client("d")
        two.feed(encode_ping(b"12345678"))
        one.feed(encode_ping(b"12345678"))
        self.assertEqual((one.take(), two.take()), ([Pong(b"12345678")],) * 2)
        link = FakeForwarder()
        relay.add_forwarder(one.key, link)
        sender.send(one, disco())
        self.assertEqual(self.dropped(DropReason.DUP_CLIENT, PacketKind.DISCO), 1)
        self.assertEqual((sender.take(), one.take(), two.take()), ([], [], []))
        self.assertEqual(link.forwarded, [])
        self.assertEqual(relay.clients_remote, 0)
        two.leave()
        sender.send(one, b"again")
        self.assertEqual(one.take_packets(), [(sender.key, b"again")])

    def test_last_writer_gets_the_packets(self) -> None:
        """Of two connections of a key, whoever spoke last is sent to; the other stays open."""
        sender, one, two = self.client("s"), self.client("d"), self.client("d")
        sender.send(one, b"1")
        self.assertEqual((one.take(), two.take_packets()), ([], [(sender.key, b"1")]))
        one.feed(encode_ping(b"12345678"))
        sender.send(one, b"2")
        self.assertEqual(
            (one.take(), two.take()),
            ([Pong(b"12345678"), ReceivedPacket(sender.key, b"2")], []),
        )
        two.feed(b"\x99\0\0\0\0")
        sender.send(one, b"3")
        self.assertEqual((one.take(), two.take_packets()), ([], [(sender.key, b"3")]))


class PeerGoneTests(RelayCase):
    """Who is told that a key has left the region."""

    def test_receiver_is_told_once(self) -> None:
        """Whoever was sent something hears of the end, once however much it was."""
        sender, receiver, stranger = (self.client(name) for name in "srx")
        for _ in range(3):
            sender.send(receiver, b"x")
        receiver.take()
        sender.leave()
        self.assertEqual(receiver.take(), [gone(sender.key)])
        self.assertEqual(stranger.take(), [])
        self.assertEqual(self.stats.peer_gone_disconnected_frames, 1)

    def test_silent_client_leaves_silently(self) -> None:
        """Having been sent to, or having sent nothing, is nobody's business."""
        sender, receiver = self.client("s"), self.client("r")
        sender.send(receiver, b"x")
        receiver.leave()
        self.assertEqual(sender.take(), [])
        self.client("t").leave()
        self.assertEqual(sender.take(), [])

    def test_made_up_sources(self) -> None:
        """A mesh peer that makes sources up costs bounded memory; what it forwards arrives."""
        self.patch(relay_module, "MAX_HEARD", 3)
        self.patch(relay_module, "MAX_HEARD_IN_ALL", 5)
        peer = self.client("peer", mesh=True)
        one, two = self.client("1"), self.client("2")
        for dest in (one, two):  # the first meets its own limit, the second that of all
            for number in range(10):
                source = public_key(f"made up {number}")
                peer.feed(encode_forward_packet(source, dest.key, b"x"))
            self.assertEqual(len(dest.take_packets()), 10)
        self.assertEqual([len(each.conn.heard or ()) for each in (one, two)], [3, 2])
        two.leave()
        self.assertEqual(len(list(self.relay.subscriptions())), 3)
        three = self.client("3")
        for number in range(10):
            peer.feed(encode_forward_packet(public_key(f"made up {number}"), three.key, b"x"))
        self.assertEqual(len(three.conn.heard or ()), 2)

    def test_several_receivers(self) -> None:
        """Each connection that was sent something is told, each once."""
        sender, one, two = self.client("s"), self.client("1"), self.client("2")
        sender.send(one, b"x")
        sender.send(two, b"x")
        one.take()
        two.take()
        sender.leave()
        self.assertEqual((one.take(), two.take()), ([gone(sender.key)], [gone(sender.key)]))

    def test_who_comes_back_is_not_announced_again(self) -> None:
        """A connection is told of a key's end once in its life (as in derper)."""
        sender, receiver = self.client("s"), self.client("r")
        sender.send(receiver, b"x")
        sender.leave()
        receiver.take()
        sender = self.client("s")
        sender.send(receiver, b"y")
        self.assertEqual(receiver.take_packets(), [(sender.key, b"y")])
        sender.leave()
        self.assertEqual(receiver.take(), [])
        self.assertEqual(list(self.relay.subscriptions()), [])

    def test_new_connection_of_the_receiver_is_told(self) -> None:
        """The memory is the connection's, not the key's."""
        sender, receiver = self.client("s"), self.client("r")
        sender.send(receiver, b"x")
        sender.leave()
        receiver.leave()
        receiver, sender = self.client("r"), self.client("s")
        sender.send(receiver, b"y")
        receiver.take()
        sender.leave()
        self.assertEqual(receiver.take(), [gone(sender.key)])

    def test_duplicate_sender(self) -> None:
        """Only the end of the last connection is the key's end."""
        one, two, receiver = self.client("s"), self.client("s"), self.client("r")
        one.send(receiver, b"x")
        receiver.take()
        one.leave()
        self.assertEqual(receiver.take(), [])
        two.leave()
        self.assertEqual(receiver.take(), [gone(one.key)])

    def test_key_that_is_elsewhere(self) -> None:
        """A key that some link still reaches has not left the region, until that goes too."""
        sender, receiver = self.client("s"), self.client("r")
        link, other = FakeForwarder(), FakeForwarder()
        self.relay.add_forwarder(sender.key, link)
        self.relay.add_forwarder(sender.key, other)
        sender.send(receiver, b"x")
        receiver.take()
        sender.leave()
        self.relay.remove_forwarder(sender.key, link)
        self.assertEqual(receiver.take(), [])
        self.relay.remove_forwarder(sender.key, other)
        self.assertEqual(receiver.take(), [gone(sender.key)])
        self.relay.remove_forwarder(sender.key, other)
        self.assertEqual(receiver.take(), [])

    def test_link_of_a_local_key_goes(self) -> None:
        """A key that is still here has not left."""
        sender, receiver, link = self.client("s"), self.client("r"), FakeForwarder()
        self.relay.add_forwarder(sender.key, link)
        sender.send(receiver, b"x")
        receiver.take()
        self.relay.remove_forwarder(sender.key, link)
        self.assertEqual(receiver.take(), [])
        sender.leave()
        self.assertEqual(receiver.take(), [gone(sender.key)])

    def test_blocked_receiver_is_told_later(self) -> None:
        """The notice waits for a full socket and is counted when it is written."""
        sender, receiver = self.client("s"), self.client("r")
        sender.send(receiver, b"x")
        receiver.take()
        receiver.block()
        sender.leave()
        self.assertEqual(self.stats.peer_gone_disconnected_frames, 0)
        receiver.unblock()
        self.assertEqual(receiver.take(), [gone(sender.key)])
        self.assertEqual(self.stats.peer_gone_disconnected_frames, 1)

    def test_nothing_keeps_a_departed_connection(self) -> None:
        """Books forget connections that ended, whoever they heard and whoever heard them."""
        one, two = self.client("1"), self.client("2")
        watcher = self.client("w", mesh=True)
        self.relay.watch(watcher.conn)
        one.send(two, b"x")
        two.send(one, b"x")
        one.send(watcher, b"x")
        watcher.send(one, b"x")
        references = [weakref.ref(client.conn) for client in (one, watcher)]
        one.leave()
        watcher.leave()
        del one, watcher
        gc.collect()
        self.assertEqual([reference() for reference in references], [None, None])
        self.assertEqual(list(self.relay.subscriptions()), [])


class NotHereTests(RelayCase):
    """PeerGone as an answer to looking for a path."""

    def test_disco_only_three_at_once(self) -> None:
        """One and five more quick ones draw three answers, whomever they look for."""
        sender = self.client("s")
        sender.send(NOBODY, disco(61))
        sender.send(NOBODY, b"x" * 100)
        self.assertEqual(sender.take(), [])
        sender.send(NOBODY, disco(62))
        self.assertEqual(sender.take(), [not_here(NOBODY)])
        for number in range(5):
            sender.send(public_key(f"nobody {number}"), disco(100))
        answers = [not_here(public_key(f"nobody {number}")) for number in range(2)]
        self.assertEqual(sender.take(), answers)
        self.assertEqual(self.stats.peer_gone_not_here_frames, 3)
        self.assertEqual(self.stats.packets_dropped[0][DropReason.UNKNOWN_DEST], 6)
        self.assertEqual(self.stats.packets_dropped[1][DropReason.UNKNOWN_DEST], 2)

    def test_one_more_each_second(self) -> None:
        """The relay's time refills the bucket."""
        sender = self.client("s")
        for _ in range(4):
            sender.send(NOBODY, disco())
        self.relay.now += 1.0
        for _ in range(4):
            sender.send(NOBODY, disco())
        self.assertEqual(len(sender.take()), 4)

    def test_each_connection_has_its_own(self) -> None:
        """One client that asks a lot does not silence the answers to others."""
        one, two = self.client("1"), self.client("2")
        for _ in range(10):
            one.send(NOBODY, disco())
        two.send(NOBODY, disco())
        self.assertEqual(len(one.take()), 3)
        self.assertEqual(two.take(), [not_here(NOBODY)])

    def test_forwarded_packet(self) -> None:
        """The answer goes to the connection that forwarded, not to the source."""
        peer, source = self.client("p", mesh=True), self.client("s")
        peer.feed(encode_forward_packet(source.key, NOBODY, disco()))
        self.assertEqual(peer.take(), [not_here(NOBODY)])
        self.assertEqual(source.take(), [])
        self.assertEqual(self.dropped(DropReason.UNKNOWN_DEST_ON_FWD, PacketKind.DISCO), 1)


class ForwardedInTests(RelayCase):
    """Packets that mesh peers bring."""

    def setUp(self) -> None:
        super().setUp()
        self.peer = self.client("p", mesh=True)
        self.receiver = self.client("r")
        self.source = public_key("far away")

    def test_delivered_as_if_sent_here(self) -> None:
        """The receiver sees the original source; only forwarding and sending count."""
        self.peer.feed(encode_forward_packet(self.source, self.receiver.key, b"12345"))
        self.peer.feed(encode_forward_packet(self.source, self.receiver.key, b""))
        self.assertEqual(
            self.receiver.take_packets(), [(self.source, b"12345"), (self.source, b"")]
        )
        stats = self.stats
        self.assertEqual(stats.packets_forwarded_in, 2)
        self.assertEqual((stats.packets_sent, stats.bytes_sent), (2, 5))
        self.assertEqual((stats.packets_received, stats.bytes_received), (0, 0))
        self.assertEqual(self.receiver.conn.heard, {self.source})

    def test_longest(self) -> None:
        """64 KiB of data fit."""
        data = bytes(65536)
        self.peer.feed(encode_forward_packet(self.source, self.receiver.key, data))
        self.assertEqual(self.receiver.take_packets(), [(self.source, data)])

    def test_never_forwarded_again(self) -> None:
        """A packet for a key that is elsewhere is lost: the mesh must be complete."""
        link = FakeForwarder()
        self.relay.add_forwarder(NOBODY, link)
        self.peer.feed(encode_forward_packet(self.source, NOBODY, b"x"))
        self.assertEqual(link.forwarded, [])
        self.assertEqual(self.dropped(DropReason.UNKNOWN_DEST_ON_FWD), 1)
        self.assertEqual(self.stats.packets_forwarded_in, 1)
        self.assertEqual(self.stats.packets_forwarded_out, 0)

    def test_inactive_duplicates(self) -> None:
        """The reason is the same as for packets sent here."""
        self.relay = make_relay(policy=DuplicatePolicy.DISABLE_FIGHTERS)
        self.stats = self.relay.stats
        peer, one, two = self.client("p", mesh=True), self.client("d"), self.client("d")
        two.feed(encode_ping(b"12345678"))
        one.feed(encode_ping(b"12345678"))
        peer.feed(encode_forward_packet(self.source, one.key, disco()))
        self.assertEqual(self.dropped(DropReason.DUP_CLIENT, PacketKind.DISCO), 1)
        self.assertEqual(peer.take(), [])

    def test_zero_source(self) -> None:
        """From the zero key the old layout is used, which has no key."""
        self.peer.feed(encode_forward_packet(ZERO_KEY, self.receiver.key, b"x" * 40))
        self.assertEqual(self.receiver.take_raw(), [(5, b"x" * 40)])

    def test_blocked_receiver(self) -> None:
        """Forwarded packets wait in the same lanes, and are dropped for the same reason."""
        self.receiver.block()
        for number in range(40):
            packet = encode_forward_packet(self.source, self.receiver.key, b"%d" % number)
            self.peer.feed(packet)
        self.assertEqual(self.dropped(DropReason.QUEUE_HEAD), 8)
        self.receiver.unblock()
        expected = [(self.source, b"%d" % number) for number in range(8, 40)]
        self.assertEqual(self.receiver.take_packets(), expected)

    def test_end_of_a_remote_source(self) -> None:
        """The receiver hears of it when the last link loses the key."""
        link = FakeForwarder()
        self.relay.add_forwarder(self.source, link)
        self.peer.feed(encode_forward_packet(self.source, self.receiver.key, b"x"))
        self.receiver.take()
        self.relay.remove_forwarder(self.source, link)
        self.assertEqual(self.receiver.take(), [gone(self.source)])

    def test_end_of_the_mesh_peer(self) -> None:
        """That the bringer leaves says nothing about the source."""
        self.peer.feed(encode_forward_packet(self.source, self.receiver.key, b"x"))
        self.receiver.take()
        self.peer.leave()
        self.assertEqual(self.receiver.take(), [])


class ClosePeerTests(RelayCase):
    """Mesh peers may have connections closed."""

    def test_every_connection_of_the_key(self) -> None:
        """All of a key's connections are closed, nobody else's; they may come back."""
        peer, other = self.client("p", mesh=True), self.client("o")
        one, two = self.client("c"), self.client("c")
        peer.feed(encode_close_peer(one.key))
        for client, times in ((one, 1), (two, 1), (other, 0), (peer, 0)):
            self.assertEqual(len(client.sink.closed), times)
        one.leave()
        two.leave()
        self.assertNotIn(one.key, self.relay.registry)
        again = self.client("c")
        self.assertEqual(again.sink.closed, [])
        self.assertEqual(peer.take(), [])
        self.client("c")
        self.assertEqual(self.relay.close_peer(again.key), 2)

    def test_unknown(self) -> None:
        """A key that is not here is nothing to close."""
        peer = self.client("p", mesh=True)
        peer.feed(encode_close_peer(NOBODY), encode_ping(b"12345678"))
        self.assertEqual(peer.take(), [Pong(b"12345678")])
        self.assertEqual(self.relay.close_peer(NOBODY), 0)

    def test_itself(self) -> None:
        """A peer may close itself, even by a sink that reports the end at once."""
        peer = self.client("p", mesh=True)
        peer.sink.on_close = peer.leave
        peer.feed(encode_close_peer(peer.key) + encode_ping(b"12345678"))
        self.assertEqual(peer.take(), [])
        self.assertEqual(len(self.relay.registry), 0)


class HomeTests(RelayCase):
    """NotePreferred, and what is counted of it."""

    def setUp(self) -> None:
        super().setUp()
        self.relay.now = 1000.0

    def home(self) -> tuple[int, int, int]:
        stats = self.stats
        return stats.home_connections, stats.home_moves_in, stats.home_moves_out

    def test_gauge(self) -> None:
        """True counts once, repetitions do not, false and the end take it back."""
        client, other = self.client("a"), self.client("b")
        client.feed(encode_note_preferred(False))
        self.assertEqual(self.home(), (0, 0, 0))
        client.feed(encode_note_preferred(True), encode_note_preferred(True))
        other.feed(b"\x07\0\0\0\x01\x07")
        self.assertEqual(self.home(), (2, 0, 0))
        client.feed(encode_note_preferred(False), encode_note_preferred(False))
        self.assertEqual(self.home(), (1, 0, 0))
        other.leave()
        self.assertEqual(self.home(), (0, 0, 0))
        self.assertEqual(self.stats.connections, 1)

    def test_moves(self) -> None:
        """Later than 5 s after login it is a move; the end is none."""
        client = self.client("a")
        self.relay.now += 5.0
        client.feed(encode_note_preferred(True))
        self.assertEqual(self.home(), (1, 0, 0))
        self.relay.now += 0.001
        client.feed(encode_note_preferred(False))
        self.assertEqual(self.home(), (0, 0, 1))
        client.feed(encode_note_preferred(True))
        self.assertEqual(self.home(), (1, 1, 1))
        client.leave()
        self.assertEqual(self.home(), (0, 1, 1))

    def test_each_of_two_connections(self) -> None:
        """The gauge counts connections, not keys."""
        one, two = self.client("a"), self.client("a")
        one.feed(encode_note_preferred(True))
        two.feed(encode_note_preferred(True))
        self.assertEqual(self.home(), (2, 0, 0))

    def test_not_ideal(self) -> None:
        """Connections that named another ideal node are counted while they last."""
        client = self.client("a", not_ideal=True)
        self.client("b")
        self.assertEqual(self.stats.notideal_connections, 1)
        client.leave()
        self.assertEqual(self.stats.notideal_connections, 0)


class EndTests(RelayCase):
    """What a connection's end leaves behind."""

    def test_waiting_packets(self) -> None:
        """They are counted as lost because it is gone."""
        sender, receiver = self.client("s"), self.client("r")
        receiver.block()
        sender.send(receiver, b"x")
        sender.send(receiver, b"y")
        receiver.leave()
        self.assertEqual(self.dropped(DropReason.GONE_DISCONNECTED), 2)

    def test_all_gauges_are_back(self) -> None:
        """After everybody has left, every gauge is at zero."""
        clients = [
            self.client("a", not_ideal=True),
            self.client("a"),
            self.client("b", mesh=True),
            self.client("c"),
        ]
        for client in clients:
            client.feed(encode_note_preferred(True))
            client.send(clients[0], b"x")
        self.relay.watch(clients[2].conn)
        for client in clients:
            client.leave()
        stats = self.stats
        gauges = (
            stats.connections,
            stats.home_connections,
            stats.notideal_connections,
            stats.dup_client_keys,
            stats.dup_client_conns,
            len(self.relay.registry),
            len(self.relay.watchers),
            len(list(self.relay.subscriptions())),
        )
        self.assertEqual(gauges, (0,) * 8)
