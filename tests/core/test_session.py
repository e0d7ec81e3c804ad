"""Tests for :mod:`derp.core.session`: one connection's life, and what it may say."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.registry import DuplicatePolicy
from derp.core.relay import Relay, RelayIdentity
from derp.core.session import TRANSITIONS, Input, LoginRequest, State
from derp.errors import ProtocolError
from derp.wire.frames import (
    HEADER_LEN,
    KEY_LEN,
    MAX_CLIENT_INFO,
    MAX_PACKET,
    WATCH_CONNS_FRAME,
    FrameType,
    encode_forward_packet,
    encode_frame,
    encode_note_preferred,
    encode_ping,
    encode_pong,
    encode_send_packet,
)
from derp.wire.handshake import ClientInfo, ServerInfo, client_info_json, seal, shared_key
from derp.wire.keys import ZERO_KEY, parse_mesh_key
from derp.wire.messages import Pong
from tests.core.fakes import (
    MESH_KEY,
    NOBODY,
    SERVER_PRIVATE,
    FakeClient,
    Feeder,
    disco,
    make_relay,
    private_key,
    public_key,
)
from tests.vectors import load

PING = encode_ping(b"12345678")
PONG = Pong(b"12345678")


def later(request: LoginRequest) -> None:
    """Admission that takes its time."""


class SessionCase(SynchronousTestCase):
    """A relay for sessions."""

    def setUp(self) -> None:
        self.relay = make_relay()

    def client(self, name: str = "c", **kwargs: Any) -> FakeClient:
        return FakeClient(self.relay, name, **kwargs)


class LoginTests(SessionCase):
    """From greeting to registration."""

    def test_admitted(self) -> None:
        """What the client says of itself becomes its connection's."""
        info = ClientInfo(mesh_key=MESH_KEY, version=2, is_prober=True, app_name="test")
        client = self.client(info=info, not_ideal=True, remote="192.0.2.9:99")
        conn = client.conn
        self.assertEqual(client.session.state, State.RUNNING)
        self.assertIs(self.relay.registry.active[client.key], conn)
        self.assertEqual((conn.is_mesh, conn.is_prober, conn.not_ideal), (True, True, True))
        self.assertEqual(str(conn.remote), "192.0.2.9:99")
        self.assertEqual(
            client.requests,
            [LoginRequest(client.key, info, client.session.remote, is_mesh=True)],
        )

    def test_wrong_mesh_key(self) -> None:
        """A mesh key of another region makes an ordinary client."""
        client = self.client(info=ClientInfo(mesh_key=bytes(31) + b"\x01"))
        self.assertFalse(client.conn.is_mesh)
        self.assertFalse(client.requests[0].is_mesh)

    def test_login_time(self) -> None:
        """A connection's age is counted from the relay's clock."""
        self.relay.now = 77.0
        self.assertEqual(self.client().conn.connected_at, 77.0)

    def test_first_frame(self) -> None:
        """Anything but ClientInfo of a legal length is refused at its header."""
        for start in (
            b"\x12\0\0\0\x08",
            b"\x04\0\0\0\x21",
            b"\x99\0\0\0\0",
            b"\x02" + (55).to_bytes(4, "big"),
            b"\x02" + (MAX_CLIENT_INFO + 1).to_bytes(4, "big"),
        ):
            client = self.client(log_in=False)
            self.assertRaises(ProtocolError, client.feed, start)
            self.assertEqual(client.sink.written, [])
            self.assertIsNone(client.session.conn)
            client.leave()
        self.assertEqual(len(self.relay.registry), 0)

    def test_login_under_another_type(self) -> None:
        """A perfect ClientInfo is none if its type says otherwise."""
        for frame_type in set(range(256)) - {FrameType.CLIENT_INFO}:
            client = self.client(log_in=False)
            frame = bytes((frame_type,)) + client.login_frame()[1:]
            self.assertRaises(ProtocolError, client.feed, frame)
            self.assertEqual((client.sink.written, client.requests), ([], []))

    def test_longest_client_info(self) -> None:
        """256 KiB are waited for; that nothing opens them is another matter."""
        client = self.client(log_in=False)
        client.feed(b"\x02" + MAX_CLIENT_INFO.to_bytes(4, "big"), bytes(1000))
        self.assertEqual(client.session.wanted, HEADER_LEN + MAX_CLIENT_INFO)
        self.assertRaises(ProtocolError, client.feed, bytes(MAX_CLIENT_INFO - 1000))

    def test_bad_boxes(self) -> None:
        """A zero key, a box for somebody else, and JSON that is none: all the client's fault."""
        shared = shared_key(private_key("c"), self.relay.public)
        other = shared_key(private_key("c"), public_key("another relay"))
        nonce = bytes(24)
        good = client_info_json(ClientInfo())
        for payload in (
            ZERO_KEY + seal(shared, nonce, good),
            public_key("c") + seal(other, nonce, good),
            public_key("d") + seal(shared, nonce, good),
            public_key("c") + seal(shared, nonce, b'{"version":2'),
            public_key("c") + seal(shared, nonce, b'{"meshKey":"12"}'),
            public_key("c") + nonce,
        ):
            client = self.client(log_in=False)
            frame = encode_frame(FrameType.CLIENT_INFO, payload)
            self.assertRaises(ProtocolError, client.feed, frame)
            self.assertEqual((client.sink.written, client.requests), ([], []))

    def test_every_split(self) -> None:
        """The login may come in any two pieces, or byte by byte."""
        frame = self.client(log_in=False).login_frame()
        for at in range(len(frame)):
            client = self.client(log_in=False)
            client.feed(frame[:at], frame[at:])
            self.assertEqual(client.take_server_info(), ServerInfo(2))
            client.leave()
        client = self.client(log_in=False)
        client.feed(*(bytes((byte,)) for byte in frame))
        self.assertEqual(client.take_server_info(), ServerInfo(2))

    def test_pipelined(self) -> None:
        """A fast client says all it has to say without waiting for ServerInfo."""
        receiver = self.client("r")
        burst = (
            self.client(log_in=False).login_frame()
            + encode_note_preferred(True)
            + encode_send_packet(receiver.key, b"early")
            + PING
        )
        for at in range(0, len(burst), 7):
            client = self.client(log_in=False)
            client.feed(burst[:at], burst[at:])
            self.assertEqual(client.take_server_info(), ServerInfo(2))
            self.assertEqual(client.take(), [PONG])
            self.assertEqual(receiver.take_packets(), [(client.key, b"early")])
            self.assertEqual(self.relay.stats.home_connections, 1)
            client.leave()
            receiver.take()

    def test_pipelined_before_admission(self) -> None:
        """What follows ClientInfo is left alone until admission has answered."""
        receiver = self.client("r")
        client = self.client(log_in=False, admission=later)
        rest = encode_send_packet(receiver.key, b"early") + PING
        client.feed(client.login_frame() + rest)
        self.assertEqual(client.session.state, State.ADMITTING)
        self.assertEqual(client.feeder.held, rest)
        client.feed(b"")
        self.assertEqual(client.feeder.held, rest)
        self.assertEqual((client.sink.written, receiver.take()), ([], []))
        client.session.admit()
        client.feed(b"")
        self.assertEqual(client.take_server_info(), ServerInfo(2))
        self.assertEqual(client.take(), [PONG])
        self.assertEqual(receiver.take_packets(), [(client.key, b"early")])

    def test_refused(self) -> None:
        """A refused client is closed and told nothing; the log learns who and why."""
        client = self.client(
            log_in=False, admission=lambda request: client.session.refuse("not on the list")
        )
        client.feed(client.login_frame() + PING)
        self.assertEqual(client.sink.written, [])
        (reason,) = client.sink.closed
        self.assertIn(client.key.hex(), reason)
        self.assertIn("not on the list", reason)
        self.assertEqual(client.feeder.held, b"")
        self.assertEqual(self.relay.stats.logins_refused, 1)
        self.assertEqual(len(self.relay.registry), 0)
        client.leave()

    def test_gone_before_the_answer(self) -> None:
        """Whatever admission says to a client that has left, nothing happens."""
        for answer in ("admit", "refuse"):
            client = self.client(log_in=False, admission=later)
            client.feed(client.login_frame())
            client.leave()
            getattr(client.session, answer)(*(["too late"] if answer == "refuse" else []))
            self.assertEqual((client.sink.written, client.sink.closed), ([], []))
        self.assertEqual(len(self.relay.registry), 0)
        self.assertEqual(self.relay.stats.logins_refused, 0)

    def test_secrets_are_forgotten(self) -> None:
        """After login neither the box key nor the mesh key is kept."""
        session = self.client(mesh=True).session
        self.assertEqual((session._shared, session._request), (b"", None))


class TransitionTests(SessionCase):
    """The table, and that there is nothing beside it."""

    LISTED = {
        (State.AWAIT_CLIENT_INFO, Input.CLIENT_INFO): State.ADMITTING,
        (State.AWAIT_CLIENT_INFO, Input.LOST): State.CLOSED,
        (State.ADMITTING, Input.ADMITTED): State.RUNNING,
        (State.ADMITTING, Input.REFUSED): State.CLOSED,
        (State.ADMITTING, Input.LOST): State.CLOSED,
        (State.RUNNING, Input.FRAME): State.RUNNING,
        (State.RUNNING, Input.LOST): State.CLOSED,
        (State.CLOSED, Input.LOST): State.CLOSED,
    }

    def in_state(self, state: State) -> FakeClient:
        client = self.client(log_in=False, admission=later)
        if state is State.AWAIT_CLIENT_INFO:
            return client
        client.feed(client.login_frame())
        if state is State.RUNNING:
            client.session.admit()
        elif state is State.CLOSED:
            client.leave()
        self.assertIs(client.session.state, state)
        return client

    def test_every_combination(self) -> None:
        """Every input in every state is listed, or the remote's fault and changes nothing."""
        for state in State:
            for happened in Input:
                client = self.in_state(state)
                listed = self.LISTED.get((state, happened))
                if listed is None:
                    self.assertRaises(ProtocolError, client.session._enter, happened)
                    listed = state
                else:
                    client.session._enter(happened)
                self.assertIs(client.session.state, listed)
                client.session.state = state
                client.leave()

    def test_table(self) -> None:
        """The module's table says the same."""
        found = {
            (state, happened): target
            for state, inputs in TRANSITIONS.items()
            for happened, target in inputs.items()
        }
        self.assertEqual(found, self.LISTED)

    def test_answers_nobody_asked_for(self) -> None:
        """Admission's answer is out of place before the question and after the first answer."""
        for state in (State.AWAIT_CLIENT_INFO, State.RUNNING):
            client = self.in_state(state)
            self.assertRaises(ProtocolError, client.session.admit)
            self.assertRaises(ProtocolError, client.session.refuse, "why not")
            self.assertIs(client.session.state, state)
            self.assertEqual(client.sink.closed, [])
            client.leave()

    def test_nothing_is_accepted_after_the_end(self) -> None:
        """Bytes that come later are swallowed, from whatever state the end came."""
        receiver = self.client("r")
        frames = PING + encode_send_packet(receiver.key, b"late") + encode_note_preferred(True)
        for state in State:
            client = self.in_state(state)
            client.leave()
            client.sink.written.clear()
            client.feed(client.login_frame() + frames, frames, b"\x07\0\0\0\x02")
            self.assertEqual(client.feeder.held, b"")
            self.assertEqual((client.sink.written, receiver.take()), ([], []))
            self.assertEqual(len(self.relay.registry), 1)
            self.assertIsNone(client.session.conn)

    def test_lost_twice(self) -> None:
        """The second time changes nothing: gauges stay right."""
        other, client = self.client("c"), self.client("c")
        client.leave()
        client.leave()
        self.assertEqual(self.relay.stats.connections, 1)
        self.assertIs(self.relay.registry.active[other.key], other.conn)


class ReactionTests(SessionCase):
    """What each frame of a client does, good or bad."""

    def reaction(self, frame_type: int, length: int, mesh: bool) -> str:
        """Feed a header, then the payload; say what happened."""
        client = self.client("reacting", mesh=mesh)
        header = bytes((frame_type,)) + length.to_bytes(4, "big")
        outcome = "closed at header"
        try:
            client.feed(header)
            outcome = "closed after payload"
            client.feed(bytes(length))
            outcome = "open"
        except ProtocolError:
            pass
        client.leave()
        return outcome

    def test_lengths(self) -> None:
        """Lengths at and just beyond each limit, with and without mesh rights."""
        send, forward = FrameType.SEND_PACKET, FrameType.FORWARD_PACKET
        for frame_type, good, bad in (
            (send, (32, 33, 32 + MAX_PACKET), (0, 31)),
            (FrameType.NOTE_PREFERRED, (1,), (0, 2)),
            (FrameType.PING, (8, 9, 1000), (0, 7, 1001)),
        ):
            for mesh in (False, True):
                for length in good:
                    self.assertEqual(self.reaction(frame_type, length, mesh), "open")
                for length in bad:
                    self.assertEqual(self.reaction(frame_type, length, mesh), "closed at header")
        for frame_type, good, bad in (
            (forward, (64, 65, 64 + MAX_PACKET), (0, 63, 65 + MAX_PACKET)),
            (FrameType.WATCH_CONNS, (0,), (1,)),
            (FrameType.CLOSE_PEER, (32,), (0, 31, 33)),
        ):
            for length in good:
                self.assertEqual(self.reaction(frame_type, length, True), "open")
                self.assertEqual(self.reaction(frame_type, length, False), "closed at header")
            for length in bad:
                self.assertEqual(self.reaction(frame_type, length, True), "closed at header")

    def test_oversized_packet(self) -> None:
        """As the reference does, the key is read before the connection is closed."""
        for length in (KEY_LEN + MAX_PACKET + 1, 0xFFFFFFFF):
            frame = b"\x04" + length.to_bytes(4, "big") + NOBODY
            for before in (b"", PING, encode_send_packet(NOBODY, b"x")):
                client = self.client()
                client.feed(before + frame[:5], frame[5:-1])
                self.assertEqual(client.session.wanted, len(frame))
                self.assertRaises(ProtocolError, client.feed, frame[-1:])
                client.leave()
        self.assertEqual(self.relay.stats.packets_received, 2)

    def test_errors_name_what_was_wrong(self) -> None:
        """The log line of a closed connection says which frame and which size."""
        for mesh, frame, words in (
            (False, b"\x04\0\0\0\x1f" + NOBODY, ("SendPacket", "31 bytes", "destination")),
            (False, b"\x04\0\1\0\x21" + NOBODY, ("SendPacket", "65537", "65536")),
            (False, b"\x12\0\0\0\x07", ("PING", "7 bytes", "8", "1000")),
            (False, b"\x10\0\0\0\0", ("WATCH_CONNS", "permissions")),
            (True, b"\x10\0\0\0\x01", ("WATCH_CONNS", "1 bytes")),
        ):
            error = self.assertRaises(ProtocolError, self.client(mesh=mesh).feed, frame)
            for word in words:
                self.assertIn(word, str(error))

    def test_unknown_types(self) -> None:
        """Read and thrown away, those of servers too; whatever looks like a frame inside."""
        known = {FrameType.SEND_PACKET, FrameType.NOTE_PREFERRED, FrameType.PING}
        mesh_only = {FrameType.FORWARD_PACKET, FrameType.WATCH_CONNS, FrameType.CLOSE_PEER}
        client = self.client()
        for frame_type in sorted(set(range(256)) - known - mesh_only):
            client.feed(encode_frame(frame_type, PING * 3), encode_frame(frame_type), PING)
            self.assertEqual(client.take(), [PONG])
        self.assertEqual(self.relay.stats.unknown_frames, 0)

    def test_longest_unknown_frame(self) -> None:
        """4 GiB of an unknown type are passed over as they come; nothing is kept."""
        client = self.client()
        client.feed(b"\x99\xff\xff\xff\xff")
        for _ in range(100):
            client.feed(PING * 1000)
            self.assertEqual(client.feeder.held, b"")
        self.assertEqual(client.take(), [])
        self.assertTrue(client.session.mid_frame)
        self.assertEqual(client.session._skip, 0xFFFFFFFF - 100 * 1000 * len(PING))

    def test_pings(self) -> None:
        """Eight bytes come back, however many were sent; each counts."""
        client = self.client()
        payload = bytes.fromhex("010203040506072a")
        client.feed(encode_ping(payload), encode_frame(FrameType.PING, payload + b"more"))
        self.assertEqual(b"".join(client.sink.written), encode_pong(payload) * 2)
        stats = self.relay.stats
        self.assertEqual((stats.got_ping, stats.sent_pong), (2, 2))

    def test_forwarding_without_data(self) -> None:
        """64 bytes are two keys and an empty packet."""
        receiver, peer = self.client("r"), self.client("p", mesh=True)
        peer.feed(encode_forward_packet(NOBODY, receiver.key, b""))
        self.assertEqual(receiver.take_packets(), [(NOBODY, b"")])

    def test_mid_frame(self) -> None:
        """An end is clean between frames and inside a header, not inside a payload."""
        for frame in (PING, encode_send_packet(NOBODY, b"x"), encode_frame(0x99, b"abcdefgh")):
            for at in range(len(frame) + 1):
                client = self.client()
                client.feed(frame[:at])
                inside = HEADER_LEN <= at < len(frame)
                self.assertEqual(client.session.mid_frame, inside, (frame, at))
                client.leave()

    def test_mid_frame_after_packets(self) -> None:
        """A run of packets that ends with a part of one more is no clean end."""
        client = self.client()
        frame = encode_send_packet(NOBODY, b"data")
        client.feed(frame * 3 + frame[:20])
        self.assertTrue(client.session.mid_frame)
        client.feed(frame[20:])
        self.assertFalse(client.session.mid_frame)


class VectorTests(SynchronousTestCase):
    """The reference's recorded reactions."""

    def test_server_reactions(self) -> None:
        """Each recorded case closes, stays open or waits, and sends the recorded frames."""
        recorded = load("frames.json")
        for case in recorded["server_reactions"]:
            text = case.get("mesh_key")
            mesh_key = parse_mesh_key(text) if text else None
            self.check(Relay(RelayIdentity(SERVER_PRIVATE, mesh_key)), case)

    def check(self, relay: Relay, case: dict[str, Any]) -> None:
        sent = b"".join(
            bytes.fromhex(item.get("hex") or item["repeat_hex"]) * item.get("count", 1)
            for item in case["send"]
        )
        for step in (len(sent), 4096, 1):
            if len(sent) // step > 5000:
                continue
            client = FakeClient(relay, "c", mesh=case["login"] == "mesh")
            outcome = "connection stays open"
            try:
                client.feed(*(sent[at : at + step] for at in range(0, len(sent), step)))
            except ProtocolError:
                outcome = "close"
            if outcome != "close" and client.feeder.held:
                outcome = "server waits for more bytes"
            self.assertEqual(outcome, case["reaction"], case["name"])
            answer = b"".join(client.sink.written).hex()
            self.assertEqual(answer, "".join(case["server_frames"] or []), case["name"])
            client.leave()

    def test_cases(self) -> None:
        """The vectors have not got lost."""
        self.assertEqual(len(load("frames.json")["server_reactions"]), 25)


class ActivityTests(SessionCase):
    """Every frame header of a duplicate is a word of it."""

    def setUp(self) -> None:
        super().setUp()
        self.one, self.two = self.client("d"), self.client("d")

    def active(self) -> FakeClient:
        conn = self.relay.registry.active[self.one.key]
        return self.one if conn is self.one.conn else self.two

    def test_any_header_counts(self) -> None:
        """Of any type, known or not, before its payload has come."""
        for frame in (
            PING,
            encode_send_packet(NOBODY, b"x"),
            encode_note_preferred(False),
            encode_frame(0x99, b"x" * 10),
        ):
            for client in (self.one, self.two):
                client.feed(frame[:4])
                self.assertIsNot(self.active(), client)
                client.feed(frame[4:5])
                self.assertIs(self.active(), client)
                client.feed(frame[5:])

    def test_payload_is_no_word(self) -> None:
        """That the rest of a frame comes later does not make its sender active again."""
        for frame in (PING, encode_send_packet(NOBODY, b"x"), encode_frame(0x99, b"x" * 10)):
            self.one.feed(frame[:-2])
            self.two.feed(PING)
            self.one.feed(frame[-2:-1])
            self.one.feed(frame[-1:])
            self.assertIs(self.active(), self.two)

    def test_payload_and_another_header(self) -> None:
        """The frame that was begun belongs to before, the next one is a word."""
        frame = encode_send_packet(self.one.key, b"1")
        self.one.feed(frame[:-1])
        self.two.feed(PING)
        self.two.take()
        self.one.feed(frame[-1:] + encode_send_packet(self.one.key, b"2"))
        self.assertEqual(self.two.take_packets(), [(self.one.key, b"1")])
        self.assertEqual(self.one.take_packets(), [(self.one.key, b"2")])

    def test_own_key(self) -> None:
        """A packet to its own key finds the speaker active already."""
        self.one.send(self.one, b"x")
        self.assertEqual(self.one.take_packets(), [(self.one.key, b"x")])

    def test_word_in_the_burst_of_the_login(self) -> None:
        """A pipelined frame is a word too: it enters the history."""
        third = self.client("d", log_in=False)
        burst = FakeClient(self.relay, "d", log_in=False)
        burst.feed(burst.login_frame() + PING)
        third.feed(third.login_frame())
        third.leave()
        self.assertIs(self.relay.registry.active[self.one.key], burst.conn)

    def test_fighters_in_turn(self) -> None:
        """One burst of several frames is no fight with oneself."""
        relay = make_relay(policy=DuplicatePolicy.DISABLE_FIGHTERS)
        one, two = FakeClient(relay, "d"), FakeClient(relay, "d")
        two.feed((PING + encode_send_packet(NOBODY, b"x")) * 3)
        self.assertIs(relay.registry.active[one.key], two.conn)
        one.feed(PING)
        self.assertNotIn(one.key, relay.registry.active)


class WantedTests(SessionCase):
    """How much must be there before it is worth calling again."""

    def test_long_frames_in_small_pieces(self) -> None:
        """Each byte is put in front of the session a few times, not once per piece."""
        peer = self.client("p", mesh=True)
        packet = bytes(MAX_PACKET)
        for frame in (
            encode_send_packet(NOBODY, packet),
            encode_forward_packet(NOBODY, NOBODY, packet),
            encode_frame(0x99, packet),
        ):
            for step in (1, 7, 1000):
                feeder = peer.feeder = Feeder(peer.session)
                peer.feed(*(frame[at : at + step] for at in range(0, len(frame), step)))
                self.assertEqual(feeder.held, b"")
                self.assertLessEqual(feeder.copied, len(frame) + HEADER_LEN + step)
        stats = self.relay.stats
        self.assertEqual((stats.packets_received, stats.packets_forwarded_in), (3, 3))

    def test_long_login_in_small_pieces(self) -> None:
        """The longest ClientInfo too, before anybody has logged in."""
        client = self.client(log_in=False)
        frame = encode_frame(FrameType.CLIENT_INFO, bytes(MAX_CLIENT_INFO))
        with self.assertRaises(ProtocolError):
            client.feed(*(frame[at : at + 100] for at in range(0, len(frame), 100)))
        self.assertLessEqual(client.feeder.copied, len(frame) + 200)
        self.assertLessEqual(client.feeder.calls, 3)

    def test_known_frames_wait_for_all_of_it(self) -> None:
        """Header first, then exactly the frame."""
        client = self.client(mesh=True)
        for frame in (
            PING,
            encode_note_preferred(True),
            encode_send_packet(NOBODY, b"data"),
            encode_forward_packet(NOBODY, NOBODY, b"data"),
        ):
            self.assertEqual(client.session.wanted, HEADER_LEN)
            client.feed(frame[:HEADER_LEN])
            self.assertEqual(client.session.wanted, len(frame))
            client.feed(frame[HEADER_LEN:])

    @settings(deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                [
                    PING,
                    encode_note_preferred(True),
                    WATCH_CONNS_FRAME,
                    encode_send_packet(NOBODY, b"data"),
                    encode_send_packet(NOBODY, b""),
                    encode_send_packet(public_key("p"), disco()),
                    encode_forward_packet(NOBODY, NOBODY, b"data"),
                    encode_frame(0x99),
                    encode_frame(0x99, b"1"),
                    encode_frame(0x99, bytes(100)),
                ]
            ),
            min_size=1,
            max_size=20,
        )
    )
    def test_wanted_is_enough(self, frames: list[bytes]) -> None:
        """Given just what it wants, a session goes on each time: it never asks in vain."""
        client = FakeClient(make_relay(), "p", mesh=True)
        stream = b"".join(frames)
        at = 0
        while at < len(stream):
            missing = client.session.wanted - len(client.feeder.held)
            self.assertGreater(missing, 0)
            before = (at - len(client.feeder.held), client.session.wanted)
            client.feed(stream[at : at + missing])
            at += missing
            if at > len(stream):
                self.fail("it wants more than the last frame has")
            after = (at - len(client.feeder.held), client.session.wanted)
            self.assertGreater(after, before, "neither consumed anything nor wants more")
        self.assertEqual(client.relay.stats.got_ping, frames.count(PING))
