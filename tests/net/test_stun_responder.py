"""Tests of :mod:`derp.net.stun_responder`: both ways to answer, and that they are one."""

import errno
import os
import socket
import struct
import sys
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.stun_stats import STUNStats
from derp.net import stun_responder
from derp.net.datagram_batch import REPLY_LEN, SLOT_LEN, SLOTS, open_batch
from derp.net.stun_responder import BatchResponder, Responder, SingleResponder
from derp.wire import stun
from tests.net.udp_sockets import (
    NO_IPV6,
    all_arrived,
    is_silent,
    port_of,
    receive,
    udp_socket,
    wait_readable,
)
from tests.vectors import load

NOT_LINUX = "" if sys.platform.startswith("linux") else "recvmmsg is a call of Linux"
RECORDED = [bytes.fromhex(case["request"]) for case in load("stun.json")["cases"]]


def request() -> bytes:
    """A Tailscale request with a transaction id of its own."""
    return stun.encode_binding_request(os.urandom(12))


def padded_request(length: int) -> bytes:
    """A request that is accepted and ``length`` bytes long (a multiple of 4, from 44)."""
    filler = length - 44
    head = b"\x00\x01" + (length - 20).to_bytes(2, "big") + stun.COOKIE + os.urandom(12)
    head += b"\x7f\xff" + filler.to_bytes(2, "big") + bytes(filler)
    head += b"\x80\x22\x00\x08tailnode"
    return head + b"\x80\x28\x00\x04" + stun.fingerprint(head).to_bytes(4, "big")


def almost_request(head: bytes) -> bytes:
    """A request in everything but its first bytes; the fingerprint is right."""
    covered = head + request()[len(head) : 36]
    return covered + stun.fingerprint(covered[:32]).to_bytes(4, "big")


ALMOST = [
    almost_request(bytes.fromhex(head))
    for head in ("0101", "0011", "0002", "8001", "000100142112a443", "000100140112a442")
] + [padded_request(SLOT_LEN) + b"x", padded_request(SLOT_LEN) + bytes(4)]
"""Datagrams that only one check each tells from requests."""


def counted(stats: STUNStats) -> dict[str, int]:
    """The counters that are not 0."""
    values = {name: getattr(stats, name) for name in STUNStats.__slots__}
    return {name: value for name, value in values.items() if value}


def seen(stats: STUNStats) -> int:
    """How many datagrams have been dealt with."""
    return stats.not_stun + stats.withheld + stats.ipv4 + stats.ipv6


class Bench:
    """A responder on a socket of its own."""

    def __init__(self, host: str, in_batches: bool) -> None:
        self.udp = udp_socket(host)
        self.port = port_of(self.udp)
        self.stats = STUNStats()
        self.batch = open_batch(self.udp) if in_batches else None
        self.responder: Responder = (
            SingleResponder(self.udp, self.stats)
            if self.batch is None
            else BatchResponder(self.udp, self.batch, self.stats)
        )

    def handle(self, count: int, answering: bool = True) -> None:
        """Wake the responder until it has dealt with ``count`` more datagrams."""
        goal = seen(self.stats) + count
        while seen(self.stats) < goal:
            wait_readable(self.udp.fileno())
            self.responder.respond(answering)


class ResponderTestCase(SynchronousTestCase):
    """Clients and responders on loopback."""

    def bench(self, host: str = "127.0.0.1", in_batches: bool = True) -> Bench:
        """Make a responder."""
        made = Bench(host, in_batches)
        self.addCleanup(made.udp.close)
        return made

    def client(self, host: str = "127.0.0.1") -> socket.socket:
        """Make a client."""
        client = udp_socket(host)
        self.addCleanup(client.close)
        return client

    def look_always(self) -> None:
        """Have every wake-up go on in batches after the first datagram."""
        self.patch(stun_responder, "LOOK_AGAIN_EVERY", 1)


class ParityTests(ResponderTestCase):
    """Batches answer and count exactly as single calls and the codec do."""

    skip = NOT_LINUX or None

    def both(self, host: str, peer: str, packets: list[bytes]) -> None:
        """Ask both responders bound to ``host`` from ``peer``; compare with the codec."""
        client = udp_socket(peer)
        benches = [Bench(host, in_batches) for in_batches in (False, True)]
        try:
            packed = socket.inet_pton(client.family, peer)
            own_port = port_of(client)
            answers = [
                stun.answer(packet, packed, own_port) if len(packet) <= SLOT_LEN else None
                for packet in packets
            ]
            expected = [answer for answer in answers if answer is not None]
            family = "ipv6" if ":" in peer else "ipv4"
            counts = {
                "not_stun": len(packets) - len(expected),
                "success": len(expected),
                family: len(expected),
            }
            for bench in benches:
                for packet in packets:
                    client.sendto(packet, (peer, bench.port))
                bench.handle(len(packets))
                self.assertEqual(receive(client, len(expected)), expected)
                self.assertTrue(is_silent(client))
                self.assertEqual(counted(bench.stats), {k: v for k, v in counts.items() if v})
        finally:
            for udp in (client, *(bench.udp for bench in benches)):
                udp.close()

    def test_recorded(self) -> None:
        """Every recorded datagram, one after the other."""
        self.look_always()
        self.both("127.0.0.1", "127.0.0.1", RECORDED)

    def test_almost_requests(self) -> None:
        """Each single check refuses what the others let pass."""
        self.look_always()
        self.both("127.0.0.1", "127.0.0.1", [request(), *ALMOST, request()])

    def test_recorded_ipv6(self) -> None:
        """The same to IPv6 and dual-stack sockets."""
        self.look_always()
        for host, peer in (("::1", "::1"), ("::", "::1"), ("::", "127.0.0.1")):
            self.both(host, peer, RECORDED)

    test_recorded_ipv6.skip = NO_IPV6 or None  # type: ignore[attr-defined]

    @settings(max_examples=40, deadline=None)
    @given(
        st.sampled_from([("127.0.0.1", "127.0.0.1")] + ([("::", "127.0.0.1")] * (not NO_IPV6))),
        st.lists(
            st.builds(request)
            | st.sampled_from(RECORDED + ALMOST)
            | st.binary(max_size=80)
            | st.sampled_from([44, 48, 60, SLOT_LEN, SLOT_LEN + 4]).map(padded_request),
            min_size=1,
            max_size=80,
        ),
    )
    def test_any_mixture(self, hosts: tuple[str, str], packets: list[bytes]) -> None:
        """Good, unusual, too long and bad datagrams in any order."""
        self.look_always()
        self.both(*hosts, packets)

    def test_both_families_in_one_batch(self) -> None:
        """On a dual-stack socket each peer gets the answer of its family, at its address."""
        self.look_always()
        bench = self.bench("::")
        clients = [self.client(host) for host in ("::1", "127.0.0.1") * 20]
        packets = [request() for _ in clients]
        for client, packet in zip(clients, packets, strict=True):
            host = "::1" if client.family == socket.AF_INET6 else "127.0.0.1"
            client.sendto(packet, (host, bench.port))
        bench.handle(len(clients))
        for client, packet in zip(clients, packets, strict=True):
            (answer,) = receive(client, 1)
            parsed = stun.parse_binding_response(answer)
            self.assertEqual(parsed.transaction_id, packet[8:20])
            self.assertEqual((str(parsed.ip), parsed.port), client.getsockname()[:2])
            self.assertEqual(len(answer), 44 if client.family == socket.AF_INET6 else 32)
        self.assertEqual(counted(bench.stats), {"success": 40, "ipv4": 20, "ipv6": 20})

    test_both_families_in_one_batch.skip = NO_IPV6 or None  # type: ignore[attr-defined]


class BatchResponderTests(ResponderTestCase):
    """When batches are used, and what they count."""

    skip = NOT_LINUX or None

    def watched(self) -> tuple[Bench, list[int]]:
        """Make a responder, and the list of how many datagrams each batch call found."""
        bench = self.bench()
        batch = bench.batch
        assert batch is not None
        found: list[int] = []
        receive_batch = batch.receive

        def receiving() -> int:
            found.append(receive_batch())
            return found[-1]

        self.patch(batch, "receive", receiving)
        return bench, found

    def ask(self, bench: Bench, count: int) -> socket.socket:
        """Send so many requests from one client."""
        client = self.client()
        for _ in range(count):
            client.sendto(request(), ("127.0.0.1", bench.port))
        all_arrived()
        return client

    def test_single_datagrams_need_no_batch(self) -> None:
        """While one comes at a time, a look for more is taken now and then only."""
        self.patch(stun_responder, "LOOK_AGAIN_EVERY", 4)
        bench, found = self.watched()
        for _ in range(8):
            self.ask(bench, 1)
            bench.responder.respond(True)
        self.assertEqual(bench.stats.success, 8)
        self.assertEqual(found, [0, 0])

    def test_a_crowd_is_taken_in_batches(self) -> None:
        """Once several were found, following wake-ups begin with a batch, until one is small."""
        self.look_always()
        bench, found = self.watched()
        self.ask(bench, 10)
        bench.responder.respond(True)
        self.assertEqual(found, [9])
        self.patch(stun_responder, "LOOK_AGAIN_EVERY", 1000)
        self.ask(bench, 5)
        bench.responder.respond(True)
        self.assertEqual(found, [9, 5])
        for _ in range(3):
            self.ask(bench, 1)
            bench.responder.respond(True)
        self.assertEqual(found, [9, 5, 1])
        self.assertEqual(bench.stats.success, 18)

    def test_a_wake_up_is_bounded(self) -> None:
        """What is left over waits for the next wake-up, after other readers' turn."""
        self.look_always()
        self.patch(stun_responder, "BATCHES_PER_TURN", 1)
        bench, found = self.watched()
        self.ask(bench, SLOTS + 21)
        bench.responder.respond(True)
        self.assertEqual(bench.stats.success, 1 + SLOTS)
        bench.responder.respond(True)
        self.assertEqual((found, bench.stats.success), ([SLOTS, 20], SLOTS + 21))

    def test_thousands(self) -> None:
        """Every one of thousands gets its own answer."""
        bench = self.bench()
        client = self.client()
        for _ in range(30):
            packets = [request() for _ in range(150)]
            for packet in packets:
                client.sendto(packet, ("127.0.0.1", bench.port))
            bench.handle(len(packets))
            ids = [stun.parse_binding_response(answer)[0] for answer in receive(client, 150)]
            self.assertEqual(ids, [packet[8:20] for packet in packets])
        self.assertEqual(counted(bench.stats), {"success": 4500, "ipv4": 4500})

    def test_what_an_earlier_batch_left(self) -> None:
        """A short datagram is not completed by the request that was in its slot before."""
        self.look_always()
        bench = self.bench()
        client = self.ask(bench, 20)
        bench.handle(20)
        receive(client, 20)
        for length in range(20):
            client.sendto(request()[:length], ("127.0.0.1", bench.port))
        bench.handle(20)
        self.assertEqual(counted(bench.stats), {"success": 20, "ipv4": 20, "not_stun": 20})

    def test_cut_in_the_last_slot(self) -> None:
        """A datagram too long is refused also where its first bytes alone are a request."""
        self.look_always()
        bench, found = self.watched()
        client = self.ask(bench, SLOTS)  # the first of them is taken alone
        client.sendto(padded_request(SLOT_LEN) + bytes(4), ("127.0.0.1", bench.port))
        bench.handle(SLOTS + 1)
        self.assertEqual(found[0], SLOTS)
        self.assertEqual(counted(bench.stats), {"success": SLOTS, "ipv4": SLOTS, "not_stun": 1})

    def test_addresses_that_no_loopback_has(self) -> None:
        """Any IPv6 sender reads its own address, also one that ends like a mapped one."""
        bench = self.bench("::")
        batch = bench.batch
        assert batch is not None
        texts = ["2001:db8::1", "0:0:0:1:0:ffff:102:304", "::1.2.3.4", "::ffff:1.2.3.4", "::"]

        def fill() -> int:
            for slot, text in enumerate(texts):
                ip = socket.inet_pton(socket.AF_INET6, text)
                start = slot * SLOT_LEN
                batch.requests[start : start + 40] = stun.encode_binding_request(bytes([slot] * 12))
                address = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", 4321, 5) + ip
                batch.peers[slot * 28 : slot * 28 + 28] = address + struct.pack("=I", 6)
            batch.lengths = (40,) * len(texts)
            return len(texts)

        sent: list[bytes] = []

        def keep(count: int) -> int:
            for reply in range(count):
                start = reply * REPLY_LEN
                sent.append(bytes(batch.replies[start : start + batch.reply_sizes[reply]]))
            return count

        self.patch(batch, "receive", fill)
        self.patch(batch, "send", keep)
        self.look_always()
        bench.responder.respond(True)
        self.assertEqual(
            sent,
            [
                stun.encode_binding_response(
                    bytes([slot] * 12), socket.inet_pton(socket.AF_INET6, text), 4321
                )
                for slot, text in enumerate(texts)
            ],
        )
        self.assertEqual(counted(bench.stats), {"success": 5, "ipv4": 1, "ipv6": 4})

    test_addresses_that_no_loopback_has.skip = NO_IPV6 or None  # type: ignore[attr-defined]

    def test_replies_the_kernel_refuses(self) -> None:
        """They count as write errors of accepted requests."""
        self.look_always()
        bench = self.bench()
        assert bench.batch is not None
        self.patch(bench.batch, "send", lambda count: count - 2)
        self.ask(bench, 9)
        bench.responder.respond(True)
        self.assertEqual(counted(bench.stats), {"success": 7, "write_error": 2, "ipv4": 9})

    def test_a_batch_of_nothing_good_sends_nothing(self) -> None:
        """Without replies there is no call to send."""
        self.look_always()
        bench = self.bench()
        assert bench.batch is not None
        self.patch(bench.batch, "send", None)
        client = self.client()
        for _ in range(5):
            client.sendto(b"nothing of ours", ("127.0.0.1", bench.port))
        bench.handle(5)
        self.assertEqual(counted(bench.stats), {"not_stun": 5})

    def test_withheld(self) -> None:
        """Told not to answer, it reads on, so that nothing old is answered afterwards."""
        self.look_always()
        bench = self.bench()
        client = self.ask(bench, 50)
        bench.handle(50, answering=False)
        self.assertEqual(counted(bench.stats), {"withheld": 50})
        late = request()
        client.sendto(late, ("127.0.0.1", bench.port))
        bench.handle(1)
        self.assertEqual(receive(client, 1)[0][8:20], late[8:20])


class FakeUDP:
    """A socket with one request, that fails to send."""

    family = socket.AF_INET

    def __init__(self, errors: list[OSError]) -> None:
        self.errors = errors

    def recvfrom(self, size: int) -> tuple[bytes, tuple[str, int]]:
        """Fail as wanted, else give a request."""
        if self.errors:
            raise self.errors.pop(0)
        return request(), ("192.0.2.1", 7)

    def sendto(self, *arguments: object) -> int:
        """Fail."""
        raise OSError(errno.EPERM, "a firewall forbids it")


class SingleResponderTests(ResponderTestCase):
    """What only shows with a socket that misbehaves."""

    def fake(self, *errors: OSError) -> tuple[SingleResponder, STUNStats]:
        """Make a responder on a :class:`FakeUDP`."""
        stats = STUNStats()
        udp: Any = FakeUDP(list(errors))
        return SingleResponder(udp, stats), stats

    def test_bounded(self) -> None:
        """A socket that never runs dry is left after so many datagrams."""
        responder, stats = self.fake()
        responder.respond(True)
        self.assertEqual(counted(stats), {"write_error": SLOTS, "ipv4": SLOTS})

    def test_nothing_there(self) -> None:
        """An empty socket and a signal end the turn quietly."""
        for error in (BlockingIOError(), InterruptedError()):
            responder, stats = self.fake(error)
            responder.respond(True)
            self.assertEqual(counted(stats), {})

    def test_read_error(self) -> None:
        """Other errors are the server's to judge."""
        responder, _ = self.fake(OSError(errno.ENOMEM, "none left"))
        self.assertRaises(OSError, responder.respond, True)

    def test_withheld(self) -> None:
        """Told not to answer, it throws away."""
        bench = self.bench(in_batches=False)
        client = self.client()
        client.sendto(request(), ("127.0.0.1", bench.port))
        bench.handle(1, answering=False)
        self.assertEqual(counted(bench.stats), {"withheld": 1})
        client.sendto(request(), ("127.0.0.1", bench.port))
        bench.handle(1)
        receive(client, 1)
        self.assertTrue(is_silent(client))
