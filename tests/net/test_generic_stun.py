"""Tests of :mod:`derp.net.generic_stun`: others' requests beside Tailscale's, on real sockets."""

from __future__ import annotations

import os
import socket
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.generic_stun import GenericSTUN
from derp.core.source_limit import SourceLimit
from derp.core.stun_stats import STUNStats
from derp.net import stun_responder, stun_udp
from derp.net.generic_stun import GenericAnswers
from derp.net.stun_udp import STUNServer
from derp.wire import stun
from derp.wire.stun_error import parse_error_response
from tests.core.test_generic_stun import counted
from tests.net.test_stun_udp import reactor_standing_still, request
from tests.net.udp_sockets import NO_IPV6, is_silent, port_of, receive, udp_socket, wait_readable

PLAIN = b"\0\1\0\0" + stun.COOKIE
PAIRS = [("127.0.0.1", "127.0.0.1")] + ([] if NO_IPV6 else [("::1", "::1"), ("", "127.0.0.1")])
"""What a server is bound to, and where it is asked."""


def plain_request(attributes: bytes = b"") -> bytes:
    """A request of other software, with a transaction id of its own."""
    head = b"\0\1" + len(attributes).to_bytes(2, "big") + stun.COOKIE
    return head + os.urandom(12) + attributes


def spoilt(packet: bytes) -> bytes:
    """The same with another last byte, whatever that was: a request's FINGERPRINT is wrong."""
    return packet[:-1] + bytes([packet[-1] ^ 1])


UNKNOWN = b"\0\3\0\4\0\0\0\6"
"""CHANGE-REQUEST of RFC 5780."""


class GenericCase(SynchronousTestCase):
    """A server that answers others, too, and a client."""

    def start(self, host: str = "127.0.0.1", *, in_batches: bool = True) -> STUNServer:
        """Start a server; it reads all that has come at each wake-up."""
        self.patch(stun_responder, "LOOK_AGAIN_EVERY", 1)
        opened = stun_udp.open_batch if in_batches else lambda udp: None
        self.patch(stun_udp, "open_batch", opened)
        self.now = 0.0
        self.stats = STUNStats()
        generic = GenericSTUN(self.stats, SourceLimit(0.0))
        answers = GenericAnswers(generic, self.stats, lambda: self.now)
        server = STUNServer(reactor_standing_still(), host, 0, self.stats, answers)
        self.addCleanup(server.stop)
        server.start()
        return server

    def client(self, host: str = "127.0.0.1") -> socket.socket:
        """Make a client."""
        client = udp_socket(host)
        self.addCleanup(client.close)
        return client

    def ask(self, server: STUNServer, client: socket.socket, packets: list[bytes]) -> None:
        """Send these, and wake the server until all have been dealt with."""
        goal = self.dealt_with() + len(packets)
        for packet in packets:
            client.sendto(packet, (client.getsockname()[0], server.port))
        while self.dealt_with() < goal:
            wait_readable(server.fileno())
            server.doRead()

    def dealt_with(self) -> int:
        """How many datagrams."""
        counts = counted(self.stats)
        generic = sum(n for name, n in counts.items() if name.startswith("generic_"))
        generic -= counts.get("generic_write_error", 0)
        return generic + self.stats.not_stun + self.stats.ipv4 + self.stats.ipv6


class GenericAnswersTests(GenericCase):
    """Both ways to read and each kind of socket, with Tailscale's requests in between."""

    def check(self, host: str, peer: str, in_batches: bool) -> None:
        """Ask in one go; compare answers and counters."""
        server, client = self.start(host, in_batches=in_batches), self.client(peer)
        known = b"\x80\x22\x00\x04test"
        packets = [
            request(),
            plain_request(known),
            b"nothing",
            request(),
            plain_request(UNKNOWN),
            plain_request(known),
            spoilt(request()),
        ]
        self.ask(server, client, packets)
        answers = {answer[8:20]: answer for answer in receive(client, 5)}
        self.assertTrue(is_silent(client))
        own = client.getsockname()[:2]
        for index in (0, 1, 3, 5):
            found = stun.parse_binding_response(answers[packets[index][8:20]])
            self.assertEqual((str(found.ip), found.port), own)
        refused = parse_error_response(answers[packets[4][8:20]])
        self.assertEqual(refused and refused.code, 420)
        family = "ipv6" if peer == "::1" else "ipv4"
        self.assertEqual(
            counted(self.stats),
            {
                "success": 2,
                family: 2,
                "not_stun": 2,
                "generic_success": 2,
                "generic_unknown_attributes": 1,
            },
        )
        server.stop()

    def test_single(self) -> None:
        """One by one."""
        for host, peer in PAIRS:
            self.check(host, peer, in_batches=False)

    def test_batches(self) -> None:
        """By recvmmsg, where replies take the slots of requests before them."""
        for host, peer in PAIRS:
            self.check(host, peer, in_batches=True)

    def test_many_clients_in_a_batch(self) -> None:
        """Each gets its own answer."""
        server = self.start()
        clients = [self.client() for _ in range(18)]
        packets = [request() if i % 3 else plain_request() for i in range(18)]
        for client, packet in zip(clients, packets, strict=True):
            client.sendto(packet, ("127.0.0.1", server.port))
        while self.dealt_with() < 18:
            wait_readable(server.fileno())
            server.doRead()
        for client, packet in zip(clients, packets, strict=True):
            found = stun.parse_binding_response(receive(client, 1)[0])
            self.assertEqual((found.transaction_id, found.port), (packet[8:20], port_of(client)))

    def test_limited(self) -> None:
        """20 at once, then 10 per second; Tailscale's requests are not counted against them."""
        for in_batches in (False, True):
            server, client = self.start(in_batches=in_batches), self.client()
            self.ask(server, client, [plain_request() for _ in range(30)])
            self.ask(server, client, [request() for _ in range(5)])
            self.assertEqual(len(receive(client, 25)), 25)
            self.assertTrue(is_silent(client))
            self.assertEqual(self.stats.generic_rate_limited, 10)
            self.now += 0.5
            self.ask(server, client, [plain_request() for _ in range(9)])
            self.assertEqual(len(receive(client, 5)), 5)
            self.assertTrue(is_silent(client))

    def test_short_ipv6(self) -> None:
        """A bare header over IPv6 would be answered by more than 1.6 times as much."""
        server, client = self.start("::1"), self.client("::1")
        self.ask(server, client, [plain_request(), plain_request(b"\x80\x22\x00\x00")])
        self.assertTrue(is_silent(client))
        self.assertEqual(counted(self.stats), {"generic_too_short": 2})

    test_short_ipv6.skip = NO_IPV6 or None  # type: ignore[attr-defined]

    def test_too_long(self) -> None:
        """What is cut is not looked at."""
        filler = b"\x80\x22\x08\x00" + bytes(2048)
        for in_batches in (False, True):
            server, client = self.start(in_batches=in_batches), self.client()
            self.ask(server, client, [plain_request(filler)])
            self.assertTrue(is_silent(client))
            self.assertEqual(counted(self.stats), {"not_stun": 1})

    def test_write_error(self) -> None:
        """An answer that the kernel does not take is counted, and that is all."""
        stats = STUNStats()
        answers = GenericAnswers(GenericSTUN(stats, SourceLimit(0.0)), stats, lambda: 0.0)

        class Refusing:
            """A socket under a firewall."""

            family = socket.AF_INET6

            def sendto(self, *_: object) -> int:
                raise PermissionError

        udp: Any = Refusing()
        answers.answer(udp, plain_request(b"\x80\x22\x00\x04test"), ("fe80::1%eth0", 5, 0, 2))
        self.assertEqual(counted(stats), {"generic_success": 1, "generic_write_error": 1})

    def test_off(self) -> None:
        """Without the flag there is no answer, as from the reference."""
        server = STUNServer(reactor_standing_still(), "127.0.0.1", 0, STUNStats())
        self.addCleanup(server.stop)
        server.start()
        self.stats, client = server._stats, self.client()
        self.ask(server, client, [plain_request(), plain_request(UNKNOWN)])
        self.assertTrue(is_silent(client))
        self.assertEqual(counted(self.stats), {"not_stun": 2})

    @settings(max_examples=25, deadline=None)
    @given(
        st.booleans(),
        st.lists(
            st.builds(request)
            | st.builds(plain_request)
            | st.builds(plain_request, st.just(UNKNOWN))
            | st.binary(max_size=60)
            | st.binary(max_size=40).map(lambda data: PLAIN + data),
            min_size=1,
            max_size=70,
        ),
    )
    def test_any_mixture(self, in_batches: bool, packets: list[bytes]) -> None:
        """Each datagram is counted once; no answer is longer than allowed, none is unasked for."""
        server, client = self.start(in_batches=in_batches), self.client()
        self.ask(server, client, packets)
        sent = self.stats.success + self.stats.generic_success
        sent += self.stats.generic_unknown_attributes
        self.assertEqual(self.dealt_with(), len(packets))
        longest = {packet[8:20]: len(packet) for packet in packets}
        for answer in receive(client, sent):
            self.assertLessEqual(len(answer), 1.6 * longest[answer[8:20]])
        self.assertTrue(is_silent(client))
        server.stop()
        client.close()
