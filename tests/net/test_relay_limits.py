"""Tests for :mod:`derp.net.relay_limits` on transports that keep no bytes themselves."""

from __future__ import annotations

import weakref

from twisted.internet.error import ConnectionDone

from derp.core.limits import Limits
from derp.net.relay_limits import RelayLimits
from derp.net.relay_protocol import MAX_UNREAD
from derp.wire.frames import FrameType, encode_ping, encode_send_packet
from tests.net.relay_sides import RelayCase, lose

COST = 30_000
OWN = Limits(client_rate=10_000)
SHARED = Limits(server_rate=10_000)


class RelayLimitsTests(RelayCase):
    def limit(self, limits: Limits) -> RelayLimits:
        self.limits = RelayLimits(self.relay, self.clock, limits)
        self.server = self.make_server(limits=self.limits)
        self.alice, self.transport, _ = self.log_in("alice")
        _, self.bob_transport, self.bob = self.log_in("bob")
        self.frame = encode_send_packet(self.bob.key, b"x" * (COST - 32))
        return self.limits

    def arrived(self) -> int:
        return len(self.bob_transport.writes)

    def check_held(self) -> None:
        self.alice.dataReceived(self.frame * 3 + encode_ping(b"12345678"))
        self.assertEqual(self.arrived(), 1, "a run is one write")
        self.assertTrue(self.transport.paused)
        self.clock.advance(1.0)
        self.assertEqual(self.arrived(), 1)
        self.assertTrue(self.transport.paused)
        for _ in range(300):
            self.clock.advance(0.01)
        self.assertEqual(self.arrived(), 2)
        self.assertFalse(self.transport.paused)
        self.assertEqual(self.transport.value()[:1], bytes((FrameType.PONG,)))

    def test_held(self) -> None:
        """What must wait is kept, the socket is not read, and time brings it out in order."""
        self.limit(OWN)
        self.check_held()
        self.assertGreater(self.limits.own_waits, 0)

    def test_held_for_the_share(self) -> None:
        """So it is while others use up what there is for all."""
        self.limit(SHARED)
        self.check_held()
        self.assertGreater(self.limits.share_waits, 0)

    def test_bounded(self) -> None:
        """A transport that goes on in spite of the pause is cut at the bound."""
        self.limit(OWN)
        self.alice.dataReceived(self.frame * 3)
        self.assertFalse(self.transport.disconnecting)
        self.alice.dataReceived(bytes(MAX_UNREAD))
        self.assertTrue(self.transport.disconnecting)

    def test_unlimited_costs_nothing(self) -> None:
        """Without rates bytes go straight to the session."""
        self.limit(Limits(max_clients=5, monthly_quota=7))
        self.assertEqual(self.alice._receive, self.alice.session.receive)
        self.limits.apply(OWN)
        self.assertNotEqual(self.alice._receive, self.alice.session.receive)
        self.limits.apply(Limits())
        self.assertEqual(self.alice._receive, self.alice.session.receive)

    def test_new_limits_are_full(self) -> None:
        """New limits come with full buckets, and let go on who waits."""
        self.limit(OWN)
        self.alice.dataReceived(self.frame * 3)
        self.limits.apply(OWN)
        self.assertEqual(self.arrived(), 2)
        self.assertFalse(self.transport.paused)

    def test_closed_for_good_reason(self) -> None:
        """While nothing is relayed packets vanish, also those that waited; then all is as was."""
        self.limit(OWN)
        self.alice.dataReceived(self.frame * 3)
        self.limits.close("no more")
        self.assertEqual((self.arrived(), self.limits.packets_refused), (1, 1))
        self.alice.dataReceived(self.frame)
        self.assertEqual(self.limits.packets_refused, 2)
        self.limits.close("")
        self.alice.dataReceived(self.frame)
        self.assertEqual(self.arrived(), 2)

    def test_occupancy(self) -> None:
        """Clients are counted while they are here; mesh peers are not."""
        self.limit(Limits())
        peer, _, _ = self.log_in("peer", mesh=True)
        self.assertEqual(self.limits.occupancy.clients, 2)
        lose(self.alice, ConnectionDone())
        lose(peer, ConnectionDone())
        self.assertEqual(self.limits.occupancy.clients, 1)

    def test_refused(self) -> None:
        """A refusal closes before admission is asked, and says why in the log."""
        self.limit(Limits(max_clients=2))
        _, transport, _ = self.log_in("third")
        self.assertTrue(transport.disconnecting)
        self.assertEqual(self.relay.stats.logins_refused, 1)

    def test_freed(self) -> None:
        """A connection that is lost while it waits leaves nothing behind, not even a cycle."""
        self.limit(SHARED)
        self.alice.dataReceived(self.frame * 3)
        watch = weakref.ref(self.alice.session.conn)  # type: ignore[arg-type]
        calls = len(self.clock.getDelayedCalls())
        lose(self.alice, ConnectionDone())
        del self.alice
        self.transport.unregisterProducer()
        self.transport.protocol = None  # type: ignore[assignment]
        self.assertIsNone(watch())
        self.assertLessEqual(len(self.clock.getDelayedCalls()), calls)
        self.clock.advance(100)
        self.limits.stop()
