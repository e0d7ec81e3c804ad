"""Tests for :mod:`derp.net.relay_protocol`: DERP on a transport, and its clocks."""

from __future__ import annotations

import gc
import weakref
from itertools import pairwise
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocol, IPushProducer
from zope.interface.verify import verifyObject

from derp.core.session import LoginRequest, Session
from derp.net.arena import Arena
from derp.net.relay_login import ADMISSION_S, LOGIN_S
from derp.net.relay_protocol import (
    GOODBYE_S,
    MAX_UNREAD,
    MESH_WRITE_TIMEOUT_S,
    RelayProtocol,
)
from derp.wire.frames import (
    KEEP_ALIVE_FRAME,
    WATCH_CONNS_FRAME,
    FrameType,
    encode_close_peer,
    encode_frame,
    encode_note_preferred,
    encode_ping,
    encode_send_packet,
)
from tests.core.fakes import NOBODY, disco, make_relay
from tests.net.relay_sides import PEER, FakeTransport, RelayCase, Side, lose
from tests.vectors import load

HEAD = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
PING = encode_ping(b"12345678")


class LoginTests(RelayCase):
    """From the greeting to ServerInfo."""

    def test_interfaces(self) -> None:
        """It is a protocol, and a push producer for its transport."""
        protocol, transport = self.connect()
        verifyObject(IProtocol, protocol)
        verifyObject(IPushProducer, protocol)
        self.assertIs(transport.producer, protocol)
        self.assertTrue(transport.streaming)
        protocol.connectionMade()
        protocol.stopProducing()

    def test_greeting_in_one_write(self) -> None:
        """The HTTP response and the greeting leave together; in fast start there is no response."""
        _, transport = self.connect(HEAD)
        self.assertEqual(transport.writes, [HEAD + self.relay.greeting])
        _, transport = self.connect(HEAD, fast_start=True)
        self.assertEqual(transport.writes, [self.relay.greeting])
        self.assertEqual(self.relay.stats.accepts, 2)

    def test_login(self) -> None:
        """ServerInfo comes next, and the deadline is over."""
        protocol, transport = self.connect()
        side = Side("alice")
        transport.clear()
        protocol.dataReceived(side.login(self.relay.public))
        self.assertEqual(side.types(transport.value()), [FrameType.SERVER_INFO])
        self.assertIn(side.key, self.relay.registry.active)
        self.advance(59)
        self.assertFalse(transport.disconnecting)
        self.assertEqual(self.lines, [])

    def test_pipelined(self) -> None:
        """What a client sends behind its login, in one piece, is acted on after ServerInfo."""
        protocol, transport = self.connect()
        side = Side("alice")
        transport.clear()
        sent = side.login(self.relay.public) + encode_note_preferred(True) + PING
        protocol.dataReceived(sent + encode_send_packet(side.key, b"to myself"))
        self.assertEqual(
            side.types(transport.value()),
            [FrameType.SERVER_INFO, FrameType.PONG, FrameType.RECV_PACKET],
        )
        self.assertEqual(self.relay.stats.home_connections, 1)

    def test_silent(self) -> None:
        """Who says nothing for ten seconds is closed, with a line that names him and why."""
        protocol, transport = self.connect()
        self.advance(LOGIN_S - 0.25)
        self.assertFalse(transport.disconnecting)
        self.advance(0.5)
        self.assertTrue(transport.disconnecting)
        self.assertEqual(self.relay.stats.login_timeouts, 1)
        lose(protocol, ConnectionDone())
        self.assertEqual(
            self.lines,
            ["derp: 192.0.2.7:41641: receive client key: nothing complete within 10 s"],
        )

    def test_half_a_login(self) -> None:
        """Dripping does not extend the deadline."""
        protocol, transport = self.connect()
        login = Side("alice").login(self.relay.public)
        for second in range(9):
            protocol.dataReceived(login[second : second + 1])
            self.advance(1)
        self.assertFalse(transport.disconnecting)
        protocol.dataReceived(login[9:20])
        self.advance(1.25)
        self.assertTrue(transport.disconnecting)

    def test_greeting_never_leaves(self) -> None:
        """A client that does not even read the greeting is cut: nothing more can be sent."""
        protocol, transport = self.connect()
        protocol.pauseProducing()
        self.advance(LOGIN_S + 0.25)
        self.assertTrue(transport.aborted)
        lose(protocol, ConnectionLost())
        self.assertEqual(len(self.lines), 1)

    def test_full_before_the_login(self) -> None:
        """
        A socket that was full with the greeting still is after the login: packets queue, and
        the write timeout runs.
        """
        protocol, transport = self.connect()
        protocol.pauseProducing()
        side = Side("alice")
        transport.clear()
        protocol.dataReceived(side.login(self.relay.public) + PING)
        conn = self.relay.registry.active[side.key]
        self.assertTrue(conn.blocked)
        self.assertEqual(side.types(transport.value()), [FrameType.SERVER_INFO])
        transport.clear()
        protocol.resumeProducing()
        self.assertEqual(side.types(transport.value()), [FrameType.PONG])
        self.advance(10)
        self.assertFalse(transport.aborted)

    def test_full_with_the_login(self) -> None:
        """
        A socket that fills up with the answers to what came behind the login leaves no login
        deadline behind that would cut a healthy client later.
        """
        protocol, transport = self.connect()
        side = Side("mesh", mesh=True)
        transport.on_write = protocol.pauseProducing
        protocol.dataReceived(side.login(self.relay.public) + WATCH_CONNS_FRAME + PING)
        transport.on_write = lambda: None
        protocol.resumeProducing()
        self.advance(50)
        self.assertFalse(transport.disconnecting or transport.aborted)
        self.assertEqual(self.relay.stats.login_timeouts, 0)

    def test_bad_logins(self) -> None:
        """
        Each login the recorded server refused is closed, with one line that names the peer.
        """
        transcript = load("transcripts/bad-logins.json")
        for name, key in transcript["conns"].items():
            sent = b"".join(
                bytes.fromhex(step["hex"])
                for step in transcript["steps"]
                if step["conn"] == name and step["dir"] == "c2s" and step["unit"] != "http"
            )
            if not sent:
                continue
            before = len(self.lines)
            protocol, transport = self.connect()
            protocol.dataReceived(sent)
            self.advance(LOGIN_S + 0.25)
            self.assertTrue(transport.disconnecting, key)
            lose(protocol, ConnectionDone())
            self.assertEqual(len(self.lines), before + 1, key)
            self.assertTrue(
                self.lines[-1].startswith("derp: 192.0.2.7:41641: receive client key: "),
                self.lines[-1],
            )
        self.assertEqual(len(self.relay.registry.active), 0)

    def test_gone_before_the_login(self) -> None:
        """During the login every end is logged, clean or not."""
        for reason, text in (
            (ConnectionDone(), "the client closed the connection"),
            (ConnectionLost("reset"), "reset"),
        ):
            protocol, _ = self.connect()
            lose(protocol, reason)
            self.assertIn(text, self.lines[-1])
            self.assertIn("receive client key", self.lines[-1])
        self.assertEqual(len(self.lines), 2)

    def test_health_check(self) -> None:
        """One from this machine that ends cleanly after the greeting is no news."""
        for host, reason, lines in (
            ("127.0.0.1", ConnectionDone(), 0),
            ("::1", ConnectionDone(), 0),
            ("127.0.0.1", ConnectionLost("reset"), 1),
            ("192.0.2.7", ConnectionDone(), 1),
        ):
            before = len(self.lines)
            kind = IPv6Address if ":" in host else IPv4Address
            protocol = self.server.accept(remote=kind("TCP", host, 1234))
            protocol.makeConnection(FakeTransport())
            lose(protocol, reason)
            self.assertEqual(len(self.lines) - before, lines, (host, reason))

    def test_remote_addresses(self) -> None:
        """IPv6 is logged in brackets, and without its zone; what is not ip:port as unknown."""
        for address, text in (
            (IPv6Address("TCP", "2001:db8::1", 5), "[2001:db8::1]:5"),
            (IPv6Address("TCP", "fe80::1%eth0", 5), "[fe80::1]:5"),
            (UNIXAddress(b"/run/x"), "unknown"),
        ):
            protocol = self.server.accept(remote=address)
            protocol.makeConnection(FakeTransport())
            lose(protocol, ConnectionDone())
            self.assertIn(f"derp: {text}: ", self.lines[-1])


class AdmissionTests(RelayCase):
    """Asking somebody else, who takes his time."""

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[LoginRequest] = []
        self.answer: Deferred[str | None] = Deferred()
        self.server = self.make_server(admission=self._ask)

    def _ask(self, request: LoginRequest) -> Deferred[str | None]:
        self.asked.append(request)
        return self.answer

    def ask(self, behind: bytes = b"") -> tuple[RelayProtocol, FakeTransport, Side]:
        """A client that has sent its login, and something behind it."""
        protocol, transport = self.connect()
        side = Side("alice")
        transport.clear()
        protocol.dataReceived(side.login(self.relay.public) + behind)
        return protocol, transport, side

    def test_admitted(self) -> None:
        """Nothing is read and nothing answered before the answer; then everything, in order."""
        protocol, transport, side = self.ask(PING[:7])
        self.assertTrue(transport.paused)
        self.assertEqual(transport.value(), b"")
        self.assertEqual([request.key for request in self.asked], [side.key])
        protocol.dataReceived(PING[7:] + PING)
        self.assertNotIn(side.key, self.relay.registry.active)
        self.answer.callback(None)
        self.assertFalse(transport.paused)
        self.assertEqual(
            side.types(transport.value()),
            [FrameType.SERVER_INFO, FrameType.PONG, FrameType.PONG],
        )

    def test_slowly(self) -> None:
        """The login's deadline is for the client; admission has time of its own."""
        _, transport, side = self.ask()
        self.advance(LOGIN_S + 5)
        self.assertFalse(transport.disconnecting)
        self.answer.callback(None)
        self.assertEqual(side.types(transport.value()), [FrameType.SERVER_INFO])
        self.advance(50)
        self.assertFalse(transport.disconnecting)

    def test_at_once(self) -> None:
        """An answer may be there already."""
        for answer, closed in ((None, False), ("not you", True)):
            self.answer = succeed(answer)
            _, transport, side = self.ask(PING)
            self.assertEqual(transport.disconnecting, closed)
            expected = [] if closed else [FrameType.SERVER_INFO, FrameType.PONG]
            self.assertEqual(side.types(transport.value()), expected)

    def test_refused(self) -> None:
        """The reason is for the log alone; what was sent behind the login is not acted on."""
        protocol, transport, side = self.ask(PING)
        self.answer.callback("not in the tailnet")
        self.assertTrue(transport.disconnecting)
        protocol.dataReceived(PING)
        lose(protocol, ConnectionDone())
        self.assertEqual(transport.value(), b"")
        (line,) = self.lines
        self.assertEqual(
            line,
            f"derp: 192.0.2.7:41641: client nodekey:{side.key.hex()} rejected: not in the tailnet",
        )
        self.assertEqual(self.relay.stats.logins_refused, 1)

    def test_failed(self) -> None:
        """Admission that fails refuses, and its error is logged."""
        for answer in (fail(OSError("no route")), None):
            if answer is None:
                self.server = self.make_server(admission=lambda _: 1 // 0)  # type: ignore[arg-type, return-value]
            else:
                self.answer = answer
            protocol, transport, _ = self.ask()
            self.assertTrue(transport.disconnecting)
            lose(protocol, ConnectionDone())
            self.assertIn("admission could not be asked", self.lines[-1])
        self.assertEqual(len(self.flushLoggedErrors(OSError, ZeroDivisionError)), 2)

    def test_never_answers(self) -> None:
        """A client does not wait for ever; an answer that comes then is too late."""
        protocol, transport, side = self.ask()
        self.advance(ADMISSION_S + 0.25)
        self.assertTrue(transport.disconnecting)
        self.answer.callback(None)
        self.assertEqual(side.types(transport.value()), [])
        lose(protocol, ConnectionDone())
        self.assertIn("admission did not answer within 30 s", self.lines[-1])

    def test_client_goes_meanwhile(self) -> None:
        """Nobody needs the answer any more: the question is taken back, and nothing is logged."""
        cancelled: list[Any] = []
        self.answer = Deferred(cancelled.append)
        protocol, _, _ = self.ask()
        lose(protocol, ConnectionDone())
        self.assertEqual(cancelled, [self.answer])
        self.assertEqual(self.lines, [])
        self.assertEqual(len(self.relay.registry.active), 0)
        self.advance(ADMISSION_S + 1)
        self.assertEqual(self.relay.stats.logins_refused, 0)

    def test_mesh_peers_are_not_asked_about(self) -> None:
        """The mesh key is admission enough."""
        _, transport = self.connect()
        self.log_in("mesh", mesh=True)
        self.assertEqual(self.asked, [])
        self.assertFalse(transport.paused)

    def test_goes_on_in_spite_of_the_pause(self) -> None:
        """A transport that delivers although it is paused may not fill our memory."""
        protocol, transport, _ = self.ask()
        for _ in range(MAX_UNREAD // 60_000):
            protocol.dataReceived(bytes(60_000))
        self.assertFalse(transport.disconnecting)
        protocol.dataReceived(bytes(60_000))
        self.assertTrue(transport.disconnecting)
        self.assertIsNone(protocol._held)
        self.answer.callback(None)
        self.assertEqual(self.relay.registry.active, {}, "let in while it is being closed")
        lose(protocol, ConnectionDone())
        self.assertIn("before it was admitted", self.lines[-1])

    def test_bug_behind_the_answer(self) -> None:
        """An error in serving what was held is logged, and costs that client its connection."""
        _, transport, _ = self.ask(PING)
        self.relay.register = lambda conn: 1 // 0  # type: ignore[method-assign, assignment, return-value]
        self.answer.callback(None)
        self.assertTrue(transport.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class FrameTests(RelayCase):
    """Bytes in, and what is wrong with them."""

    def test_relays(self) -> None:
        """A packet for another client is on its transport when the call returns."""
        alice, _, alice_side = self.log_in("alice")
        _, bob_transport, bob = self.log_in("bob")
        alice.dataReceived(encode_send_packet(bob.key, b"hello"))
        self.assertEqual(
            bob.frames(bob_transport.value()),
            [(FrameType.RECV_PACKET, alice_side.key + b"hello")],
        )

    def test_fault(self) -> None:
        """A frame against the rules closes, with one line; what follows is ignored."""
        protocol, transport, side = self.log_in()
        protocol.dataReceived(PING + encode_frame(FrameType.PING, b"short") + PING)
        self.assertEqual(side.types(transport.value()), [FrameType.PONG])
        self.assertTrue(transport.disconnecting)
        self.assertIsNone(transport.producer, "it would keep the transport open")
        transport.clear()
        protocol.dataReceived(PING)
        self.assertEqual(protocol.bufferReceived(bytearray(PING), memoryview(PING), 5), 5)
        self.assertEqual(transport.value(), b"")
        self.assertEqual(self.lines, [])
        lose(protocol, ConnectionDone())
        (line,) = self.lines
        self.assertTrue(
            line.startswith(
                f"derp: 192.0.2.7:41641: client nodekey:{side.key.hex()}: recvPacket: PING of 5"
            ),
            line,
        )
        self.assertEqual(self.relay.stats.protocol_errors, 1)

    def test_fault_while_full(self) -> None:
        """If nothing can leave any more, it is cut instead."""
        protocol, transport, _ = self.log_in()
        protocol.pauseProducing()
        protocol.dataReceived(encode_frame(FrameType.PING, b"short"))
        self.assertTrue(transport.aborted)
        self.advance(30)
        lose(protocol, ConnectionLost())
        self.assertEqual(len(self.lines), 1)
        self.assertEqual(self.relay.stats.sclient_write_timeouts, 0)

    def test_closing_takes_too_long(self) -> None:
        """A client that is being closed and does not take its last bytes is cut."""
        protocol, transport, _ = self.log_in()
        protocol.close("enough")
        self.advance(GOODBYE_S - 0.25)
        self.assertFalse(transport.aborted)
        self.advance(0.5)
        self.assertTrue(transport.aborted)

    def test_packets_for_one_that_is_closing(self) -> None:
        """
        Until it is gone, packets still find it: they go to the bounded outbox, not to a
        transport that may take them for ever, and are counted as lost at its end.
        """
        alice, _, _ = self.log_in("alice")
        bob, bob_transport, bob_side = self.log_in("bob")
        bob.close("enough")
        bob_transport.clear()
        for _ in range(100):
            alice.dataReceived(encode_send_packet(bob_side.key, bytes(1000)))
        self.assertEqual(bob_transport.value(), b"")
        lose(bob, ConnectionDone())
        self.assertEqual(self.relay.stats.dropped, 100)

    def test_close_twice(self) -> None:
        """The first reason counts."""
        protocol, _, _ = self.log_in()
        protocol.close("first")
        protocol.close("second")
        lose(protocol, ConnectionDone())
        protocol.close("third")
        self.assertEqual(self.lines, ["derp: 192.0.2.7:41641: first"])

    def test_closes_itself(self) -> None:
        """A mesh peer that closes its own key gets through the call."""
        protocol, transport, side = self.log_in("mesh", mesh=True)
        protocol.dataReceived(encode_close_peer(side.key) + PING)
        self.assertTrue(transport.disconnecting)

    def test_ends(self) -> None:
        """A clean end between frames, or in a header, is quiet; inside a frame it is not."""
        frame = encode_send_packet(NOBODY, bytes(100))
        for sent, reason, text in (
            (b"", ConnectionDone(), None),
            (PING, ConnectionDone(), None),
            (frame[:4], ConnectionDone(), None),
            (frame[:50], ConnectionDone(), "ended inside a frame"),
            (b"\x55\0\0\0\x10abc", ConnectionDone(), "ended inside a frame"),
            (b"", ConnectionLost("reset by peer"), "reset by peer"),
        ):
            before = len(self.lines)
            protocol, _, side = self.log_in()
            protocol.dataReceived(sent)
            lose(protocol, reason)
            if text is None:
                self.assertEqual(self.lines[before:], [])
            else:
                (line,) = self.lines[before:]
                self.assertIn(text, line)
                self.assertTrue(line.startswith("derp: 192.0.2.7:41641: client ["), line)
            self.assertNotIn(side.key, self.relay.registry.active)

    def test_quiet_stop(self) -> None:
        """The service's own end is not a line per client."""
        protocol, transport, _ = self.log_in()
        self.server.close_all()
        self.assertTrue(transport.aborted)
        lose(protocol, ConnectionLost("aborted"))
        self.assertEqual(self.lines, [])
        self.assertEqual(self.server.protocols, set())

    def test_on_lost(self) -> None:
        """Whoever took the connection over hears of its end, when the books are in order."""
        calls: list[bool] = []
        protocol, _, side = self.log_in()
        protocol.on_lost = lambda: calls.append(side.key in self.relay.registry.active)
        lose(protocol, ConnectionDone())
        self.assertEqual(calls, [False])
        self.assertIsNone(protocol.on_lost)

    def test_on_lost_in_spite_of_a_bug(self) -> None:
        """Even if the books cannot be closed."""
        calls: list[int] = []
        protocol, _, _ = self.log_in()
        protocol.on_lost = lambda: calls.append(1)
        self.relay.unregister = lambda conn: 1 // 0  # type: ignore[method-assign, assignment, return-value]
        self.assertRaises(ZeroDivisionError, lose, protocol, ConnectionDone())
        self.assertEqual(calls, [1])

    def test_after_the_end(self) -> None:
        """A lost protocol is harmless, whoever still calls it."""
        protocol, transport, _ = self.log_in()
        lose(protocol, ConnectionDone())
        transport.clear()
        protocol.dataReceived(PING)
        protocol.pauseProducing()
        protocol.resumeProducing()
        self.assertEqual(protocol.bufferReceived(bytearray(PING), memoryview(PING), 13), 13)
        self.assertEqual(protocol.wanted, 5)
        self.advance(200)
        self.assertEqual(transport.value(), b"")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_freed(self) -> None:
        """It is freed by reference count, with its session."""
        gc.collect()
        before = protocols()
        gc.disable()
        self.addCleanup(gc.enable)
        for logged_in in (True, False):
            if logged_in:
                protocol, transport, _ = self.log_in()
            else:
                protocol, transport = self.connect()
            protocol.on_lost = lambda p=protocol: p  # type: ignore[misc]
            lose(protocol, ConnectionDone())
            transport.producer = None  # as a transport does at its end
            gone = weakref.ref(transport)
            del protocol, transport
            self.assertIsNone(gone())
            self.assertEqual(protocols(), before)


def protocols() -> tuple[int, int]:
    """How many protocols and sessions there are in memory."""
    objects = gc.get_objects()
    return (
        sum(isinstance(each, RelayProtocol) for each in objects),
        sum(isinstance(each, Session) for each in objects),
    )


class SplitTests(RelayCase):
    """However the stream is cut, and by whichever door it comes in."""

    STREAM = (
        encode_note_preferred(True)
        + PING
        + b"".join(encode_send_packet(NOBODY, bytes(n * 7)) for n in range(8))
        + encode_frame(0x55, bytes(300))
        + encode_send_packet(NOBODY, disco(100)) * 3
        + PING
    )

    def _books(self) -> tuple[Any, ...]:
        stats = self.relay.stats
        return (
            stats.packets_received,
            stats.bytes_received,
            stats.disco_received,
            stats.got_ping,
            stats.dropped,
            stats.home_connections,
        )

    def _afresh(self) -> None:
        """Start with empty books: Hypothesis runs many examples in one test."""
        self.relay = make_relay()
        self.server = self.make_server()

    @given(st.lists(st.integers(0, 5000), max_size=30), st.data())
    @settings(max_examples=60, deadline=None)
    def test_any_split(self, cuts: list[int], data: st.DataObject) -> None:
        """
        The pieces of a stream have the effect of the whole, whether they come as bytes or in
        the shared buffer, or both.
        """
        self._afresh()
        protocol, transport, _ = self.log_in()
        protocol.dataReceived(self.STREAM)
        expected, books = transport.value(), self._books()
        self._afresh()
        protocol, transport, _ = self.log_in()
        arena = Arena()
        held = b""
        bounds = sorted({0, len(self.STREAM), *(cut % len(self.STREAM) for cut in cuts)})
        by_buffer = False
        for start, end in pairwise(bounds):
            piece = self.STREAM[start:end]
            # Once the transport knows the protocol it stays with buffers (after an upgrade).
            by_buffer = by_buffer or data.draw(st.booleans(), label="by buffer")
            if not by_buffer:
                protocol.dataReceived(piece)
                continue
            held += piece
            if len(held) < protocol.wanted and held != piece:
                continue
            arena.plain[: len(held)] = held
            consumed = protocol.bufferReceived(arena.plain, arena.plain_view, len(held))
            held = held[consumed:]
        self.assertEqual(transport.value(), expected)
        self.assertEqual(self._books(), books)

    def test_linear(self) -> None:
        """A long frame in pieces is kept in one place, whichever transport it comes from."""
        protocol, _, _ = self.log_in()
        frame = encode_send_packet(NOBODY, bytes(65_536))
        protocol.dataReceived(frame[:100])
        held = protocol._held
        calls = []
        receive = protocol._receive

        def counted(buf: bytearray, view: memoryview, end: int) -> int:
            calls.append(end)
            return receive(buf, view, end)

        protocol._receive = counted
        for start in range(100, len(frame), 100):
            protocol.dataReceived(frame[start : start + 100])
            if start + 100 < len(frame):
                self.assertIs(protocol._held, held)
        self.assertIsNone(protocol._held)
        self.assertEqual(calls, [len(frame)], "looked at before it was complete")
        self.assertEqual(self.relay.stats.packets_received, 1)


class KeepAliveTests(RelayCase):
    """A sign of life every 60 to 65 seconds."""

    def test_period(self) -> None:
        """
        As recorded: each connection has a period of its own, 60 to 65 s, and keeps to it,
        whatever other traffic there is.
        """
        recorded: dict[str, list[float]] = {}
        for step in load("transcripts/keepalive-65s.json")["steps"]:
            if step.get("type") == "KeepAlive":
                recorded.setdefault(step["conn"], []).append(step["t_ms"] / 1000)
        self.server._random = Random(7)
        periods = set()
        for first, second in recorded.values():
            self.assertTrue(60 <= first <= 66 and abs(second - 2 * first) < 0.5)
        for n in range(10):
            protocol, transport, _ = self.log_in(str(n))
            times = []
            start = self.clock.seconds()
            for _ in range(4 * 200):
                self.clock.advance(0.25)
                if KEEP_ALIVE_FRAME in transport.value():
                    times.append(self.clock.seconds() - start)
                    transport.clear()
                protocol.dataReceived(PING)
                transport.clear()
            self.assertEqual(len(times), 3)
            gaps = [times[0], times[1] - times[0], times[2] - times[1]]
            for gap in gaps:
                self.assertTrue(60 <= gap <= 65, gaps)
            self.assertLessEqual(max(gaps) - min(gaps), 0.25)
            periods.add(round(times[0], 1))
            lose(protocol, ConnectionDone())
        self.assertGreater(len(periods), 3, "all at the same time")

    def test_while_full(self) -> None:
        """A full socket gets it later, and none is lost."""
        protocol, transport, side = self.log_in("mesh", mesh=True)
        self.advance(55)
        protocol.pauseProducing()
        transport.bytes_moved_at = self.clock.seconds()
        self.advance(12)
        self.assertEqual(transport.value(), b"")
        protocol.resumeProducing()
        self.assertEqual(side.types(transport.value()), [FrameType.KEEP_ALIVE])


class WriteTimeoutTests(RelayCase):
    """Clients that do not read."""

    def flood(self, name: str) -> None:
        """Somebody sends it packets."""
        sender, _, _ = self.log_in("sender")
        sender.dataReceived(encode_send_packet(Side(name).key, bytes(100)) * 50)
        lose(sender, ConnectionDone())

    def test_cut(self) -> None:
        """Who takes no byte for two seconds is cut, with a line, and his packets are lost."""
        protocol, transport, _ = self.log_in("bob")
        protocol.pauseProducing()
        self.flood("bob")
        self.advance(1.75)
        self.assertFalse(transport.aborted)
        self.advance(0.5)
        self.assertTrue(transport.aborted)
        self.assertEqual(self.relay.stats.sclient_write_timeouts, 1)
        lose(protocol, ConnectionLost("aborted"))
        self.assertEqual(self.relay.stats.dropped, 50)
        self.assertEqual(
            self.lines,
            ["derp: 192.0.2.7:41641: sender failed: took no byte for 2 s (--tcp-write-timeout)"],
        )

    def test_in_time(self) -> None:
        """Who reads in time gets what waited, and the clock starts anew the next time."""
        protocol, transport, side = self.log_in("bob")
        for _ in range(5):
            protocol.pauseProducing()
            self.flood("bob")
            self.advance(1.5)
            transport.clear()
            protocol.resumeProducing()
            got = side.types(transport.value())
            self.assertEqual(got.count(FrameType.RECV_PACKET), 32)
        self.advance(20)
        self.assertFalse(transport.aborted)

    def test_taking_some(self) -> None:
        """Who takes some is slow, not gone: the clock runs from his last byte."""
        protocol, transport, _ = self.log_in("bob")
        transport.bytes_moved_at = self.clock.seconds()
        protocol.pauseProducing()
        for _ in range(20):
            self.advance(1)
            transport.bytes_moved_at = self.clock.seconds()
        self.assertFalse(transport.aborted)
        self.advance(1.75)
        self.assertFalse(transport.aborted)
        self.advance(0.75)
        self.assertTrue(transport.aborted)

    def test_paused_twice(self) -> None:
        """Being told twice leaves no second clock behind."""
        protocol, transport, _ = self.log_in("bob")
        protocol.pauseProducing()
        protocol.pauseProducing()
        protocol.resumeProducing()
        self.advance(30)
        self.assertFalse(transport.aborted)

    def test_mesh_peers(self) -> None:
        """Mesh peers have thirty seconds, whatever the flag says."""
        self.server = self.make_server(write_timeout_s=1.0)
        protocol, transport, _ = self.log_in("mesh", mesh=True)
        protocol.pauseProducing()
        self.advance(MESH_WRITE_TIMEOUT_S - 0.25)
        self.assertFalse(transport.aborted)
        self.advance(0.5)
        self.assertTrue(transport.aborted)

    def test_never(self) -> None:
        """Zero is for ever."""
        self.server = self.make_server(write_timeout_s=0.0)
        protocol, transport, _ = self.log_in("bob")
        protocol.pauseProducing()
        self.advance(3600)
        self.assertFalse(transport.aborted)

    def test_ends_while_full(self) -> None:
        """A connection that is lost while it is full leaves no clock behind."""
        protocol, _, _ = self.log_in("bob")
        protocol.pauseProducing()
        lose(protocol, ConnectionLost())
        self.advance(100)
        self.assertEqual(self.relay.stats.sclient_write_timeouts, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_many_control_frames(self) -> None:
        """A watcher that cannot keep up with who comes and goes is cut, not misinformed."""
        watcher, transport, _ = self.log_in("mesh", mesh=True)
        watcher.dataReceived(WATCH_CONNS_FRAME)
        watcher.pauseProducing()
        for _ in range(12_000):
            self.relay.watchers.tell_gone(NOBODY, 0)
            transport.bytes_moved_at = self.clock.seconds()
        for _ in range(20_000):
            self.relay.watchers.tell_gone(NOBODY, 0)
        self.assertTrue(transport.aborted)
        lose(watcher, ConnectionLost())
        self.assertIn("too slow", self.lines[-1])


class PeerTests(RelayCase):
    """Connections that have to do with each other."""

    def test_address(self) -> None:
        """Watchers are told the address a client came from."""
        watcher, transport, _ = self.log_in("mesh", mesh=True)
        watcher.dataReceived(WATCH_CONNS_FRAME)
        transport.clear()
        _, _, side = self.log_in("alice")
        ((_, payload),) = Side("x").frames(transport.value())
        self.assertEqual(payload[:32], side.key)
        self.assertEqual(payload[32:50], b"\0" * 10 + b"\xff\xff\xc0\0\x02\x07" + b"\xa2\xa9")
        self.assertEqual(PEER.port, 0xA2A9)

    def test_not_ideal(self) -> None:
        """A client that says it is here for want of its ideal node is counted as that."""
        protocol, _ = self.connect(not_ideal=True)
        protocol.dataReceived(Side("alice").login(self.relay.public))
        self.assertEqual(self.relay.stats.notideal_connections, 1)
        lose(protocol, ConnectionDone())
        self.assertEqual(self.relay.stats.notideal_connections, 0)
