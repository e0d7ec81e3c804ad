"""Tests for :mod:`derp.core.mesh`, and for the relay's use of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.mesh import ForwarderTable
from derp.core.outbox import MAX_CONTROL_BYTES
from derp.core.stats import Stats
from derp.wire.frames import (
    WATCH_CONNS_FRAME,
    PeerGoneReason,
    PeerPresentFlags,
    encode_frame,
    encode_send_packet,
)
from derp.wire.handshake import ClientInfo
from derp.wire.messages import PeerGone, PeerPresent
from tests.core.fakes import (
    MESH_KEY,
    NOBODY,
    SERVER_PRIVATE,
    FakeClient,
    FakeForwarder,
    make_relay,
    public_key,
)

KEY = b"k" * 32


class ForwarderTableTests(SynchronousTestCase):
    """Which links reach a key."""

    def setUp(self) -> None:
        self.stats = Stats()
        self.table = ForwarderTable(self.stats)
        self.one, self.two, self.three = FakeForwarder(), FakeForwarder(), FakeForwarder()

    def assert_counted(self, created: int, deleted: int, other_value: int) -> None:
        stats = self.stats
        self.assertEqual(
            (
                stats.multiforwarder_created,
                stats.multiforwarder_deleted,
                stats.packet_forwarder_delete_other_value,
            ),
            (created, deleted, other_value),
        )

    def test_single(self) -> None:
        """One link comes and goes; the last one to go says so."""
        self.assertIsNone(self.table.lookup(KEY))
        self.table.add(KEY, self.one)
        self.assertIs(self.table.lookup(KEY), self.one)
        self.assertIn(KEY, self.table)
        self.assertTrue(self.table.remove(KEY, self.one))
        self.assertIsNone(self.table.lookup(KEY))
        self.assertEqual(len(self.table), 0)
        self.assert_counted(0, 0, 0)

    def test_unknown_key(self) -> None:
        """Removing what was never added changes and counts nothing."""
        self.assertFalse(self.table.remove(KEY, self.one))
        self.assert_counted(0, 0, 0)

    def test_other_link(self) -> None:
        """Removing another link than the only one changes nothing, and is counted."""
        self.table.add(KEY, self.one)
        self.assertFalse(self.table.remove(KEY, self.two))
        self.assertIs(self.table.lookup(KEY), self.one)
        self.assert_counted(0, 0, 1)

    def test_second_makes_a_multiforwarder(self) -> None:
        """The first link stays preferred; adding one again changes nothing."""
        self.table.add(KEY, self.one)
        self.table.add(KEY, self.one)
        self.assert_counted(0, 0, 0)
        for _ in range(2):
            self.table.add(KEY, self.two)
            self.table.add(KEY, self.one)
            self.assertEqual(self.table.links_of(KEY), [self.one, self.two])
            self.assert_counted(1, 0, 0)
        self.assertFalse(self.table.remove(KEY, self.three))
        self.assertEqual(self.table.links_of(KEY), [self.one, self.two])
        self.assert_counted(1, 0, 0)

    def test_multiforwarder_collapses(self) -> None:
        """Of two, either may go; the other is left, and the multi-forwarder is no more."""
        for leaving, left in ((self.one, self.two), (self.two, self.one)):
            stats = self.stats = Stats()
            table = self.table = ForwarderTable(stats)
            table.add(KEY, self.one)
            table.add(KEY, self.two)
            self.assertFalse(table.remove(KEY, leaving))
            self.assertIs(table.lookup(KEY), left)
            self.assert_counted(1, 1, 0)
            self.assertTrue(table.remove(KEY, left))
            self.assertNotIn(KEY, table)

    def test_third_is_no_new_multiforwarder(self) -> None:
        """Three links are one multi-forwarder; the one seen longest is preferred."""
        for link in (self.one, self.two, self.three):
            self.table.add(KEY, link)
        self.assert_counted(1, 0, 0)
        self.assertFalse(self.table.remove(KEY, self.one))
        self.assertIs(self.table.lookup(KEY), self.two)
        self.assert_counted(1, 0, 0)
        self.table.add(KEY, self.one)
        self.assertIs(self.table.lookup(KEY), self.two)
        self.assertFalse(self.table.remove(KEY, self.two))
        self.assertIs(self.table.lookup(KEY), self.three)

    def test_equal_links_are_told_apart(self) -> None:
        """Links are compared by identity: two to the same relay are two."""

        class Equal(FakeForwarder):
            def __eq__(self, other: object) -> bool:
                return True

            __hash__ = None  # type: ignore[assignment]

        one, two = Equal(), Equal()
        self.table.add(KEY, one)
        self.table.add(KEY, two)
        self.assertEqual(len(self.table.links_of(KEY)), 2)
        self.assertFalse(self.table.remove(KEY, two))
        self.assertIs(self.table.lookup(KEY), one)

    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 3))))
    def test_any_order(self, events: list[tuple[bool, int, int]]) -> None:
        """Preferred is whoever has been there longest; the counters tell how many are multi."""
        stats = Stats()
        table = ForwarderTable(stats)
        links = [FakeForwarder() for _ in range(4)]
        books: dict[bytes, list[FakeForwarder]] = {}
        for adding, which_key, which in events:
            key, link = bytes((which_key,)) * 32, links[which]
            if adding:
                table.add(key, link)
                if link not in books.setdefault(key, []):
                    books[key].append(link)
            else:
                was_last = books.get(key) == [link]
                self.assertEqual(table.remove(key, link), was_last)
                if link in books.get(key, []):
                    books[key].remove(link)
            books = {key: there for key, there in books.items() if there}
            self.assertEqual(set(table.keys()), set(books))
            self.assertEqual({key: list(table.links_of(key)) for key in books}, books)
            for key, there in books.items():
                self.assertIs(table.lookup(key), there[0])
            multi = sum(len(there) > 1 for there in books.values())
            self.assertEqual(stats.multiforwarder_created - stats.multiforwarder_deleted, multi)


class ForwarderRegistrationTests(SynchronousTestCase):
    """The reference's story of forwarders for local and remote keys."""

    def setUp(self) -> None:
        self.relay = make_relay()
        self.link, self.other = FakeForwarder(), FakeForwarder()

    def clients(self) -> tuple[int, int]:
        """Keys here, and keys that are elsewhere only."""
        return len(self.relay.registry), self.relay.clients_remote

    def test_local_key_keeps_no_link(self) -> None:
        """The last link of a local key may go; the key goes when its client does."""
        client = FakeClient(self.relay, "a")
        self.relay.add_forwarder(client.key, self.link)
        self.assertEqual(self.clients(), (1, 0))
        self.relay.remove_forwarder(client.key, self.link)
        self.assertEqual(self.clients(), (1, 0))
        self.assertIsNone(self.relay.forwarders.lookup(client.key))
        client.leave()
        self.assertEqual(self.clients(), (0, 0))

    def test_link_outlives_local_client(self) -> None:
        """A client that leaves here but is also elsewhere stays reachable there."""
        client = FakeClient(self.relay, "a")
        self.relay.add_forwarder(client.key, self.link)
        client.leave()
        self.assertIs(self.relay.forwarders.lookup(client.key), self.link)
        self.assertEqual(self.clients(), (0, 1))

    def test_local_client_is_no_link(self) -> None:
        """A first link for a local key is a single one, not the second of two."""
        client = FakeClient(self.relay, "a")
        self.relay.add_forwarder(client.key, self.link)
        self.assertEqual(self.relay.stats.multiforwarder_created, 0)
        self.relay.add_forwarder(client.key, self.other)
        self.assertEqual(self.relay.stats.multiforwarder_created, 1)

    def test_removing_from_a_local_key_without_links(self) -> None:
        """Counted as a removal of another value than is there: derper has an entry there."""
        client = FakeClient(self.relay, "a")
        self.relay.remove_forwarder(NOBODY, self.link)
        self.assertEqual(self.relay.stats.packet_forwarder_delete_other_value, 0)
        self.relay.remove_forwarder(client.key, self.link)
        self.assertEqual(self.relay.stats.packet_forwarder_delete_other_value, 1)

    def test_multiforwarder_loses_no_packet(self) -> None:
        """While links come and go, each of many packets is forwarded by one of them."""
        sender = FakeClient(self.relay, "sender")
        self.relay.add_forwarder(NOBODY, self.link)
        coming, going = self.other, self.link
        for number in range(1000):
            self.relay.add_forwarder(NOBODY, coming)
            sender.send(NOBODY, b"before %d" % number)
            self.relay.remove_forwarder(NOBODY, going)
            sender.send(NOBODY, b"after %d" % number)
            coming, going = going, coming
        # The one seen longest is preferred: each gets what follows the other's end, and goes
        # on until its own.
        self.assertEqual(len(self.link.forwarded), 1000)
        self.assertEqual(len(self.other.forwarded), 1000)
        self.assertEqual(self.link.forwarded[0], (sender.key, NOBODY, b"before 0"))
        self.assertEqual(self.other.forwarded[0], (sender.key, NOBODY, b"after 0"))
        self.assertEqual(self.relay.stats.packets_forwarded_out, 2000)
        self.assertEqual(self.relay.stats.multiforwarder_created, 1000)
        self.assertEqual(self.relay.stats.multiforwarder_deleted, 1000)
        self.assertEqual(self.relay.stats.dropped, 0)


def present(client: FakeClient) -> PeerPresent:
    """What watchers should be told of a client."""
    remote = client.session.remote
    flags = PeerPresentFlags.MESH_PEER if client.info.mesh_key else PeerPresentFlags.REGULAR
    return PeerPresent(client.key, remote.ip, remote.port, flags)


def gone(client: FakeClient) -> PeerGone:
    """What watchers should be told of a client that left."""
    return PeerGone(client.key, PeerGoneReason.DISCONNECTED)


class WatcherTests(SynchronousTestCase):
    """Who is told of whom."""

    def setUp(self) -> None:
        self.relay = make_relay()

    def watcher(self, name: str, **kwargs: object) -> FakeClient:
        watcher = FakeClient(self.relay, name, mesh=True, **kwargs)  # type: ignore[arg-type]
        watcher.feed(WATCH_CONNS_FRAME)
        return watcher

    def test_first_is_told_of_itself(self) -> None:
        """A watcher is a client like others: the first news is of itself."""
        watcher = self.watcher("w")
        self.assertEqual(watcher.take(), [present(watcher)])
        self.assertIn(watcher.conn, self.relay.watchers)

    def test_later_ones(self) -> None:
        """Every later client and watcher is announced, and every one that leaves."""
        first = self.watcher("w1")
        client = FakeClient(self.relay, "c", remote="[2001:db8::1]:9")
        second = self.watcher("w2")
        self.assertEqual(first.take(), [present(first), present(client), present(second)])
        flood = second.take()
        self.assertEqual(len(flood), 3)
        for each in (first, client, second):
            self.assertIn(present(each), flood)
        client.leave()
        self.assertEqual(first.take(), [gone(client)])
        self.assertEqual(second.take(), [gone(client)])
        second.leave()
        self.assertEqual(first.take(), [gone(second)])
        self.assertEqual(len(self.relay.watchers), 1)
        self.assertEqual(self.relay.stats.peer_gone_disconnected_frames, 3)

    def test_ordinary_clients_are_told_nothing(self) -> None:
        """Neither do clients hear of each other, nor mesh peers that did not ask."""
        client = FakeClient(self.relay, "c")
        peer = FakeClient(self.relay, "p", mesh=True)
        FakeClient(self.relay, "d").leave()
        self.assertEqual(client.take(), [])
        self.assertEqual(peer.take(), [])

    def test_asking_again_repeats_the_flood(self) -> None:
        """A second WatchConns tells of everybody again; later news still come once."""
        watcher = self.watcher("w")
        watcher.feed(WATCH_CONNS_FRAME)
        self.assertEqual(watcher.take(), [present(watcher)] * 2)
        client = FakeClient(self.relay, "c")
        self.assertEqual(watcher.take(), [present(client)])
        self.assertEqual(len(self.relay.watchers), 1)

    def test_link_to_ourselves(self) -> None:
        """Our own mesh client, come round to us, is not enrolled: we are not our neighbour."""
        ourselves = FakeClient(self.relay, "self", mesh=True, private=SERVER_PRIVATE)
        self.assertEqual(ourselves.key, self.relay.public)
        ourselves.feed(WATCH_CONNS_FRAME)
        FakeClient(self.relay, "c")
        self.assertEqual(ourselves.take(), [])
        self.assertEqual(len(self.relay.watchers), 0)

    def test_flags(self) -> None:
        """Probers and connections that name another ideal node are marked so."""
        watcher = self.watcher("w")
        watcher.take()
        FakeClient(self.relay, "p", ClientInfo(is_prober=True))
        FakeClient(self.relay, "n", not_ideal=True)
        FakeClient(self.relay, "b", ClientInfo(is_prober=True, mesh_key=MESH_KEY), not_ideal=True)
        flags = [message.flags for message in watcher.take() if isinstance(message, PeerPresent)]
        self.assertEqual([int(flag) for flag in flags], [4, 8, 2 | 4 | 8])

    def test_duplicates(self) -> None:
        """Every connection of a key is announced, only the last one's end is."""
        watcher = self.watcher("w")
        watcher.take()
        one = FakeClient(self.relay, "c", remote="192.0.2.1:1")
        two = FakeClient(self.relay, "c", remote="192.0.2.1:2")
        self.assertEqual(watcher.take(), [present(one), present(two)])
        watcher.feed(WATCH_CONNS_FRAME)
        flood = watcher.take()
        self.assertEqual(len(flood), 2, "one per key")
        self.assertIn(present(two), flood, "the active one's address")
        two.leave()
        self.assertEqual(watcher.take(), [])
        one.leave()
        self.assertEqual(watcher.take(), [gone(one)])

    def test_both_of_two_watchers_with_one_key(self) -> None:
        """A peer that reconnects before its old connection died watches with both."""
        old, new = self.watcher("w"), self.watcher("w")
        old.take()
        new.take()
        client = FakeClient(self.relay, "c")
        self.assertEqual(old.take(), [present(client)])
        self.assertEqual(new.take(), [present(client)])
        old.leave()
        self.assertEqual(new.take(), [])
        self.assertEqual(len(self.relay.watchers), 1)

    def test_key_that_is_elsewhere_too(self) -> None:
        """Watchers hear of its end here, whatever other relays have: mesh is not transitive."""
        watcher = self.watcher("w")
        client = FakeClient(self.relay, "c")
        self.relay.add_forwarder(client.key, FakeForwarder())
        self.relay.add_forwarder(NOBODY, FakeForwarder())
        watcher.take()
        client.leave()
        self.assertEqual(watcher.take(), [gone(client)])

    def test_slow_watcher_gets_everything_in_order(self) -> None:
        """While its socket is full its news wait; none is lost."""
        watcher = self.watcher("w")
        watcher.take()
        watcher.block()
        expected: list[object] = []
        for number in range(100):
            client = FakeClient(self.relay, f"c{number % 3}", remote=f"192.0.2.1:{number + 1}")
            client.leave()
            expected += [present(client), gone(client)]
        self.assertEqual(watcher.take(), [])
        watcher.unblock()
        self.assertEqual(watcher.take(), expected)
        self.assertEqual(watcher.sink.closed, [])

    def test_watcher_that_takes_nothing_is_closed(self) -> None:
        """Past the bound it is closed, and its sink may even report that at once."""
        watcher = self.watcher("w")
        other = self.watcher("o")
        watcher.take()
        other.take()
        watcher.block()
        watcher.sink.on_close = watcher.leave
        for _ in range(8):
            self.relay.watchers.tell_present(encode_frame(0x20, bytes(MAX_CONTROL_BYTES // 8 - 5)))
        self.assertEqual(watcher.sink.closed, [])
        FakeClient(self.relay, "one too many")
        self.assertEqual(len(watcher.sink.closed), 1)
        self.assertNotIn(public_key("w"), self.relay.registry)
        self.assertEqual(list(self.relay.watchers), [other.conn])

    def test_flood_that_closes_the_watcher(self) -> None:
        """A watcher that cannot take the flood is closed, and not enrolled for ever."""
        watcher = FakeClient(self.relay, "w", mesh=True)
        watcher.sink.on_close = watcher.leave
        watcher.block()
        watcher.conn.send_control(bytes(MAX_CONTROL_BYTES))
        watcher.feed(WATCH_CONNS_FRAME)
        self.assertEqual(len(watcher.sink.closed), 1)
        self.assertEqual(len(self.relay.watchers), 0)

    def test_metrics(self) -> None:
        """A flood is one batch of as many entries, later news are batches of one."""
        FakeClient(self.relay, "a")
        FakeClient(self.relay, "b")
        self.watcher("w")
        FakeClient(self.relay, "c").leave()
        batches = self.relay.stats.mesh_update_batch_size
        self.assertEqual((batches.total, sum(batches.counts)), (3 + 1 + 1, 3))
        loops = self.relay.stats.mesh_update_loop_count
        self.assertEqual((loops.total, sum(loops.counts)), (3, 3))

    def test_packet_to_a_mesh_peer(self) -> None:
        """A mesh peer is a client that may be sent to."""
        watcher = self.watcher("w")
        watcher.take()
        client = FakeClient(self.relay, "c")
        watcher.take()
        client.feed(encode_send_packet(watcher.key, b"hello"))
        self.assertEqual(watcher.take_packets(), [(client.key, b"hello")])
