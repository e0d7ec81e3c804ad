"""Tests for :mod:`derp.core.consistency`."""

from twisted.trial.unittest import SynchronousTestCase

from derp.core.consistency import check
from derp.core.outbox import Outbox
from derp.wire.frames import WATCH_CONNS_FRAME, encode_note_preferred
from tests.core.fakes import NOBODY, FakeClient, FakeForwarder, make_relay


class CheckTests(SynchronousTestCase):
    """Books that agree, and books somebody tore a page out of."""

    def setUp(self) -> None:
        self.relay = make_relay()
        self.watcher = FakeClient(self.relay, "w", mesh=True)
        self.watcher.feed(WATCH_CONNS_FRAME)
        self.one = FakeClient(self.relay, "1", not_ideal=True)
        self.two = FakeClient(self.relay, "2")
        self.one.feed(encode_note_preferred(True))
        self.one.send(self.two, b"x")
        self.link = FakeForwarder()
        self.relay.add_forwarder(NOBODY, self.link)
        self.two.block()
        self.one.send(self.two, b"x")

    def assert_found(self, *words: str) -> None:
        """Exactly one problem, and these words in it."""
        (problem,) = check(self.relay)
        for word in words:
            self.assertIn(word, problem)

    def test_all_is_well(self) -> None:
        """Nothing to say of a relay in use, nor of one that was."""
        self.assertEqual(check(self.relay), [])
        for client in (self.one, self.two, self.watcher):
            client.leave()
            self.assertEqual(check(self.relay), [])

    def test_duplicates_are_reported(self) -> None:
        """As in derper: a key connected twice makes more connections than keys."""
        again = FakeClient(self.relay, "1")
        self.assert_found("connections", "4", "3")
        again.leave()
        self.assertEqual(check(self.relay), [])

    def test_connections_gauge(self) -> None:
        """The gauge counts what is there."""
        self.relay.stats.connections += 1
        problems = check(self.relay)
        self.assertEqual(len(problems), 2)

    def test_gauges(self) -> None:
        """Each gauge that is kept by hand is counted again."""
        for name in (
            "home_connections",
            "notideal_connections",
            "dup_client_keys",
            "dup_client_conns",
        ):
            stats = self.relay.stats
            setattr(stats, name, getattr(stats, name) + 1)
            self.assert_found("counted", "found")
            setattr(stats, name, getattr(stats, name) - 1)
            self.assertEqual(check(self.relay), [])

    def test_watcher_that_left(self) -> None:
        """Watchers must be connected."""
        self.relay.registry.unregister(self.watcher.conn)
        self.assert_found("1 watchers")

    def test_subscribers(self) -> None:
        """Subscribers must be connected, and have heard the source; no set may be empty."""
        conn = self.two.conn
        conn.heard = None
        self.assert_found("1 subscribers", "never heard")
        conn.heard = {self.one.key}
        subscriptions = dict(self.relay.subscriptions())
        subscriptions[self.one.key].clear()
        self.assert_found("1 sources")

    def test_subscriber_that_left(self) -> None:
        """A departed connection among the subscribers would be kept for ever."""
        self.relay.registry.unregister(self.two.conn)
        self.assert_found("1 subscribers", "not connected")

    def test_active_connections(self) -> None:
        """The packet path must look up a connection of the key it looks for."""
        active = self.relay.registry.active
        active[self.one.key], active[self.two.key] = self.two.conn, self.one.conn
        self.assert_found("2 keys", "another key's")

    def test_duplicate_books(self) -> None:
        """Marks and members of several connections of a key must agree."""
        again = FakeClient(self.relay, "1")
        well = check(self.relay)
        self.one.conn.dup = False
        self.assertEqual(len(check(self.relay)), len(well) + 1)
        self.one.conn.dup = True
        self.relay.registry.duplicates[self.one.key].members.discard(again.conn)
        problems = ", ".join(check(self.relay))
        self.assertIn("none of their several ones", problems)
        self.assertIn("not several", problems)

    def test_forwarders(self) -> None:
        """Every remote key has a link, and none twice."""
        links = self.relay.forwarders._links[NOBODY]
        links.append(self.link)
        self.assert_found("1 remote keys", "twice")
        links.clear()
        self.assert_found("1 remote keys", "without")

    def test_outbox(self) -> None:
        """Nothing waits for a socket that takes bytes."""
        self.assertIsInstance(self.two.conn.outbox, Outbox)
        self.two.conn.blocked = False
        self.assert_found("1 connections", "waiting")
