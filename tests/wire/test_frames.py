"""Tests of :mod:`derp.wire.frames` against the frames the reference wrote."""

from collections.abc import Callable, Iterable
from ipaddress import ip_address
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ProtocolError
from derp.wire import frames
from derp.wire.frames import FrameDecoder, FrameType
from derp.wire.handshake import encode_server_key
from tests.vectors import load

VECTORS = load("frames.json")
KEY = bytes(range(32))
RAW_FRAMES = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=80)), max_size=12)


def _hex(fields: dict[str, Any], *names: str) -> list[bytes]:
    return [bytes.fromhex(fields[name]) for name in names]


def _peer_present(f: dict[str, Any]) -> bytes:
    ip = None if f["ip"] == "::" else ip_address(f["ip"])
    return frames.encode_peer_present(*_hex(f, "peer"), ip, f["port"], f["flags"])


ENCODERS: dict[int, Callable[[dict[str, Any]], bytes]] = {
    FrameType.SERVER_KEY: lambda f: encode_server_key(*_hex(f, "key")),
    FrameType.CLIENT_INFO: lambda f: frames.encode_frame(
        FrameType.CLIENT_INFO, b"".join(_hex(f, "key", "nonce", "box_hex"))
    ),
    FrameType.SERVER_INFO: lambda f: frames.encode_frame(
        FrameType.SERVER_INFO, b"".join(_hex(f, "nonce", "box_hex"))
    ),
    FrameType.SEND_PACKET: lambda f: frames.encode_send_packet(*_hex(f, "dst", "data_hex")),
    FrameType.RECV_PACKET: lambda f: frames.encode_recv_packet(*_hex(f, "src", "data_hex")),
    FrameType.KEEP_ALIVE: lambda f: frames.KEEP_ALIVE_FRAME,
    FrameType.NOTE_PREFERRED: lambda f: frames.encode_note_preferred(f["preferred"]),
    FrameType.PEER_GONE: lambda f: frames.encode_peer_gone(*_hex(f, "peer"), f["reason"]),
    FrameType.PEER_PRESENT: _peer_present,
    FrameType.FORWARD_PACKET: lambda f: frames.encode_forward_packet(
        *_hex(f, "src", "dst", "data_hex")
    ),
    FrameType.WATCH_CONNS: lambda f: frames.WATCH_CONNS_FRAME,
    FrameType.CLOSE_PEER: lambda f: frames.encode_close_peer(*_hex(f, "peer")),
    FrameType.PING: lambda f: frames.encode_ping(*_hex(f, "data_hex")),
    FrameType.PONG: lambda f: frames.encode_pong(*_hex(f, "data_hex")),
    FrameType.HEALTH: lambda f: frames.encode_health(f["problem"]),
    FrameType.RESTARTING: lambda f: frames.encode_restarting(f["reconnect_in_ms"], f["try_for_ms"]),
}


def decode(chunks: Iterable[bytes], decoder: FrameDecoder | None = None) -> list[tuple[int, bytes]]:
    """All frames of a stream that arrived as these chunks."""
    decoder = decoder or FrameDecoder()
    return [frame for chunk in chunks for frame in decoder.feed(chunk)]


class FrameVectorTests(SynchronousTestCase):
    """What the reference wrote for the same values."""

    def test_encoders(self) -> None:
        """Every recorded frame that we write is ours to the byte."""
        written = 0
        for case in VECTORS["valid"]:
            encoder = ENCODERS.get(case["type"])
            if encoder is None or "extra_hex" in case["fields"]:
                continue
            self.assertEqual(encoder(case["fields"]).hex(), case["hex"], case["name"])
            written += 1
        self.assertEqual(written, len(VECTORS["valid"]) - 2)

    def test_every_type_is_recorded(self) -> None:
        """No frame type escapes the comparison."""
        self.assertEqual({case["type"] for case in VECTORS["valid"]} - {0x77}, set(FrameType))

    def test_decoder(self) -> None:
        """Every recorded frame comes out as its type and payload, unknown ones too."""
        for case in VECTORS["valid"]:
            raw = bytes.fromhex(case["hex"])
            self.assertEqual(decode([raw]), [(case["type"], raw[5:])], case["name"])
            self.assertEqual(len(raw[5:]), case["payload_length"])

    def test_all_in_one_read(self) -> None:
        """The recorded frames in one read come out one by one."""
        raws = [bytes.fromhex(case["hex"]) for case in VECTORS["valid"]]
        expected = [(raw[0], raw[5:]) for raw in raws]
        self.assertEqual(decode([b"".join(raws)]), expected)

    def test_headers(self) -> None:
        """Lengths are unsigned and big-endian over their whole range."""
        for text, frame_type, length in (
            ("0400000400", FrameType.SEND_PACKET, 1024),
            ("0600000000", FrameType.KEEP_ALIVE, 0),
            ("05ffffffff", FrameType.RECV_PACKET, 0xFFFFFFFF),
        ):
            self.assertEqual(frames.HEADER.unpack(bytes.fromhex(text)), (frame_type, length))
            self.assertEqual(frames.HEADER.pack(frame_type, length).hex(), text)


class EncodeTests(SynchronousTestCase):
    """What no encoder may write."""

    def test_packet_limit(self) -> None:
        """65536 bytes go, one more is our bug, in all three packet frames."""
        longest, longer = bytes(65536), bytes(65537)
        self.assertEqual(len(frames.encode_send_packet(KEY, longest)), 5 + 32 + 65536)
        self.assertEqual(len(frames.encode_recv_packet(KEY, longest)), 5 + 32 + 65536)
        self.assertEqual(len(frames.encode_forward_packet(KEY, KEY, longest)), 5 + 64 + 65536)
        self.assertRaises(ValueError, frames.encode_send_packet, KEY, longer)
        self.assertRaises(ValueError, frames.encode_recv_packet, KEY, longer)
        self.assertRaises(ValueError, frames.encode_forward_packet, KEY, KEY, longer)

    def test_key_length(self) -> None:
        """A key of another length would shift everything behind it: our bug."""
        for short in (b"", KEY[:31], KEY + b"x"):
            self.assertRaises(ValueError, frames.encode_send_packet, short, b"")
            self.assertRaises(ValueError, frames.encode_forward_packet, KEY, short, b"")
            self.assertRaises(ValueError, frames.encode_forward_packet, short, KEY, b"")
            self.assertRaises(ValueError, frames.encode_close_peer, short)
            self.assertRaises(ValueError, frames.encode_peer_gone, short, 0)
            self.assertRaises(ValueError, frames.encode_peer_present, short, None, 0, 1)
            self.assertRaises(ValueError, encode_server_key, short)

    def test_ping_length(self) -> None:
        """Pings and pongs carry 8 bytes, no fewer, no more."""
        for data in (b"", b"1234567", b"123456789"):
            self.assertRaises(ValueError, frames.encode_ping, data)
            self.assertRaises(ValueError, frames.encode_pong, data)


class FrameDecoderTests(SynchronousTestCase):
    """A stream cut into frames, however it was split."""

    @given(RAW_FRAMES, st.data())
    def test_any_split(self, wanted: list[tuple[int, bytes]], data: st.DataObject) -> None:
        """Where reads begin and end makes no difference."""
        stream = b"".join(frames.encode_frame(*frame) for frame in wanted)
        cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12).map(sorted))
        chunks = [stream[a:b] for a, b in pairwise([0, *cuts, len(stream)])]
        self.assertEqual(decode(chunks), wanted)

    @given(RAW_FRAMES)
    def test_byte_by_byte(self, wanted: list[tuple[int, bytes]]) -> None:
        """The smallest reads there are."""
        stream = b"".join(frames.encode_frame(*frame) for frame in wanted)
        self.assertEqual(decode(bytes((byte,)) for byte in stream), wanted)

    @given(st.lists(st.binary(max_size=64), max_size=16))
    def test_garbage(self, chunks: list[bytes]) -> None:
        """Any bytes are frames, the start of one, or a ProtocolError; nothing invented."""
        decoder = FrameDecoder(max_payload=40)
        got = b""
        try:
            for chunk in chunks:
                for frame_type, payload in decoder.feed(chunk):
                    self.assertLessEqual(len(payload), 40)
                    got += frames.encode_frame(frame_type, payload)
        except ProtocolError:
            pass
        else:
            self.assertLess(len(b"".join(chunks)) - len(got), 45)
        self.assertTrue(b"".join(chunks).startswith(got))

    def test_limit_is_met_at_the_header(self) -> None:
        """A frame too long is refused before a byte of its payload arrives."""
        self.assertEqual(len(decode([b"\x05\x00\x10\x00\x00", bytes(1 << 20)])), 1)
        decoder = FrameDecoder()
        error = self.assertRaises(ProtocolError, decode, [b"\x05\x00\x10\x00\x01"], decoder)
        self.assertIn("1048577", str(error))
        self.assertRaises(ProtocolError, decode, [b""], decoder)

    def test_frames_before_the_fault(self) -> None:
        """What was whole before the fault is still given."""
        given_frames = []
        stream = frames.KEEP_ALIVE_FRAME + frames.encode_ping(b"12345678") + b"\xff" * 5
        with self.assertRaises(ProtocolError):
            for frame in FrameDecoder().feed(stream):
                given_frames.append(frame)  # noqa: PERF402
        self.assertEqual(given_frames, [(FrameType.KEEP_ALIVE, b""), (0x12, b"12345678")])

    def test_abandoned_reader(self) -> None:
        """Who stops in the middle of a read finds the rest at the next."""
        decoder = FrameDecoder()
        stream = frames.encode_ping(b"12345678") + frames.KEEP_ALIVE_FRAME
        reader = decoder.feed(stream)
        self.assertEqual(next(reader), (FrameType.PING, b"12345678"))
        reader.close()
        self.assertEqual(list(decoder.feed(b"")), [(FrameType.KEEP_ALIVE, b"")])

    def test_payload_is_a_copy(self) -> None:
        """A payload outlives the decoder's buffer."""
        decoder = FrameDecoder()
        ((_, payload),) = decoder.feed(frames.encode_ping(b"12345678"))
        list(decoder.feed(frames.encode_ping(b"abcdefgh")))
        self.assertEqual(payload, b"12345678")
        self.assertIs(type(payload), bytes)

    def test_work_is_linear(self) -> None:
        """
        A long frame in small reads costs one header look per read and one copy at its end.

        Counted, not timed: bytes taken out of the held buffer are as many as were fed, and the
        buffer never holds more than the one frame.
        """

        class CountingBuffer(bytearray):
            copied = 0
            deletions = 0
            longest = 0

            def __getitem__(self, index: Any) -> Any:
                part = super().__getitem__(index)
                CountingBuffer.copied += len(part)
                return part

            def __delitem__(self, index: Any) -> None:
                CountingBuffer.longest = max(CountingBuffer.longest, len(self))
                CountingBuffer.deletions += len(range(*index.indices(len(self))))
                super().__delitem__(index)

        frame = frames.encode_recv_packet(KEY, bytes(20000))
        decoder = FrameDecoder()
        decoder._held = CountingBuffer()
        got = decode((bytes((byte,)) for byte in frame * 2), decoder)
        self.assertEqual(got, [(FrameType.RECV_PACKET, frame[5:])] * 2)
        self.assertEqual(CountingBuffer.copied, 2 * len(frame[5:]))
        self.assertEqual(CountingBuffer.deletions, 2 * len(frame))
        self.assertEqual(CountingBuffer.longest, len(frame))
