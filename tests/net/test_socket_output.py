"""Tests for :mod:`derp.net.socket_output`: what is written, and a socket that is full."""

from __future__ import annotations

import hashlib
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from derp.net.hub import WRITE
from derp.net.socket_output import FLUSH_AT, MAX_ANSWERS
from derp.net.transport import StreamTransport
from tests.net.sockets import PlainClient, Pump, Recorder

SMALL = 8192
"""Socket buffers small enough to fill."""


class CountingSocket:
    """Counts what is sent, and may refuse it."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.sent: list[int] = []
        self.room: int | None = None
        self.error: OSError | None = None

    def send(self, data: bytes) -> int:
        if self.error is not None:
            raise self.error
        if self.room is not None:
            data = data[: self.room]
            if not data:
                raise BlockingIOError
            self.room -= len(data)
        self.sent.append(len(data))
        return int(self._sock.send(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class OutputCase(SynchronousTestCase):
    """One connection whose socket can be made full."""

    def setUp(self) -> None:
        self.pump = Pump(self)
        self.protocol = Recorder()
        self.transport, self.client = self.connect(self.protocol)
        self.sock = CountingSocket(self.transport._sock)
        self.transport._sock = self.sock  # type: ignore[assignment]

    def connect(self, protocol: Recorder) -> tuple[StreamTransport, PlainClient]:
        return self.pump.connect(protocol)


class WritingTests(OutputCase):
    """While the socket takes everything."""

    def test_once_per_turn(self) -> None:
        """Whatever is written in a turn leaves in one send, in order."""
        for n in range(100):
            self.transport.write(b"%d," % n)
        self.transport.writeSequence([b"x", b"y"])
        self.assertEqual(self.sock.sent, [])
        self.pump.until(lambda: self.client.received.endswith(b"xy"))
        self.assertEqual(self.client.received, b"".join(b"%d," % n for n in range(100)) + b"xy")
        self.assertEqual(len(self.sock.sent), 1)

    def test_flush_within_a_turn(self) -> None:
        """Past 64 KiB it does not wait for the end of the turn."""
        piece = bytes(1000)
        for _ in range(FLUSH_AT // 1000 + 1):
            self.transport.write(piece)
        self.assertEqual(self.sock.sent, [66_000])
        self.transport.write(b"end")
        self.assertEqual(len(self.sock.sent), 1)
        self.pump.until(lambda: self.client.received.endswith(b"end"))
        self.assertEqual(len(self.sock.sent), 2)

    def test_nothing(self) -> None:
        """Writing nothing is harmless."""
        self.transport.write(b"")
        self.transport.writeSequence([])
        self.pump.settle()
        self.assertEqual(self.client.received, b"")
        self.assertIsNone(self.protocol.lost)

    def test_broken_socket(self) -> None:
        """
        A broken socket is not the writer's problem: nothing is raised, and the protocol hears
        of it after the turn, not from within its own call.
        """
        self.sock.error = ConnectionResetError(104, "Connection reset by peer")
        self.transport.write(bytes(FLUSH_AT))
        self.transport.write(b"more than may wait")
        self.assertIsNone(self.protocol.lost)
        self.transport.write(b"and on")
        self.pump.until(lambda: self.protocol.lost)
        assert self.protocol.lost is not None
        self.assertTrue(self.protocol.lost.check(ConnectionLost))
        self.assertIn("reset by peer", self.protocol.lost.getErrorMessage())
        self.assertEqual(len(self.pump.hub), 0)

    def test_after_the_end(self) -> None:
        """Writing to what is no more is forgotten, however often, even if it was full."""
        self.sock.room = 0
        self.transport.write(b"x")
        self.pump.turn()
        self.transport.write(b"y")
        self.transport.abortConnection()
        self.pump.until(lambda: self.protocol.lost)
        for _ in range(3):
            self.transport.write(bytes(2 * FLUSH_AT))
            self.pump.settle()
            self.assertEqual(self.transport._pending, [])
        self.assertEqual(self.transport._pending_size, 0)

    def test_writes_at_its_own_end(self) -> None:
        """A protocol may write to its transport, and close it, when it is lost."""

        class Verbose(Recorder):
            def connectionLost(self, reason: Any) -> None:
                super().connectionLost(reason)
                self.transport.write(b"too late")
                self.transport.loseConnection()
                self.transport.abortConnection()
                self.transport.pauseProducing()
                self.transport.resumeProducing()

        protocol = Verbose()
        _, client = self.connect(protocol)
        client.close()
        self.pump.until(lambda: protocol.lost)
        self.pump.settle()
        self.assertEqual(len(self.pump.hub), 1)


class WriteThroughTests(OutputCase):
    """Large pieces, sent from where they lie."""

    def through(self, data: bytes) -> None:
        """Send from a buffer that is somebody else's right afterwards."""
        buffer = bytearray(data)
        self.transport.write_through(memoryview(buffer))
        buffer[:] = b"!" * len(buffer)

    def test_at_once(self) -> None:
        """It does not wait for the end of the turn."""
        self.through(b"large")
        self.assertEqual(self.sock.sent, [5])
        self.transport.write(b"small")
        self.pump.until(lambda: self.client.received == b"largesmall")

    def test_behind_what_waits(self) -> None:
        """What was written before it leaves before it."""
        self.transport.write(b"first")
        self.through(b"second")
        self.assertEqual(self.sock.sent, [])
        self.pump.until(lambda: self.client.received == b"firstsecond")

    def test_full(self) -> None:
        """A full socket makes it wait, as a copy, in its place; the producer is told."""
        self.transport.registerProducer(self.protocol, True)
        self.sock.room = 3
        self.through(b"abcdef")
        self.assertEqual(self.protocol.events, ["made", "pause"])
        self.through(b"ghi")
        self.transport.write(b"jkl")
        self.sock.room = None
        self.pump.until(lambda: self.client.received == b"abcdefghijkl")

    def test_closing(self) -> None:
        """While the connection closes it takes the usual way, and arrives."""
        self.transport.loseConnection()
        self.through(b"last")
        self.pump.until(lambda: self.client.ended)
        self.assertEqual(self.client.received, b"last")

    def test_broken(self) -> None:
        """A broken socket is not the writer's problem here either."""
        self.sock.error = BrokenPipeError(32, "Broken pipe")
        self.through(b"x")
        self.through(b"y")
        self.assertIsNone(self.protocol.lost)
        self.pump.until(lambda: self.protocol.lost)
        self.through(b"z")
        self.pump.settle()
        self.assertEqual(self.transport._pending, [])


class FullSocketTests(OutputCase):
    """While it does not."""

    def test_order(self) -> None:
        """What was not taken leaves first, then what was written meanwhile, all in order."""
        self.sock.room = 5
        self.transport.write(b"0123456789")
        self.pump.turn()
        self.transport.write(b"abc")
        self.pump.turn(3)
        self.assertEqual(self.client.received, b"01234")
        self.sock.room = 2
        self.pump.until(lambda: self.client.received == b"0123456")
        self.transport.write(b"def")
        self.sock.room = None
        self.pump.until(lambda: len(self.client.received) == 16)
        self.assertEqual(self.client.received, b"0123456789abcdef")

    def test_producer(self) -> None:
        """The producer is paused once while the socket is full, and resumed once it is not."""
        self.transport.registerProducer(self.protocol, True)
        self.sock.room = 5
        self.transport.write(b"0123456789")
        self.assertEqual(self.protocol.events, ["made"])
        self.pump.turn()
        self.assertEqual(self.protocol.events, ["made", "pause"])
        self.transport.write(b"on and on")
        self.sock.room = 6  # the rest of the first, and not all of the second
        self.pump.turn(3)
        self.assertEqual(self.protocol.events, ["made", "pause"])
        self.sock.room = None
        self.pump.until(lambda: self.client.received == b"0123456789on and on")
        self.assertEqual(self.protocol.events, ["made", "pause", "resume"])

    def test_real_socket(self) -> None:
        """Megabytes through small buffers to a reader that comes and goes, unaltered."""
        transport, client = self.pump.connect(Recorder(), buffer=SMALL)
        client.reading = False
        sent = hashlib.sha256()
        size = 0

        class Source(Recorder):
            left = 200
            running = True

            def resumeProducing(self) -> None:
                nonlocal size
                self.running = True
                while self.running and self.left:
                    self.left -= 1
                    data = bytes((self.left,)) * 20_011
                    size += len(data)
                    sent.update(data)
                    transport.write(data)

            def pauseProducing(self) -> None:
                self.events.append("pause")
                self.running = False

        source = Source()
        transport.registerProducer(source, True)
        source.resumeProducing()
        pauses = 0
        while source.left or len(client.received) < size:
            self.pump.turn(2)
            client.reading = not client.reading
            pauses = source.events.count("pause")
        self.assertGreater(pauses, 3)
        self.assertEqual(hashlib.sha256(client.received).digest(), sent.digest())

    def test_registered_while_full(self) -> None:
        """A producer that comes to a full socket is told so at once."""
        self.sock.room = 0
        self.transport.write(b"x")
        self.pump.turn()
        self.transport.registerProducer(self.protocol, True)
        self.assertEqual(self.protocol.events, ["made", "pause"])
        self.sock.room = None
        self.pump.until(lambda: "resume" in self.protocol.events)

    def test_no_early_flush(self) -> None:
        """A full socket is not tried again by writing: it says itself when it has room."""
        self.sock.room = 0
        self.transport.write(b"x")
        self.pump.turn()
        self.sock.room = None
        for _ in range(5):
            self.transport.write(bytes(FLUSH_AT))
        self.assertEqual(self.sock.sent, [])

    def test_bytes_moved_at(self) -> None:
        """It is known when the full socket last took a byte: what the write timeout asks."""
        self.sock.room = 1
        self.transport.write(b"0123")
        self.pump.turn()
        self.assertEqual(self.transport.bytes_moved_at, 1000.0)
        self.pump.reactor.advance(3)
        self.pump.turn()
        self.assertEqual(self.transport.bytes_moved_at, 1000.0)
        self.sock.room = 1
        self.pump.turn()
        self.assertEqual(self.transport.bytes_moved_at, 1003.0)

    def test_breaks_while_full(self) -> None:
        """A full socket that breaks is noticed when it is tried again."""
        self.transport.registerProducer(self.protocol, True)
        self.sock.room = 0
        self.transport.write(b"x")
        self.pump.turn()
        self.sock.error = BrokenPipeError(32, "Broken pipe")
        self.pump.until(lambda: self.protocol.lost)
        self.assertEqual(self.protocol.events, ["made", "pause", "stop", "lost"])

    def test_spurious_writability(self) -> None:
        """Events of a turn may be older than what happened in it."""
        self.transport.ready(WRITE)
        self.assertEqual(self.sock.sent, [])
        self.sock.room = 0
        self.transport.write(b"x")
        self.pump.turn()
        self.transport.ready(WRITE)
        self.sock.room = None
        self.pump.until(lambda: self.client.received == b"x")


class ProducerTests(OutputCase):
    """Registering and leaving."""

    def test_one_at_a_time(self) -> None:
        """A second producer is refused, a pull producer always."""
        self.transport.registerProducer(self.protocol, True)
        self.assertRaises(RuntimeError, self.transport.registerProducer, Recorder(), True)
        self.transport.unregisterProducer()
        self.assertRaises(ValueError, self.transport.registerProducer, Recorder(), False)
        self.transport.unregisterProducer()
        self.transport.registerProducer(Recorder(), True)

    def test_stopped_at_the_end(self) -> None:
        """A lost connection stops its producer, before the protocol is told."""
        self.transport.registerProducer(self.protocol, True)
        self.client.close()
        self.pump.until(lambda: self.protocol.lost)
        self.assertEqual(self.protocol.events, ["made", "stop", "lost"])

    def test_too_late(self) -> None:
        """One that comes to a lost connection is stopped at once."""
        self.transport.abortConnection()
        self.pump.until(lambda: self.protocol.lost)
        late = Recorder()
        self.transport.registerProducer(late, True)
        self.assertEqual(late.events, ["stop"])

    def test_producer_that_fails_to_stop(self) -> None:
        """Its error does not keep the protocol from being told."""

        class Stubborn(Recorder):
            def stopProducing(self) -> None:
                raise RuntimeError("a bug of ours")

        self.transport.registerProducer(Stubborn(), True)
        self.client.close()
        self.pump.until(lambda: self.protocol.lost)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class AnswerTests(OutputCase):
    """What TLS sends beside the protocol's bytes."""

    def test_past_a_full_socket(self) -> None:
        """It goes behind what is on its way, and before what is not encrypted yet."""
        self.sock.room = 1
        self.transport.write(b"ab")
        self.pump.turn()
        self.transport.write(b"ef")
        self.transport._send_answer(b"c")
        self.transport._send_answer(b"d")
        self.transport._send_answer(b"")
        self.sock.room = None
        self.pump.until(lambda: len(self.client.received) == 6)
        self.assertEqual(self.client.received, b"abcdef")

    def test_bounded(self) -> None:
        """A peer that wants ever more answers and reads none is cut."""
        for _ in range(3):  # what left in between does not count
            self.sock.room = 0
            self.transport._send_answer(b"x")
            self.transport._send_answer(bytes(MAX_ANSWERS))
            self.assertIsNone(self.protocol.lost)
            self.sock.room = None
            self.pump.settle()
        self.assertIsNone(self.protocol.lost)
        self.sock.room = 0
        self.transport._send_answer(b"x")
        self.transport._send_answer(bytes(MAX_ANSWERS))
        self.transport._send_answer(b"x")
        self.pump.until(lambda: self.protocol.lost)
