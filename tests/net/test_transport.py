"""Tests for :mod:`derp.net.transport`: reading, pausing, and what a transport says of itself."""

from __future__ import annotations

import socket
import struct
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport, ITransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from derp.net.arena import MAX_HELD, RECV_SIZE
from derp.net.transport import StreamTransport
from tests.net.sockets import Echo, Pump, Recorder

RST_ON_CLOSE = struct.pack("ii", 1, 0)


class FrameTaker(Recorder):
    """
    Takes frames of ``length u32 | payload`` where they lie, as the relay does.

    :ivar budget: frames it takes before it pauses the transport, if not ``None``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[bytes] = []
        self.wanted = 4
        self.calls = 0
        self.budget: int | None = None

    def dataReceived(self, data: bytes) -> None:
        raise AssertionError("it takes buffers")

    def bufferReceived(self, buf: bytearray, view: memoryview, end: int) -> int:
        assert view.obj is buf
        self.calls += 1
        position = 0
        while self.budget != 0 and end - position >= 4:
            size = 4 + int.from_bytes(view[position : position + 4], "big")
            if end - position < size:
                self.wanted = size
                return position
            self.frames.append(bytes(view[position + 4 : position + size]))
            view[position : position + size] = bytes(size)  # it may write there
            position += size
            if self.budget is not None:
                self.budget -= 1
                if not self.budget:
                    self.transport.pauseProducing()
        self.wanted = 4
        return position


def frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


class ReadingTests(SynchronousTestCase):
    """From the socket to the protocol."""

    def setUp(self) -> None:
        self.pump = Pump(self)

    def test_bytes(self) -> None:
        """An ordinary protocol gets bytes, in order, and may keep them."""
        echo = Echo()
        _, client = self.pump.connect(echo)
        sent = bytes(range(256)) * 4000
        client.send(sent)
        self.pump.until(lambda: len(client.received) == len(sent))
        self.assertEqual(client.received, sent)
        self.assertEqual(echo.received, sent)

    def test_frames(self) -> None:
        """A protocol that takes buffers gets what is complete; the rest comes again."""
        taker = FrameTaker()
        _, client = self.pump.connect(taker)
        frames = [bytes((n,)) * (n * 37) for n in range(200)]
        for payload in frames:
            client.send(frame(payload)[:3])
            self.pump.turn()
            client.send(frame(payload)[3:] + b"\0")
            self.pump.turn()
            client.send(b"\0\0\0")
        self.pump.until(lambda: len(taker.frames) == 400)
        self.assertEqual(taker.frames[::2], frames)
        self.assertEqual(set(taker.frames[1::2]), {b""})

    def test_frame_longer_than_a_read(self) -> None:
        """The longest frame a session waits for arrives whole."""
        taker = FrameTaker()
        _, client = self.pump.connect(taker)
        payload = bytes(range(251)) * ((MAX_HELD - 4) // 251)
        client.send(frame(payload) + frame(b"next"))
        self.pump.until(lambda: len(taker.frames) == 2)
        self.assertEqual(taker.frames, [payload, b"next"])

    def test_tiny_pieces_are_linear(self) -> None:
        """
        A 64 KiB frame in pieces costs each byte a fixed number of copies: the protocol is
        asked again only once the frame is complete, and what is held is appended to in place.
        """
        taker = FrameTaker()
        transport, client = self.pump.connect(taker, tcp=False)
        payload = bytes(64 << 10)
        data = frame(payload)
        client.send(data[:5])
        self.pump.turn()
        held = transport._held
        for start in range(5, len(data), 64):
            client.send(data[start : start + 64])
            self.pump.turn()
            if not taker.frames:
                self.assertIs(transport._held, held, "the partial frame was copied")
        self.assertEqual(taker.frames, [payload])
        self.assertEqual(taker.calls, 2)

    def test_greedy_protocol(self) -> None:
        """A protocol that never consumes is a fault of ours: it ends, and loudly."""

        class Miser(Recorder):
            wanted = 1 << 30

            def bufferReceived(self, buf: bytearray, view: memoryview, end: int) -> int:
                return 0

        miser = Miser()
        _, client = self.pump.connect(miser)
        client.send(bytes(MAX_HELD + 2 * RECV_SIZE))
        self.pump.until(lambda: miser.lost)
        (error,) = self.flushLoggedErrors(ValueError)
        self.assertIn("unconsumed", error.getErrorMessage())

    def test_other_protocol_in_mid_stream(self) -> None:
        """After ``setProtocol`` the next bytes are the new protocol's, and so is the end."""
        first, second = Recorder(), FrameTaker()
        transport, client = self.pump.connect(first)
        client.send(b"old")
        self.pump.until(lambda: first.received == b"old")
        second.makeConnection(transport)
        transport.setProtocol(second)
        client.send(frame(b"new")[:4])
        self.pump.turn(2)
        client.send(b"new")
        self.pump.until(lambda: second.frames)
        client.close()
        self.pump.until(lambda: second.lost)
        self.assertEqual((first.received, first.lost), (b"old", None))

    def test_failing_protocol(self) -> None:
        """A protocol that raises loses its connection; another's goes on."""

        class Broken(Recorder):
            def dataReceived(self, data: bytes) -> None:
                raise RuntimeError("a bug of ours")

        broken, echo = Broken(), Echo()
        _, bad = self.pump.connect(broken)
        _, good = self.pump.connect(echo)
        bad.send(b"x")
        good.send(b"y")
        self.pump.until(lambda: broken.lost and good.received == b"y" and bad.ended)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(len(self.pump.hub), 1)

    def test_failing_greeting(self) -> None:
        """One that raises in ``makeConnection`` does not stay in the hub."""

        class Broken(Recorder):
            def makeConnection(self, transport: Any) -> None:
                raise RuntimeError("a bug of ours")

        _, client = self.pump.connect(Broken())
        self.pump.until(lambda: client.ended)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(len(self.pump.hub), 0)

    @given(st.lists(st.binary(max_size=300), max_size=12), st.data())
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    def test_any_split(self, payloads: list[bytes], data: st.DataObject) -> None:
        """However the stream is cut, and wherever the protocol pauses, the frames are the same."""
        pump = Pump(self)
        taker = FrameTaker()
        transport, client = pump.connect(taker, tcp=False)
        stream = b"".join(map(frame, payloads))
        while stream or taker.budget == 0:
            if taker.budget == 0 and data.draw(st.booleans(), label="resume"):
                taker.budget = data.draw(st.none() | st.integers(1, 3), label="budget")
                transport.resumeProducing()
            elif taker.budget is None and data.draw(st.booleans(), label="limit"):
                taker.budget = data.draw(st.integers(1, 3), label="budget")
            cut = data.draw(st.integers(0, len(stream)), label="cut") if stream else 0
            client.send(stream[:cut])
            stream = stream[cut:]
            pump.turn()
        pump.until(lambda: len(taker.frames) == len(payloads) or taker.budget == 0)
        while taker.budget == 0:
            taker.budget = None
            transport.resumeProducing()
            pump.until(lambda: len(taker.frames) == len(payloads) or taker.budget == 0)
        self.assertEqual(taker.frames, payloads)
        pump.hub.close()

    def test_heavy(self) -> None:
        """Who sends more than one read takes is told to the hub."""
        pump = Pump(self)
        heavy: list[int] = []
        pump.hub.note_heavy = heavy.append  # type: ignore[method-assign]
        recorder = Recorder()
        transport, client = pump.connect(recorder, tcp=False)
        client.send(b"x" * 1000)
        pump.turn()
        self.assertEqual(heavy, [])
        pump.hub.arena.allow(2000)
        client.send(b"y" * 5000)
        pump.turn(3)
        self.assertEqual(heavy, [transport._fd] * 2)
        self.assertEqual(recorder.received, b"x" * 1000 + b"y" * 5000)


class PausingTests(SynchronousTestCase):
    """A protocol that does not want to read now."""

    def setUp(self) -> None:
        self.pump = Pump(self)
        self.taker = FrameTaker()
        self.transport, self.client = self.pump.connect(self.taker)

    def test_nothing_comes(self) -> None:
        """Paused, nothing is read; resumed, everything comes."""
        self.transport.pauseProducing()
        self.client.send(frame(b"a"))
        self.pump.settle()
        self.assertEqual(self.taker.frames, [])
        self.transport.resumeProducing()
        self.pump.until(lambda: self.taker.frames == [b"a"])

    def test_held_comes_first(self) -> None:
        """What was read before the pause comes before what arrived after it, and in order."""
        self.taker.budget = 1
        self.client.send(frame(b"a") + frame(b"b") + frame(b"c")[:5])
        self.pump.until(lambda: self.taker.frames == [b"a"])
        self.client.send(frame(b"c")[5:] + frame(b"d"))
        self.pump.settle()
        self.taker.budget = 1
        self.transport.resumeProducing()
        self.pump.settle()
        self.assertEqual(self.taker.frames, [b"a", b"b"])
        self.taker.budget = None
        self.transport.resumeProducing()
        self.pump.until(lambda: len(self.taker.frames) == 4)
        self.assertEqual(self.taker.frames, [b"a", b"b", b"c", b"d"])

    def test_held_is_bounded(self) -> None:
        """However much a client sends to a paused connection, one read's worth is kept."""
        self.taker.budget = 1
        self.client.send(frame(b"a") * 100_000)
        self.pump.until(lambda: self.taker.frames)
        for _ in range(20):
            self.pump.settle()
            self.taker.budget = 1
            self.transport.resumeProducing()
            self.pump.turn()
            self.assertLess(len(self.transport._held or b""), 2 * RECV_SIZE)
        self.assertGreater(len(self.taker.frames), 15)

    def test_resumed_and_paused_again(self) -> None:
        """A resumption that is taken back at once delivers nothing."""
        self.taker.budget = 1
        self.client.send(frame(b"a") + frame(b"b"))
        self.pump.until(lambda: self.taker.frames)
        self.taker.budget = None
        self.transport.resumeProducing()
        self.transport.resumeProducing()
        self.transport.pauseProducing()
        self.pump.settle()
        self.assertEqual(self.taker.frames, [b"a"])
        self.transport.resumeProducing()
        self.pump.until(lambda: self.taker.frames == [b"a", b"b"])

    def test_lost_while_held_waits(self) -> None:
        """A connection that ends before its held bytes are delivered delivers them to nobody."""
        self.taker.budget = 1
        self.client.send(frame(b"a") + frame(b"b"))
        self.pump.until(lambda: self.taker.frames)
        self.taker.budget = None
        self.transport.resumeProducing()
        self.transport.abortConnection()
        self.pump.until(lambda: self.taker.lost)
        self.pump.settle()
        self.assertEqual(self.taker.frames, [b"a"])

    def test_reset_while_paused(self) -> None:
        """A reset is noticed at once although nothing is read, and the loop does not spin."""
        self.transport.pauseProducing()
        self.client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        self.client.close()
        self.pump.until(lambda: self.taker.lost)
        assert self.taker.lost is not None
        self.assertTrue(self.taker.lost.check(ConnectionLost))
        self.assertEqual(len(self.pump.hub), 0)

    def test_end_while_paused(self) -> None:
        """A clean end waits, behind the bytes that came before it."""
        self.transport.pauseProducing()
        self.client.send(frame(b"last"))
        self.client.close()
        self.pump.settle()
        self.assertIsNone(self.taker.lost)
        self.transport.resumeProducing()
        self.pump.until(lambda: self.taker.lost)
        self.assertEqual(self.taker.frames, [b"last"])

    def test_stop_producing(self) -> None:
        """Stopping the producer that a transport is ends the connection."""
        self.transport.stopProducing()
        self.pump.until(lambda: self.client.ended)
        self.assertEqual(self.client.ended, "eof")


class DescriptionTests(SynchronousTestCase):
    """What a transport says of itself."""

    def setUp(self) -> None:
        self.pump = Pump(self)

    def test_interfaces(self) -> None:
        """twisted.web looks for these, and quietly does without flow control if one is missing."""
        transport, _ = self.pump.connect(Recorder())
        for interface in (ITransport, ITCPTransport, IConsumer, IPushProducer):
            verifyObject(interface, transport)

    def test_addresses(self) -> None:
        """The peer is as accepted, the host as the socket has it, even after the end."""
        transport, client = self.pump.connect(Recorder())
        self.assertEqual(transport.getPeer(), IPv4Address("TCP", "192.0.2.1", 4321))
        port = client.sock.getpeername()[1]
        self.assertEqual(transport.getHost(), IPv4Address("TCP", "127.0.0.1", port))
        transport.abortConnection()
        self.pump.until(lambda: client.ended)
        self.assertEqual(transport.getHost().host, "0.0.0.0")
        self.assertEqual(transport.getPeer(), IPv4Address("TCP", "192.0.2.1", 4321))

    def test_unix_addresses(self) -> None:
        """On a unix socket they are unix addresses."""
        ours, _ = self.pump.pair(tcp=False)
        transport = StreamTransport(self.pump.hub, self.pump.wheel, ours, "")
        transport.start(Recorder())
        self.assertEqual(transport.getPeer(), UNIXAddress(None))
        self.assertEqual(transport.getHost(), UNIXAddress(None))

    def test_socket_options(self) -> None:
        """They are the listening socket's; asking is allowed, setting changes nothing."""
        transport, _ = self.pump.connect(Recorder())
        transport.setTcpNoDelay(False)
        transport.setTcpKeepAlive(True)
        self.assertTrue(transport.getTcpNoDelay())
        self.assertFalse(transport.getTcpKeepAlive())
        self.assertEqual(transport.getHandle().type, socket.SOCK_STREAM)
        self.assertIsNone(transport.tls_version)
        self.assertFalse(transport.TLS)
