"""twisted.web's own channel on the relay's transport."""

from __future__ import annotations

import hashlib
import socket
from typing import Any

from twisted.internet import interfaces
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface import implementer

from tests.net.sockets import PlainClient
from tests.net.tls_peers import TLSClient
from tests.net.tls_pump import TLSPump

BIG = 20_000_000


class Hello(Resource):
    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        request.setHeader(b"content-type", b"text/plain")
        return b"secure=%d host=%s" % (request.isSecure(), request.getHost().host.encode())

    def render_POST(self, request: Any) -> bytes:
        return hashlib.md5(request.content.read()).hexdigest().encode()


@implementer(interfaces.IPushProducer)
class Stream:
    """Writes a lot, as long as it is let."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.left = BIG // 50_000
        self.pauses = 0
        self.running = False
        self.stopped = False
        self.digest = hashlib.md5()
        request.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self.running = True
        while self.running and self.left:
            self.left -= 1
            data = self.left.to_bytes(4, "big") * 12_500
            self.digest.update(data)
            self.request.write(data)
        if not self.left and self.running:
            self.running = False
            self.request.unregisterProducer()
            self.request.finish()

    def pauseProducing(self) -> None:
        self.pauses += 1
        self.running = False

    def stopProducing(self) -> None:
        self.stopped = True
        self.running = False


class Streaming(Resource):
    isLeaf = True
    made: Any = None

    def render_GET(self, request: Any) -> int:
        self.made = Stream(request)
        return NOT_DONE_YET


class HTTPTests(SynchronousTestCase):
    """What a site needs of a transport."""

    def setUp(self) -> None:
        self.pump = TLSPump(self)
        root = Resource()
        self.stream = Streaming()
        root.putChild(b"", Hello())
        root.putChild(b"stream", self.stream)
        site = Site(root, timeout=None)
        site.doStart()
        self.addCleanup(site.doStop)
        self.site = site

    def plain(self, buffer: int = 0) -> PlainClient:
        return self.pump.connect(self.site.buildProtocol(None), buffer=buffer)[1]

    def tls(self, buffer: int = 0) -> TLSClient:
        ours, theirs = self.pump.pair(buffer=buffer)
        self.pump.serve(ours, lambda _: self.site.buildProtocol(None))
        client = TLSClient(theirs)
        self.pump.clients.append(client)
        self.pump.until(lambda: client.ready)
        return client

    def test_keep_alive(self) -> None:
        """Several requests, one after the other and at once, on one connection."""
        for client, secure in ((self.plain(), b"0"), (self.tls(), b"1")):
            send = getattr(client, "write", client.send)
            for count in (1, 2, 3):
                client.received.clear()
                send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * count)
                body = b"secure=" + secure + b" host=127.0.0.1"
                self.pump.until(
                    lambda c=client, b=body, n=count: c.received.count(b) == n  # type: ignore[misc]
                )
            self.assertIsNone(client.ended)

    def test_post(self) -> None:
        """A body over many reads."""
        client = self.tls()
        body = bytes(range(256)) * 2000
        client.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        digest = hashlib.md5(body).hexdigest().encode()
        self.pump.until(lambda: client.received.endswith(digest))

    def test_close(self) -> None:
        """With ``Connection: close`` the answer comes whole, then a clean end."""
        for client in (self.plain(), self.tls()):
            send = getattr(client, "write", client.send)
            send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            self.pump.until(lambda c=client: c.ended)  # type: ignore[misc]
            self.assertIn(b"host=127.0.0.1", client.received)
            self.assertEqual(client.ended, "eof")
            self.assertTrue(getattr(client, "closed", True), "no close_notify")

    def test_half_closed_client(self) -> None:
        """A client that has nothing more to say (``nc -N``) gets its answer."""
        client = self.plain()
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        client.sock.shutdown(socket.SHUT_WR)
        self.pump.until(lambda: client.ended)
        self.assertIn(b"host=127.0.0.1", client.received)

    def test_stream_to_a_slow_reader(self) -> None:
        """Twenty megabytes, with back-pressure, unaltered."""
        client = self.tls(buffer=65_536)
        client.write(b"GET /stream HTTP/1.0\r\n\r\n")
        turns = 0
        while client.ended is None:
            turns += 1
            client.reading = turns % 3 != 0
            self.pump.turn()
        head, _, body = bytes(client.received).partition(b"\r\n\r\n")
        self.assertIn(b" 200 OK", head)
        self.assertEqual(len(body), BIG)
        self.assertEqual(hashlib.md5(body).digest(), self.stream.made.digest.digest())
        self.assertGreater(self.stream.made.pauses, 10)

    def test_reader_goes_away(self) -> None:
        """The producer is stopped when its reader leaves."""
        client = self.tls(buffer=65_536)
        client.write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        client.reading = False
        self.pump.until(lambda: self.stream.made and self.stream.made.pauses)
        client.close()
        self.pump.until(lambda: self.stream.made.stopped)
        self.assertEqual(len(self.pump.hub), 0)

    def test_bad_request(self) -> None:
        """A request that is none is answered with 400 before the end."""
        client = self.plain()
        client.send(b"NONSENSE\r\n\r\n" + bytes(100_000))
        self.pump.until(lambda: client.ended and client.all_sent)
        self.assertEqual(client.received, b"HTTP/1.1 400 Bad Request\r\n\r\n")
