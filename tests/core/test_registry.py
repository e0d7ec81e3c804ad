"""Tests for :mod:`derp.core.registry`: who is active when a key is connected several times."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.connection import Connection, RemoteAddress
from derp.core.registry import DuplicatePolicy, Registry
from derp.core.stats import Stats
from tests.core.fakes import FakeSink

KEY = b"k" * 32


def connection(stats: Stats, key: bytes = KEY) -> Connection:
    return Connection(key, FakeSink(), stats, RemoteAddress(), 0.0, 32)


class RegistryCase(SynchronousTestCase):
    """A registry and short words for its state."""

    policy = DuplicatePolicy.LAST_WRITER

    def setUp(self) -> None:
        self.stats = Stats()
        self.registry = Registry(self.stats, self.policy)

    def join(self, key: bytes = KEY) -> Connection:
        conn = connection(self.stats, key)
        self.registry.register(conn)
        return conn

    def assert_gauges(self, connections: int, dup_keys: int, dup_conns: int) -> None:
        stats = self.stats
        self.assertEqual(
            (stats.connections, stats.dup_client_keys, stats.dup_client_conns),
            (connections, dup_keys, dup_conns),
        )

    def assert_active(self, conn: Connection | None) -> None:
        self.assertIs(self.registry.active.get(KEY), conn)


class SingleTests(RegistryCase):
    """Keys with one connection."""

    def test_comes_and_goes(self) -> None:
        """One connection is active while it is there and leaves nothing behind."""
        conn = self.join()
        self.assert_active(conn)
        self.assertIn(KEY, self.registry)
        self.assertFalse(conn.dup)
        self.assert_gauges(1, 0, 0)
        self.assertTrue(self.registry.unregister(conn))
        self.assertNotIn(KEY, self.registry)
        self.assertEqual(len(self.registry), 0)
        self.assert_gauges(0, 0, 0)
        self.assertEqual(self.stats.total_dup_client_conns, 0)

    def test_keys_and_connections(self) -> None:
        """Keys are counted once, connections each, whatever is active."""
        one = self.join(b"1" * 32)
        two = self.join(b"2" * 32)
        again = self.join(b"2" * 32)
        self.assertEqual(len(self.registry), 2)
        self.assertEqual(set(self.registry.keys()), {one.key, two.key})
        self.assertEqual(set(self.registry.connections()), {one, two, again})
        self.assertEqual(set(self.registry.connections_of(two.key)), {two, again})
        self.assertEqual(list(self.registry.connections_of(one.key)), [one])
        self.assertEqual(list(self.registry.connections_of(b"3" * 32)), [])

    def test_activity_of_a_single_connection(self) -> None:
        """Speaking changes nothing for a key that is connected once."""
        conn = self.join()
        self.registry.note_activity(conn)
        self.assert_active(conn)
        self.assertEqual(self.registry.duplicates, {})


class AnyPolicyMixin:
    """What holds under both policies."""

    def test_second_replaces_first(self) -> None:
        """The newer of two is active; when the older goes, it is an ordinary one."""
        one, two = self.join(), self.join()
        self.assert_active(two)
        self.assertTrue(one.dup and two.dup)
        self.assertFalse(one.disabled or two.disabled)
        self.assert_gauges(2, 1, 2)
        self.assertEqual(self.stats.total_dup_client_conns, 1)
        self.assertEqual(len(self.registry), 1)
        self.assertFalse(self.registry.unregister(one))
        self.assert_active(two)
        self.assertFalse(two.dup)
        self.assert_gauges(1, 0, 0)
        self.assertTrue(self.registry.unregister(two))
        self.assert_gauges(0, 0, 0)

    def test_newer_goes_first(self) -> None:
        """When the active one of two goes, the other takes over."""
        one, two = self.join(), self.join()
        self.assertFalse(self.registry.unregister(two))
        self.assert_active(one)
        self.assertFalse(one.dup)
        self.assert_gauges(1, 0, 0)

    def test_third(self) -> None:
        """Every further connection counts one more, and becomes the active one."""
        self.join()
        self.join()
        three = self.join()
        self.assert_active(three)
        self.assertTrue(three.dup)
        self.assert_gauges(3, 1, 3)
        self.assertEqual(self.stats.total_dup_client_conns, 2)


class LastWriterTests(AnyPolicyMixin, RegistryCase):
    """The policy in use: whoever spoke last is active."""

    def test_speaker_takes_over(self) -> None:
        """Each that speaks becomes active; nobody is disabled for it."""
        one, two = self.join(), self.join()
        for speaker in (one, two, two, one, two):
            self.registry.note_activity(speaker)
            self.assert_active(speaker)
        self.assertFalse(one.disabled or two.disabled)

    def test_speaker_leaves(self) -> None:
        """When the one that spoke last leaves, the one that spoke before it is active."""
        one, two, three = self.join(), self.join(), self.join()
        for speaker in (two, one, three, one):
            self.registry.note_activity(speaker)
        self.registry.unregister(one)
        self.assert_active(three)
        self.registry.unregister(three)
        self.assert_active(two)
        self.assertFalse(two.dup)

    def test_second_is_forgotten_until_it_speaks(self) -> None:
        """As in derper, the second connection enters the history with its first word only."""
        one, _, three = self.join(), self.join(), self.join()
        self.registry.unregister(three)
        self.assert_active(one)

    def test_other_than_active_leaves(self) -> None:
        """That a silent one leaves does not change who is active."""
        one, two, three = self.join(), self.join(), self.join()
        self.registry.note_activity(two)
        self.registry.unregister(one)
        self.assert_active(two)
        self.registry.unregister(three)
        self.assert_active(two)

    def test_history_is_bounded(self) -> None:
        """However often they take turns, each stands in the history once."""
        one, two, silent = self.join(), self.join(), self.join()
        for _ in range(1000):
            self.registry.note_activity(one)
            self.registry.note_activity(two)
        self.assertEqual(self.registry.duplicates[KEY].send_history, [silent, one, two])
        self.registry.unregister(two)
        self.registry.unregister(one)
        self.assert_active(silent)


class DisableFightersTests(AnyPolicyMixin, RegistryCase):
    """The other policy: two that take turns are both put out of use."""

    policy = DuplicatePolicy.DISABLE_FIGHTERS

    def test_fight(self) -> None:
        """The story of three connections, as the reference's tests tell it."""
        one, two = self.join(), self.join()
        self.registry.note_activity(two)
        self.assert_active(two)
        self.assertFalse(two.disabled)

        self.registry.note_activity(one)
        self.assertTrue(one.disabled and two.disabled)
        self.assert_active(None)
        self.assertIn(KEY, self.registry)
        self.assertEqual(len(self.registry), 1)
        self.assertEqual(set(self.registry.keys()), {KEY})
        self.assertEqual(set(self.registry.connections()), {one, two})

        three = self.join()
        self.assert_active(three)
        self.assertFalse(three.disabled)
        self.assert_gauges(3, 1, 3)

        self.registry.unregister(three)
        self.assert_active(None)
        self.assert_gauges(2, 1, 2)

        self.registry.unregister(two)
        self.assert_active(one)
        self.assertFalse(one.disabled or one.dup)
        self.assert_gauges(1, 0, 0)

    def test_oldest_of_three_speaks(self) -> None:
        """The first connection is in the history from the start: its word is a fight."""
        one, two, three = self.join(), self.join(), self.join()
        self.registry.note_activity(one)
        self.assertTrue(one.disabled and two.disabled and three.disabled)
        self.assert_active(None)

    def test_second_of_three_speaks_for_the_first_time(self) -> None:
        """One first word is no fight: the newest stays, and the speaker comes after it."""
        _, two, three = self.join(), self.join(), self.join()
        self.registry.note_activity(two)
        self.assert_active(three)
        self.assertFalse(two.disabled or three.disabled)
        self.registry.unregister(three)
        self.assert_active(two)

    def test_disabled_ones_speak_to_no_effect(self) -> None:
        """Once disabled, speaking does not bring a connection back."""
        one, two = self.join(), self.join()
        self.registry.note_activity(two)
        self.registry.note_activity(one)
        history = list(self.registry.duplicates[KEY].send_history)
        self.registry.note_activity(two)
        self.assert_active(None)
        self.assertEqual(self.registry.duplicates[KEY].send_history, history)


class NaiveKey:
    """The rules of the specification, word for word, with a history that only grows."""

    def __init__(self, policy: DuplicatePolicy) -> None:
        self.policy = policy
        self.members: list[int] = []
        self.history: list[int] = []
        self.last: int | None = None
        self.active: int | None = None
        self.disabled: set[int] = set()

    def register(self, conn: int) -> None:
        self.members.append(conn)
        if len(self.members) == 2:
            self.history = [self.members[0]]
        elif len(self.members) > 2:
            self.history.append(conn)
        self.last = self.active = conn

    def unregister(self, conn: int) -> None:
        self.members.remove(conn)
        self.disabled.discard(conn)
        if len(self.members) <= 1:
            self.active = self.last = self.members[0] if self.members else None
            self.history = []
            self.disabled.clear()
            return
        kept = [speaker for speaker in self.history if speaker != conn]
        self.history = [s for s, before in zip(kept, [None, *kept]) if s != before]  # noqa: B905
        if self.last == conn:
            self.last = self.history[-1] if self.history else None
        self.active = None if self.last in self.disabled else self.last

    def speak(self, conn: int) -> None:
        if len(self.members) < 2 or conn in self.disabled:
            return
        if self.policy is DuplicatePolicy.LAST_WRITER:
            self.last = self.active = conn
        else:
            if self.last is None:
                self.last = self.active = conn
            if conn in self.history and self.history[-1] != conn:
                self.disabled = set(self.members)
                self.active = None
        if not self.history or self.history[-1] != conn:
            self.history.append(conn)


class NaiveComparisonTests(SynchronousTestCase):
    """Any order of coming, speaking and going."""

    @given(
        st.sampled_from(DuplicatePolicy),
        st.lists(st.tuples(st.sampled_from("jjsssl"), st.integers(0, 5)), max_size=40),
    )
    def test_same_as_the_rules_in_words(
        self, policy: DuplicatePolicy, events: list[tuple[str, int]]
    ) -> None:
        """Active, disabled and marked connections are those of the naive reading."""
        stats = Stats()
        registry = Registry(stats, policy)
        naive = NaiveKey(policy)
        conns: list[Connection] = []
        for event, which in events:
            if event == "j":
                conns.append(connection(stats))
                registry.register(conns[-1])
                naive.register(len(conns) - 1)
            elif naive.members:
                index = naive.members[which % len(naive.members)]
                if event == "s":
                    registry.note_activity(conns[index])
                    naive.speak(index)
                else:
                    last = registry.unregister(conns[index])
                    naive.unregister(index)
                    self.assertEqual(last, not naive.members)
            active = None if naive.active is None else conns[naive.active]
            self.assertIs(registry.active.get(KEY), active)
            for index in naive.members:
                self.assertEqual(conns[index].disabled, index in naive.disabled)
                self.assertEqual(conns[index].dup, len(naive.members) > 1)
            several = len(naive.members) if len(naive.members) > 1 else 0
            self.assertEqual(stats.connections, len(naive.members))
            self.assertEqual(stats.dup_client_conns, several)
            self.assertEqual(stats.dup_client_keys, int(several > 0))
            self.assertEqual(len(registry), int(bool(naive.members)))
