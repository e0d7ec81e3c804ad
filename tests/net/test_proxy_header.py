"""Tests for :mod:`derp.net.proxy_header` and :mod:`derp.net.proxy_source`."""

import contextlib
from struct import pack

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ProtocolError
from derp.net.proxy_header import MAX_HEADER, V1_START, V2_START, header_length
from derp.net.proxy_source import parse_header

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 51000 443\r\n"
V2_TCP4 = (
    V2_START
    + b"\x21\x11"
    + pack("!H", 12)
    + bytes((192, 0, 2, 7, 1, 2, 3, 4))
    + b"\xc7\x38\x01\xbb"
)
V2_TCP6 = (
    V2_START
    + b"\x21\x21"
    + pack("!H", 36 + 7)
    + bytes.fromhex("20010db8000000000000000000000007")
    + bytes(16)
    + b"\xc7\x38\x01\xbb"
    + b"\x04\0\4abcd"
)
V2_UNIX = V2_START + b"\x21\x31" + pack("!H", 216) + b"/run/x".ljust(108, b"\0") + bytes(108)
V2_LOCAL = V2_START + b"\x20\x00\0\0"
V2_UNSPEC = V2_START + b"\x21\x00\0\0"

CLIENTS = {
    V1: ("192.0.2.7", 51000),
    b"PROXY TCP6 2001:db8::7 ::1 51000 443\r\n": ("2001:db8::7", 51000),
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n": None,
    V2_TCP4: ("192.0.2.7", 51000),
    V2_TCP6: ("2001:db8::7", 51000),
    V2_UNIX: b"/run/x",
    V2_LOCAL: None,
    V2_UNSPEC: None,
}
NONSENSE = (
    b"PROXY \r\n",
    b"PROXY TCP4\r\n",
    b"PROXY UDP4 192.0.2.7 198.51.100.1 51000 443\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 51000\r\n",
    b"PROXY TCP4 192.0.2.700 198.51.100.1 51000 443\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 70000 443\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 443\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 x 443\r\n",
    b"PROXY TCP4 2001:db8::7 ::1 51000 443\r\n".replace(b"TCP4", b"TCP4\xff"),
    b"PROXY TCP4 \xff 198.51.100.1 51000 443\r\n",
    V2_START + b"\x31\x11" + V2_TCP4[14:],
    V2_START + b"\x22\x11" + V2_TCP4[14:],
    V2_START + b"\x21\x41" + V2_TCP4[14:],
    V2_START + b"\x21\x11" + pack("!H", 4) + bytes(4),
)


class LengthTests(SynchronousTestCase):
    def test_complete(self) -> None:
        """A header ends where it says, whatever follows."""
        for header in CLIENTS:
            self.assertEqual(header_length(header), len(header))
            self.assertEqual(header_length(header + b"\x16\x03\x01 and more\r\n"), len(header))

    def test_incomplete(self) -> None:
        """A part of a header is never taken for none, nor for a whole one."""
        for header in CLIENTS:
            for cut in range(len(header)):
                length = header_length(header[:cut])
                self.assertIn(length, (None, len(header)), header[:cut])

    def test_none(self) -> None:
        """Requests and ClientHellos begin differently."""
        for start in (b"\x16\x03\x01", b"GET / HTTP/1.1\r\n", b"POST /", b"PUT /", b"\r\nGET"):
            self.assertEqual(header_length(start), 0)

    def test_bounds(self) -> None:
        """What could go on for ever, or is huge, is refused when that shows."""
        self.assertIsNone(header_length(V1_START + b"x" * 100))
        with self.assertRaises(ProtocolError):
            header_length(V1_START + b"x" * 101)
        self.assertEqual(header_length(V2_LOCAL[:14] + pack("!H", MAX_HEADER - 16)), MAX_HEADER)
        with self.assertRaises(ProtocolError):
            header_length(V2_LOCAL[:14] + pack("!H", MAX_HEADER - 15))

    @given(st.binary(max_size=300))
    def test_garbage(self, data: bytes) -> None:
        """Any bytes are a header, a part of one, or none."""
        with contextlib.suppress(ProtocolError):
            self.assertIsInstance(header_length(data), int | None)


class ParseTests(SynchronousTestCase):
    def test_clients(self) -> None:
        """Who the proxy speaks for, if it does for anybody."""
        for header, client in CLIENTS.items():
            self.assertEqual(parse_header(header), client, header)

    def test_nonsense(self) -> None:
        """What Twisted's parsers trip over, or let through, is the proxy's fault."""
        for header in NONSENSE:
            with self.assertRaises(ProtocolError, msg=header):
                parse_header(header)

    @given(st.binary(max_size=120))
    def test_garbage(self, tail: bytes) -> None:
        """Whatever stands behind a signature raises nothing but ProtocolError."""
        for start in (V1_START + tail + b"\r\n", V2_START + tail, V2_START + b"\x21" + tail):
            with contextlib.suppress(ProtocolError):
                parse_header(start)
