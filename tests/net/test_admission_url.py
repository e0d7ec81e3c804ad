"""Tests of :mod:`derp.net.admission_url`: what a verifier may send us, and how it is reached."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IHostnameResolver
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from derp.core.admission import Answer, Question, Verdict
from derp.errors import ProtocolError
from derp.net import admission_url
from derp.net.admission_url import AdmissionURL, read_answer
from tests.net.admission_fakes import ALLOW, CLOSE, DENY, SILENCE, FakeServer, TunnelTo, respond
from tests.net.relay_fakes import ServerTLS, make_credentials
from tests.net.unhurried import Unhurried

WHO = Question(bytes([7]) * 32, "192.0.2.1")
ALLOWED, DENIED = Verdict.ALLOWED, Verdict.DENIED
FAULT, UNREACHABLE = Verdict.FAULT, Verdict.UNREACHABLE


@implementer(IHostnameResolver)
class Names:
    """A resolver that says that there is no such name, or nothing."""

    def __init__(self, known: bool = True) -> None:
        self._known = known

    def resolveHostName(self, receiver: Any, name: str, *how: Any, **options: Any) -> Any:
        """See ``IHostnameResolver``."""
        receiver.resolutionBegan(None)
        if not self._known:
            receiver.resolutionComplete()


class URLTestCase(TestCase):
    """Asks verifiers on real sockets."""

    timeout = 60

    async def fake(self, answer: bytes = ALLOW) -> FakeServer:
        server = await FakeServer(answer).listen()
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        return server

    def source(self, url: str, environ: dict[str, str] | None = None) -> AdmissionURL:
        from twisted.internet import reactor

        source = AdmissionURL(Unhurried(reactor), url, environ or {})
        self.addCleanup(source.close)
        return source

    async def ask(self, url: str, environ: dict[str, str] | None = None) -> Answer:
        return await self.source(url, environ).ask(WHO)


class AnswerTests(URLTestCase):
    """What it may answer."""

    async def assert_verdicts(self, table: dict[bytes, Verdict]) -> None:
        self.server = server = await self.fake()
        source = self.source(server.url)
        for answer, verdict in table.items():
            server.answer = answer
            said = await source.ask(WHO)
            self.assertEqual((answer[:200], said.verdict), (answer[:200], verdict), said.reason)
            self.assertEqual(bool(said.reason), verdict is not ALLOWED)
            self.assertTrue(said.reason.isprintable() and len(said.reason) < 400)

    async def test_verdicts(self) -> None:
        """Only a 200 with a JSON object says yes or no; anything else is a fault."""
        await self.assert_verdicts(
            {
                respond(b'{"ALLOW":true}'): ALLOWED,
                respond(b'\n {"x":[1],"Allow":true} trailing'): ALLOWED,
                respond(b'{"Allow":false,"allow":true}'): ALLOWED,
                respond(b'{"Allow":null}'): DENIED,
                respond(b"null"): DENIED,
                respond(b'{"Allow":"true"}'): FAULT,
                respond(b'{"Allow":1}'): FAULT,
                respond(b'{"Allow":NaN}'): FAULT,
                respond(b"[true]"): FAULT,
                respond(b"true"): FAULT,
                respond(b""): FAULT,
                respond(b'\xff\xfe{"Allow":true}'): FAULT,
                respond(b"[" * 4000): FAULT,
                respond(b'{"Allow":true}', "201 Created"): FAULT,
                respond(b'{"Allow":true}', "403 \x1b[31mNo"): FAULT,
                respond(b'{"Allow":true}', "502 " + "x" * 900): FAULT,
            }
        )

    async def test_too_big(self) -> None:
        """What is not whole within 4 KiB is no answer; what is behind one does not matter."""
        padding = b" " * 4082
        await self.assert_verdicts(
            {
                respond(padding + b'{"Allow":true}' + b"x" * 9000): ALLOWED,
                respond(padding + b' {"Allow":true}'): FAULT,
                respond(b'{"Allow":true,"x":"' + b"y" * (1 << 20) + b'"}'): FAULT,
            }
        )

    async def test_endless(self) -> None:
        """An answer that is there is taken, however long its sender goes on or waits."""
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
        await self.assert_verdicts(
            {
                head + b'{"Allow":true}': ALLOWED,
                head + b'{"Allow":false}' + b" " * 5000: DENIED,
                head + b" " * 5000: FAULT,
            }
        )
        await self.server.when(lambda: not self.server.connections)

    async def test_cut(self) -> None:
        """Cut in the head it never came; cut in the body it is a fault."""
        await self.assert_verdicts(
            {
                b"HTTP/1.1 200 OK\r\nContent-Le" + CLOSE: UNREACHABLE,
                b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{" + CLOSE: FAULT,
                b"HTTP/1.1 200 OK\r\n\r\n{" + CLOSE: FAULT,
                b'HTTP/1.1 200 OK\r\n\r\n{"Allow":true}' + CLOSE: ALLOWED,
                b"SSH-2.0-OpenSSH_9.6\r\n" + CLOSE: UNREACHABLE,
                b"\x00" * 100 + CLOSE: UNREACHABLE,
                CLOSE: UNREACHABLE,
            }
        )

    async def test_slow(self) -> None:
        """Silence before the head is not there; silence in the body is a fault."""
        self.patch(admission_url, "TIMEOUT_S", 0.1)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n"
        await self.assert_verdicts(
            {SILENCE: UNREACHABLE, head[:20]: UNREACHABLE, head: FAULT, head + b'{"Allow"': FAULT}
        )

    async def test_gzip(self) -> None:
        """Compressed as we said we take it."""
        head = "HTTP/1.1 200 OK\r\nContent-Encoding: GZip\r\nContent-Length: {}\r\n\r\n"
        table: dict[bytes, Verdict] = {}
        for text, verdict in (
            (b'{"Allow":true}', ALLOWED),
            (b'{"Allow":false}', DENIED),
            (b" " * (1 << 24), FAULT),
            (b'{"Allow":true}' + b" " * (1 << 24), ALLOWED),
        ):
            packer = zlib.compressobj(wbits=31)
            body = packer.compress(text) + packer.flush()
            table[head.format(len(body)).encode() + body] = verdict
        table[head.format(14).encode() + b'{"Allow":true}'] = FAULT
        await self.assert_verdicts(table)

    async def test_connection_is_kept(self) -> None:
        """Answers in good order come on one connection; cookies are not sent back."""
        cookie = b"\r\nSet-Cookie: a=b\r\nContent-Length"
        server = await self.fake(ALLOW.replace(b"\r\nContent-Length", cookie))
        source = self.source(server.url)
        for _ in range(3):
            await source.ask(WHO)
        self.assertEqual(len(server.connections), 1)
        self.assertNotIn(b"ookie", b"".join(server.requests))


class RedirectTests(URLTestCase):
    """As Go's client follows them."""

    async def test_methods(self) -> None:
        """303 and the older ones go on with GET and no body, 307 and 308 repeat the question."""
        target = await self.fake()
        for code, repeats in ((301, 0), (302, 0), (303, 0), (307, 1), (308, 1)):
            location = f"HTTP/1.1 {code} X\r\nLocation: {target.url}\r\nContent-Length: 0\r\n\r\n"
            server = await self.fake(location.encode())
            self.assertIs((await self.ask(server.url)).verdict, ALLOWED)
            request = target.requests[-1]
            self.assertEqual(request.startswith(b"POST"), bool(repeats))
            self.assertEqual(b"NodePublic" in request, bool(repeats))
            self.assertEqual(b"Content-Type" in request, bool(repeats))

    async def test_limit(self) -> None:
        """Nine are followed: ten requests in all, then nobody was reached."""
        server = await self.fake(
            b"HTTP/1.1 307 X\r\nLocation: /admit?x=1\r\nContent-Length: 0\r\n\r\n"
        )
        answer = await self.ask(server.url)
        self.assertIs(answer.verdict, UNREACHABLE)
        self.assertEqual(len(server.requests), 10)
        left = [ALLOW]
        redirect = server.answer
        server.requests.clear()
        server.answer_to = lambda _: redirect if len(server.requests) <= 9 else left.pop()
        self.assertIs((await self.ask(server.url)).verdict, ALLOWED)

    async def test_nowhere(self) -> None:
        """A redirect to what is no HTTP reaches nobody; one without a place is an answer."""
        for location, verdict in (
            (b"Location: ftp://127.0.0.1/\r\n", UNREACHABLE),
            (b"Location: http://[::1\r\n", UNREACHABLE),
            (b"Location: http://\r\n", UNREACHABLE),
            (b"", FAULT),
        ):
            server = await self.fake(
                b"HTTP/1.1 302 Found\r\n" + location + b"Content-Length: 0\r\n\r\n"
            )
            self.assertIs((await self.ask(server.url)).verdict, verdict, location)

    async def test_credentials(self) -> None:
        """User and password of the URL are sent to its host, and never logged."""
        server = await self.fake(DENY)
        url = server.url.replace("//", "//me:s%40cret@")
        answer = await self.ask(url)
        self.assertIn(b"Authorization: Basic bWU6c0BjcmV0\r\n", server.requests[0])
        self.assertIs(answer.verdict, DENIED)
        await server.stop()
        self.assertNotIn("cret", (await self.ask(url)).reason)


class NameTests(URLTestCase):
    """The name of the verifier, in the DNS."""

    async def ask_with(self, resolver: Any) -> str:
        """Ask a verifier of a name; give why that fails."""
        from twisted.internet import reactor

        self.patch(admission_url, "TIMEOUT_S", 0.1)
        source = AdmissionURL(Unhurried(reactor, resolver), "http://verify.test/", {})
        self.addCleanup(source.close)
        answer = await source.ask(WHO)
        self.assertIs(answer.verdict, UNREACHABLE)
        return answer.reason

    async def test_unknown(self) -> None:
        """One that is not there."""
        self.assertIn("DNS lookup failed", await self.ask_with(Names(known=False)))

    async def test_no_answer(self) -> None:
        """A DNS server that hangs is told from that."""
        self.assertIn("no answer within 0.1 s", await self.ask_with(Names()))


class ProxyTests(URLTestCase):
    """The proxy environment."""

    async def test_http(self) -> None:
        """A proxy is sent the whole URL."""
        proxy = await self.fake()
        place = proxy.url.split("/")[2]
        environ = {"HTTP_PROXY": f"http://u:p@{place}", "NO_PROXY": "other.test"}
        answer = await self.ask("http://verify.test/admit?x=1", environ)
        self.assertIs(answer.verdict, ALLOWED)
        self.assertTrue(proxy.requests[0].startswith(b"POST http://verify.test/admit?x=1 HTTP"))
        self.assertIn(b"Proxy-Authorization: Basic dTpw\r\n", proxy.requests[0])
        environ = {"http_proxy": place, "no_proxy": "0.0.0.0"}
        self.assertIs((await self.ask("http://0.0.0.0:1/", environ)).verdict, UNREACHABLE)
        self.assertEqual(len(proxy.requests), 1)

    async def test_https_refused(self) -> None:
        """A proxy that makes no tunnel reaches nobody; it is told why."""
        for answer, why in (
            (respond(b"", "407 Proxy Authentication Required"), "407 Proxy Auth"),
            (CLOSE, "closed the connection"),
            (b"SSH-2.0\r\n\r\n", "its answer is no HTTP"),
            (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 5000, "its answer is too long"),
        ):
            proxy = await self.fake(answer)
            environ = {"HTTPS_PROXY": proxy.url.rpartition("/")[0]}
            said = await self.ask("https://verify.test/", environ)
            self.assertIs(said.verdict, UNREACHABLE)
            self.assertIn(f"proxy: {why}", said.reason)
            self.assertTrue(proxy.requests[0].startswith(b"CONNECT verify.test:443 HTTP/1.1\r\n"))

    async def test_silent_proxy(self) -> None:
        """One that says nothing costs the deadline, and is left."""
        self.patch(admission_url, "TIMEOUT_S", 0.1)
        proxy = await self.fake(SILENCE)
        environ = {"HTTPS_PROXY": proxy.url.rpartition("/")[0]}
        self.assertIs((await self.ask("https://verify.test/", environ)).verdict, UNREACHABLE)
        await proxy.when(lambda: not proxy.connections)


class TLSTests(URLTestCase):
    """HTTPS, with an authority of our own named by ``SSL_CERT_FILE``."""

    async def serve(self) -> tuple[FakeServer, int, str]:
        from twisted.internet import reactor

        ca = make_credentials(["ca.test"], ca=True)
        tls = ServerTLS(make_credentials(["verify.test", "127.0.0.1"], ca))
        server = FakeServer()
        port: Any = await TCP4ServerEndpoint(reactor, 0).listen(
            TLSMemoryBIOFactory(tls, False, server)
        )
        server._port = port
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        path = Path(self.mktemp())
        path.write_bytes(ca.pem)
        return server, port.getHost().port, str(path)

    async def test_trust(self) -> None:
        """Whom the system does not trust is not asked; whom the variable names is."""
        _, port, roots = await self.serve()
        url = f"https://127.0.0.1:{port}/"
        answer = await self.ask(url)
        self.assertIs(answer.verdict, UNREACHABLE)
        self.assertIn(
            "TLS handshake failed: certificate verify failed (its issuer is not ", answer.reason
        )
        self.patch(os, "environ", os.environ)
        before = os.environ.get("SSL_CERT_FILE")
        os.environ["SSL_CERT_FILE"] = roots
        try:
            self.assertIs((await self.ask(url)).verdict, ALLOWED)
        finally:
            if before is None:
                del os.environ["SSL_CERT_FILE"]
            else:
                os.environ["SSL_CERT_FILE"] = before

    async def test_tunnel(self) -> None:
        """Through a proxy, the certificate is the verifier's."""
        from twisted.internet import reactor

        server, port, roots = await self.serve()
        proxy = await self.fake()
        inner = TunnelTo(reactor, "127.0.0.1", port)
        proxy.buildProtocol = inner  # type: ignore[method-assign, assignment]
        environ = {"HTTPS_PROXY": proxy.url.rpartition("/")[0]}
        os.environ["SSL_CERT_FILE"], before = roots, os.environ.get("SSL_CERT_FILE", "")
        try:
            answer = await self.ask(f"https://verify.test:{port}/", environ)
        finally:
            os.environ["SSL_CERT_FILE"] = before
            if not before:
                del os.environ["SSL_CERT_FILE"]
        self.assertEqual((answer.verdict, answer.reason), (ALLOWED, ""))
        self.assertEqual(inner.asked, [f"CONNECT verify.test:{port} HTTP/1.1".encode()])
        self.assertTrue(server.requests[0].startswith(b"POST / HTTP/1.1\r\n"))


class ReadingTests(SynchronousTestCase):
    """Answers as text."""

    @given(st.binary(max_size=200))
    def test_garbage(self, data: bytes) -> None:
        """An answer is true, false, or the sender's fault."""
        try:
            self.assertIn(read_answer(data), (True, False))
        except ProtocolError as error:
            self.assertTrue(str(error).isprintable())

    @given(st.booleans(), st.dictionaries(st.text(), st.integers()))
    def test_round_trip(self, allow: bool, others: dict[str, int]) -> None:
        """Unknown members do not matter."""
        others = {name: value for name, value in others.items() if name.lower() != "allow"}
        self.assertIs(read_answer(json.dumps({**others, "Allow": allow}).encode()), allow)
