"""
What a relayed packet may cost, in calls: a guard that holds on slow and noisy machines.

Whole connections, TLS included, on a hub that is turned by hand. Everything the relay calls
during a turn is counted (:mod:`tests.net.call_counter`), and two turns alike cost the same to
the call, so the bounds are close: less than one call per packet above what it costs today where
many packets come at once. Who makes the path dearer sees a test go red and has to say why in
the commit that raises the bound; who makes it cheaper should lower it.

Kernel calls, TLS records and what an idle client holds are not bounded but exact.
"""

from __future__ import annotations

import gc
import select
import ssl
import sys
from collections import Counter
from math import ceil
from typing import Any

from derp.core import router
from derp.wire.frames import KEEP_ALIVE_FRAME, encode_send_packet
from tests.net.call_counter import count_calls, count_lines, kernel_calls, record_lengths
from tests.net.cost_case import (
    FRAME,
    TURNS,
    PacketCostCase,
    assert_holds_nothing,
    pass_time,
    timers,
)

FULL = 1200
"""A usual packet."""
TINY = 64
TRAIN = 16
"""Packets that come together, each in a record of its own."""
RECORD = 16 << 10
"""Most plaintext in a TLS record (RFC 8446 section 5.1)."""
SMALL = 8192
VERSIONS = (None, ssl.TLSVersion.TLSv1_2)


class CallsPerPacketTests(PacketCostCase):
    """Calls of a turn, by load. In brackets: measured, on Python 3.11 to 3.13."""

    def test_one_packet(self) -> None:
        """
        One packet in a turn (33): the price of a turn, nearly all of it per wake-up. More means
        that a layer was put between socket and router, or a step was added to the turn.
        """
        alice, bob = self.log_in(2)
        calls = self.cost(lambda: alice.send_packets([bob], FULL), 1, FULL)
        self.assert_kernel(calls, senders=1, receivers=1)
        self.assert_cost(calls, 36)

    def test_train(self) -> None:
        """
        Sixteen packets for one client (75, 4.7 per packet): for each, OpenSSL reads a record, its
        header is compared and written over, nothing else. One call more for each is red:
        something is done per packet that belongs to the run.
        """
        for maximum in VERSIONS:
            alice, bob = self.log_in(2, maximum)
            calls = self.cost(lambda a=alice, b=bob: a.send_packets([b] * TRAIN, FULL), TRAIN, FULL)  # type: ignore[misc]
            self.assert_kernel(calls, senders=1, receivers=1)
            self.assert_cost(calls, 81)

    def test_train_of_tiny_packets(self) -> None:
        """
        The same with 64 bytes (83, 5.2), where calls are all there is to pay; these are copied
        to wait for the end of the turn, as a run this short does not fill a TLS record.
        """
        alice, bob = self.log_in(2)
        calls = self.cost(lambda: alice.send_packets([bob] * TRAIN, TINY), TRAIN, TINY)
        self.assert_kernel(calls, senders=1, receivers=1)
        self.assert_cost(calls, 90)

    def test_long_train(self) -> None:
        """
        256 of them (795, 3.1): what a packet costs once the turn is paid. More than 3.5 means
        that the loop over a train has become longer.
        """
        alice, bob = self.log_in(2)
        calls = self.cost(lambda: alice.send_packets([bob] * 256, TINY), 256, TINY)
        self.assert_kernel(calls, senders=1, receivers=1)
        self.assert_cost(calls, 870)

    def test_many_packets_in_a_record(self) -> None:
        """160 in one record (356, 2.2): without OpenSSL, two calls per packet."""
        alice, bob = self.log_in(2)
        packet = encode_send_packet(bob.side.key, bytes(TINY))
        calls = self.cost(lambda: alice.write(packet * 160), 160, TINY)
        self.assert_cost(calls, 390)

    def test_one_to_many(self) -> None:
        """
        Twenty packets for ten clients in turns (315, 15.8): the worst order, each is a run by
        itself. Half a call more per packet is red: look at what a run costs, or a destination.
        """
        alice, *others = self.log_in(11)
        calls = self.cost(lambda: alice.send_packets(others * 2, FULL), 20, FULL, receivers=10)
        self.assert_kernel(calls, senders=1, receivers=10)
        self.assert_cost(calls, 325)

    def test_everybody_to_everybody(self) -> None:
        """
        Ten clients, a packet from each to each (1,125, 11.3): ten reads and ten sends for a
        hundred packets. That joining is what makes this load cheap; without it there are a
        hundred sends.
        """
        guests = self.log_in(10)

        def load() -> None:
            for guest in guests:
                guest.send_packets(guests, FULL)

        calls = self.cost(load, 100, FULL, receivers=10)
        self.assert_kernel(calls, senders=10, receivers=10)
        self.assert_cost(calls, 1175)

    def test_large_packet(self) -> None:
        """
        65,000 bytes at once (28): as few calls as one small packet has, plus three records.
        More means that a large frame is taken in pieces.
        """
        alice, bob = self.log_in(2)
        calls = self.cost(lambda: alice.send_packets([bob], 65_000), 1, 65_000)
        self.assert_kernel(calls, senders=1, receivers=1)
        self.assert_cost(calls, 32)

    def test_clock(self) -> None:
        """The clock is read once per turn, for the relay and to linger, not per packet."""
        alice, *others = self.log_in(3)
        calls = self.cost(lambda: alice.send_packets(others * TRAIN, FULL), 32, FULL, receivers=2)
        self.assertEqual(calls["Clock.seconds"], 1)

    def test_lines(self) -> None:
        """
        Lines executed in a turn, which see what no call shows: 286 for a train of sixteen, 1,943
        for one of 256 (7.6 per packet), 1,212 for twenty packets to ten clients. More in a train
        means that its frames are taken one by one, or that its loop does more for each.
        """
        alice, *others = self.log_in(11)
        for to, most in ((others[:1] * TRAIN, 315), (others[:1] * 256, 2140), (others * 2, 1335)):
            for _ in range(2):  # the first notes who heard from whom
                alice.send_packets(to, TINY)
                lines = count_lines(self.pump.hub.doRead)
                self.clear()
            self.assertLessEqual(lines, most, f"lines per turn of {len(to)} packets")


class KernelTests(PacketCostCase):
    """What a full socket and an idle hub ask of the kernel."""

    def test_full_socket(self) -> None:
        """
        For a client that does not read nothing is asked of the kernel, however many packets
        come: one ``epoll_ctl`` when its socket is full, no tries in vain afterwards.
        """
        (alice,) = self.log_in(1)
        (bob,) = self.log_in(1, buffer=SMALL)
        bob.reading = False
        filling: Counter[str] = Counter()
        for _ in range(50):
            alice.send_packets([bob] * TRAIN, FULL)
            filling += count_calls(self.pump.hub.doRead)
            if bob.transport._blocked:
                break
        self.assertEqual(filling["epoll.modify"], 1)
        for _ in range(TURNS):
            alice.send_packets([bob] * TRAIN, FULL)
            calls = count_calls(self.pump.hub.doRead)
            self.assertEqual(kernel_calls(calls), {"epoll.poll": 1, "socket.recv_into": 1})
        conn = bob.protocol.session.conn
        assert conn is not None
        self.assertTrue(conn.outbox)
        bob.reading = True
        self.pump.until(lambda: not conn.blocked and not conn.outbox)
        self.clear()
        assert_holds_nothing(self, bob)

    def test_idle(self) -> None:
        """
        Clients that say nothing cost nothing: the reactor has no reason to call the hub, its
        only timer is the wheel's, and that is far away. A turn made all the same asks none of
        them.
        """
        turns = []
        for count in (1, 15):
            self.log_in(count)
            turns.append(count_calls(self.pump.hub.doRead))
        self.assertEqual(turns[0], turns[1])
        self.assertEqual(kernel_calls(turns[0]), {"epoll.poll": 1})
        self.assertLessEqual(turns[0].total(), 9)
        pass_time(self.pump, 31.0)
        self.assertEqual(select.select([self.pump.hub], [], [], 0)[0], [])
        (timer,) = self.pump.reactor.getDelayedCalls()
        self.assertGreater(timer.getTime() - self.pump.reactor.seconds(), 28.0)

    def test_keep_alive(self) -> None:
        """
        A keepalive is one timer, one record and one send for each client in 60 to 65 s; that,
        and nothing else, is what thousands of idle clients cost.
        """
        guests = self.log_in(12)
        pass_time(self.pump, 31.0)
        calls = count_calls(lambda: pass_time(self.pump, 35.0))
        for guest in guests:
            guest.pump()
            self.assertEqual(guest.received, KEEP_ALIVE_FRAME)
        for name in ("WheelEntry.fire", "_SSLSocket.write", "socket.send"):
            self.assertEqual(calls[name], len(guests), name)
        self.assertEqual(calls["socket.recv_into"] + calls["epoll.modify"], 0)


class RecordTests(PacketCostCase):
    """TLS records on the way out."""

    def test_records(self) -> None:
        """
        What a client gets in a turn leaves in as few records as hold it, whether it came as one
        run or in pieces. More records are more headers, tags and calls on either side.
        """
        for maximum in VERSIONS:
            alice, bob, carol = self.log_in(3, maximum)
            for n, size, to in (
                (1, FULL, [bob]),
                (TRAIN, FULL, [bob]),
                (TRAIN, TINY, [bob]),
                (40, FULL, [bob]),
                (20, FULL, [bob, carol]),
            ):
                self.clear()
                alice.send_packets(to * n, size)
                calls = count_calls(self.pump.hub.doRead)
                for guest in to:
                    guest.pump()
                    expected = ceil(n * (FRAME + size) / RECORD)
                    records = list(record_lengths(bytes(guest.ciphertext)))
                    self.assertEqual(len(records), expected, f"{n} of {size}: {records}")
                self.assertEqual(calls["_SSLSocket.write"], len(to), "encrypted in one call")


class MemoryTests(PacketCostCase):
    """What stays behind."""

    def test_no_growth(self) -> None:
        """
        Thousands of packets later there are as many objects, members and timers as before. The
        interpreter has a few objects of its own, which come and go, and counters have grown to
        numbers that take a block each; one more per turn is a leak.
        """
        guests = self.log_in(6)

        def busy(turns: int) -> None:
            for _ in range(turns):
                for guest in guests:
                    guest.send_packets([*guests, guests[0], guests[0], guests[0]], TINY)
                self.pump.hub.doRead()
                self.clear()

        busy(5)
        before = self.inventory()
        blocks = sys.getallocatedblocks()
        turns = 120
        busy(turns)
        after = self.inventory()
        self.assertLess(sys.getallocatedblocks() - blocks, turns // 2)
        self.assertLess(after.pop("objects") - before.pop("objects"), turns // 4)
        self.assertEqual(after, before)

    def inventory(self) -> dict[str, int]:
        """Count what could grow."""
        gc.collect()
        hub = self.pump.hub
        return {
            "objects": len(gc.get_objects()),
            "members": len(hub),
            "dirty": len(hub._dirty) + len(hub._ending) + len(hub._calls),
            "timers": timers(self.pump.wheel),
            "calls of the reactor": len(self.pump.reactor.getDelayedCalls()),
        }

    def test_idle_client(self) -> None:
        """
        A client that has nothing under way holds no buffer, new or after having been busy, and
        one timer; while it is new, those of handshake and login have not been swept out yet.
        """
        guests = self.log_in(5)
        self.assertLessEqual(timers(self.pump.wheel), 3 * len(guests))
        for guest in guests:
            assert_holds_nothing(self, guest)
        frame = encode_send_packet(guests[0].side.key, bytes(60_000))
        for guest in guests:
            guest.write(frame[:50_000])
        self.pump.turn()
        self.assertTrue(guests[1].transport._held, "half a frame waits")
        for guest in guests:
            guest.write(frame[50_000:])
        self.pump.until(lambda: len(guests[0].received) == 5 * len(frame))
        for guest in guests:
            assert_holds_nothing(self, guest)
        pass_time(self.pump, 31.0)
        self.assertEqual(timers(self.pump.wheel), len(guests))


class GuardTests(PacketCostCase):
    """The guard itself."""

    def test_count(self) -> None:
        """Functions of Python and of C are counted by name, and only while they are asked."""

        def run() -> None:
            for n in range(3):
                len(abs(n) * "x")

        before = sys.getprofile()
        self.assertEqual(
            count_calls(run),
            {"GuardTests.test_count.<locals>.run": 1, "len": 3, "abs": 3},
        )
        self.assertIs(sys.getprofile(), before)

    def test_count_lines(self) -> None:
        """Lines are counted, too, while they are asked; a loop's first once a round at least."""

        def run() -> None:
            for n in range(3):
                abs(n)

        before = sys.gettrace()
        self.assertIn(count_lines(run), (6, 7))
        self.assertIs(sys.gettrace(), before)

    def test_one_call_more(self) -> None:
        """One call more for each packet is noticed."""
        put_head = router._put_head

        def put_head_politely(*arguments: Any) -> None:
            put_head(*arguments)

        self.patch(router, "_put_head", put_head_politely)
        alice, bob = self.log_in(2)
        calls = self.cost(lambda: alice.send_packets([bob] * TRAIN, FULL), TRAIN, FULL)
        with self.assertRaises(self.failureException) as caught:
            self.assert_cost(calls, 81)
        self.assertIn("put_head_politely 14", str(caught.exception))
