"""Tests of :mod:`derp.core.client_session`: no sockets, no clock."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.client_session import ClientSession, Phase, SendAllowance
from derp.wire import frames, messages
from derp.wire.frames import HEADER_LEN, FrameDecoder, FrameType, encode_frame
from derp.wire.handshake import (
    ClientInfo,
    ServerInfo,
    encode_server_info,
    encode_server_key,
    open_box,
    parse_client_info_json,
    shared_key,
    split_client_info,
)
from derp.wire.keys import parse_node_private, public_of
from tests.vectors import load, transcripts

CLIENT = bytes(range(1, 33))
SERVER = bytes(range(101, 133))
NONCE = bytes(range(24))
PEER = bytes(range(32))
REQUEST = b"GET /derp HTTP/1.1\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n\r\n"
GREETING = encode_server_key(public_of(SERVER))
MESH_KEY = b"m" * 32


PLAIN_INFO = ClientInfo(version=2)
NO_LIMITS = ServerInfo()


def server_info(info: ServerInfo = NO_LIMITS) -> bytes:
    return encode_server_info(shared_key(SERVER, public_of(CLIENT)), NONCE[::-1], info)


def session(info: ClientInfo = PLAIN_INFO, **options: bool) -> ClientSession:
    return ClientSession(CLIENT, info, NONCE, **options)


def logged_in(limits: ServerInfo = NO_LIMITS) -> ClientSession:
    made = session()
    made.start(REQUEST)
    made.receive(SWITCHING + GREETING + server_info(limits))
    made.data_to_send()
    return made


def opened(frame: bytes) -> ClientInfo:
    """What a server reads out of a ClientInfo frame."""
    client, sealed = split_client_info(frame[HEADER_LEN:])
    return parse_client_info_json(open_box(shared_key(SERVER, client), sealed))


class LoginTests(SynchronousTestCase):
    """From the request to ServerInfo."""

    def test_upgrade(self) -> None:
        """Request, answer, greeting, ClientInfo, ServerInfo."""
        client = session(ClientInfo(MESH_KEY, 2, app_name="x"))
        self.assertEqual(client.start(REQUEST), REQUEST)
        self.assertEqual(client.receive(SWITCHING), [])
        self.assertEqual((client.phase, client.data_to_send()), (Phase.GREETING, b""))
        self.assertEqual(client.receive(GREETING), [])
        self.assertEqual(client.phase, Phase.OPEN)
        self.assertEqual(client.server_key, public_of(SERVER))
        said = client.data_to_send()
        self.assertEqual(opened(said), ClientInfo(MESH_KEY, 2, app_name="x"))
        self.assertEqual(split_client_info(said[HEADER_LEN:])[0], public_of(CLIENT))
        self.assertIsNone(client.server_info)
        self.assertEqual(client.receive(server_info()), [ServerInfo(2)])
        self.assertEqual(client.server_info, ServerInfo(2))
        self.assertEqual(client.data_to_send(), b"")
        self.assertIsNone(client.fault)

    def test_any_split(self) -> None:
        """One byte at a time gives the same login and the same messages."""
        client = session()
        client.start(REQUEST)
        stream = SWITCHING + GREETING + server_info() + frames.KEEP_ALIVE_FRAME
        events = [event for byte in stream for event in client.receive(bytes((byte,)))]
        self.assertEqual(events, [ServerInfo(2), messages.KeepAlive()])
        self.assertEqual(opened(client.data_to_send()), ClientInfo(version=2))

    def test_fast_start(self) -> None:
        """With the key known, request and ClientInfo leave together; the greeting is skipped."""
        client = session()
        first = client.start(REQUEST, public_of(SERVER))
        self.assertTrue(first.startswith(REQUEST))
        self.assertEqual(opened(first[len(REQUEST) :]), ClientInfo(version=2))
        self.assertEqual(client.phase, Phase.OPEN)
        self.assertEqual(client.receive(GREETING + server_info()), [ServerInfo(2)])
        self.assertEqual(client.data_to_send(), b"")

    def test_what_follows_the_login(self) -> None:
        """NotePreferred and WatchConns go behind ClientInfo, in that order, in one write."""
        for fast_start in (False, True):
            client = session(preferred=True, watch_conns=True)
            said = client.start(b"", public_of(SERVER) if fast_start else None)
            if not fast_start:
                client.receive(SWITCHING + GREETING)
                said = client.data_to_send()
            sent = list(FrameDecoder().feed(said))
            self.assertEqual([kind for kind, _ in sent], [0x02, 0x07, 0x10])
            self.assertEqual(sent[1][1], b"\x01")

    def test_recorded(self) -> None:
        """What the reference sent in every recorded session is understood without a fault."""
        replayed = 0
        for name, session_data in transcripts().items():
            if name in ("websocket-session", "bad-logins"):
                continue
            for conn, facts in session_data["conns"].items():
                client = self.replay(session_data, conn, facts)
                self.assertIsNone(client.fault, (name, conn))
                self.assertEqual(client.server_info, ServerInfo(2), (name, conn))
                replayed += 1
        self.assertGreater(replayed, 20)

    def replay(self, recorded: Any, conn: str, facts: dict[str, Any]) -> ClientSession:
        """Feed one connection's bytes of a recorded session to a client with its key."""
        private = parse_node_private(recorded["keys"][facts["key"]]["private"])
        client = ClientSession(private, ClientInfo(version=2), NONCE)
        steps = [step for step in recorded["steps"] if step["conn"] == conn]
        server_key = parse_node_private(recorded["keys"]["server"]["private"])
        fast_start = "Derp-Fast-Start" in steps[0].get("text", "")
        client.start(REQUEST, public_of(server_key) if fast_start else None)
        for step in steps:
            if step["dir"] == "s2c":
                client.receive(bytes.fromhex(step["hex"]))
        return client


class FaultTests(SynchronousTestCase):
    """What the server may do wrong, and what is left of the session."""

    def assertFault(self, client: ClientSession, data: bytes, text: str) -> None:
        """These bytes end the session with an error that has this text."""
        client.receive(data)
        self.assertIsNotNone(client.fault)
        self.assertIn(text, str(client.fault))
        self.assertEqual(client.phase, Phase.DEAD)
        self.assertEqual(client.receive(GREETING + frames.KEEP_ALIVE_FRAME), [])

    def test_http_error(self) -> None:
        """No upgrade: the status is shown."""
        self.assertFault(session(), b"HTTP/1.1 404 Not Found\r\n\r\nderp is off", "404 Not Found")

    def test_http_error_after_fast_start(self) -> None:
        """A server that names its key but has DERP turned off answers in HTTP."""
        client = session()
        client.start(REQUEST, public_of(SERVER))
        self.assertFault(client, b"HTTP/1.1 404 Not Found\r\n\r\n", "404 Not Found")

    def test_greeting(self) -> None:
        """The first frame must be a ServerKey with the magic, of at most 1 KiB."""
        long = encode_frame(FrameType.SERVER_KEY, GREETING[5:] + bytes(985))
        for greeting, text in (
            (frames.KEEP_ALIVE_FRAME, "0x06"),
            (encode_frame(FrameType.SERVER_KEY, bytes(40)), "not a DERP ServerKey"),
            (encode_frame(FrameType.SERVER_KEY, GREETING[5:-1]), "not a DERP ServerKey"),
            (encode_server_key(bytes(32)), "zero"),
            (long[:5], "1025 bytes"),
        ):
            self.assertFault(session(), SWITCHING + greeting, text)
        client = session()
        client.receive(SWITCHING + encode_frame(FrameType.SERVER_KEY, GREETING[5:] + bytes(984)))
        self.assertEqual(client.phase, Phase.OPEN)

    def test_two_keys(self) -> None:
        """A greeting that contradicts the certificate explains itself."""
        client = session()
        client.start(REQUEST, public_of(SERVER))
        self.assertFault(client, encode_server_key(PEER), "certificate said")

    def test_later_greetings(self) -> None:
        """After the login a ServerKey is one more unknown frame."""
        client = logged_in()
        self.assertEqual(client.receive(encode_server_key(PEER)), [])
        self.assertIsNone(client.fault)

    def test_server_info(self) -> None:
        """A box that does not open is the end."""
        client = session()
        client.receive(SWITCHING + GREETING)
        self.assertFault(client, encode_frame(FrameType.SERVER_INFO, bytes(60)), "box")

    def test_huge_frame(self) -> None:
        """A frame above 1 MiB is the end; what came before it is still given."""
        client = logged_in()
        events = client.receive(frames.KEEP_ALIVE_FRAME + b"\x05\x00\x10\x00\x01")
        self.assertEqual(events, [messages.KeepAlive()])
        self.assertIn("1048577", str(client.fault))

    def test_recorded_frames(self) -> None:
        """After a login, the recorded frames are faults exactly where the reference gave up."""
        for case in load("frames.json")["client_parses"]:
            if case["result"] != "server_info":
                client = logged_in()
                client.receive(bytes.fromhex(case["hex"]))
                wanted = case["result"] == "error"
                self.assertEqual(client.fault is not None, wanted, case["name"])

    @given(st.lists(st.binary(max_size=40), max_size=6), st.integers(0, 3))
    def test_garbage(self, chunks: list[bytes], stage: int) -> None:
        """At no stage do any bytes raise."""
        client = session()
        client.start(REQUEST, public_of(SERVER) if stage == 3 else None)
        client.receive((b"", SWITCHING, SWITCHING + GREETING, b"")[stage])
        for chunk in chunks:
            client.receive(chunk)
        self.assertEqual(client.fault is not None, client.phase is Phase.DEAD)

    @given(st.data())
    def test_damaged_login(self, data: st.DataObject) -> None:
        """A login with one byte changed succeeds, waits or is a fault; it never raises."""
        stream = bytearray(SWITCHING + GREETING + server_info())
        stream[data.draw(st.integers(0, len(stream) - 1))] ^= data.draw(st.integers(1, 255))
        cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=4).map(sorted))
        client = session()
        for start, end in pairwise([0, *cuts, len(stream)]):
            client.receive(bytes(stream[start:end]))
        self.assertIn(client.server_info, (None, ServerInfo(2)))


class SignsOfLifeTests(SynchronousTestCase):
    """Counting frames, for the read timeout."""

    def test_skipped_frames_count(self) -> None:
        """Unknown frames say nothing but that the server lives; half a frame does not."""
        client = logged_in()
        before = client.frames_received
        client.receive(encode_frame(0x77, b"??")[:-1])
        self.assertEqual(client.frames_received, before)
        client.receive(b"?")
        self.assertEqual(client.frames_received, before + 1)


class SendTests(SynchronousTestCase):
    """Packets out, and the limit a server may set."""

    def sent(self, client: ClientSession, count: int) -> int:
        return sum(bool(client.send_packet(PEER, b"packet", 5.0)) for _ in range(count))

    def test_frame(self) -> None:
        """A packet becomes a SendPacket frame."""
        wanted = frames.encode_send_packet(PEER, b"packet")
        self.assertEqual(logged_in().send_packet(PEER, b"packet", 0.0), wanted)
        self.assertRaises(ValueError, logged_in().send_packet, PEER, bytes(65537), 0.0)

    def test_no_limit(self) -> None:
        """Without limits in ServerInfo, and before it, everything goes."""
        self.assertEqual(self.sent(logged_in(), 1000), 1000)
        self.assertEqual(self.sent(session(), 1000), 1000)

    def test_limit(self) -> None:
        """With one byte per second and room for two packets, two of a thousand go."""
        cost = HEADER_LEN + 32 + len(b"packet")
        client = logged_in(ServerInfo(2, 1, 2 * cost))
        self.assertEqual(self.sent(client, 1000), 2)
        self.assertEqual(client.send_packet(PEER, b"packet", 5.0 + cost - 1), b"")
        self.assertTrue(client.send_packet(PEER, b"packet", 5.0 + cost))

    def test_a_new_server_info_replaces_the_limit(self) -> None:
        """A limit that is not in the newest ServerInfo is gone."""
        client = logged_in(ServerInfo(2, 1, 1))
        self.assertEqual(self.sent(client, 10), 0)
        client.receive(server_info())
        self.assertEqual(self.sent(client, 10), 10)


class SendAllowanceTests(SynchronousTestCase):
    """The bucket."""

    def test_depth(self) -> None:
        """However long nothing was sent, no more than the depth is saved up."""
        bucket = SendAllowance(10, 100)
        self.assertTrue(bucket.take(100, 0.0))
        self.assertFalse(bucket.take(1, 0.0))
        self.assertTrue(bucket.take(100, 1000.0))
        self.assertFalse(bucket.take(1, 1000.0))
        self.assertFalse(bucket.take(101, 5000.0))

    @given(
        st.integers(1, 1000),
        st.integers(0, 5000),
        st.lists(st.tuples(st.floats(0, 10), st.integers(1, 500)), max_size=30),
    )
    def test_never_more_than_allowed(
        self, rate: int, burst: int, sends: list[tuple[float, int]]
    ) -> None:
        """Over any time, at most burst + rate * time goes out."""
        bucket, now, sent = SendAllowance(rate, burst), 0.0, 0
        for wait, cost in sends:
            now += wait
            sent += cost if bucket.take(cost, now) else 0
        self.assertLessEqual(sent, burst + rate * now + 1e-6)
