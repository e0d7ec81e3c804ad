"""Lines of a request's head that cannot be taken."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.wire.request_head import HeadFault, find_header_line_fault, find_request_line_fault

MALFORMED = HeadFault(400)
VERSION = HeadFault(505, "unsupported protocol version")
NAME = HeadFault(400, "invalid header name")


class RequestLineTests(SynchronousTestCase):
    """Method, target, version."""

    def test_sound(self) -> None:
        """Any method, any target without blanks, both versions."""
        for line in (b"GET / HTTP/1.1", b"POST /a?b#c HTTP/1.0", b"x-y * HTTP/1.1"):
            self.assertIsNone(find_request_line_fault(line), line)

    def test_malformed(self) -> None:
        """Parts missing, empty, doubled, or with characters that are none of theirs."""
        lines = (
            *(b"", b"GET", b"GET /", b"GET  / HTTP/1.1", b"GET / HTTP/1.1 ", b" GET / HTTP/1.1"),
            *(
                b"GET /a b HTTP/1.1",
                b"G@T / HTTP/1.1",
                b"GET /\x01 HTTP/1.1",
                b"GET /\xc3 HTTP/1.1",
            ),
            *(b"GET / http/1.1", b"GET / HTTP/1", b"GET / HTTP/1.10", b"\x16\x03\x01\x02\x00"),
        )
        for line in lines:
            self.assertEqual(find_request_line_fault(line), MALFORMED, line)

    def test_version(self) -> None:
        """Another version is named as what is wrong."""
        for line in (b"GET / HTTP/2.0", b"GET / HTTP/0.9", b"GET / HTTP/1.2", b"PRI * HTTP/2.0"):
            self.assertEqual(find_request_line_fault(line), VERSION, line)

    @given(st.binary(max_size=60))
    def test_garbage(self, line: bytes) -> None:
        """Whatever is taken has three parts, the last of which is a version we speak."""
        if find_request_line_fault(line) is None:
            self.assertIn(line.split(b" ")[2], (b"HTTP/1.0", b"HTTP/1.1"))


class HeaderLineTests(SynchronousTestCase):
    """Name and value."""

    def test_sound(self) -> None:
        """Blanks around the value, an empty value, any byte above ASCII."""
        lines = (
            *(b"Host: h", b"Host:h", b"X:", b"X: \t a \t b \t", b"X: \xff\x80", b"x_y!: :"),
            *(b"Content-Length: 12", b"content-length:\t0 ", b"Transfer-Encoding: Chunked"),
        )
        for line in lines:
            self.assertIsNone(find_header_line_fault(line), line)

    def test_malformed(self) -> None:
        """No colon; control characters anywhere."""
        for line in (b"Host", b"X: \x00", b"X: a\rb", b"X: a\nb", b"X: \x7f", b"X\x01: a"):
            self.assertEqual(find_header_line_fault(line), MALFORMED, line)

    def test_name(self) -> None:
        """A name that is empty, or has blanks or separators in it."""
        for line in (b": a", b"A B: a", b"Host : h", b"A\t: a", b"(A): b", b"\xc3: a"):
            self.assertEqual(find_header_line_fault(line), NAME, line)

    def test_length(self) -> None:
        """A length is digits and nothing else."""
        for value in (b"", b"x", b"-1", b"+1", b"1_0", b"0x1", b"1, 1"):
            self.assertEqual(find_header_line_fault(b"Content-Length: " + value), MALFORMED, value)

    def test_encoding(self) -> None:
        """Bodies come plain or in chunks."""
        for value in (b"gzip", b"identity", b"chunked, gzip", b""):
            fault = find_header_line_fault(b"transfer-encoding: " + value)
            self.assertEqual(fault, HeadFault(501), value)
