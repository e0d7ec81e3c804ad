"""Tests of :mod:`derp.wire.upgrade` against recorded connections."""

import re
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ProtocolError
from derp.wire.upgrade import MAX_HEAD, UpgradeAnswer, describe_http, encode_upgrade_request
from tests.vectors import transcripts

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n"


def recorded_heads(direction: str) -> list[dict[str, Any]]:
    """Every recorded HTTP head of a session that is no WebSocket."""
    return [
        step
        for name, session in transcripts().items()
        if name != "websocket-session"
        for step in session["steps"]
        if step["unit"] == "http" and step["dir"] == direction
    ]


class RequestTests(SynchronousTestCase):
    """What we ask for."""

    def test_recorded(self) -> None:
        """Our request is that of the reference's client, to the byte."""
        heads = recorded_heads("c2s")
        self.assertGreater(len(heads), 20)
        fast = 0
        for step in heads:
            (host,) = re.findall(r"Host: (\S+)", step["text"])
            fast_start = "Derp-Fast-Start" in step["text"]
            fast += fast_start
            ours = encode_upgrade_request("/derp", host, fast_start=fast_start)
            self.assertEqual(ours.decode(), step["text"])
        self.assertGreater(fast, 0)

    def test_ideal_node(self) -> None:
        """The node that was wanted is named, where another one was reached."""
        request = encode_upgrade_request("/derp", "[::1]:3340", ideal_node="1a")
        self.assertIn(b"\r\nIdeal-Node: 1a\r\n", request)
        self.assertIn(b"\r\nHost: [::1]:3340\r\n", request)
        self.assertTrue(request.endswith(b"\r\n\r\n"))

    def test_no_line_can_be_smuggled_in(self) -> None:
        """Names from a DERP map cannot end a header line."""
        self.assertRaises(ValueError, encode_upgrade_request, "/derp", "a b")
        self.assertRaises(ValueError, encode_upgrade_request, "/a b", "host")
        for bad in ("a\r\nX: y", "a\n", "\u00e9", "a\x00"):
            self.assertRaises(ValueError, encode_upgrade_request, "/derp", bad)
            self.assertRaises(ValueError, encode_upgrade_request, bad, "host")
            self.assertRaises(ValueError, encode_upgrade_request, "/d", "host", ideal_node=bad)


class AnswerTests(SynchronousTestCase):
    """What the server says."""

    def test_recorded(self) -> None:
        """Every recorded answer ends where it was recorded to end."""
        heads = recorded_heads("s2c")
        self.assertGreater(len(heads), 20)
        for step in heads:
            self.assertEqual(UpgradeAnswer().feed(bytes.fromhex(step["hex"]) + b"DERP"), b"DERP")

    @given(st.data())
    def test_any_split(self, data: st.DataObject) -> None:
        """However it was split, the same bytes are left for DERP."""
        stream = SWITCHING + b"\r\n\r\nbehind"
        cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
        answer, behind = UpgradeAnswer(), None
        for start, end in pairwise([0, *cuts, len(stream)]):
            if behind is None:
                behind = answer.feed(stream[start:end])
            else:
                behind += stream[start:end]
        self.assertEqual(behind, b"\r\n\r\nbehind")

    def test_other_status(self) -> None:
        """Any other status is an error that shows it and asks the right question."""
        for status in ("404 Not Found", "426 Upgrade Required", "200 OK", "100 Continue"):
            head = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
            error = self.assertRaises(ProtocolError, UpgradeAnswer().feed, head)
            self.assertIn(status, str(error))
            self.assertIn("path", str(error))

    def test_no_http(self) -> None:
        """Other protocols are found out at their first bytes, not at a timeout."""
        for first in (b"SSH-2.0-x\r\n", b"\x15\x03\x01\x00\x02\x02\x16", b"HTTP/2 101"):
            error = self.assertRaises(ProtocolError, UpgradeAnswer().feed, first)
            self.assertIn("no HTTP", str(error))
        self.assertIsNone(UpgradeAnswer().feed(b"HTT"))

    def test_bounded(self) -> None:
        """A head without an end is given up at its bound, in one read or many."""
        line = b"X: " + b"y" * 95 + b"\r\n"
        answer = UpgradeAnswer()
        self.assertIsNone(answer.feed(b"HTTP/1.1 101 Switching Protocols\r\n"))
        with self.assertRaises(ProtocolError):
            for _ in range(MAX_HEAD // len(line) + 1):
                self.assertIsNone(answer.feed(line))
        endless = b"HTTP/1.1 101 Switching Protocols\r\n" + line * 100 + b"\r\n"
        self.assertRaises(ProtocolError, UpgradeAnswer().feed, endless)

    @given(st.binary(max_size=80))
    def test_garbage(self, data: bytes) -> None:
        """Any bytes wait for more or are a ProtocolError, and can be described."""
        self.assertLess(len(describe_http(data)), 400)
        try:
            self.assertIsNone(UpgradeAnswer().feed(data))
        except ProtocolError:
            pass
        else:
            self.assertTrue(data.startswith(b"HTTP/1."[: len(data)]))
