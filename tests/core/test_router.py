"""Tests for :mod:`derp.core.router`: the packet path, against a router that is naive."""

from __future__ import annotations

import contextlib
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core import router
from derp.core.router import relay_run
from derp.core.stats import DropReason, PacketKind, Stats
from derp.errors import ProtocolError
from derp.wire.disco import looks_like_disco
from derp.wire.frames import (
    MAX_PACKET,
    FrameType,
    PeerGoneReason,
    encode_frame,
    encode_note_preferred,
    encode_peer_gone,
    encode_ping,
    encode_pong,
    encode_recv_packet,
    encode_send_packet,
)
from tests.core.fakes import (
    NOBODY,
    FakeClient,
    FakeForwarder,
    disco,
    make_relay,
    public_key,
    stale_frames,
)

DEPTH = 5


# -- the naive router ------------------------------------------------------------------------


@dataclass(frozen=True)
class Send:
    """A SendPacket frame."""

    to: str
    packet: bytes

    def encode(self) -> bytes:
        return encode_send_packet(key_of(self.to), self.packet)


@dataclass(frozen=True)
class Other:
    """Any other frame."""

    frame: bytes

    def encode(self) -> bytes:
        return self.frame


def key_of(name: str) -> bytes:
    return NOBODY if name == "nobody" else public_key(name)


class NaiveRouter:
    """
    What one client's frames should do, frame by frame and without any cleverness.

    ``me`` sends; ``open`` and ``also`` take packets, ``full`` is blocked, ``away`` is behind a
    link, ``twice`` is connected twice (the second one is active), ``nobody`` is not here.
    """

    def __init__(self) -> None:
        self.got: defaultdict[str, bytearray] = defaultdict(bytearray)
        self.forwarded: list[tuple[bytes, bytes, bytes]] = []
        self.lanes = [deque[bytes](), deque[bytes]()]
        self.stats = Stats()
        self.answers_left = 3

    def handle(self, frames: Iterable[Send | Other]) -> None:
        for frame in frames:
            if isinstance(frame, Send):
                self.send(frame.to, frame.packet)
            elif frame.frame[0] == FrameType.PING:
                self.got["me"] += encode_pong(frame.frame[5:13])
        disco_lane, other_lane = self.lanes
        for waiting in (*disco_lane, *other_lane):
            self.got["full"] += waiting
            self.count_sent(waiting)

    def send(self, to: str, packet: bytes) -> None:
        stats = self.stats
        kind = PacketKind.DISCO if looks_like_disco(packet) else PacketKind.OTHER
        stats.packets_received += 1
        stats.bytes_received += len(packet)
        stats.disco_received += kind is PacketKind.DISCO
        frame = encode_recv_packet(public_key("me"), packet)
        if to == "full":
            lane = self.lanes[kind]
            lane.append(frame)
            if len(lane) > DEPTH:
                dropped = lane.popleft()
                stats.drop(DropReason.QUEUE_HEAD, kind, len(dropped) - 37, b"", b"")
        elif to == "away":
            stats.packets_forwarded_out += 1
            self.forwarded.append((public_key("me"), public_key("away"), packet))
        elif to == "nobody":
            stats.drop(DropReason.UNKNOWN_DEST, kind, len(packet), b"", b"")
            if kind is PacketKind.DISCO and self.answers_left:
                self.answers_left -= 1
                self.got["me"] += encode_peer_gone(NOBODY, PeerGoneReason.NOT_HERE)
        else:
            self.got[to] += frame
            self.count_sent(frame)

    def count_sent(self, frame: bytes) -> None:
        self.stats.packets_sent += 1
        self.stats.bytes_sent += len(frame) - 37


class RealRouter:
    """The same scene with the real one."""

    def __init__(self) -> None:
        self.relay = make_relay(outbox_depth=DEPTH)
        self.link = FakeForwarder()
        self.relay.add_forwarder(public_key("away"), self.link)
        self.idle_twin = FakeClient(self.relay, "twice")
        names = ("me", "open", "also", "full", "twice")
        self.clients = {name: FakeClient(self.relay, name) for name in names}
        self.clients["full"].block()
        self.me = self.clients["me"]

    def got(self) -> dict[str, bytes]:
        got = {name: b"".join(client.sink.written) for name, client in self.clients.items()}
        return {name: data for name, data in got.items() if data}


def counters(stats: Stats) -> dict[str, object]:
    return {
        name: getattr(stats, name)
        for name in (
            "packets_received",
            "bytes_received",
            "disco_received",
            "packets_sent",
            "bytes_sent",
            "packets_forwarded_out",
            "packets_dropped",
            "bytes_dropped",
        )
    }


def cut(stream: bytes, positions: Sequence[int]) -> list[bytes]:
    """Split a stream at positions (taken modulo its length)."""
    edges = sorted({0, len(stream), *(at % (len(stream) + 1) for at in positions)})
    return [stream[a:b] for a, b in pairwise(edges)]


# -- what clients may send -------------------------------------------------------------------

names = st.sampled_from(["open", "open", "also", "full", "me", "twice", "away", "nobody"])
sizes = st.sampled_from([0, 1, 8, 61, 62, 63, 100, 500])


@st.composite
def packets(draw: st.DrawFn, to: str) -> bytes:
    """A packet: disco, nearly disco, noise, or full of headers of its own frame."""
    size = draw(sizes)
    match draw(st.sampled_from(["noise", "disco", "nearly", "headers", "received"])):
        case "disco":
            return disco(max(size, 62))
        case "nearly":
            return (b"T" + b"t" * size)[:size]
        case "headers":
            return (encode_send_packet(key_of(to), bytes(size))[:37] * 20)[:size]
        case "received":
            return (encode_recv_packet(public_key("me"), bytes(size))[:37] * 20)[:size]
        case _:
            return draw(st.binary(min_size=min(size, 8), max_size=min(size, 8))) * (size // 8)


@st.composite
def trains(draw: st.DrawFn) -> list[Send | Other]:
    """Packets for one destination, several of one size in a row."""
    to = draw(names)
    chosen = draw(st.lists(packets(to), min_size=1, max_size=3))
    return [Send(to, packet) for packet in chosen for _ in range(draw(st.integers(1, 7)))]


@st.composite
def others(draw: st.DrawFn) -> list[Send | Other]:
    """A frame that is no packet: pings, and unknown types whose payload looks like packets."""
    match draw(st.sampled_from(["ping", "long ping", "preferred", "unknown"])):
        case "ping":
            return [Other(encode_ping(draw(st.binary(min_size=8, max_size=8))))]
        case "long ping":
            return [Other(encode_frame(FrameType.PING, draw(st.binary(min_size=8, max_size=30))))]
        case "preferred":
            return [Other(encode_note_preferred(draw(st.booleans())))]
        case _:
            frame_type = draw(st.sampled_from([0x02, 0x05, 0x13, 0x20, 0xFF]))
            skipped = stale_frames(draw(st.integers(0, 300)))
            return [Other(encode_frame(frame_type, skipped))]


streams = st.lists(trains() | others(), min_size=1, max_size=12).map(
    lambda parts: [frame for part in parts for frame in part]
)
cuts = st.lists(st.integers(0, 1 << 16), max_size=12)


class NaiveComparisonTests(SynchronousTestCase):
    """Everything comes out as if each frame had been handled by itself."""

    @settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(streams, cuts)
    def test_any_stream_cut_anywhere(
        self, frames: list[Send | Other], positions: list[int]
    ) -> None:
        """Same bytes in the same order for every receiver, same counters."""
        naive, real = NaiveRouter(), RealRouter()
        stream = b"".join(frame.encode() for frame in frames)
        real.me.feed(*cut(stream, positions))
        self.assertEqual(real.me.feeder.held, b"")
        direct = real.relay.stats.packets_sent
        real.clients["full"].unblock()
        naive.handle(frames)
        self.assertEqual(real.got(), naive.got)
        self.assertEqual(real.link.forwarded, naive.forwarded)
        self.assertEqual(real.idle_twin.sink.written, [])
        self.assertEqual(counters(real.relay.stats), counters(naive.stats))
        self.assertEqual(real.me.conn.recv_bytes, len(stream))
        self.assertEqual(real.relay.stats.buffered_write_frames.total, direct)
        for name, client in real.clients.items():
            if name != "me":
                self.assertEqual(client.conn.sent_bytes, len(naive.got[name]))

    @settings(deadline=None)
    @given(streams, cuts, st.sampled_from([0, 31, MAX_PACKET + 33, (1 << 32) - 1]))
    def test_frames_before_a_bad_one(
        self, frames: list[Send | Other], positions: list[int], bad_length: int
    ) -> None:
        """What came before a frame that breaks the rules is relayed, then it is refused."""
        naive, real = NaiveRouter(), RealRouter()
        stream = b"".join(frame.encode() for frame in frames)
        stream += b"\x04" + bad_length.to_bytes(4, "big") + public_key("open")
        with self.assertRaises(ProtocolError):
            real.me.feed(*cut(stream, positions))
        real.clients["full"].unblock()
        naive.handle(frames)
        self.assertEqual(real.got(), naive.got)
        self.assertEqual(counters(real.relay.stats), counters(naive.stats))

    @settings(deadline=None)
    @given(
        st.lists(
            st.binary(max_size=40)
            | st.sampled_from([b"\x04\0\0\0", b"\x07\0\0\0", b"\x12\0\0\0", b"\x10\0\0\0\0"])
            | st.just(encode_send_packet(public_key("open"), b"fine")),
            max_size=10,
        ),
        st.booleans(),
    )
    def test_garbage(self, chunks: list[bytes], mesh: bool) -> None:
        """Whatever comes, at worst it is the remote's fault."""
        relay = make_relay()
        FakeClient(relay, "open")
        client = FakeClient(relay, "me", mesh=mesh)
        with contextlib.suppress(ProtocolError):
            client.feed(*chunks)


class TrainTests(SynchronousTestCase):
    """Runs of frames for one destination, in particular of one size."""

    def setUp(self) -> None:
        self.relay = make_relay()
        self.me = FakeClient(self.relay, "me")
        self.open = FakeClient(self.relay, "open")
        self.also = FakeClient(self.relay, "also")

    def test_a_run_is_one_write(self) -> None:
        """However many packets of whatever sizes; another destination begins another run."""
        to_open = b"".join(encode_send_packet(self.open.key, bytes(n)) for n in (5, 5, 5, 5, 7, 5))
        to_also = encode_send_packet(self.also.key, b"x") * 3
        self.me.feed(to_open + to_also + to_open)
        self.assertEqual(len(self.open.sink.written), 2)
        self.assertEqual(len(self.also.sink.written), 1)
        self.assertEqual(len(self.open.take_packets()), 12)
        self.assertEqual(len(self.also.take_packets()), 3)

    def test_every_length_of_train(self) -> None:
        """From one packet to many, with any part of one more behind."""
        frame = encode_send_packet(self.open.key, b"data!")
        for count in range(1, 13):
            for rest in range(len(frame)):
                self.me.feed(frame * count + frame[:rest])
                self.assertEqual(self.open.take_packets(), [(self.me.key, b"data!")] * count)
                self.assertEqual(self.me.feeder.held, frame[:rest])
                self.me.feed(frame[rest:])
                self.assertEqual(len(self.open.take_packets()), 1)

    def test_a_train_is_parsed_once(self) -> None:
        """Of many equal headers a few are taken apart; the rest are only compared."""
        parsed: list[int] = []
        parse = router._parse

        def counting(buf: bytearray, pos: int) -> tuple[int, int, bytes]:
            parsed.append(pos)
            return parse(buf, pos)

        self.patch(router, "_parse", counting)
        self.me.feed(encode_send_packet(self.open.key, bytes(100)) * 200)
        self.assertEqual(len(self.open.take_packets()), 200)
        self.assertLess(len(parsed), 10)

    def test_headers_inside_packets(self) -> None:
        """A packet full of copies of its own frame's header arrives as it was sent."""
        for size in (37, 74, 37 * 20, 37 * 20 + 5):
            header = encode_send_packet(self.open.key, bytes(size))[:37]
            packet = (header * (size // 37 + 1))[:size]
            for count in (1, 2, 9):
                self.me.feed(encode_send_packet(self.open.key, packet) * count)
                self.assertEqual(self.open.take_packets(), [(self.me.key, packet)] * count)

    def test_packet_that_looks_like_the_next_frame(self) -> None:
        """An empty packet, then one whose data are such frames: sizes decide, not looks."""
        empty = encode_send_packet(self.open.key, b"")
        self.me.feed(empty * 6 + encode_send_packet(self.open.key, empty * 6) + empty * 6)
        packets = [packet for _, packet in self.open.take_packets()]
        self.assertEqual(packets, [b""] * 6 + [empty * 6] + [b""] * 6)

    def test_stale_bytes_complete_nothing(self) -> None:
        """
        The same frames lay in the buffer before; where the new bytes end inside one of them,
        the old ones would complete it and continue the train.
        """
        frame = encode_send_packet(self.open.key, b"secret")
        buf = bytearray(frame * 20)
        with memoryview(buf) as view:
            for end in range(len(frame) * 8):
                view[:] = frame * 20
                if end < 37:
                    continue
                consumed = relay_run(self.relay, self.me.conn, buf, view, 0, end)
                whole = end // len(frame)
                self.assertEqual(consumed, whole * len(frame))
                self.assertEqual(len(self.open.take_packets()), whole)
                self.assertEqual(view[consumed:], (frame * 20)[consumed:])

    def test_writes_are_copies(self) -> None:
        """What was written stays what it is when the buffer is used for others."""
        buf = bytearray(encode_send_packet(self.open.key, b"mine"))
        with memoryview(buf) as view:
            relay_run(self.relay, self.me.conn, buf, view, 0, len(buf))
            view[:] = bytes(len(buf))
        self.assertEqual(self.open.take_packets(), [(self.me.key, b"mine")])

    def test_longest_packet(self) -> None:
        """64 KiB of data, in turns of any size."""
        packet = bytes(range(256)) * 256
        frame = encode_send_packet(self.open.key, packet)
        for step in (len(frame), 65536, 16384, 4000):
            self.me.feed(*(frame[at : at + step] for at in range(0, len(frame), step)))
            self.assertEqual(self.open.take_packets(), [(self.me.key, packet)])

    def test_disco_among_equals(self) -> None:
        """In a train each packet is looked at; one that begins alike is not taken for disco."""
        alike = b"TS" + bytes(60)
        for pattern in ("d", "dddddd", "ododododod", "aaaaaa", "odadodadoo", "oooooooood"):
            chosen = {"d": disco(62), "o": bytes(62), "a": alike}
            before = self.relay.stats.disco_received
            frames = [encode_send_packet(self.open.key, chosen[kind]) for kind in pattern]
            self.me.feed(b"".join(frames))
            self.assertEqual(self.relay.stats.disco_received - before, pattern.count("d"))

    def test_too_short_for_disco(self) -> None:
        """61 bytes that begin with the magic are none, alone or in a train."""
        for count in (1, 8):
            self.me.feed(encode_send_packet(self.open.key, disco(61)) * count)
        self.assertEqual(self.relay.stats.disco_received, 0)

    def test_run_length_histogram(self) -> None:
        """A run of n packets is observed as n."""
        expected = Stats().buffered_write_frames
        for count in [*range(1, 30), 49, 50, 51, 99, 100, 101, 500]:
            self.me.feed(encode_send_packet(self.open.key, b"") * count)
            expected.observe(count)
        histogram = self.relay.stats.buffered_write_frames
        self.assertEqual(histogram.counts, expected.counts)
        self.assertEqual(histogram.total, expected.total)

    def test_socket_that_fills_up_in_the_middle(self) -> None:
        """From the write that filled it on, packets queue, in the same turn."""
        self.open.block(after_writes=1)
        frames = [
            encode_send_packet(client.key, b"%d" % number)
            for number in range(20)
            for client in (self.open, self.also)
        ]
        self.me.feed(b"".join(frames))
        self.assertEqual(len(self.open.take_packets()), 1)
        self.assertEqual(len(self.also.take_packets()), 20)
        self.open.unblock()
        expected = [(self.me.key, b"%d" % number) for number in range(1, 20)]
        self.assertEqual(self.open.take_packets(), expected)

    def test_time_in_the_outbox(self) -> None:
        """Packets wait from the turn they came in, on the relay's clock."""
        self.open.block()
        self.relay.now = 10.0
        self.me.send(self.open, b"x")
        self.relay.now = 12.0
        self.open.unblock()
        self.assertAlmostEqual(self.relay.stats.average_queue_duration_ms, 200.0)
