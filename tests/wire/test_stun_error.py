"""Tests of :mod:`derp.wire.stun_error`."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ProtocolError
from derp.wire import stun
from derp.wire.stun_error import (
    ErrorResponse,
    encode_unknown_attributes,
    parse_error_response,
)

ONES = b"\1" * 12
HEADER = stun.COOKIE + ONES


def error_response(body: bytes) -> bytes:
    """A binding error response."""
    return b"\x01\x11" + len(body).to_bytes(2, "big") + HEADER + body


class ErrorResponseTests(SynchronousTestCase):
    """Reading and writing."""

    def test_published_layout(self) -> None:
        """RFC 8489 section 14.8: class in three bits, number, reason."""
        body = b"\x80\x22\x00\x01x\0\0\0\x00\x09\x00\x0f\x00\x00\x04\x01Bad Request" + b"\0"
        self.assertEqual(
            parse_error_response(error_response(body)), ErrorResponse(ONES, 401, "Bad Request")
        )
        reserved = b"\x00\x09\x00\x04\xff\xff\xf5\x00"  # bits that readers have to ignore
        found = parse_error_response(error_response(reserved))
        self.assertEqual(found, ErrorResponse(ONES, 500, ""))

    def test_unknown_attributes(self) -> None:
        """420, with what was not understood; an odd number is padded."""
        one = encode_unknown_attributes(ONES, [0x7FFF])
        self.assertEqual(one, error_response(bytes.fromhex("00090004 00000414 000a0002 7fff0000")))
        two = encode_unknown_attributes(ONES, [3, 0x24])
        self.assertEqual(two, error_response(bytes.fromhex("00090004 00000414 000a0004 00030024")))
        self.assertEqual((len(one), len(two)), (36, 36))
        self.assertEqual(parse_error_response(one), ErrorResponse(ONES, 420, ""))
        self.assertRaises(ValueError, encode_unknown_attributes, b"", [3])

    def test_others(self) -> None:
        """Success responses and whatever is not STUN are none."""
        for packet in (b"", stun.encode_binding_response(ONES, b"\1\2\3\4", 5), b"\x01\x11" * 20):
            self.assertIsNone(parse_error_response(packet))

    def test_broken(self) -> None:
        """Without a code, or cut off."""
        whole = encode_unknown_attributes(ONES, [1])
        for packet in (error_response(b""), error_response(b"\x00\x09\x00\x00"), whole[:30]):
            self.assertRaises(ProtocolError, parse_error_response, packet)

    @given(st.binary(max_size=80), st.booleans())
    def test_garbage(self, data: bytes, framed: bool) -> None:
        """Read, or a :exc:`ProtocolError`; the reason can be printed."""
        try:
            found = parse_error_response(error_response(data) if framed else data)
        except ProtocolError:
            return
        if found is not None:
            self.assertLessEqual(found.code, 7 * 100 + 255)
            found.reason.encode("utf-8")
