"""Tests for :mod:`derp.net.frame_log`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from derp.net.frame_log import LoggedRelayProtocol, ProbersLoggedRelayProtocol, protocol_class
from derp.net.relay_endings import remote_address
from derp.net.relay_protocol import RelayProtocol
from derp.wire.frames import FrameType, encode_frame, encode_ping, encode_send_packet
from derp.wire.keys import short_key
from tests.core.fakes import NOBODY
from tests.net.relay_sides import PEER, FakeTransport, RelayCase, Side

STREAM = (
    encode_ping(bytes(8))
    + encode_send_packet(NOBODY, b"packet")
    + encode_frame(0x63, bytes(50))
    + encode_frame(FrameType.PONG, b"")
    + encode_send_packet(NOBODY, bytes(70))
)
FRAMES = [
    ("PING", 8),
    ("SEND_PACKET", 38),
    ("frame 0x63", 50),
    ("PONG", 0),
    ("SEND_PACKET", 102),
]
LINE = re.compile(r"derp client 192\.0\.2\.7:41641(\S*): received (.*) of (\d+) bytes")


class FrameLogTests(RelayCase):
    """Each frame has a line, whoever sent it in whatever pieces."""

    def serve(self, kind: type[RelayProtocol]) -> RelayProtocol:
        """A connection served by this class."""
        protocol = kind(self.server, remote_address(PEER), False, b"")
        protocol.makeConnection(FakeTransport())
        return protocol

    def forget(self) -> None:
        """Leave out what was logged so far."""
        logs: Any = self._logs
        logs.clear()

    def logged(self) -> list[tuple[str, int]]:
        """Frames that have a line, and how long it says they are."""
        found = [LINE.fullmatch(line) for line in self.lines]
        return [(line[2], int(line[3])) for line in found if line is not None]

    def test_login(self) -> None:
        """The login is a frame, too; lines name the client as soon as its name is known."""
        alice = Side("alice")
        login = alice.login(self.relay.public)
        self.serve(LoggedRelayProtocol).dataReceived(login + encode_ping(bytes(8)))
        expected = [("CLIENT_INFO", len(login) - 5), ("PING", 8)]
        self.assertEqual(self.logged(), expected)
        self.assertIn(short_key(alice.key), self.lines[0])

    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.integers(0, len(STREAM)), max_size=6))
    def test_any_split(self, cuts: list[int]) -> None:
        """However the stream is cut, each frame is logged once and in order."""
        self.forget()
        protocol = self.serve(LoggedRelayProtocol)
        protocol.dataReceived(Side("alice").login(self.relay.public))
        self.forget()
        ends = sorted({*cuts, len(STREAM)})
        for start, end in zip([0, *ends], ends, strict=False):
            protocol.dataReceived(STREAM[start:end])
        self.assertEqual(self.logged(), FRAMES)

    def test_broken(self) -> None:
        """The frame that ends a connection is the last to be logged."""
        protocol = self.serve(LoggedRelayProtocol)
        protocol.dataReceived(Side("alice").login(self.relay.public))
        self.forget()
        protocol.dataReceived(encode_frame(FrameType.PING, b"short"))
        protocol.dataReceived(STREAM)
        self.assertEqual(self.logged(), [("PING", 5)])

    def test_probers(self) -> None:
        """With the other variable, only the frames of probers are logged."""
        for is_prober in (False, True):
            side = Side("alice")
            side.info = replace(side.info, is_prober=is_prober)
            protocol = self.serve(ProbersLoggedRelayProtocol)
            protocol.dataReceived(side.login(self.relay.public))
            self.forget()
            protocol.dataReceived(STREAM)
            self.assertEqual(self.logged(), FRAMES if is_prober else [])

    def test_choice(self) -> None:
        """Without the variables connections are served by what knows nothing of logging."""
        self.assertIs(protocol_class(everybody=False, probers=False), RelayProtocol)
        self.assertIs(protocol_class(everybody=False, probers=True), ProbersLoggedRelayProtocol)
        self.assertIs(protocol_class(everybody=True, probers=True), LoggedRelayProtocol)
