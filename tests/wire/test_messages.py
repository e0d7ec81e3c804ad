"""Tests of :mod:`derp.wire.messages` against what the reference's client made of frames."""

from ipaddress import IPv4Address, IPv6Address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ProtocolError
from derp.wire import messages
from derp.wire.frames import (
    FrameDecoder,
    FrameType,
    PeerPresentFlags,
    encode_health,
    encode_peer_gone,
    encode_peer_present,
    encode_recv_packet,
    encode_restarting,
)
from derp.wire.handshake import ServerInfo, open_server_info, shared_key
from derp.wire.keys import parse_node_private, public_of
from derp.wire.messages import Message, parse_message
from tests.vectors import load

VECTORS = load("frames.json")
RAW_KEYS = st.binary(min_size=32, max_size=32)


def parse_frame(raw: bytes) -> Message | None:
    """What a client makes of one frame, header included."""
    ((frame_type, payload),) = FrameDecoder().feed(raw)
    return parse_message(frame_type, payload)


def _address(case: dict[str, Any]) -> tuple[Any, int]:
    if not case["ip_port_valid"]:
        return None, 0
    host, _, port = case["ip_port"].rpartition(":")
    return IPv4Address(host), int(port)


def _expected(case: dict[str, Any]) -> Message | None:
    """The message a recorded result stands for."""
    data = bytes.fromhex(case.get("data_hex", ""))
    peer = bytes.fromhex(case.get("peer", ""))
    match case["result"]:
        case "packet":
            return messages.ReceivedPacket(bytes.fromhex(case["source"]), data)
        case "peer_gone":
            return messages.PeerGone(peer, case["reason"])
        case "peer_present":
            return messages.PeerPresent(peer, *_address(case), PeerPresentFlags(case["flags"]))
        case "ping":
            return messages.Ping(data)
        case "pong":
            return messages.Pong(data)
        case "health":
            return messages.Health(case["problem"])
        case "restarting":
            return messages.Restarting(case["reconnect_in_ms"], case["try_for_ms"])
        case "keepalive":
            return messages.KeepAlive()
    raise AssertionError(case)


class ClientVectorTests(SynchronousTestCase):
    """What the reference's client made of the same bytes."""

    def setUp(self) -> None:
        context = VECTORS["context"]["client_parse_keys"]
        server = public_of(parse_node_private(context["server_private"]))
        self.shared = shared_key(parse_node_private(context["client_private"]), server)

    def parse(self, case: dict[str, Any]) -> Message | ServerInfo | None:
        message = parse_frame(bytes.fromhex(case["hex"]))
        if isinstance(message, messages.ServerInfoBox):
            return open_server_info(self.shared, message.sealed)
        return message

    def test_recorded(self) -> None:
        """Each frame is the message, the silence or the end the reference made of it."""
        for case in VECTORS["client_parses"]:
            if case["result"] == "error":
                self.assertRaises(ProtocolError, self.parse, case)
            elif case["result"].startswith("ignored"):
                self.assertIsNone(self.parse(case), case["name"])
            elif case["result"] == "server_info":
                info = ServerInfo(2, case["tokens_per_second"], case["burst"])
                self.assertEqual(self.parse(case), info)
            else:
                self.assertEqual(self.parse(case), _expected(case), case["name"])


class ParseMessageTests(SynchronousTestCase):
    """What no vector shows."""

    @given(st.integers(0, 255), st.binary(max_size=200))
    def test_never_raises(self, frame_type: int, payload: bytes) -> None:
        """Any frame is a message or skipped."""
        message = parse_message(frame_type, payload)
        self.assertTrue(message is None or isinstance(message, Message))

    @given(st.sampled_from([0x05, 0x08, 0x09, 0x12, 0x13, 0x15]), st.binary(max_size=31))
    def test_short_frames(self, frame_type: int, payload: bytes) -> None:
        """Too short for its fixed part: skipped, whatever the bytes say."""
        needed = {FrameType.PING: 8, FrameType.PONG: 8, FrameType.RESTARTING: 8}
        message = parse_message(frame_type, payload)
        self.assertEqual(message is None, len(payload) < needed.get(frame_type, 32))

    @given(RAW_KEYS, st.ip_addresses(), st.integers(0, 65535), st.integers(0, 255))
    def test_peer_present(self, key: bytes, ip: Any, port: int, flags: int) -> None:
        """Address, port and flags come back, unknown flag bits too; IPv4 as IPv4."""
        message = parse_frame(encode_peer_present(key, ip, port, flags))
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
            ip = ip.ipv4_mapped
        self.assertEqual(message, messages.PeerPresent(key, ip, port, PeerPresentFlags(flags)))

    def test_peer_present_between_the_forms(self) -> None:
        """An address without its port is no address; bytes behind the flags are the future's."""
        raw = encode_peer_present(bytes(range(32)), IPv4Address("192.0.2.1"), 7, 2)[5:]
        for length in range(32, 50):
            message = parse_message(FrameType.PEER_PRESENT, raw[:length])
            self.assertEqual(
                message, messages.PeerPresent(raw[:32], None, 0, PeerPresentFlags(0)), length
            )
        self.assertEqual(
            parse_message(FrameType.PEER_PRESENT, raw + b"future"),
            parse_message(FrameType.PEER_PRESENT, raw),
        )

    @given(RAW_KEYS, st.binary(max_size=300), st.integers(0, 255))
    def test_round_trips(self, key: bytes, packet: bytes, reason: int) -> None:
        """What the encoders write is what the client reads."""
        self.assertEqual(
            parse_frame(encode_recv_packet(key, packet)), messages.ReceivedPacket(key, packet)
        )
        self.assertEqual(parse_frame(encode_peer_gone(key, reason)), messages.PeerGone(key, reason))

    @given(st.text(max_size=50), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
    def test_server_state(self, problem: str, reconnect_in: int, try_for: int) -> None:
        """Health and Restarting come back as said."""
        self.assertEqual(parse_frame(encode_health(problem)), messages.Health(problem))
        self.assertEqual(
            parse_frame(encode_restarting(reconnect_in, try_for)),
            messages.Restarting(reconnect_in, try_for),
        )

    def test_health_that_is_no_text(self) -> None:
        """Broken UTF-8 is shown as well as it can be."""
        message = parse_message(FrameType.HEALTH, b"ill\xff")
        self.assertEqual(message, messages.Health("ill\ufffd"))
