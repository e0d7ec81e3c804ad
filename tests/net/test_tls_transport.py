"""Tests for :mod:`derp.net.tls_transport`: an open TLS connection, and its end."""

from __future__ import annotations

import gc
import hashlib
import socket
import ssl
import struct
import weakref
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ISSLTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from derp.net.socket_closing import CLOSING_STALL_S
from derp.net.tls_transport import TLSTransport
from tests.net.sockets import Echo, Recorder
from tests.net.test_transport import FrameTaker, frame
from tests.net.tls_peers import ALERT, APPLICATION_DATA, CLOSE_NOTIFY, HANDSHAKE
from tests.net.tls_pump import TLSPump
from tests.tls_clients import client_context, client_hello

TLS12 = ssl.TLSVersion.TLSv1_2
BOTH = (TLS12, None)
SMALL = 8192
RST_ON_CLOSE = struct.pack("ii", 1, 0)


class TLSCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.pump = TLSPump(self)

    def assert_lost(self, protocol: Recorder, reason: type[Exception]) -> None:
        assert protocol.lost is not None
        self.assertTrue(protocol.lost.check(reason), protocol.lost)


class PumpingTests(TLSCase):
    """Bytes in, bytes out."""

    def test_interfaces(self) -> None:
        """twisted.web asks whether it is secure."""
        transport, _ = self.pump.connect_tls()
        verifyObject(ISSLTransport, transport)
        self.assertTrue(transport.TLS)
        transport.getPeerCertificate()

    def test_both_ways(self) -> None:
        """Megabytes come back as they were sent, in both versions."""
        data = bytes(range(251)) * 8000
        for maximum in BOTH:
            _, client = self.pump.connect_tls(context=client_context(maximum=maximum))
            client.write(data)
            self.pump.until(lambda c=client: len(c.received) >= len(data))  # type: ignore[misc]
            self.assertEqual(hashlib.md5(client.received).digest(), hashlib.md5(data).digest())

    def test_one_record_per_turn(self) -> None:
        """What is written in a turn is encrypted together."""
        transport, client = self.pump.connect_records()
        for n in range(50):
            transport.write(b"%d," % n)
        self.pump.until(lambda: client.records)
        self.assertEqual(
            client.records, [(APPLICATION_DATA, b"".join(b"%d," % n for n in range(50)))]
        )

    def test_longer_than_a_record(self) -> None:
        """A write longer than a record takes several, in order."""
        transport, client = self.pump.connect_records()
        data = bytes(range(256)) * 200
        transport.write(data)
        self.pump.until(lambda: len(client.received) == len(data))
        self.assertEqual(client.received, data)
        self.assertEqual([len(c) for _, c in client.records], [16384, 16384, 16384, 2048])

    def test_write_through(self) -> None:
        """A large piece is encrypted at once from where it lies, behind what waits for it."""
        transport, client = self.pump.connect_records()
        buffer = bytearray(b"x" * 20_000)
        transport.write_through(memoryview(buffer))
        buffer[:] = b"!" * 20_000
        transport.write(b"small")
        transport.write_through(memoryview(b"y" * 20_000))
        self.pump.until(lambda: client.received.endswith(b"y"))
        self.assertEqual(client.received, b"x" * 20_000 + b"small" + b"y" * 20_000)
        lengths = [len(content) for _, content in client.records]
        self.assertEqual(lengths[:2], [16384, 20_000 - 16384])

    def test_writing_nothing(self) -> None:
        """An empty write breaks nothing."""
        transport, client = self.pump.connect_tls()
        transport.write(b"")
        transport.write(b"x")
        self.pump.until(lambda: client.received == b"x")
        transport.write(b"")
        self.pump.settle()
        transport.write(b"y")
        self.pump.until(lambda: client.received == b"xy")

    def test_frames(self) -> None:
        """A protocol that takes buffers gets frames across records and reads."""
        taker = FrameTaker()
        _, client = self.pump.connect_tls(taker)
        payloads = [bytes((n,)) * (n * 1009 % 70_000) for n in range(40)]
        stream = b"".join(map(frame, payloads))
        for at in range(0, len(stream), 5_003):
            client.write(stream[at : at + 5_003])
            if at % 3 == 0:
                self.pump.turn()
        self.pump.until(lambda: len(taker.frames) == 40)
        self.assertEqual(taker.frames, payloads)

    def test_long_frame_is_linear(self) -> None:
        """The pieces of a long frame are appended to what is held, not copied each time."""
        taker = FrameTaker()
        transport, client = self.pump.connect_tls(taker)
        payload = bytes(200_000)
        client.write(frame(payload)[:100])
        self.pump.until(lambda: transport._held)
        held = transport._held
        for at in range(100, 200_004, 1000):
            client.write(frame(payload)[at : at + 1000])
            self.pump.turn()
            if not taker.frames:
                self.assertIs(transport._held, held)
        self.pump.until(lambda: taker.frames)
        self.assertEqual(taker.calls, 2)

    def test_slow_reader(self) -> None:
        """A full socket pauses the producer; unblocked, all is there, in order, and decrypts."""
        recorder = Recorder()
        transport, client = self.pump.connect_tls(recorder, buffer=SMALL)
        transport.registerProducer(recorder, True)
        client.reading = False
        pieces = []
        for n in range(60):
            pieces.append(bytes((n,)) * 9_001)
            transport.write(pieces[-1])
            self.pump.turn()
        self.assertIn("pause", recorder.events)
        client.reading = True
        self.pump.until(lambda: len(client.received) == 60 * 9_001)
        self.assertEqual(client.received, b"".join(pieces))
        self.assertEqual(recorder.events[-1], "resume")
        transport.write(b"on")
        self.pump.until(lambda: client.received.endswith(b"on"))

    def test_pause(self) -> None:
        """Paused with plaintext held, resumed in order."""
        taker = FrameTaker()
        taker.budget = 2
        transport, client = self.pump.connect_tls(taker)
        client.write(b"".join(frame(bytes((n,))) for n in range(10)))
        self.pump.until(lambda: len(taker.frames) == 2)
        client.write(frame(b"late"))
        self.pump.settle()
        taker.budget = None
        transport.resumeProducing()
        self.pump.until(lambda: len(taker.frames) == 11)
        self.assertEqual(taker.frames, [*(bytes((n,)) for n in range(10)), b"late"])

    def test_encryption_fails(self) -> None:
        """An engine that cannot write any more ends the connection, not the turn."""

        class Broken:
            def write(self, data: bytes) -> int:
                transport._hub.arena.outgoing.write(b"half a record")
                raise ssl.SSLError(1, "broken")

        recorder = Recorder()
        transport, _ = self.pump.connect_tls(recorder)
        transport._tls = Broken()  # type: ignore[assignment]
        transport.write(b"x")
        self.pump.until(lambda: recorder.lost)
        self.assert_lost(recorder, ConnectionLost)

    def test_partial_encryption(self) -> None:
        """An engine that encrypts only part of a write is asked again."""
        transport, client = self.pump.connect_tls(Recorder())
        engine = transport._tls

        class Lazy:
            def write(self, data: Any) -> int:
                assert engine is not None
                return engine.write(bytes(data[:3]))

        transport._tls = Lazy()  # type: ignore[assignment]
        transport.write(b"0123456789")
        self.pump.until(lambda: client.received == b"0123456789")

    def test_engine_that_leaves_bytes(self) -> None:
        """
        Should OpenSSL ever leave ciphertext in the shared BIO and want more, that connection
        ends: somebody else would get the bytes.
        """

        class Leaving:
            def read(self, size: int, buffer: memoryview) -> int:
                raise ssl.SSLWantReadError

        recorder = Recorder()
        transport, client = self.pump.connect_tls(recorder)
        transport._tls = Leaving()  # type: ignore[assignment]
        client.write(b"x")
        self.pump.until(lambda: recorder.lost)
        self.assertEqual(len(self.flushLoggedErrors(AssertionError)), 1)
        self.pump.hub.arena.assert_clean()

    def test_heavy(self) -> None:
        """Who sends more ciphertext than one read takes is told to the hub."""
        heavy: list[int] = []
        transport, client = self.pump.connect_tls(tcp=False)
        self.pump.hub.note_heavy = heavy.append  # type: ignore[method-assign]
        client.write(b"x" * 1000)
        self.pump.until(lambda: client.received == b"x" * 1000)
        self.assertEqual(heavy, [])
        self.pump.hub.arena.allow(2000)
        client.write(b"y" * 5000)
        self.pump.until(lambda: client.received == b"x" * 1000 + b"y" * 5000)
        self.assertEqual(heavy, [transport._fd] * 2)


class UncommonRecordTests(TLSCase):
    """Records that stock clients seldom send."""

    def test_key_updates(self) -> None:
        """The client changes its keys, asks us to, and goes on; so do we, under new keys."""
        _, client = self.pump.connect_records()
        client.send(client.key_update(answer=False) + client.record(APPLICATION_DATA, b"one"))
        self.pump.until(lambda: client.received == b"one")
        self.assertEqual(client.of_type(HANDSHAKE), [])
        client.send(client.key_update(answer=True))
        self.pump.settle()  # OpenSSL answers at its next read or write, which is early enough
        client.send(client.record(APPLICATION_DATA, b"two"))
        self.pump.until(lambda: client.received == b"onetwo")
        self.assertEqual(client.of_type(HANDSHAKE), [b"\x18\0\0\x01\0"])
        client.send(
            client.record(APPLICATION_DATA, b"A")
            + client.key_update(answer=True)
            + client.record(APPLICATION_DATA, b"B")
            + client.key_update(answer=True)
            + client.record(APPLICATION_DATA, b"C")
        )
        self.pump.until(lambda: client.received == b"onetwoABC")
        self.assertEqual(len(client.of_type(HANDSHAKE)), 3)

    def test_key_update_while_full(self) -> None:
        """The answer to a key update keeps its place among records that wait for the socket."""
        recorder = Recorder()
        transport, client = self.pump.connect_records(recorder, buffer=SMALL)
        client.reading = False
        transport.write(bytes(200_000))
        self.pump.turn()
        self.assertTrue(transport._blocked)
        transport.write(b"behind")
        client.send(client.key_update(answer=True) + client.record(APPLICATION_DATA, b"x"))
        self.pump.until(lambda: recorder.received == b"x")
        client.reading = True
        self.pump.until(lambda: client.received.endswith(b"behind"))
        self.assertEqual(len(client.received), 200_006)
        self.assertEqual(len(client.of_type(HANDSHAKE)), 1)

    def test_flood_of_key_updates(self) -> None:
        """A client that asks for ever more answers and reads none is cut; memory stays small."""
        recorder = Recorder()
        transport, client = self.pump.connect_records(recorder, buffer=SMALL)
        client.reading = False
        transport.write(bytes(200_000))
        self.pump.turn()
        for _ in range(50):
            client.send(b"".join(client.key_update(answer=True) for _ in range(50)))
            self.pump.turn()
            if recorder.lost:
                break
        self.assert_lost(recorder, ConnectionLost)

    def test_empty_records(self) -> None:
        """Empty records are legal now and then, and say nothing; a flood of them is not."""
        for tls12 in (True, False):
            recorder = Echo()
            _, client = self.pump.connect_records(recorder, tls12=tls12)
            for _ in range(5):
                client.send(
                    client.record(APPLICATION_DATA, b"")
                    + client.record(APPLICATION_DATA, b"x")
                    + client.record(APPLICATION_DATA, b"")
                )
                self.pump.settle()
            self.pump.until(lambda c=client: c.received == b"xxxxx")  # type: ignore[misc]
            client.send(b"".join(client.record(APPLICATION_DATA, b"") for _ in range(200)))
            self.pump.until(lambda r=recorder: r.lost)  # type: ignore[misc]
            self.assert_lost(recorder, ConnectionLost)

    def test_padding(self) -> None:
        """Padding of TLS 1.3 is not delivered."""
        recorder = Recorder()
        _, client = self.pump.connect_records(recorder)
        client.send(client.record(APPLICATION_DATA, b"x", padding=9000))
        client.send(client.record(APPLICATION_DATA, b"y"))
        self.pump.until(lambda: recorder.received == b"xy")

    def test_renegotiation(self) -> None:
        """
        A second ClientHello in TLS 1.2 is answered with no_renegotiation, and life goes on:
        what follows it in the same packet is delivered.
        """
        _, client = self.pump.connect_records(tls12=True)
        again = client_hello(client_context(maximum=TLS12))[5:]
        client.send(client.record(HANDSHAKE, again) + client.record(APPLICATION_DATA, b"on"))
        self.pump.until(lambda: client.received == b"on")
        self.assertEqual(client.of_type(ALERT), [b"\x01\x64"])
        self.assertEqual(client.of_type(HANDSHAKE), [])

    def test_second_hello_in_13(self) -> None:
        """In TLS 1.3 it is a fault: the alert says unexpected_message."""
        recorder = Recorder()
        _, client = self.pump.connect_records(recorder)
        again = client_hello(client_context())[5:]
        client.send(client.record(APPLICATION_DATA, b"before") + client.record(HANDSHAKE, again))
        self.pump.until(lambda: recorder.lost)
        self.pump.settle()
        self.assertEqual(recorder.received, b"before")
        self.assertEqual(client.of_type(ALERT), [b"\x02\x0a"])
        self.assert_lost(recorder, ConnectionLost)

    def test_warnings_and_fatal_alerts(self) -> None:
        """A fatal alert of the client ends it; what came before is delivered."""
        for tls12 in (True, False):
            recorder = Recorder()
            _, client = self.pump.connect_records(recorder, tls12=tls12)
            client.send(
                client.record(APPLICATION_DATA, b"x")
                + client.record(ALERT, b"\x02\x50")
                + client.record(APPLICATION_DATA, b"never")
            )
            self.pump.until(lambda r=recorder: r.lost)  # type: ignore[misc]
            self.assertEqual(recorder.received, b"x")
            self.assert_lost(recorder, ConnectionLost)
            assert recorder.lost is not None
            self.assertIn("internal error", recorder.lost.getErrorMessage())

    def test_forged_record(self) -> None:
        """A record that does not authenticate ends it, with bad_record_mac."""
        recorder = Recorder()
        _, client = self.pump.connect_records(recorder)
        good = client.record(APPLICATION_DATA, b"good")
        client.send(good + b"\x17\x03\x03\x00\x40" + bytes(64) + good)
        self.pump.until(lambda: recorder.lost)
        self.pump.settle()
        self.assertEqual(recorder.received, b"good")
        self.assertEqual(client.of_type(ALERT), [b"\x02\x14"])

    def test_too_long_record(self) -> None:
        """A record longer than the protocol allows ends it before it has come."""
        recorder = Recorder()
        _, client = self.pump.connect_records(recorder)
        client.send(b"\x17\x03\x03\xff\xff" + bytes(100))
        self.pump.until(lambda: recorder.lost)
        self.assert_lost(recorder, ConnectionLost)


class EndTests(TLSCase):
    """How an open connection ends."""

    def test_lose_connection(self) -> None:
        """All that was written, then close_notify, then the end of TCP."""
        for maximum in BOTH:
            recorder = Recorder()
            transport, client = self.pump.connect_tls(
                recorder, context=client_context(maximum=maximum), buffer=SMALL
            )
            client.reading = False
            transport.write(bytes(300_000))
            transport.loseConnection()
            self.pump.turn(2)
            self.assertIsNone(recorder.lost)
            client.reading = True
            self.pump.until(lambda c=client: c.ended)  # type: ignore[misc]
            self.assertEqual(len(client.received), 300_000)
            self.assertTrue(client.closed, "no close_notify")
            self.assertEqual(client.ended, "eof")
            self.assert_lost(recorder, ConnectionDone)

    def fill_up(self, transport: TLSTransport, refusals: int) -> list[bytes]:
        """Let its socket take nothing so many times; gives what it refused."""
        refused: list[bytes] = []
        sock: Any = transport._sock

        class Full:
            def send(self, data: bytes) -> int:
                if len(refused) < refusals:
                    refused.append(bytes(data))
                    raise BlockingIOError
                sent: int = sock.send(data)
                return sent

            def __getattr__(self, name: str) -> Any:
                return getattr(sock, name)

        transport._sock = Full()  # type: ignore[assignment]
        return refused

    def test_goodbye_does_not_fit(self) -> None:
        """If the socket is full to the last byte, close_notify waits its turn."""
        recorder = Recorder()
        transport, client = self.pump.connect_tls(recorder)
        refused = self.fill_up(transport, 3)
        transport.loseConnection()
        self.pump.turn()
        self.assertIsNone(recorder.lost)
        transport.write(b"too late")
        self.pump.until(lambda: client.ended)
        self.assertTrue(client.closed)
        self.assertEqual(client.received, b"")
        self.assertEqual(len(set(refused)), 1, "said once")

    def test_goodbye_never_fits(self) -> None:
        """But not for ever."""
        recorder = Recorder()
        transport, client = self.pump.connect_tls(recorder)
        self.fill_up(transport, 1_000_000)
        transport.loseConnection()
        self.pump.turn(3)
        self.assertIsNone(recorder.lost)
        self.pump.reactor.advance(CLOSING_STALL_S + 0.25)
        self.pump.until(lambda: client.ended)
        self.assertIsNotNone(recorder.lost)

    def test_peer_closes(self) -> None:
        """close_notify of the client is answered with ours."""
        for maximum in BOTH:
            recorder = Recorder()
            _, client = self.pump.connect_tls(recorder, context=client_context(maximum=maximum))
            client.write(b"bye")
            client.say_goodbye()
            self.pump.until(lambda r=recorder: r.lost)  # type: ignore[misc]
            self.pump.until(lambda c=client: c.ended)  # type: ignore[misc]
            self.assertTrue(client.closed)
            self.assertEqual(recorder.received, b"bye")
            self.assert_lost(recorder, ConnectionDone)

    def test_question_and_goodbye(self) -> None:
        """A client that asks and says goodbye in one packet gets its answer, then our goodbye."""

        class Answering(Recorder):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                self.transport.write(b"answer" * 10_000)

        recorder = Answering()
        _, client = self.pump.connect_records(recorder, buffer=SMALL)
        client.send(client.record(APPLICATION_DATA, b"?") + client.record(ALERT, CLOSE_NOTIFY))
        self.pump.until(lambda: client.closed)
        self.assertEqual(client.received, b"answer" * 10_000)
        self.assert_lost(recorder, ConnectionDone)
        client.close()
        self.pump.until(lambda: len(self.pump.hub) == 0)

    def test_after_the_goodbye(self) -> None:
        """What comes behind close_notify is not read."""
        recorder = Recorder()
        _, client = self.pump.connect_records(recorder)
        client.send(
            client.record(APPLICATION_DATA, b"x")
            + client.record(ALERT, CLOSE_NOTIFY)
            + client.record(APPLICATION_DATA, b"y")
        )
        self.pump.until(lambda: recorder.lost)
        self.pump.settle()
        self.assertEqual(recorder.received, b"x")

    def test_end_without_goodbye(self) -> None:
        """The end of TCP alone ends it too; many clients just go."""
        recorder = Recorder()
        _, client = self.pump.connect_tls(recorder)
        client.close()
        self.pump.until(lambda: recorder.lost)
        self.assert_lost(recorder, ConnectionDone)
        self.assertEqual(len(self.pump.hub), 0)

    def test_reset(self) -> None:
        """A reset is a loss, paused or not."""
        for paused in (False, True):
            recorder = Recorder()
            transport, client = self.pump.connect_tls(recorder)
            if paused:
                transport.pauseProducing()
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
            client.close()
            self.pump.until(lambda r=recorder: r.lost)  # type: ignore[misc]
            self.assert_lost(recorder, ConnectionLost)
            self.assertIsNone(transport._tls, "OpenSSL's memory is still held")

    def test_input_while_closing(self) -> None:
        """What a client still sends while we leave is not decrypted, and does no harm."""
        recorder = Recorder()
        transport, client = self.pump.connect_tls(recorder)
        transport.loseConnection()
        client.write(bytes(100_000))
        self.pump.until(lambda: client.ended)
        client.sock.send(b"\x17\x03\x03\x00\x40" + bytes(64))
        self.pump.settle()
        self.assertEqual(recorder.received, b"")

    def test_failing_protocol(self) -> None:
        """A protocol that raises in mid-stream leaves nothing behind for the others."""

        class Broken(Recorder):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(b"half an answer")
                raise RuntimeError("a bug of ours")

        broken, echo = Broken(), Echo()
        _, bad = self.pump.connect_tls(broken)
        _, good = self.pump.connect_tls(echo)
        good.write(b"1")
        bad.write(bytes(50_000))
        good.write(b"2")
        self.pump.until(lambda: broken.lost and good.received == b"12")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_freed(self) -> None:
        """An ended connection is freed by reference count, OpenSSL's memory included."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for end in ("close", "abort", "lose", "goodbye", "refused"):
            recorder = Weak()
            gone = weakref.ref(recorder)
            if end == "refused":
                transport, client = self.pump.connect_tls(recorder, wait=False)
                client.sock.send(b"rubbish")
                self.pump.until(lambda c=client: c.ended)  # type: ignore[misc]
            else:
                transport, client = self.pump.connect_tls(recorder)
            if end == "abort":
                transport.abortConnection()
            elif end == "lose":
                transport.loseConnection()
            elif end == "goodbye":
                client.say_goodbye()
            self.pump.turn(2)
            client.close()
            self.pump.clients.remove(client)
            self.pump.until(lambda: len(self.pump.hub) == 0)
            del transport, recorder, client
            self.assertIsNone(gone(), end)
            alive = [each for each in gc.get_objects() if isinstance(each, TLSTransport)]
            self.assertEqual(alive, [], end)


class Weak(Recorder):
    """Can be seen going away."""
