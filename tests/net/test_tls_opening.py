"""Tests for :mod:`derp.net.tls_opening`: from the first byte to an open connection, or not."""

from __future__ import annotations

import gc
import socket
import ssl
import struct
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from derp.net.certificates import HandshakeRefused
from derp.net.hub import MAX_HANDSHAKES
from derp.net.socket_closing import LINGER_S
from derp.net.tls_opening import DECODE_ERROR, HANDSHAKE_S, MAX_SPLIT_READS, TLSOpening
from derp.net.tls_transport import TLSTransport
from tests.net.sockets import Echo, PlainClient, Recorder
from tests.net.tls_peers import TLSClient
from tests.net.tls_pump import Chooser, TLSPump
from tests.tls_clients import client_context, client_hello

TLS12 = ssl.TLSVersion.TLSv1_2


def alert(code: int) -> bytes:
    return bytes((21, 3, 3, 0, 2, 2, code))


def split(hello: bytes, size: int) -> bytes:
    """Cut the one record of a hello into records of so many bytes."""
    body = hello[5:]
    return b"".join(
        hello[:3] + struct.pack("!H", len(body[at : at + size])) + body[at : at + size]
        for at in range(0, len(body), size)
    )


class OpeningCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.pump = TLSPump(self)
        self.built: list[Recorder] = []

    def raw(self, chooser: Chooser | None = None) -> tuple[TLSTransport, PlainClient]:
        """A connection whose client sends what it likes."""
        ours, theirs = self.pump.pair()
        transport = self.pump.serve(ours, self.build, chooser)
        client = PlainClient(theirs)
        self.pump.clients.append(client)
        return transport, client

    def build(self, address: Any) -> Recorder:
        self.built.append(Echo())
        return self.built[-1]


class HandshakeTests(OpeningCase):
    """Clients that may come in."""

    def assert_echo(self, client: TLSClient) -> None:
        client.write(b"ping")
        self.pump.until(lambda: client.received == b"ping", f"no echo: {client.error}")

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3 come in, and the transport knows which it is."""
        for maximum, version in ((TLS12, "1.2"), (None, "1.3")):
            transport, client = self.pump.connect_tls(context=client_context(maximum=maximum))
            self.assertEqual(transport.tls_version, version)
            self.assert_echo(client)

    def test_old_versions(self) -> None:
        """Older versions are refused by the engine's own alert."""
        context = client_context(maximum=ssl.TLSVersion.TLSv1_1, ciphers="DEFAULT@SECLEVEL=0")
        with capturedLogs() as logs:
            _, client = self.pump.connect_tls(context=context, wait=False)
            self.pump.until(lambda: client.error)
        self.assertIn("PROTOCOL_VERSION", str(client.error))
        self.assertEqual(self.pump.stats.handshake_failures, 1)
        self.assertEqual(
            [each["reason"] for each in logs if "reason" in each], ["unsupported protocol"]
        )

    def test_what_the_chooser_is_asked(self) -> None:
        """It gets name, protocols, and the address that was connected to."""
        chooser = Chooser(self.pump.context)
        self.pump.connect_tls(
            context=client_context(["http/1.1"]), server_name="A.example", chooser=chooser
        )
        ((hello, local_ip),) = chooser.asked
        self.assertEqual(
            (hello.server_name, hello.alpn, local_ip), ("A.example", (b"http/1.1",), "127.0.0.1")
        )

    def test_byte_by_byte(self) -> None:
        """A handshake that arrives byte by byte is one all the same, in both versions."""
        for maximum in (TLS12, None):
            ours, theirs = self.pump.pair()
            self.pump.serve(ours, self.build)
            client = DrippingClient(theirs, client_context(maximum=maximum))
            self.pump.clients.append(client)
            self.pump.until(lambda c=client: c.ready)  # type: ignore[misc]
            self.assert_echo(client)

    def test_split_records(self) -> None:
        """A hello split over many records is put together, in one piece or in several."""
        hello = client_hello(client_context())
        for size in (1, 2, 3, 7, 50, 200):
            for pieces in (1, 40):
                _, client = self.raw()
                data = split(hello, size)
                for at in range(0, len(data), -(-len(data) // pieces)):
                    client.send(data[at : at + -(-len(data) // pieces)])
                    self.pump.turn()
                self.pump.until(lambda c=client: c.received)  # type: ignore[misc]
                self.assertEqual(client.received[:1], b"\x16", "a ServerHello")

    def test_first_data_with_the_finished(self) -> None:
        """A request that comes in one packet with the end of the handshake is not lost."""
        for maximum in (TLS12, None):
            ours, theirs = self.pump.pair()
            self.pump.serve(ours, self.build)
            client = EagerClient(theirs, client_context(maximum=maximum))
            self.pump.clients.append(client)
            self.pump.until(lambda c=client: c.received == b"eager")  # type: ignore[misc]

    def test_build_may_refuse(self) -> None:
        """No protocol: the connection ends cleanly, and the client's first data is dropped."""
        ours, theirs = self.pump.pair()
        self.pump.serve(ours, lambda _: None)
        client = EagerClient(theirs, client_context())
        self.pump.clients.append(client)
        self.pump.until(lambda: client.ended)
        self.assertTrue(client.closed)
        self.assertEqual(client.received, b"")

    def test_build_fails(self) -> None:
        """A bug in building the protocol closes the connection and is logged."""

        def build(address: Any) -> Any:
            raise RuntimeError("a bug of ours")

        ours, theirs = self.pump.pair()
        self.pump.serve(ours, build)
        client = EagerClient(theirs, client_context())
        self.pump.clients.append(client)
        self.pump.until(lambda: client.ended)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(len(self.pump.hub), 0)

    def test_closes_in_greeting(self) -> None:
        """A protocol that closes at once gets none of the data that is there already."""

        class Shy(Recorder):
            def makeConnection(self, transport: Any) -> None:
                super().makeConnection(transport)
                transport.loseConnection()

        shy = Shy()
        ours, theirs = self.pump.pair()
        self.pump.serve(ours, lambda _: shy)
        client = EagerClient(theirs, client_context())
        self.pump.clients.append(client)
        self.pump.until(lambda: client.ended)
        self.assertEqual(shy.received, b"")
        self.assertIsNotNone(shy.lost)

    def test_many_at_once(self) -> None:
        """Many clients that come at once all get in, some steps per turn."""
        clients = [
            self.pump.connect_tls(tcp=False, wait=False)[1] for _ in range(5 * MAX_HANDSHAKES)
        ]
        self.pump.hub.doRead()
        for client in clients:
            client.pump()
        self.assertEqual(sum(client.ready for client in clients), MAX_HANDSHAKES)
        self.pump.until(lambda: all(client.ready for client in clients))
        for client in clients:
            self.assert_echo(client)
        self.assertEqual(self.pump.stats.handshake_failures, 0)

    def test_those_inside_go_first(self) -> None:
        """While a crowd shakes hands, whoever is in is served in every turn."""
        _, inside = self.pump.connect_tls(tcp=False)
        self.pump.settle()
        for _ in range(3 * MAX_HANDSHAKES):
            self.pump.connect_tls(tcp=False, wait=False)
        inside.write(b"ping")
        self.pump.turn()
        self.assertEqual(inside.received, b"ping")

    def test_nothing_left(self) -> None:
        """An open connection keeps nothing of its opening: no object, no timer that fires."""
        gc.collect()
        self.pump.connect_tls()
        self.assertEqual([each for each in gc.get_objects() if isinstance(each, TLSOpening)], [])
        self.pump.reactor.advance(2 * HANDSHAKE_S)
        self.assertEqual(self.pump.stats.handshake_timeouts, 0)


class RefusalTests(OpeningCase):
    """Clients that may not."""

    def assert_alert(self, client: PlainClient, code: int) -> None:
        self.pump.until(lambda: client.ended)
        self.assertEqual((client.received, client.ended), (alert(code), "eof"))
        self.assertEqual(self.built, [])

    def test_refused_by_name(self) -> None:
        """The chooser's alert arrives, in words a stock client understands, and is logged."""
        chooser = Chooser(HandshakeRefused(112, "client asks for 'x', not for 'y'"))
        with capturedLogs() as logs:
            _, client = self.pump.connect_tls(chooser=chooser, wait=False)
            self.pump.until(lambda: client.error)
        self.assertIn("UNRECOGNIZED_NAME", str(client.error))
        (line,) = [each for each in logs if "reason" in each]
        self.assertEqual(line["peer"], "192.0.2.1:4321")
        self.assertEqual(line["reason"], "client asks for 'x', not for 'y'")
        self.assertEqual(self.pump.stats.handshake_failures, 1)

    def test_alert_is_not_lost_to_a_reset(self) -> None:
        """
        A client that goes on sending gets the alert all the same: closing with unread input
        would be a reset, which destroys what was sent last.
        """
        _, client = self.raw(Chooser(HandshakeRefused(120, "no")))
        client.reading = False
        client.send(client_hello(client_context()) + bytes(200_000))
        self.pump.until(lambda: client.all_sent)
        client.send(bytes(200_000))
        self.pump.until(lambda: client.all_sent)
        self.pump.reactor.advance(LINGER_S + 0.25)
        self.pump.turn()
        self.assertEqual(len(self.pump.hub), 0)
        client.reading = True
        self.assert_alert(client, 120)

    def test_garbage(self) -> None:
        """What is no TLS at all gets decode_error, without a line in the log."""
        for data in (
            b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
            b"\x80\x2e\x01\x00\x02",
            bytes(1000),
            b"\x16\x03\x01\x00\x05\x02\0\0\x01\0",
            b"\x16\x03\x01\xff\xff",
        ):
            with capturedLogs() as logs:
                _, client = self.raw()
                client.send(data)
                self.assert_alert(client, DECODE_ERROR)
            self.assertEqual([each for each in logs if "reason" in each], [])
        self.assertEqual(self.pump.stats.handshake_failures, 5)

    def test_garbage_after_the_hello(self) -> None:
        """A handshake that goes wrong later gets the engine's alert."""
        _, client = self.raw()
        client.send(client_hello(client_context()))
        self.pump.until(lambda: client.received)
        client.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.pump.until(lambda: client.ended)
        # An alert of TLS 1.3 is encrypted by then: 2 bytes, their type, and a tag of 16.
        self.assertEqual(client.received[-24:-19], b"\x17\x03\x03\x00\x13")
        self.assertEqual(client.ended, "eof")
        self.assertEqual(self.pump.stats.handshake_failures, 1)

    def test_huge_hello(self) -> None:
        """A hello longer than any real one is refused before it is collected."""
        _, client = self.raw()
        body = b"\x01\x00\xff\xff" + bytes(16380)
        client.send(b"\x16\x03\x01" + struct.pack("!H", len(body)) + body + body)
        self.assert_alert(client, DECODE_ERROR)

    def test_splitting_without_end(self) -> None:
        """A hello that drips in record by record is given up before it costs much."""
        _, client = self.raw()
        data = split(client_hello(client_context(), "a." * 100 + "example"), 1)
        self.assertGreater(len(data), 6 * (MAX_SPLIT_READS + 2))
        for at in range(0, len(data), 6):
            client.send(data[at : at + 6])
            self.pump.turn()
            if client.ended:
                break
        self.assert_alert(client, DECODE_ERROR)
        self.assertLess(at, 6 * (MAX_SPLIT_READS + 2))

    def test_slow(self) -> None:
        """A client that does not finish in time is cut, wherever it got stuck."""
        hello = client_hello(client_context())
        for sent in (b"", hello[:5], hello):
            transport, client = self.raw()
            client.send(sent)
            self.pump.turn()
            self.pump.reactor.advance(HANDSHAKE_S - 1)
            client.send(b"")
            self.pump.turn()
            self.assertIsNone(client.ended)
            self.pump.reactor.advance(1.25)
            self.pump.until(lambda c=client: c.ended)  # type: ignore[misc]
            self.assertTrue(transport._ended)
        self.assertEqual(self.pump.stats.handshake_timeouts, 3)
        self.assertEqual(self.pump.stats.handshake_failures, 0)

    def test_gone(self) -> None:
        """One that leaves during its handshake is counted; one that never spoke is not."""
        for sent in (client_hello(client_context()), client_hello(client_context())[:9]):
            _, client = self.raw()
            client.send(sent)
            self.pump.turn()
            client.close()
            self.pump.until(lambda: len(self.pump.hub) == 0)
        self.assertEqual(self.pump.stats.handshake_failures, 2)
        _, client = self.raw()
        client.close()
        self.pump.until(lambda: len(self.pump.hub) == 0)
        self.assertEqual(self.pump.stats.handshake_failures, 2)

    def test_refused_late(self) -> None:
        """The farewell to a refused client is not mistaken for a slow handshake."""
        _, client = self.raw(Chooser(HandshakeRefused(120, "no")))
        self.pump.reactor.advance(HANDSHAKE_S - 0.5)
        client.send(client_hello(client_context()))
        self.pump.until(lambda: client.ended)
        self.pump.reactor.advance(0.75)
        self.pump.turn()
        self.assertEqual(self.pump.stats.handshake_timeouts, 0)

    def test_chooser_fails(self) -> None:
        """A bug in choosing closes the connection, and is logged as one."""
        _, client = self.raw(Chooser(RuntimeError("a bug of ours")))
        client.send(client_hello(client_context()))
        self.pump.until(lambda: client.ended)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.pump.stats.handshake_failures, 1)


class LaterChoiceTests(OpeningCase):
    """A certificate that has to be fetched first."""

    def setUp(self) -> None:
        super().setUp()
        self.cancelled: list[Any] = []
        self.choice: Deferred[ssl.SSLContext] = Deferred(self.cancelled.append)
        self.chooser = Chooser(self.choice)

    def connect(self) -> tuple[TLSTransport, TLSClient]:
        ours, theirs = self.pump.pair()
        transport = self.pump.serve(ours, self.build, self.chooser)
        client = TLSClient(theirs, client_context())
        self.pump.clients.append(client)
        self.pump.until(lambda: self.chooser.asked)
        return transport, client

    def test_fires_later(self) -> None:
        """The handshake goes on when the context is there; until then nothing is read."""
        _, client = self.connect()
        client.sock.send(b"\x14\x03\x03\0\x01\x01")  # as TLS 1.3 allows behind a hello
        self.pump.settle()
        self.assertFalse(client.done)
        self.assertEqual(len(self.chooser.asked), 1)
        self.choice.callback(self.pump.context)
        self.pump.until(lambda: client.ready)
        client.write(b"ping")
        self.pump.until(lambda: client.received == b"ping")

    def test_fired_already(self) -> None:
        """A Deferred that has fired is as good."""
        _, client = self.pump.connect_tls(chooser=Chooser(lambda: succeed(self.pump.context)))
        client.write(b"ping")
        self.pump.until(lambda: client.received == b"ping")

    def test_fires_within_anothers_turn(self) -> None:
        """
        It may fire while another connection is being served, whose bytes are in the shared
        buffers then.
        """
        _, client = self.connect()
        other = Recorder()

        def receive(data: bytes) -> None:
            self.choice.callback(self.pump.context)
            other.transport.write(data.upper())

        other.dataReceived = receive  # type: ignore[method-assign]
        _, inside = self.pump.connect_tls(other)
        inside.write(b"secret")
        self.pump.until(lambda: client.ready and inside.received == b"SECRET")

    def test_refused_later(self) -> None:
        """A refusal may come later, too, or already be there."""
        refusal = HandshakeRefused(112, "unknown")
        _, client = self.connect()
        self.choice.errback(refusal)
        self.pump.until(lambda: client.error)
        self.assertIn("UNRECOGNIZED_NAME", str(client.error))
        _, client = self.pump.connect_tls(chooser=Chooser(lambda: fail(refusal)), wait=False)
        self.pump.until(lambda: client.error)
        self.assertIn("UNRECOGNIZED_NAME", str(client.error))
        self.assertEqual(self.pump.stats.handshake_failures, 2)

    def test_fails(self) -> None:
        """Anything else is an internal error to the client, and a line with its text to us."""
        with capturedLogs() as logs:
            _, client = self.connect()
            self.choice.errback(OSError("the CA does not answer"))
            self.pump.until(lambda: client.error)
        self.assertIn("INTERNAL_ERROR", str(client.error))
        (line,) = [each for each in logs if "reason" in each]
        self.assertIn("the CA does not answer", line["reason"])

    def test_client_goes_meanwhile(self) -> None:
        """Nobody needs the certificate any more: its Deferred is cancelled, quietly."""
        captured = capturedLogs()
        logs = captured.__enter__()
        self.addCleanup(captured.__exit__, None, None, None)
        transport, client = self.connect()
        reset_on_close = struct.pack("ii", 1, 0)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset_on_close)
        client.close()
        self.pump.until(lambda: len(self.pump.hub) == 0)
        self.assertEqual(self.cancelled, [self.choice])
        self.assertEqual([each for each in logs if "reason" in each], [])
        self.assertEqual(self.pump.stats.handshake_failures, 1)
        self.assertTrue(transport._ended)

    def test_deadline(self) -> None:
        """The client is not left waiting for ever; what comes then is too late."""
        _, client = self.connect()
        self.choice._canceller = None  # type: ignore[assignment]
        self.pump.reactor.advance(HANDSHAKE_S + 0.25)
        self.pump.until(lambda: client.ended)
        self.assertEqual(self.pump.stats.handshake_timeouts, 1)
        self.choice.callback(self.pump.context)
        self.pump.settle()
        self.assertEqual(self.built, [])

    def test_fires_as_the_deadline_passes(self) -> None:
        """A context that arrives in the turn of the cut starts nothing."""
        transport, client = self.connect()
        self.choice.callback(self.pump.context)
        transport.abortConnection()
        self.pump.until(lambda: client.ended)
        self.assertEqual(self.built, [])
        self.assertEqual(len(self.pump.hub), 0)

    def test_bug_after_it_fired(self) -> None:
        """An error in what follows is an error of this connection alone."""
        _, client = self.connect()
        self.choice.callback("no context")  # type: ignore[arg-type]
        self.pump.until(lambda: client.ended)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)


class DrippingClient(TLSClient):
    """Sends one byte at a time."""

    def send(self, data: bytes) -> None:
        self._unsent += data

    def _push(self) -> None:
        if self._unsent:
            self.sock.send(self._unsent[:1])
            self._unsent = self._unsent[1:]


class EagerClient(TLSClient):
    """Sends its first data in one packet with its Finished."""

    def opened(self) -> None:
        self.tls.write(b"eager")
