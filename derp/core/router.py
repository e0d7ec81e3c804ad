"""
The packet path: parse, look up, queue or write. **HOT** — every relayed packet runs through here.

One call takes everything a connection's turn brought. It walks the frames where they lie; a
SendPacket and the RecvPacket it becomes are equally long, so type and key are written over in
place::

    04 | length u32 | destination 32 | packet      as it came
    05 | length u32 | source 32      | packet      as it leaves

A *run* is a stretch of frames for one destination: it costs one lookup, one copy, one write
and one update of each counter, however many packets it has. Clients send *trains* of equally
long packets: within one, the next header is the last one's to the byte, and one comparison is
the whole parse.

Everything else is rare and goes to :class:`~derp.core.session.Session` frame by frame.
"""

from __future__ import annotations

from struct import Struct

from derp.core.connection import Connection, kind_of
from derp.core.outbox import QueuedPacket
from derp.core.relay import Relay
from derp.core.stats import DropReason
from derp.errors import ProtocolError
from derp.wire.disco import DISCO_MAGIC, DISCO_MIN_LEN
from derp.wire.frames import HEADER_LEN, KEY_LEN, LENGTH, MAX_PACKET, FrameType

_SEND = int(FrameType.SEND_PACKET)
_RECV = int(FrameType.RECV_PACKET)
_HEAD = HEADER_LEN + KEY_LEN
_MAX_LENGTH = KEY_LEN + MAX_PACKET
_MIN_DISCO_LENGTH = KEY_LEN + DISCO_MIN_LEN
_DISCO_FIRST = DISCO_MAGIC[0]
_TRAIN = 4
_LARGE_RUN = 16 << 10
"""Bytes from which a run is sent from where it lies: it fills a TLS record by itself."""
"""
Frames there must be room for, for a train to be worth its own loop. It also takes two equal
ones before it: where sizes alternate, taking each frame by itself is cheaper.
"""

# Frame type, payload length and key at once. Writing through a Struct costs a third of what
# assigning to a slice of a bytearray does, which copies the value first.
_parse = Struct(">BI32s").unpack_from
_rewrite = Struct(">BI32s").pack_into
_put_head = Struct(f"{_HEAD}s").pack_into

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
    :param start: where a complete SendPacket header is known to begin, key included.
    :param end: where the bytes that were received end.
    :return: where the first frame begins that was not relayed. If that is ``start``, the frame
        there is incomplete.
    :raises ProtocolError: at a SendPacket too short for its key or too long, at its header:
        the body is not waited for. Frames before it have been relayed.
    """
    _, length, dest = _parse(buf, start)
    if start + HEADER_LEN + length != end or not KEY_LEN <= length <= _MAX_LENGTH:
        return _relay_runs(relay, conn, buf, view, start, end)
    # One packet and nothing else: what most turns bring while there is little to do.
    _rewrite(buf, start, _RECV, length, conn.key)
    stats = relay.stats
    if length >= _MIN_DISCO_LENGTH and buf[start + _HEAD] == _DISCO_FIRST:
        stats.disco_received += buf.startswith(DISCO_MAGIC, start + _HEAD)
    _deliver_run(relay, conn, dest, view, start, end, 1)
    stats.packets_received += 1
    stats.bytes_received += length - KEY_LEN
    conn.recv_bytes += end - start
    return end


def _relay_runs(
    relay: Relay, conn: Connection, buf: bytearray, view: memoryview, start: int, end: int
) -> int:
    """Any number of packets: see :func:`relay_run`."""
    source = conn.key
    pos = start
    received = disco = 0
    kind, length, next_dest = _parse(buf, pos)
    more = True
    while more:  # one round per run
        run_start = pos
        dest = next_dest
        packets = previous = earlier = 0
        while True:  # one round per packet or train
            size = HEADER_LEN + length
            if pos + size > end or not KEY_LEN <= length <= _MAX_LENGTH:
                more = False
                break
            if length == previous == earlier and pos + _TRAIN * size <= end:
                stop = _rewrite_train(buf, pos, end, size)
                packets += (stop - pos) // size
                if length >= _MIN_DISCO_LENGTH:
                    disco += _disco_in_train(buf, pos, stop, size)
                pos = stop
            else:
                _rewrite(buf, pos, _RECV, length, source)
                packets += 1
                if length >= _MIN_DISCO_LENGTH and buf[pos + _HEAD] == _DISCO_FIRST:
                    disco += buf.startswith(DISCO_MAGIC, pos + _HEAD)
                pos += size
            if pos + _HEAD > end:
                more = False
                break
            earlier, previous = previous, length
            kind, length, next_dest = _parse(buf, pos)
            if kind != _SEND or next_dest != dest:
                more = kind == _SEND
                break
        if packets:
            received += packets
            _deliver_run(relay, conn, dest, view, run_start, pos, packets)
    stats = relay.stats
    stats.packets_received += received
    stats.bytes_received += pos - start - _HEAD * received
    if disco:
        stats.disco_received += disco
    conn.recv_bytes += pos - start
    if kind == _SEND and not KEY_LEN <= length <= _MAX_LENGTH:
        raise ProtocolError(bad_send_packet(length))
    return pos


def _rewrite_train(buf: bytearray, pos: int, end: int, size: int) -> int:
    """
    Rewrite the frames from ``pos`` that begin like the one there.

    The frame before it began so too, and has been rewritten.

    :return: where they end.
    """
    sent = buf[pos : pos + _HEAD]
    received = buf[pos - size : pos - size + _HEAD]
    startswith = buf.startswith
    stop = pos + (end - pos) // size * size
    for frame in range(pos, stop, size):
        if not startswith(sent, frame):
            return frame
        _put_head(buf, frame, received)
    return stop


def _disco_in_train(buf: bytearray, pos: int, stop: int, size: int) -> int:
    """Count disco among frames of one size; mostly one look at their first bytes says none."""
    if _DISCO_FIRST not in buf[pos + _HEAD : stop : size]:
        return 0
    return sum(buf.startswith(DISCO_MAGIC, at) for at in range(pos + _HEAD, stop, size))


def bad_send_packet(length: int) -> str:
    """Say what is wrong with a SendPacket of this payload length."""
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
) -> None:
    """Hand ``packets`` finished RecvPacket frames in ``view[start:end]`` to one destination."""
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
    if end - start < _LARGE_RUN:
        dest.write(view[start:end].tobytes())
    else:
        dest.write_through(view[start:end])
    stats = relay.stats
    stats.packets_sent += packets
    stats.bytes_sent += end - start - _HEAD * packets
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
