"""What a stranger may send to an HTTP port, and no more."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import SynchronousTestCase

from derp.config import Config
from derp.net.http_channel import MAX_BODY, MAX_HEADER
from derp.net.web import build_main_site
from tests.net.sites import TextPage, Visit, get, site_parts

TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
    b"431 Request Header Fields Too Large"
)


def refusal(line: bytes, text: bytes) -> bytes:
    """What is sent instead of an answer."""
    return (
        b"HTTP/1.1 " + line + b"\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Connection: close\r\n\r\n" + text
    )


class BoundedChannelTests(SynchronousTestCase):
    """Limits and refusals, on strings."""

    def setUp(self) -> None:
        self.clock = Clock()
        parts = site_parts(
            self.clock, Config(tls=False), debug_pages={"/debug/long": TextPage(b"x" * 100_000)}
        )
        self.site = build_main_site(parts)

    def visit(self) -> Visit:
        return Visit(self.site)

    def test_large_header(self) -> None:
        """A header of nearly a megabyte is read."""
        visit = self.visit()
        request = get("/derp/probe", "X: " + (MAX_HEADER - 200) * "x")
        self.assertIn(b"200 OK", visit.send(request))
        self.assertFalse(visit.closing)

    def test_too_large_header_line(self) -> None:
        """One line above the limit is refused, whether or not it ever ends."""
        for end in (b"", b"\r\n\r\n"):
            visit = self.visit()
            written = visit.send(get("/")[:-2] + b"X: " + b"x" * MAX_HEADER + end)
            self.assertEqual(written, TOO_LARGE)
            self.assertTrue(visit.closing)

    def test_too_large_in_pieces(self) -> None:
        """The limit holds for a line that comes in pieces, and stops counting there."""
        visit = self.visit()
        visit.send(get("/")[:-2] + b"X: ")
        written = b""
        for _ in range(2 * MAX_HEADER // 4096):
            written += visit.send(b"x" * 4096)
        self.assertEqual(written, TOO_LARGE)

    def test_too_many_lines(self) -> None:
        """Many short lines count together."""
        visit = self.visit()
        lines = b"".join(b"X-%d: %s\r\n" % (i, b"y" * 5000) for i in range(300))
        written = visit.send(get("/")[:-2] + lines + b"\r\n")
        self.assertEqual(written, TOO_LARGE)

    def test_limit_is_per_request(self) -> None:
        """A kept connection may send any number of large headers."""
        visit = self.visit()
        request = get("/derp/probe", "X: " + (MAX_HEADER // 2) * "x")
        for _ in range(4):
            self.assertIn(b"200 OK", visit.send(request))

    def test_dripped_line_is_cheap(self) -> None:
        """A long line in tiny pieces is looked at twice, not once for each of them."""
        looks: list[int] = []
        look = LineReceiver.dataReceived

        def counting(receiver: LineReceiver, data: bytes) -> None:
            looks.append(len(data))
            look(receiver, data)

        self.patch(LineReceiver, "dataReceived", counting)
        visit = self.visit()
        visit.send(get("/")[:-2] + b"X: ")
        for _ in range(1000):
            visit.channel.dataReceived(b"xy")
        self.assertIn(b"200 OK", visit.send(b"\r\n\r\n"))
        self.assertEqual(len(looks), 2)

    def test_folded_header(self) -> None:
        """Continuation lines are refused: joining them is quadratic, and they are obsolete."""
        visit = self.visit()
        written = visit.send(get("/")[:-2] + b"X: a\r\n b\r\n\r\n")
        self.assertTrue(written.startswith(b"HTTP/1.1 400 Bad Request: header line folding "))
        self.assertTrue(visit.closing)

    def test_announced_body_too_large(self) -> None:
        """A body announced as too long is not waited for."""
        visit = self.visit()
        written = visit.send(get("/", f"Content-Length: {MAX_BODY + 1}", method="POST"))
        self.assertTrue(written.startswith(b"HTTP/1.1 413 Request Entity Too Large\r\n"))
        self.assertTrue(visit.closing)
        self.assertEqual(visit.send(b"x" * (MAX_BODY + 1) + get("/")), b"")

    def test_largest_body(self) -> None:
        """A body up to the limit is read and dropped."""
        visit = self.visit()
        visit.send(get("/", f"Content-Length: {MAX_BODY}", method="POST"))
        written = visit.send(b"x" * MAX_BODY + get("/derp/probe"))
        self.assertEqual(written.count(b"200 OK"), 2)

    def test_chunked_body_too_large(self) -> None:
        """A body in chunks is refused when it gets too long."""
        visit = self.visit()
        visit.send(get("/", "Transfer-Encoding: chunked", method="POST"))
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        written = b"".join(visit.send(chunk) for _ in range(20))
        self.assertEqual(written.count(b"HTTP/1.1"), 1)
        self.assertTrue(written.startswith(b"HTTP/1.1 413 "))
        self.assertEqual(visit.send(b"0\r\n\r\n" + get("/")), b"")

    def test_chunks_behind_the_limit(self) -> None:
        """What comes in the same read behind the chunk that was too much is not answered again."""
        visit = self.visit()
        visit.send(get("/", "Transfer-Encoding: chunked", method="POST"))
        written = visit.send((b"400\r\n" + b"x" * 1024 + b"\r\n") * (MAX_BODY // 1024 + 50))
        self.assertEqual(written.count(b"HTTP/1.1 413 "), 1)
        self.assertTrue(visit.closing)

    def test_body_is_not_kept(self) -> None:
        """No path wants a body, so none takes memory or a file."""
        visit = self.visit()
        visit.send(get("/", f"Content-Length: {MAX_BODY}", method="POST"))
        visit.send(b"x" * 500_000)
        self.assertEqual(visit.channel.requests[0].content.getvalue(), b"")

    def test_bad_requests(self) -> None:
        """Each malformed request is refused in Go's words, and the connection closed."""
        host = b"Host: a\r\n"
        cases: dict[bytes, bytes] = {
            b"GET / HTTP/1.1\r\n\r\n": b"missing required Host header",
            b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n": b"malformed Host header",
            b'GET / HTTP/1.1\r\nHost: a"\r\n\r\n': b"malformed Host header",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n": b"",
            b"GET foo HTTP/1.1\r\n" + host + b"\r\n": b"",
            b"GET /%zz HTTP/1.1\r\n" + host + b"\r\n": b"",
            b'GET http://a"b/ HTTP/1.1\r\n' + host + b"\r\n": b"",
            b"GET /a b HTTP/1.1\r\n" + host + b"\r\n": b"",
            b"GET / HTTP/1.1\r\n" + host + b"no header\r\n\r\n": b"",
            b"GET / HTTP/1.1\r\n" + host + b"X : a\r\n\r\n": b"invalid header name",
        }
        for request, detail in cases.items():
            with self.subTest(request=request):
                visit = self.visit()
                text = b"400 Bad Request" + (b": " + detail if detail else b"")
                self.assertEqual(visit.send(request + get("/")), refusal(text, text))
                self.assertTrue(visit.closing)

    def test_unsupported(self) -> None:
        """Another version of HTTP, or another encoding of a body, has a status of its own."""
        version = b"505 HTTP Version Not Supported: unsupported protocol version"
        written = self.visit().send(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n")
        self.assertEqual(written, refusal(version, version))
        written = self.visit().send(get("/", "Transfer-Encoding: gzip", method="POST"))
        self.assertEqual(written, refusal(b"501 Not Implemented", b"Unsupported transfer encoding"))

    def test_each_head_is_judged(self) -> None:
        """On a kept connection a request line comes first again, after a stray empty line."""
        visit = self.visit()
        body = get("/derp/probe", "Content-Length: 3") + b"a:b\r\n"
        self.assertIn(b"200 OK", visit.send(body + get("/derp/probe") + b"\r\n"))
        self.assertIn(b"200 OK", visit.send(get("/derp/probe")))
        self.assertIn(b"400 Bad Request\r\n", visit.send(b"X: a header line\r\n"))

    def test_nothing_after_a_refusal(self) -> None:
        """One line that is refused, one refusal."""
        written = self.visit().send(b"no request\r\nnor this\r\n\r\n" + get("/"))
        self.assertEqual(written.count(b"HTTP/1.1"), 1)

    def test_nothing_after_the_end(self) -> None:
        """What follows a request that closes the connection is not looked at."""
        for behind in (get("/"), b"no request\r\n"):
            written = self.visit().send(get("/", "Connection: close") + behind)
            self.assertEqual(written.count(b"HTTP/1.1"), 1)

    def test_star(self) -> None:
        """``OPTIONS *`` is answered, anything else about ``*`` is wrong."""
        self.assertIn(b"200 OK", self.visit().send(get("*", method="OPTIONS")))
        visit = self.visit()
        self.assertIn(b"400 Bad Request", visit.send(get("*")))
        self.assertTrue(visit.closing)

    def test_back_pressure(self) -> None:
        """While a peer does not take its answers, its requests are not read."""
        visit = self.visit()
        visit.transport.producer.pauseProducing()
        self.assertEqual(visit.transport.producerState, "paused")
        visit.transport.producer.resumeProducing()
        self.assertEqual(visit.transport.producerState, "producing")

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(1, 60), max_size=30), st.booleans())
    def test_any_split(self, sizes: list[int], chunked: bool) -> None:
        """However requests are cut, the same answers come."""
        body = b"5\r\nhello\r\n0\r\n\r\n" if chunked else b"hello"
        header = "Transfer-Encoding: chunked" if chunked else "Content-Length: 5"
        stream = get("/derp/probe") + get("/robots.txt", header, method="POST") + body
        stream += get("/generate_204", "X-Tailscale-Challenge: abc")
        visit = self.visit()
        written = b""
        for size in sizes:
            if stream:
                written += visit.send(stream[:size])
                stream = stream[size:]
        written += visit.send(stream) if stream else b""
        self.assertEqual(written.count(b"HTTP/1.1 200 OK"), 2)
        self.assertEqual(written.count(b"X-Tailscale-Response: response abc"), 1)

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=300))
    def test_garbage(self, data: bytes) -> None:
        """Whatever comes, the worst answer is a bad request."""
        visit = self.visit()
        written = visit.send(data + b"\r\n\r\n")
        if written:
            self.assertTrue(written.startswith(b"HTTP/1.1 4"), written)
            self.assertTrue(visit.closing)
