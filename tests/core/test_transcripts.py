"""The recorded sessions of the reference server, played to the core without sockets."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from derp.core.connection import RemoteAddress
from derp.core.relay import Relay, RelayIdentity
from derp.core.session import Session
from derp.core.stats import DropReason, PacketKind
from derp.errors import ProtocolError
from derp.wire.frames import KEEP_ALIVE_FRAME, FrameDecoder, FrameType
from derp.wire.handshake import open_server_info, shared_key
from derp.wire.keys import parse_mesh_key, parse_node_private
from tests.core.fakes import FakeSink, Feeder
from tests.vectors import transcripts

OTHER_LAYERS = {"derp_accepts"}
"""Counted by who accepts connections."""
COUNTERS = (
    "packets_received",
    "bytes_received",
    "packets_sent",
    "bytes_sent",
    "packets_forwarded_in",
    "packets_forwarded_out",
    "got_ping",
    "sent_pong",
    "home_moves_in",
    "home_moves_out",
    "peer_gone_disconnected_frames",
    "peer_gone_not_here_frames",
    "total_dup_client_conns",
    "multiforwarder_created",
    "multiforwarder_deleted",
    "packet_forwarder_delete_other_value",
    "unknown_frames",
    "sclient_write_timeouts",
)
"""Attributes of Stats that the reference calls the same, after ``derp_``."""


class Peer:
    """One recorded connection, and what we send it."""

    def __init__(self, relay: Relay, recorded: dict[str, Any]) -> None:
        ip, _, port = recorded["local_addr"].rpartition(":")
        self.sink = FakeSink()
        self.session = Session(
            relay,
            self.sink,
            RemoteAddress(ip_address(ip), int(port)),
            not_ideal=False,
            new_nonce=lambda: bytes(24),
            ask_admission=lambda request: self.session.admit(),
        )
        self.feeder = Feeder(self.session)
        self.sink.write(relay.greeting)
        self._shared = lambda: shared_key(parse_node_private(recorded["private"]), relay.public)
        self.closed = False

    def feed(self, data: bytes) -> None:
        try:
            self.feeder.feed(data)
        except ProtocolError:
            self.sink.close("ProtocolError")

    def frames(self, stream: bytes) -> list[object]:
        """A stream's frames; ServerInfo, whose nonce differs, opened; no keepalives."""
        frames: list[object] = []
        for frame_type, payload in FrameDecoder().feed(stream):
            if frame_type == FrameType.SERVER_INFO:
                frames.append(open_server_info(self._shared(), payload))
            elif frame_type != KEEP_ALIVE_FRAME[0]:
                frames.append((frame_type, payload))
        return frames


def series(relay: Relay) -> dict[str, str]:
    """Non-zero series, as the reference names them."""
    stats = relay.stats
    found = {f"derp_{name}": getattr(stats, name) for name in COUNTERS}
    found |= {
        'derp_packets_received_kind{kind="disco"}': stats.disco_received,
        'derp_packets_received_kind{kind="other"}': stats.packets_received - stats.disco_received,
        "derp_clients_local": len(relay.registry),
        "derp_clients_remote": relay.clients_remote,
        "derp_clients_total": len(relay.registry) + relay.clients_remote,
        "derp_current_connections": stats.connections,
        "derp_current_home_connections": stats.home_connections,
        "derp_current_notideal_connections": stats.notideal_connections,
        "derp_current_dup_client_conns": stats.dup_client_conns,
        "derp_current_dup_client_keys": stats.dup_client_keys,
        "derp_watchers": len(relay.watchers),
    }
    for kind in PacketKind:
        for reason in DropReason:
            labels = f'{{reason="{reason.name.lower()}",kind="{kind.name.lower()}"}}'
            found["derp_packets_dropped" + labels] = stats.packets_dropped[kind][reason]
            found["derp_bytes_dropped" + labels] = stats.bytes_dropped[kind][reason]
    return {name: str(value) for name, value in found.items() if value}


def packets(frames: list[object]) -> list[object]:
    """The RecvPacket frames among some."""
    return [f for f in frames if isinstance(f, tuple) and f[0] == FrameType.RECV_PACKET]


class TranscriptTests(SynchronousTestCase):
    """Same bytes in, same frames out, same counters."""

    def play(self, name: str) -> None:
        recorded = transcripts()[name]
        server = recorded["server"]
        mesh_key = parse_mesh_key(server["mesh_key"]) if server["mesh_key"] else None
        relay = Relay(RelayIdentity(parse_node_private(server["private"]), mesh_key))
        peers: dict[str, Peer] = {}
        expected: dict[str, bytes] = {}
        ended: set[str] = set()
        for step in recorded["steps"]:
            relay.now = step["t_ms"] / 1000
            conn, data = step["conn"], bytes.fromhex(step["hex"])
            if conn not in peers:
                peers[conn] = Peer(relay, recorded["conns"][conn])
                expected[conn] = b""
            match step["dir"], step["unit"]:
                case "c2s", "frame" | "partial":
                    peers[conn].feed(data)
                    self.end_closed(peers)
                case "c2s", "close":
                    peers[conn].session.lost()
                case "s2c", "frame":
                    expected[conn] += data
                case "s2c", "eof":
                    ended.add(conn)
        for conn, peer in peers.items():
            got = peer.frames(b"".join(peer.sink.written))
            wanted = peer.frames(expected[conn])
            # The order of presence frames in a flood is nobody's promise; packets keep theirs.
            self.assertEqual(Counter(got), Counter(wanted), conn)
            self.assertEqual(got[:2], wanted[:2], conn)
            self.assertEqual(packets(got), packets(wanted), conn)
        self.assertEqual({conn for conn, peer in peers.items() if peer.closed}, ended)
        counters = recorded["counters_at_end"]
        counters = {name: n for name, n in counters.items() if name not in OTHER_LAYERS}
        self.assertEqual(series(relay), counters)

    def end_closed(self, peers: dict[str, Peer]) -> None:
        """What the relay closed is lost a moment later."""
        for peer in peers.values():
            if peer.sink.closed and not peer.closed:
                peer.closed = True
                peer.session.lost()


def _add_tests() -> None:
    for name in sorted(transcripts()):
        if name == "websocket-session":
            continue  # its frames come wrapped

        def test(self: TranscriptTests, name: str = name) -> None:
            self.play(name)

        test.__doc__ = f"The session recorded as {name}."
        setattr(TranscriptTests, "test_" + name.replace("-", "_"), test)


_add_tests()
