"""
The whole relay against its own books: any order of coming, going, sending and stalling.

What is lost, what waits and what arrived must add up; whoever watches must know in the end who
is here; nothing may remember a connection that ended.
"""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from derp.core.connection import Connection
from derp.core.consistency import check
from derp.wire.disco import looks_like_disco
from derp.wire.frames import (
    WATCH_CONNS_FRAME,
    PeerGoneReason,
    encode_close_peer,
    encode_forward_packet,
    encode_note_preferred,
    encode_ping,
    encode_send_packet,
)
from derp.wire.messages import Message, PeerGone, PeerPresent, ReceivedPacket
from tests.core.fakes import FakeClient, FakeForwarder, disco, make_relay, public_key

DEPTH = 3
NAMES = ("a", "b", "c", "d")
PLACES = (*NAMES, "elsewhere")

which = st.integers(0, 63)
"""Chooses among whoever is there."""
places = st.sampled_from(PLACES)
kinds = st.sampled_from(["disco", "data", "data", "empty", "long"])


@dataclass(eq=False)
class Party:
    """A client, and what it should have been told."""

    client: FakeClient
    mesh: bool
    got: list[Message | None] = field(default_factory=list)
    watching: bool = False
    heard: set[bytes] = field(default_factory=set)
    waits_for: set[bytes] = field(default_factory=set)
    """Sources whose end it has yet to be told of."""
    ends: list[bytes] = field(default_factory=list)
    """Ends it should have been told of, in order."""

    @property
    def key(self) -> bytes:
        return self.client.key

    @property
    def conn(self) -> Connection:
        return self.client.conn

    def collect(self) -> None:
        """Read what has come."""
        self.got += self.client.take()

    def packets(self) -> list[ReceivedPacket]:
        return [message for message in self.got if isinstance(message, ReceivedPacket)]


class RelayMachine(RuleBasedStateMachine):
    """Clients do whatever they like; after each step the books are checked."""

    @initialize()
    def start(self) -> None:
        self.relay = make_relay(outbox_depth=DEPTH)
        self.here: list[Party] = []
        self.left: list[Party] = []
        self.departed: list[weakref.ref[Connection]] = []
        self.links = [FakeForwarder(), FakeForwarder()]
        self.remote: dict[bytes, set[int]] = {}
        self.numbers = 0
        self.sent = 0
        """Packets handed in by clients and mesh peers."""

    # -- what may happen -------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), mesh=st.booleans(), not_ideal=st.booleans())
    def connect(self, name: str, mesh: bool, not_ideal: bool) -> None:
        if len(self.here) < 8:
            client = FakeClient(self.relay, name, mesh=mesh, not_ideal=not_ideal)
            self.here.append(Party(client, mesh))

    def pick(self, number: int, *, mesh: bool = False) -> Party | None:
        parties = [party for party in self.here if party.mesh or not mesh]
        return parties[number % len(parties)] if parties else None

    def packet(self, kind: str) -> bytes:
        """A packet of a kind; but for the empty one it can be told from all others."""
        self.numbers += 1
        self.sent += 1
        number = b"%09d" % self.numbers
        match kind:
            case "disco":
                return disco() + number
            case "long":
                return bytes(2000) + number
            case "empty":
                return b""
        return number

    def note_delivery(self, source: bytes, destination: bytes) -> None:
        """Whoever gets a packet wants to be told of the source's end, once in its life."""
        active = self.relay.registry.active.get(destination)
        for party in self.here:
            if party.conn is active and source not in party.heard:
                party.heard.add(source)
                party.waits_for.add(source)

    @rule(
        number=which,
        burst=st.lists(st.tuples(places, kinds, st.integers(1, 6)), min_size=1, max_size=4),
        split=st.integers(0, 3000),
    )
    def send(self, number: int, burst: list[tuple[str, str, int]], split: int) -> None:
        party = self.pick(number)
        if party is None:
            return
        stream = b"".join(
            encode_send_packet(public_key(place), self.packet(kind))
            for place, kind, times in burst
            for _ in range(times)
        )
        # A word makes it the active one of its key, before its packets are looked at.
        self.relay.registry.note_activity(party.conn)
        for place, _, _ in burst:
            self.note_delivery(party.key, public_key(place))
        party.client.feed(stream[:split], stream[split:])

    @rule(number=which, source=places, destination=places, kind=kinds)
    def forward(self, number: int, source: str, destination: str, kind: str) -> None:
        party = self.pick(number, mesh=True)
        if party is None:
            return
        self.relay.registry.note_activity(party.conn)
        self.note_delivery(public_key(source), public_key(destination))
        packet = self.packet(kind)
        party.client.feed(
            encode_forward_packet(public_key(source), public_key(destination), packet)
        )

    @rule(number=which)
    def watch(self, number: int) -> None:
        party = self.pick(number, mesh=True)
        if party is not None:
            party.watching = True
            party.client.feed(WATCH_CONNS_FRAME)

    @rule(number=which, preferred=st.booleans())
    def prefer(self, number: int, preferred: bool) -> None:
        party = self.pick(number)
        if party is not None:
            party.client.feed(encode_note_preferred(preferred))

    @rule(number=which)
    def ping(self, number: int) -> None:
        party = self.pick(number)
        if party is not None:
            party.client.feed(encode_ping(b"12345678"))

    @rule(number=which, after=st.integers(0, 3))
    def block(self, number: int, after: int) -> None:
        party = self.pick(number)
        if party is not None:
            party.client.block(after)

    @rule(number=which)
    def unblock(self, number: int) -> None:
        party = self.pick(number)
        if party is not None:
            party.client.unblock()

    @rule(number=which)
    def leave(self, number: int) -> None:
        party = self.pick(number)
        if party is not None:
            self.end(party)

    @rule(number=which, place=places)
    def close_peer(self, number: int, place: str) -> None:
        """Closing is asked of the sinks; the connections end a moment later."""
        party = self.pick(number, mesh=True)
        if party is None:
            return
        party.client.feed(encode_close_peer(public_key(place)))
        for other in list(self.here):
            assert bool(other.client.sink.closed) == (other.key == public_key(place))
            if other.client.sink.closed:
                self.end(other)

    @rule(link=st.integers(0, 1), place=places)
    def add_link(self, link: int, place: str) -> None:
        self.relay.add_forwarder(public_key(place), self.links[link])
        self.remote.setdefault(public_key(place), set()).add(link)

    @rule(link=st.integers(0, 1), place=places)
    def remove_link(self, link: int, place: str) -> None:
        key = public_key(place)
        had = self.remote.get(key, set())
        was_last = had == {link}
        had.discard(link)
        if was_last:
            del self.remote[key]
            self.note_end(key)
        self.relay.remove_forwarder(key, self.links[link])

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.relay.now += seconds

    def end(self, party: Party) -> None:
        self.here.remove(party)
        party.collect()
        self.left.append(party)
        self.departed.append(weakref.ref(party.conn))
        party.client.sink.on_full = lambda: None
        self.note_end(party.key)
        party.client.leave()

    def note_end(self, key: bytes) -> None:
        """If a key has left the region, whoever waits for that should be told."""
        if key in self.remote or any(party.key == key for party in self.here):
            return
        for party in self.here:
            if key in party.waits_for:
                party.waits_for.remove(key)
                party.ends.append(key)

    # -- what must hold --------------------------------------------------------------------

    @invariant()
    def books_balance(self) -> None:
        """Every packet was sent on, dropped, forwarded, or waits."""
        stats = self.relay.stats
        waiting = sum(len(party.conn.outbox or ()) for party in self.here)
        taken = stats.packets_received + stats.packets_forwarded_in
        assert taken == self.sent
        assert taken == stats.packets_sent + stats.dropped + stats.packets_forwarded_out + waiting
        forwarded = sum(len(link.forwarded) for link in self.links)
        assert forwarded == stats.packets_forwarded_out

    @invariant()
    def outboxes_are_bounded(self) -> None:
        """Two lanes, and only where the socket is full."""
        for party in self.here:
            outbox = party.conn.outbox
            assert outbox is None or party.conn.blocked
            for lane in outbox._lanes if outbox else ():
                assert len(lane) <= DEPTH

    @invariant()
    def gauges_are_right(self) -> None:
        """Counted again from who is here."""
        stats, relay = self.relay.stats, self.relay
        keys = {party.key for party in self.here}
        twice = [p for p in self.here if sum(q.key == p.key for q in self.here) > 1]
        assert stats.connections == len(self.here)
        assert len(relay.registry) == len(relay.registry.active) == len(keys)
        assert relay.clients_remote == len(set(self.remote) - keys)
        assert stats.dup_client_conns == len(twice)
        assert stats.dup_client_keys == len({party.key for party in twice})
        assert stats.home_connections == sum(party.conn.preferred for party in self.here)
        assert stats.notideal_connections == sum(party.conn.not_ideal for party in self.here)
        assert len(relay.watchers) == sum(party.watching for party in self.here)

    @invariant()
    def books_agree(self) -> None:
        """The relay's own check finds nothing but what it must: a key connected twice."""
        problems = [] if not self.relay.stats.dup_client_keys else check(self.relay)[:1]
        assert check(self.relay) == problems

    @invariant()
    def subscriptions_are_right(self) -> None:
        """Exactly who is here and has yet to be told of an end."""
        found = {source: set(conns) for source, conns in self.relay.subscriptions()}
        expected: dict[bytes, set[Connection]] = {}
        for party in self.here:
            for source in party.waits_for:
                expected.setdefault(source, set()).add(party.conn)
        assert found == expected

    def teardown(self) -> None:
        if not hasattr(self, "relay"):
            return
        for party in self.here:
            party.client.unblock()
            party.collect()
        self.books_balance()
        self.check_arrivals()
        self.check_watchers()
        self.check_ends()
        while self.here:
            self.end(self.here[0])
        self.gauges_are_right()
        assert list(self.relay.subscriptions()) == []
        gc.collect()
        assert [there() for there in self.departed] == [None] * len(self.departed)

    def check_arrivals(self) -> None:
        """Counted as sent is what arrived; each lane of each connection kept its order."""
        arrived = [packet for party in self.here + self.left for packet in party.packets()]
        assert len(arrived) == self.relay.stats.packets_sent
        assert sum(len(each.packet) for each in arrived) == self.relay.stats.bytes_sent
        for party in self.here + self.left:
            for is_disco in (True, False):
                numbers = [
                    int(each.packet[-9:])
                    for each in party.packets()
                    if each.packet and looks_like_disco(each.packet) is is_disco
                ]
                assert numbers == sorted(set(numbers))

    def check_watchers(self) -> None:
        """After all news, a watcher believes exactly those here who are."""
        keys = {party.key for party in self.here}
        for party in self.here:
            believed: set[bytes] = set()
            for message in party.got:
                match message:
                    case PeerPresent():
                        believed.add(message.key)
                    case PeerGone(reason=PeerGoneReason.DISCONNECTED):
                        believed.discard(message.key)
            assert believed == (keys if party.watching else set())

    def check_ends(self) -> None:
        """Ordinary clients were told of just the ends they had to be told of."""
        for party in self.here:
            told = [
                message.key
                for message in party.got
                if isinstance(message, PeerGone) and message.reason == PeerGoneReason.DISCONNECTED
            ]
            if not party.watching:
                assert told == party.ends


class RelayModelTests(SynchronousTestCase):
    """Runs the machine."""

    def test_any_history(self) -> None:
        """Whatever happens, in whatever order."""
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            RelayMachine,
            settings=settings(
                max_examples=60,
                stateful_step_count=50,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
