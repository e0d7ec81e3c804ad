"""Tests for :mod:`derp.net.rtt_sampler`."""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.trial.unittest import SynchronousTestCase

from derp.net.relay_protocol import RelayProtocol
from derp.net.rtt_sampler import PERIOD_S, RTTSampler, read_rtt_s
from tests.net.relay_sides import RelayCase, lose


class FakeSocket:
    """A TCP socket whose round-trip time is known."""

    family = socket.AF_INET

    def __init__(self, rtt_ms: float | None) -> None:
        self.rtt_ms = rtt_ms
        self.reads = 0

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        self.reads += 1
        if self.rtt_ms is None:
            raise OSError(9, "Bad file descriptor")
        return bytes(68) + struct.pack("=I", int(self.rtt_ms * 1000))


class SamplerTests(RelayCase):
    """Every connection once in ten seconds."""

    def setUp(self) -> None:
        super().setUp()
        self.sampler = RTTSampler(self.server, self.clock)
        self.addCleanup(self.sampler.stop)
        self.sampler.start()

    def client(self, sock: Any) -> RelayProtocol:
        """A connection on this socket; on none if it is ``None``."""
        protocol, transport = self.connect()
        if sock is not None:
            transport.getHandle = lambda: sock  # type: ignore[attr-defined]
        return protocol

    def test_buckets(self) -> None:
        """A round-trip time counts in the first bucket that holds it, and in that alone."""
        times = (0, 9.9, 10, 10.1, 20, 50, 99, 100, 150, 151, 250, 500, 501, 100_000)
        for rtt_ms in times:
            self.client(FakeSocket(rtt_ms))
        self.advance(PERIOD_S)
        self.assertEqual(
            self.relay.stats.tcp_rtt,
            {
                "10ms": 3,
                "20ms": 2,
                "50ms": 1,
                "100ms": 2,
                "150ms": 1,
                "250ms": 2,
                "500ms": 1,
                "inf": 2,
            },
        )

    def test_period(self) -> None:
        """Few or many: each is read once per ten seconds, and the reading is spread."""
        for count in (1, 2, 10, 11, 95):
            sockets = [FakeSocket(1) for _ in range(count)]
            protocols = [self.client(sock) for sock in sockets]
            self.advance(PERIOD_S)  # what is left of the round before
            for sock in sockets:
                sock.reads = 0
            done = 0
            for _ in range(3 * PERIOD_S):
                before = sum(sock.reads for sock in sockets)
                self.advance(1)
                done = max(done, sum(sock.reads for sock in sockets) - before)
            self.assertEqual({sock.reads for sock in sockets}, {3}, count)
            self.assertLessEqual(done, count // PERIOD_S + 1)
            for protocol in protocols:
                lose(protocol, ConnectionDone())

    def test_other_transports(self) -> None:
        """What is not TCP counts once: streams in streams, unix sockets, TLS of Twisted's."""
        unix, unix_peer = socket.socketpair()
        self.addCleanup(unix.close)
        self.addCleanup(unix_peer.close)
        for handle in (None, unix, object()):
            self.client(handle)
        self.advance(5 * PERIOD_S)
        self.assertEqual(self.relay.stats.tcp_rtt, {"non-tcp": 3})

    def test_errors(self) -> None:
        """One that cannot be read counts once, and is not asked again."""
        broken = FakeSocket(None)
        self.client(broken)
        self.client(FakeSocket(1))
        self.advance(3 * PERIOD_S)
        self.assertEqual(self.relay.stats.tcp_rtt, {"error": 1, "10ms": 3})
        self.assertEqual(broken.reads, 1)

    def test_gone(self) -> None:
        """Who has left is not read, nor remembered."""
        sock, other = FakeSocket(1), FakeSocket(None)
        protocols = [self.client(sock), self.client(other)]
        self.advance(PERIOD_S)
        self.assertEqual(len(self.sampler._given_up), 1)
        for protocol in protocols:
            lose(protocol, ConnectionDone())
        self.advance(2 * PERIOD_S)
        self.assertEqual((sock.reads, other.reads), (1, 1))
        self.assertEqual(self.sampler._given_up, set())
        self.assertEqual(self.sampler._pending, [])

    def test_leaves_within_a_round(self) -> None:
        """Nor is who leaves between being listed and being read."""
        sockets = [FakeSocket(1) for _ in range(20)]
        protocols = [self.client(sock) for sock in sockets]
        self.advance(1)
        read = sum(sock.reads for sock in sockets)
        self.assertEqual(read, 2)
        for protocol in protocols:
            lose(protocol, ConnectionDone())
        self.advance(PERIOD_S)
        self.assertEqual(sum(sock.reads for sock in sockets), read)

    def test_stop(self) -> None:
        """Stopped, it samples no more and leaves no timer; twice is harmless."""
        sock = FakeSocket(1)
        self.client(sock)
        self.sampler.stop()
        self.sampler.stop()
        self.advance(3 * PERIOD_S)
        self.assertEqual(sock.reads, 0)


class ReadingTests(SynchronousTestCase):
    """What the kernel says."""

    def test_loopback(self) -> None:
        """The round-trip time of a loopback connection is there, and short."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            with socket.create_connection(listener.getsockname()) as client:
                accepted, _ = listener.accept()
                with accepted:
                    client.sendall(b"x")
                    accepted.recv(1)
                    rtt_s = read_rtt_s(client)
        self.assertTrue(0 < rtt_s < 60, rtt_s)

    def test_not_tcp(self) -> None:
        """Other sockets have none."""
        with socket.socket(socket.AF_UNIX) as sock:
            self.assertRaises(OSError, read_rtt_s, sock)

    def test_short_answer(self) -> None:
        """A kernel that knows less of TCP is an error, not a wrong number."""

        class Old(FakeSocket):
            def getsockopt(self, level: int, option: int, size: int) -> bytes:
                return bytes(60)

        error = self.assertRaises(OSError, read_rtt_s, Old(1))
        self.assertIn("TCP_INFO", str(error))
