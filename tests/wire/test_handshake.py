"""Tests of :mod:`derp.wire.handshake` against the reference's logins."""

import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ProtocolError
from derp.wire import handshake
from derp.wire.frames import HEADER_LEN, encode_frame
from derp.wire.handshake import ClientInfo, ServerInfo
from derp.wire.keys import generate_private, parse_node_private, public_of
from tests.vectors import load, transcripts

BOXES = load("boxes.json")
MESH_KEY = bytes.fromhex("0123456789abcdef" * 4)
NONCE = bytes(range(24))

LOW_ORDER_POINTS = (
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
)
"""The Curve25519 points with which any scalar gives zero (RFC 7748 section 6.1)."""


def shared_of(case: dict[str, Any]) -> bytes:
    return handshake.shared_key(
        bytes.fromhex(case["recipient_private"]), bytes.fromhex(case["sender_public"])
    )


class BoxVectorTests(SynchronousTestCase):
    """Boxes the reference sealed, and boxes nobody sealed."""

    def test_recorded_boxes(self) -> None:
        """Each opens to its plaintext and is sealed again to the same bytes."""
        self.assertTrue(BOXES["boxes"])
        for case in BOXES["boxes"]:
            sealed, plaintext = (bytes.fromhex(case[k]) for k in ("sealed_hex", "plaintext_hex"))
            self.assertEqual(handshake.open_box(shared_of(case), sealed), plaintext, case["name"])
            sender = handshake.shared_key(
                bytes.fromhex(case["sender_private"]), bytes.fromhex(case["recipient_public"])
            )
            self.assertEqual(sender, shared_of(case), "both sides have one key")
            nonce = bytes.fromhex(case["nonce"])
            self.assertEqual(handshake.seal(sender, nonce, plaintext), sealed)

    def test_recorded_forgeries(self) -> None:
        """None of the broken boxes opens, however short."""
        self.assertTrue(BOXES["must_fail"])
        for case in BOXES["must_fail"]:
            sealed = bytes.fromhex(case["sealed_hex"])
            self.assertRaises(ProtocolError, handshake.open_box, shared_of(case), sealed)

    def test_unusable_remote_keys(self) -> None:
        """With a zero key, or one that makes any secret zero, there is no box."""
        for point in LOW_ORDER_POINTS:
            self.assertRaises(ProtocolError, handshake.shared_key, generate_private(), point)

    def test_own_zero_key(self) -> None:
        """Our own key being zero is our bug, not the remote's."""
        remote = public_of(generate_private())
        self.assertRaises(ValueError, handshake.shared_key, bytes(32), remote)

    @given(st.binary(max_size=100))
    def test_garbage_box(self, sealed: bytes) -> None:
        """Bytes nobody sealed are a ProtocolError."""
        case = BOXES["boxes"][0]
        self.assertRaises(ProtocolError, handshake.open_box, shared_of(case), sealed)


class TranscriptLoginTests(SynchronousTestCase):
    """The login frames of recorded sessions."""

    def logins(self, name: str) -> list[tuple[str, dict[str, Any], bytes]]:
        """``(connection, step, server's private key)`` of each complete ClientInfo."""
        session = transcripts()[name]
        server = parse_node_private(session["keys"]["server"]["private"])
        return [
            (step["conn"], step, server)
            for step in session["steps"]
            if step.get("type") == "ClientInfo" and step["unit"] == "frame"
        ]

    def open(self, step: dict[str, Any], server: bytes) -> ClientInfo:
        payload = bytes.fromhex(step["hex"])[HEADER_LEN:]
        client, sealed = handshake.split_client_info(payload)
        plaintext = handshake.open_box(handshake.shared_key(server, client), sealed)
        if "box_plaintext" in step:
            self.assertEqual(plaintext.decode(), step["box_plaintext"])
        return handshake.parse_client_info_json(plaintext)

    def test_variants(self) -> None:
        """Every spelling the reference let in is let in, with the same rights."""
        infos = {
            conn: self.open(step, server)
            for conn, step, server in self.logins("client-info-variants")
        }
        self.assertEqual(
            infos,
            {
                "V1": ClientInfo(),
                "V2": ClientInfo(MESH_KEY, 2),
                "V3": ClientInfo(MESH_KEY, 2, can_ack_pings=True),
                "V4": ClientInfo(None, 2, can_ack_pings=True, is_prober=True),
                "V5": ClientInfo(None, 99),
            },
        )

    def test_refused(self) -> None:
        """Every login the reference refused is refused."""
        logins = self.logins("bad-logins")
        self.assertEqual(len(logins), 8)
        for _, step, server in logins:
            self.assertRaises(ProtocolError, self.open, step, server)

    def test_answers(self) -> None:
        """The client opens every recorded ServerInfo, and reads every greeting."""
        opened = 0
        for session in transcripts().values():
            server = session["keys"]["server"]
            public = public_of(parse_node_private(server["private"]))
            for step in session["steps"]:
                payload = bytes.fromhex(step["hex"])[HEADER_LEN:]
                if step.get("type") == "ServerKey" and step["unit"] == "frame":
                    self.assertEqual(handshake.parse_server_key(payload), public)
                if step.get("type") == "ServerInfo" and step["unit"] == "frame":
                    key_name = session["conns"][step["conn"]]["key"]
                    private = parse_node_private(session["keys"][key_name]["private"])
                    shared = handshake.shared_key(private, public)
                    self.assertEqual(handshake.open_server_info(shared, payload), ServerInfo(2))
                    opened += 1
        self.assertGreater(opened, 20)


class ServerKeyTests(SynchronousTestCase):
    """The greeting."""

    def test_future_bytes(self) -> None:
        """More than magic and key is left to the future; less is no greeting."""
        payload = handshake.encode_server_key(bytes(range(32)))[HEADER_LEN:]
        self.assertEqual(handshake.parse_server_key(payload + b"more"), bytes(range(32)))
        for length in range(40):
            self.assertRaises(ProtocolError, handshake.parse_server_key, payload[:length])

    @given(st.binary(max_size=60))
    def test_garbage(self, payload: bytes) -> None:
        """Without the magic it is no greeting."""
        self.assertRaises(ProtocolError, handshake.parse_server_key, payload)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
FIELD_NAMES = st.sampled_from(
    ["meshKey", "MESHKEY", "version", "Version", "CanAckPings", "IsProber", "AppName", "other"]
)


def info(text: str | bytes) -> ClientInfo:
    data = text if isinstance(text, bytes) else text.encode()
    return handshake.parse_client_info_json(data)


class ClientInfoJSONTests(SynchronousTestCase):
    """The JSON inside a ClientInfo box: anyone who knows the server's key can write it."""

    def test_mesh_key_values(self) -> None:
        """The values of ``meshKey`` the reference took and refused."""
        for case in load("keys.json")["parse_mesh_key_json"]:
            text = f'{{"meshKey":{case["input"]}}}'
            if case["ok"]:
                self.assertEqual(info(text).mesh_key, bytes.fromhex(case["value_hex"]), case)
            else:
                error = self.assertRaises(ProtocolError, info, text)
                self.assertIn("mesh key", str(error))

    def test_mesh_key_is_not_repeated(self) -> None:
        """A refused mesh key does not reach a log by way of the error."""
        error = self.assertRaises(ProtocolError, info, '{"meshKey":"c0ffee"}')
        self.assertNotIn("c0ffee", str(error))

    def test_zero_mesh_key(self) -> None:
        """All zero is no mesh key, read or written."""
        self.assertIsNone(info(f'{{"meshKey":"{"0" * 64}"}}').mesh_key)
        self.assertNotIn(b"meshKey", handshake.client_info_json(ClientInfo(bytes(32))))

    def test_null_is_absent(self) -> None:
        """``null`` leaves a field as it was, and a null document is an empty one."""
        text = '{"version":null,"CanAckPings":null,"IsProber":null,"AppName":null}'
        self.assertEqual(info(text), ClientInfo())
        self.assertEqual(info("null"), ClientInfo())

    def test_wrong_types(self) -> None:
        """A field of another type is an error; Go reads no number out of a fraction."""
        for text in (
            '{"version":true}',
            '{"version":2.0}',
            '{"version":"2"}',
            '{"version":9223372036854775808}',
            '{"version":-9223372036854775809}',
            '{"CanAckPings":1}',
            '{"IsProber":"true"}',
            '{"AppName":5}',
            '{"AppName":["x"]}',
        ):
            self.assertRaises(ProtocolError, info, text)
        self.assertEqual(info('{"version":9223372036854775807}').version, 2**63 - 1)

    def test_no_json(self) -> None:
        """Anything but one JSON object is an error."""
        for text in ("", " ", "{", "[]", "5", '"x"', "{} {}", "{}x", "\ufeff{}", "{'a':1}", "nul"):
            self.assertRaises(ProtocolError, info, text)

    def test_not_numbers(self) -> None:
        """Python's own NaN and Infinity are not JSON, even where nobody looks."""
        for constant in ("NaN", "Infinity", "-Infinity"):
            self.assertRaises(ProtocolError, info, f'{{"other":{constant}}}')

    def test_huge_number(self) -> None:
        """A number of a hundred thousand digits is an error, not a second of work."""
        self.assertRaises(ProtocolError, info, '{"version":' + "9" * 100_000 + "}")

    def test_deep_nesting(self) -> None:
        """A box full of brackets does not exhaust the stack."""
        for opening in (b"[", b'{"a":'):
            depth = 262_000 // len(opening)
            self.assertRaises(ProtocolError, info, b'{"other":' + opening * depth)

    def test_duplicate_names(self) -> None:
        """Of names that differ in case only, or not at all, the last is heard."""
        self.assertEqual(info('{"version":1,"VERSION":2}').version, 2)
        self.assertEqual(info('{"AppName":"a","AppName":"b"}').app_name, "b")

    def test_broken_text(self) -> None:
        """Invalid UTF-8 and lone surrogates become U+FFFD, so that any name can be logged."""
        self.assertEqual(info(b'{"AppName":"a\xffb"}').app_name, "a\ufffdb")
        self.assertEqual(info('{"AppName":"a\\ud800b"}').app_name, "a\ufffdb")
        self.assertEqual(info('{"AppName":"\\ud83d\\ude00"}').app_name, "\U0001f600")

    @given(st.binary(max_size=100))
    def test_garbage(self, data: bytes) -> None:
        """Any bytes are a client info or a ProtocolError."""
        with contextlib.suppress(ProtocolError):
            info(data).app_name.encode()

    @given(st.lists(st.tuples(FIELD_NAMES, JSON_VALUES), max_size=4))
    def test_any_values(self, items: list[tuple[str, Any]]) -> None:
        """Any JSON in any field is a client info or a ProtocolError."""
        text = ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in items)
        with contextlib.suppress(ProtocolError):
            info("{" + text + "}").app_name.encode()

    @given(
        st.none() | st.binary(min_size=32, max_size=32).filter(any),
        st.integers(0, 2**63 - 1),
        st.booleans(),
        st.booleans(),
        st.text(max_size=30),
    )
    def test_round_trip(
        self, mesh_key: bytes | None, version: int, acks: bool, prober: bool, app: str
    ) -> None:
        """What a client says of itself arrives."""
        said = ClientInfo(mesh_key, version, acks, prober, app)
        self.assertEqual(info(handshake.client_info_json(said)), said)

    def test_as_stock_clients_write(self) -> None:
        """The recorded plaintexts are written to the byte."""
        for said, name in (
            (ClientInfo(None, 2, True), "plain client info"),
            (ClientInfo(MESH_KEY, 2), "mesh client info"),
            (ClientInfo(None, 2, is_prober=True), "prober"),
            (ClientInfo(None, 2, True, app_name="x/y"), "app name"),
        ):
            (case,) = [case for case in BOXES["boxes"] if case["name"] == name]
            self.assertEqual(handshake.client_info_json(said).decode(), case["plaintext"])


class ClientInfoFrameTests(SynchronousTestCase):
    """The frame around the box."""

    def test_round_trip(self) -> None:
        """Key and box are found again."""
        client, server = generate_private(), generate_private()
        shared = handshake.shared_key(client, public_of(server))
        frame = handshake.encode_client_info(public_of(client), shared, NONCE, ClientInfo())
        key, sealed = handshake.split_client_info(frame[HEADER_LEN:])
        self.assertEqual(key, public_of(client))
        opened = handshake.open_box(handshake.shared_key(server, key), sealed)
        self.assertEqual(info(opened), ClientInfo())

    def test_too_short(self) -> None:
        """Without room for key and nonce there is no client info."""
        self.assertEqual(handshake.split_client_info(bytes(56)), (bytes(32), bytes(24)))
        self.assertRaises(ProtocolError, handshake.split_client_info, bytes(55))


class ServerInfoTests(SynchronousTestCase):
    """The answer."""

    def setUp(self) -> None:
        self.shared = handshake.shared_key(generate_private(), public_of(generate_private()))

    def sealed(self, text: bytes) -> bytes:
        return handshake.seal(self.shared, NONCE, text)

    def test_recorded_limits(self) -> None:
        """Limits, where a server sets them, are read and written as recorded."""
        (case,) = [case for case in BOXES["boxes"] if case["name"] == "server info with limits"]
        limits = ServerInfo(2, 1000, 5000)
        sealed = bytes.fromhex(case["sealed_hex"])
        self.assertEqual(handshake.open_server_info(shared_of(case), sealed), limits)
        nonce = bytes.fromhex(case["nonce"])
        frame = handshake.encode_server_info(shared_of(case), nonce, limits)
        self.assertEqual(frame, encode_frame(0x03, sealed))

    def test_plain(self) -> None:
        """derper says its version and nothing else."""
        frame = handshake.encode_server_info(self.shared, NONCE)
        plaintext = handshake.open_box(self.shared, frame[HEADER_LEN:])
        self.assertEqual(plaintext, b'{"version":2}')

    def test_bad(self) -> None:
        """A client gives up on a box that does not open or holds no such JSON."""
        for text in (b"", b"[]", b'{"TokenBucketBytesPerSecond":"many"}'):
            self.assertRaises(
                ProtocolError, handshake.open_server_info, self.shared, self.sealed(text)
            )
        self.assertRaises(ProtocolError, handshake.open_server_info, self.shared, bytes(60))

    def test_too_long(self) -> None:
        """More than a MiB of JSON is not even opened."""
        sealed = self.sealed(b'{"version":2}'.ljust(1 << 20))
        error = self.assertRaises(ProtocolError, handshake.open_server_info, self.shared, sealed)
        self.assertIn("server info of", str(error))

    @given(st.binary(max_size=60))
    def test_garbage_json(self, text: bytes) -> None:
        """Any plaintext is a server info or a ProtocolError."""
        shared = bytes(range(32))
        with contextlib.suppress(ProtocolError):
            handshake.open_server_info(shared, handshake.seal(shared, NONCE, text))
