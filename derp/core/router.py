"""
The packet path: parse, look up, queue or write. **HOT** — every relayed packet runs through here.

One call takes everything a connection's turn brought. It walks the frames where they lie; a
SendPacket and the RecvPacket it becomes are equally long, so type and key are written over in
place::

    04 | length u32 | destination 32 | packet      as it came
    05 | length u32 | source 32      | packet      as it leaves

A *run* is a stretch of frames for one destination: it costs one lookup, one copy, one write
and one update of each counter, however many packets it has. Clients send trains of equally
long packets, so the next frame's header mostly equals the last one's to the byte, and one
``startswith`` is the whole parse.

Everything else is rare and goes to :class:`~derp.core.session.Session` frame by frame.
"""

from __future__ import annotations

from derp.core.connection import Connection, kind_of
from derp.core.outbox import QueuedPacket
from derp.core.relay import Relay
from derp.core.stats import DropReason
from derp.errors import ProtocolError
from derp.wire.disco import DISCO_MAGIC, DISCO_MIN_LEN
from derp.wire.frames import HEADER_LEN, KEY_LEN, LENGTH, MAX_PACKET, FrameType

_SEND = int(FrameType.SEND_PACKET)
_RECV = bytes((FrameType.RECV_PACKET,))
_HEAD = HEADER_LEN + KEY_LEN
_MIN_DISCO_PAYLOAD = KEY_LEN + DISCO_MIN_LEN
_DISCO_FIRST = DISCO_MAGIC[0]

# Which bucket of the ``buffered_write_frames`` histogram a run of n frames falls in.
_RUN_BUCKET = [*range(11), *[11] * 5, *[12] * 5, *[13] * 5, *[14] * 25, *[15] * 50]
_MAX_RUN_BUCKET = 16


def relay_run(
    relay: Relay, conn: Connection, buf: bytearray, view: memoryview, start: int, end: int
) -> int:
    """
    Relay the SendPacket frames that lie back to back from ``start``.

    Ends at the first frame that is of another type or incomplete.

    :param buf: what ``conn`` sent; RecvPacket headers are written into it.
    :param view: the same bytes as a memoryview.
    :param start: where a complete SendPacket header is known to begin.
    :param end: where the bytes that were received end.
    :return: where the first frame begins that was not relayed. If that is ``start``, the frame
        there is incomplete.
    :raises ProtocolError: at a SendPacket too short for its key or too long, at its header:
        the body is not waited for. Frames before it have been relayed.
    """
    source = conn.key
    startswith = buf.startswith
    pos = start
    while True:  # one round per run
        dest = bytes(view[pos + HEADER_LEN : pos + _HEAD])
        run_start = pos
        packets = disco = 0
        bad_length = -1
        while True:  # one round per stretch of equal headers
            (length,) = LENGTH(buf, pos + 1)
            if not KEY_LEN <= length <= MAX_PACKET + KEY_LEN:
                bad_length = length
                break
            size = HEADER_LEN + length
            if pos + size > end:
                break
            sent = bytes(view[pos : pos + _HEAD])
            received = _RECV + sent[1:HEADER_LEN] + source
            may_be_disco = length >= _MIN_DISCO_PAYLOAD
            while True:  # one round per packet
                buf[pos : pos + _HEAD] = received
                packets += 1
                if (
                    may_be_disco
                    and buf[pos + _HEAD] == _DISCO_FIRST
                    and startswith(DISCO_MAGIC, pos + _HEAD)
                ):
                    disco += 1
                pos += size
                if pos + size > end or not startswith(sent, pos):
                    break
            if pos + _HEAD > end or buf[pos] != _SEND or not startswith(dest, pos + HEADER_LEN):
                break
        if packets:
            _deliver_run(relay, conn, dest, view, run_start, pos, packets, disco)
        if bad_length >= 0:
            raise ProtocolError(_bad_send_packet(bad_length))
        if pos == run_start or pos + _HEAD > end or buf[pos] != _SEND:
            return pos


def _bad_send_packet(length: int) -> str:
    if length < KEY_LEN:
        return f"SendPacket of {length} bytes has no room for its destination"
    return f"SendPacket with {length - KEY_LEN} bytes of data; at most {MAX_PACKET} are allowed"


def _deliver_run(
    relay: Relay,
    conn: Connection,
    dest_key: bytes,
    view: memoryview,
    start: int,
    end: int,
    packets: int,
    disco: int,
) -> None:
    """Hand ``packets`` finished RecvPacket frames in ``view[start:end]`` to one destination."""
    stats = relay.stats
    data_bytes = end - start - _HEAD * packets
    stats.packets_received += packets
    stats.bytes_received += data_bytes
    stats.disco_received += disco
    conn.recv_bytes += end - start
    dest = relay.registry.active.get(dest_key)
    if dest is None:
        _no_active_destination(relay, conn, dest_key, view, start, end)
        return
    heard = dest.heard
    if heard is None or conn.key not in heard:
        relay.note_heard(dest, conn.key)
    if dest.blocked:
        _queue_run(relay, conn, dest, view, start, end)
        return
    dest.write(bytes(view[start:end]))
    stats.packets_sent += packets
    stats.bytes_sent += data_bytes
    dest.sent_bytes += end - start
    histogram = stats.buffered_write_frames
    histogram.counts[_RUN_BUCKET[packets] if packets <= 100 else _MAX_RUN_BUCKET] += 1
    histogram.total += packets


def _frames(view: memoryview, start: int, end: int) -> list[bytes]:
    """Cut a run into its frames."""
    frames = []
    while start < end:
        stop = start + HEADER_LEN + LENGTH(view, start + 1)[0]
        frames.append(bytes(view[start:stop]))
        start = stop
    return frames


def _queue_run(
    relay: Relay, conn: Connection, dest: Connection, view: memoryview, start: int, end: int
) -> None:
    """The destination's socket is full: let the packets wait, each in its lane."""
    now = relay.now
    for frame in _frames(view, start, end):
        kind = kind_of(frame[_HEAD:])
        dest.queue_packet(kind, QueuedPacket(frame, len(frame) - _HEAD, conn.key, now))


def _no_active_destination(
    relay: Relay, conn: Connection, dest_key: bytes, view: memoryview, start: int, end: int
) -> None:
    """Nobody here takes the packets: another relay of the region may, else they are lost."""
    link = None
    if dest_key not in relay.registry.duplicates:
        link = relay.forwarders.lookup(dest_key)
    for frame in _frames(view, start, end):
        if link is not None:
            relay.stats.packets_forwarded_out += 1
            link.forward_packet(conn.key, dest_key, frame[_HEAD:])
        else:
            packet = frame[_HEAD:]
            relay.undeliverable(conn, conn.key, dest_key, packet, DropReason.UNKNOWN_DEST)
