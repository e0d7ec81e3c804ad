"""Tests for :mod:`derp.net.socket_closing`: every way a connection ends."""

from __future__ import annotations

import gc
import socket
import weakref
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from derp.net.socket_closing import CLOSING_STALL_S, LINGER_S
from derp.net.transport import StreamTransport
from tests.net.sockets import Pump, Recorder

SMALL = 8192


class ClosingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.pump = Pump(self)
        self.protocol = Recorder()
        self.transport, self.client = self.pump.connect(self.protocol, buffer=SMALL)

    def assert_lost(self, reason: type[Exception]) -> None:
        assert self.protocol.lost is not None
        self.assertTrue(self.protocol.lost.check(reason), self.protocol.lost)

    def fill(self, size: int = 300_000) -> bytes:
        """Write so much that the client has to read before all of it can leave."""
        data = bytes(range(250)) * (size // 250)
        self.client.reading = False
        self.transport.write(data)
        self.pump.turn()
        self.assertTrue(self.transport._blocked)
        return data


class LoseConnectionTests(ClosingCase):
    """We end it."""

    def test_all_is_sent(self) -> None:
        """Everything that was written arrives, then the end; only then is the protocol told."""
        self.transport.write(b"a")
        self.transport.loseConnection()
        self.transport.write(b"b")
        self.assertIsNone(self.protocol.lost)
        self.pump.until(lambda: self.client.ended)
        self.assertEqual((self.client.received, self.client.ended), (b"ab", "eof"))
        self.assert_lost(ConnectionDone)

    def test_behind_a_full_socket(self) -> None:
        """The same when the client reads late."""
        data = self.fill()
        self.transport.loseConnection()
        self.transport.loseConnection()
        self.pump.turn(3)
        self.assertIsNone(self.protocol.lost)
        self.client.reading = True
        self.pump.until(lambda: self.client.ended)
        self.assertEqual(self.client.received, data)
        self.assertEqual(self.client.ended, "eof")

    def test_unread_input(self) -> None:
        """
        What the client sent and nobody reads does not turn our last words into a reset: the
        connection is read on for a moment.
        """
        self.transport.pauseProducing()
        self.client.send(bytes(100_000))
        self.pump.turn()
        self.transport.write(b"last words")
        self.transport.loseConnection()
        self.pump.until(lambda: self.client.all_sent and self.client.ended)
        self.assertEqual((self.client.received, self.client.ended), (b"last words", "eof"))
        self.assertEqual(self.protocol.received, b"")

    def test_lingers_for_a_moment(self) -> None:
        """A client that does not close is left after a moment, however much it sends."""
        self.transport.loseConnection()
        self.pump.until(lambda: self.client.ended)
        self.client.send(b"on and on")
        self.pump.settle()
        self.assertEqual(len(self.pump.hub), 1)
        self.pump.reactor.advance(LINGER_S + 0.25)
        self.pump.turn()
        self.assertEqual(len(self.pump.hub), 0)

    def test_closes_with_the_client(self) -> None:
        """A client that closes too ends it at once."""
        self.transport.loseConnection()
        self.pump.until(lambda: self.client.ended)
        self.client.close()
        self.pump.until(lambda: len(self.pump.hub) == 0)

    def test_nothing_is_delivered(self) -> None:
        """After it the protocol hears of nothing but the end, not even when it asks to."""
        self.transport.pauseProducing()
        self.client.send(b"unread")
        self.pump.turn()
        self.transport.loseConnection()
        self.transport.resumeProducing()
        self.pump.until(lambda: self.protocol.lost)
        self.pump.settle()
        self.assertEqual(self.protocol.received, b"")

    def test_nothing_is_delivered_while_full(self) -> None:
        """Nor while the last bytes wait for a client that goes on talking."""
        self.fill()
        self.transport.loseConnection()
        self.pump.turn()
        self.client.send(b"on and on")
        self.pump.settle()
        self.client.reading = True
        self.pump.until(lambda: self.client.ended)
        self.assertEqual(self.protocol.received, b"")

    def test_half_closed_meanwhile(self) -> None:
        """A client that has sent its last byte still gets all it is owed (``nc -N``)."""
        data = self.fill()
        self.transport.loseConnection()
        self.client.sock.shutdown(socket.SHUT_WR)
        self.pump.settle()
        self.client.reading = True
        self.pump.until(lambda: self.client.ended)
        self.assertEqual(self.client.received, data)

    def test_never_reads(self) -> None:
        """A client that takes nothing is cut in the end; one that takes some is not."""
        self.fill()
        self.transport.loseConnection()
        self.pump.turn()
        self.pump.reactor.advance(CLOSING_STALL_S - 1)
        self.client.reading = True
        self.pump.turn()
        self.client.reading = False
        self.pump.turn(2)
        self.pump.reactor.advance(CLOSING_STALL_S - 1)
        self.pump.turn()
        self.assertIsNone(self.protocol.lost)
        self.pump.reactor.advance(1.5)
        self.pump.turn()
        self.assert_lost(ConnectionAborted)
        self.assertEqual(len(self.pump.hub), 0)

    def test_in_the_middle_of_a_write(self) -> None:
        """A producer that closes when it is paused (from within a flush) is heard."""

        class Impatient(Recorder):
            def pauseProducing(self) -> None:
                self.transport.loseConnection()

        protocol = Impatient()
        transport, client = self.pump.connect(protocol, buffer=SMALL)
        transport.registerProducer(protocol, True)
        client.reading = False
        transport.write(bytes(300_000))
        self.pump.turn()
        client.reading = True
        self.pump.until(lambda: client.ended)
        self.assertEqual(len(client.received), 300_000)

    def test_lose_write_connection(self) -> None:
        """There is no half-close: all of it ends."""
        self.transport.loseWriteConnection()
        self.pump.until(lambda: self.client.ended)
        self.assert_lost(ConnectionDone)


class AbortTests(ClosingCase):
    """We cut it."""

    def test_reset(self) -> None:
        """What is unsent is lost, the client sees a reset, the protocol is told afterwards."""
        self.fill()
        self.transport.abortConnection()
        self.assertIsNone(self.protocol.lost)
        self.client.reading = True
        self.pump.until(lambda: self.client.ended)
        self.assertEqual(self.client.ended, "ConnectionResetError")
        self.assert_lost(ConnectionAborted)

    def test_nothing_is_delivered(self) -> None:
        """Input of the same turn goes to nobody."""
        other = Recorder()
        transport, client = self.pump.connect(other)

        def cut(data: bytes) -> None:
            self.transport.abortConnection()
            transport.abortConnection()
            Recorder.dataReceived(self.protocol, data)
            Recorder.dataReceived(other, data)

        self.protocol.dataReceived = other.dataReceived = cut  # type: ignore[method-assign]
        self.client.send(b"x")
        client.send(b"y")
        self.pump.until(lambda: self.protocol.lost and other.lost)
        self.assertEqual(len(self.protocol.received) + len(other.received), 2)

    def test_while_closing(self) -> None:
        """It ends a slow farewell."""
        self.fill()
        self.transport.loseConnection()
        self.pump.turn()
        self.transport.abortConnection()
        self.pump.turn()
        self.assert_lost(ConnectionAborted)
        self.assertEqual(self.pump.reactor.getDelayedCalls()[1:], [])

    def test_twice(self) -> None:
        """Twice, and after the end, changes nothing."""
        for _ in range(3):
            self.transport.abortConnection()
            self.transport.loseConnection()
            self.pump.settle()
        self.assert_lost(ConnectionAborted)


class PeerEndTests(ClosingCase):
    """The peer ends it."""

    def test_clean(self) -> None:
        """The protocol gets what came before, then the end."""
        self.client.send(b"bye")
        self.client.close()
        self.pump.until(lambda: self.protocol.lost)
        self.assertEqual(self.protocol.received, b"bye")
        self.assert_lost(ConnectionDone)
        self.assertEqual(len(self.pump.hub), 0)

    def test_half_closed_with_an_answer(self) -> None:
        """A client that asks and half-closes in one go gets its answer."""

        class Answering(Recorder):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                self.transport.write(bytes(200_000))

        protocol = Answering()
        _, client = self.pump.connect(protocol, buffer=SMALL)
        client.send(b"?")
        client.sock.shutdown(socket.SHUT_WR)
        self.pump.until(lambda: client.ended)
        self.assertEqual((len(client.received), client.ended), (200_000, "eof"))
        assert protocol.lost is not None
        self.assertTrue(protocol.lost.check(ConnectionDone))
        self.assertEqual(len(self.pump.hub), 1)

    def test_gone_without_reading(self) -> None:
        """One that half-closes and never reads is cut in the end."""
        self.fill()
        self.client.sock.shutdown(socket.SHUT_WR)
        self.pump.until(lambda: self.protocol.lost)
        self.pump.reactor.advance(CLOSING_STALL_S + 0.25)
        self.pump.turn()
        self.assertEqual(len(self.pump.hub), 0)

    def test_reset(self) -> None:
        """A reset is a loss, not an end."""
        self.client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.client.close()
        self.pump.until(lambda: self.protocol.lost)
        self.assert_lost(ConnectionLost)

    def test_protocol_that_fails_at_the_end(self) -> None:
        """Its error costs nobody anything, and the socket is closed."""

        class Clumsy(Recorder):
            def connectionLost(self, reason: Any) -> None:
                super().connectionLost(reason)
                raise RuntimeError("a bug of ours")

        for end in ("close", "abort", "lose"):
            protocol = Clumsy()
            transport, client = self.pump.connect(protocol)
            if end == "close":
                client.close()
            elif end == "abort":
                transport.abortConnection()
            else:
                transport.loseConnection()
                self.pump.turn(2)
                client.close()
            self.pump.until(lambda: len(self.pump.hub) == 1)
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
            self.assertIsNotNone(protocol.lost)

    def test_one_end_causes_another(self) -> None:
        """A protocol may close others when it is lost, which may write to it."""
        other = Recorder()
        transport, client = self.pump.connect(other)

        def lost(reason: Any) -> None:
            Recorder.connectionLost(self.protocol, reason)
            transport.write(b"he is gone")
            transport.loseConnection()

        def other_lost(reason: Any) -> None:
            Recorder.connectionLost(other, reason)
            self.transport.write(b"so am I")

        self.protocol.connectionLost = lost  # type: ignore[method-assign]
        other.connectionLost = other_lost  # type: ignore[method-assign]
        self.client.close()
        self.pump.until(lambda: client.ended)
        self.assertEqual(client.received, b"he is gone")
        client.close()
        self.pump.until(lambda: len(self.pump.hub) == 0)


class ReuseTests(ClosingCase):
    """Descriptors and memory."""

    def test_descriptor_reused(self) -> None:
        """
        The number of a connection that ends within a turn is not given to another before the
        turn is over: the rest of the turn's events would go to the wrong one.
        """
        number = self.transport._fd
        seen: list[int] = []

        def new_socket(data: bytes) -> None:
            self.transport.abortConnection()
            with socket.socket() as fresh:
                seen.append(fresh.fileno())

        self.protocol.dataReceived = new_socket  # type: ignore[method-assign]
        self.client.send(b"x")
        self.pump.until(lambda: self.protocol.lost)
        self.assertNotIn(number, seen)

    def test_freed(self) -> None:
        """An ended connection is freed by reference count, whichever way it ended."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for end in ("close", "abort", "lose", "reset"):
            protocol = Freed()
            transport, client = self.pump.connect(protocol)
            transport.registerProducer(protocol, True)
            gone = weakref.ref(protocol)
            client.send(b"x")
            self.pump.turn(2)
            if end == "abort":
                transport.abortConnection()
            elif end == "lose":
                transport.write(b"x")
                transport.loseConnection()
                self.pump.turn()
            elif end == "reset":
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
            self.pump.until(lambda: len(self.pump.hub) == 1)
            del transport, protocol
            self.assertIsNone(gone(), end)
            self.assertEqual(transports(), 1, end)

    def test_on_end(self) -> None:
        """Whoever counts sockets hears of each one's end once, after it is closed."""
        for end in ("close", "abort", "lose", "hub"):
            ended: list[int] = []
            transport, client = self.pump.connect(Recorder())
            transport.on_end = lambda t=transport, e=ended: e.append(t._sock.fileno())  # type: ignore[misc]
            if end == "abort":
                transport.abortConnection()
            elif end == "lose":
                transport.loseConnection()
                self.pump.until(lambda c=client: c.ended)  # type: ignore[misc]
                self.assertEqual(ended, [], "it lingers, and its socket is not free yet")
            if end == "hub":
                self.pump.hub.close()
            else:
                client.close()
                self.pump.until(lambda e=ended: e)  # type: ignore[misc]
                self.pump.settle()
            self.assertEqual(ended, [-1], end)

    def test_nothing_piles_up(self) -> None:
        """After hundreds of connections nothing of them is left."""
        gc.collect()
        before = transports()
        for n in range(200):
            transport, client = self.pump.connect(Recorder(), tcp=False)
            transport.write(bytes(100))
            if n % 2:
                transport.loseConnection()
            self.pump.turn()
            client.close()
            self.pump.clients.remove(client)
            self.pump.turn(2)
        del transport
        del self.pump._sockets[2:]
        self.assertEqual(len(self.pump.hub), 1)
        gc.collect()
        self.assertEqual(transports(), before)
        self.pump.reactor.advance(CLOSING_STALL_S + 1)
        self.assertEqual(self.pump.wheel._buckets, {})


class Freed(Recorder):
    """Can be seen going away."""


def transports() -> int:
    """How many there are in memory."""
    return sum(isinstance(each, StreamTransport) for each in gc.get_objects())
