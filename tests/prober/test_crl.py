"""Tests of :mod:`derp.prober.crl`: lists in hand, and lists from servers on loopback."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from derp.prober import crl
from derp.prober.check import ProbeFailed
from derp.prober.crl import check_revocation, fetch_crl, look_up
from tests.net.closed_ports import closed_tcp_port
from tests.prober.chains import CA, DAY, NOW, make_ca

reactor: Any = global_reactor
ROOT = make_ca()
URL = "http://crl.example/1.crl"
LEAF = ROOT.leaf(url=URL).certificate


class ListTests(SynchronousTestCase):
    """What a list says of a certificate."""

    def refuses(self, data: bytes, issuer: CA = ROOT) -> str:
        error = self.assertRaises(ProbeFailed, look_up, LEAF, issuer.certificate, data, URL)
        self.assertIn(URL, str(error))
        return str(error)

    def test_not_listed(self) -> None:
        """An empty list and one of others, in DER or PEM, let the certificate pass."""
        for serials in ((), (LEAF.serial_number + 1,)):
            data = ROOT.crl(*serials)
            look_up(LEAF, ROOT.certificate, data, URL)
            pem = x509.load_der_x509_crl(data).public_bytes(Encoding.PEM)
            look_up(LEAF, ROOT.certificate, pem, URL)

    def test_listed(self) -> None:
        """A listed certificate is refused, with serial number and date."""
        text = self.refuses(ROOT.crl(1, LEAF.serial_number, 2))
        self.assertIn(f"serial number {LEAF.serial_number:x} was revoked at", text)
        self.assertIn(f"{NOW - DAY:%Y-%m-%d}", text)

    def test_other_signer(self) -> None:
        """A list that somebody else signed says nothing, whatever it lists."""
        other = make_ca()
        self.assertIn("is not signed by CN=Root", self.refuses(other.crl(LEAF.serial_number)))

    def test_forged(self) -> None:
        """So does one that was changed behind its signature."""
        data = bytearray(ROOT.crl(LEAF.serial_number))
        data[-1] ^= 1
        self.assertIn("revocation list", self.refuses(bytes(data)))

    def test_no_list(self) -> None:
        """Anything else is no list, and an error."""
        for data in (b"", b"<html>", b"-----BEGIN X509 CRL-----\n", ROOT.der, ROOT.crl()[:-9]):
            self.assertIn("cannot be read", self.refuses(data))


class NeedTests(SynchronousTestCase):
    """Which certificates need a list at all."""

    def check(self, issuer: CA, begins: datetime, ends: timedelta = 60 * DAY) -> Any:
        leaf = issuer.leaf(begins=begins - NOW, ends=ends).certificate
        checking = check_revocation(None, leaf, [leaf, issuer.certificate], {})
        return Deferred.fromCoroutine(checking)

    def test_other_ca(self) -> None:
        """Without a list the certificates of any other CA are fine."""
        found = self.check(ROOT, NOW - DAY)
        self.assertEqual(self.successResultOf(found), "no revocation list")

    def test_lets_encrypt(self) -> None:
        """Let's Encrypt's need one since 2025-05-07, and did not before."""
        ca = make_ca("Let's Encrypt", begins=-4000 * DAY)
        change = datetime(2025, 5, 7, tzinfo=UTC)
        self.successResultOf(self.check(ca, change - timedelta(seconds=1)))
        error = self.failureResultOf(self.check(ca, change), ProbeFailed).value
        self.assertIn("names no revocation list", str(error))
        self.failureResultOf(self.check(ca, NOW - DAY), ProbeFailed)

    def test_short_lived(self) -> None:
        """Those that live for ten days at most have none, by the rules of all CAs."""
        ca = make_ca("Let's Encrypt")
        self.successResultOf(self.check(ca, NOW - DAY, 9 * DAY))
        self.failureResultOf(self.check(ca, NOW - DAY, 9 * DAY + timedelta(seconds=1)))

    def test_no_issuer(self) -> None:
        """A list cannot be checked without the issuer's key, and nothing is fetched for it."""
        nameless = ROOT.leaf(url=URL, key_ids=False).certificate
        for leaf, chain in (
            (LEAF, []),
            (LEAF, [LEAF]),
            (LEAF, [LEAF, make_ca().certificate]),
            (nameless, [nameless, ROOT.certificate]),
        ):
            checking = Deferred.fromCoroutine(check_revocation(None, leaf, chain, {}))
            error = self.failureResultOf(checking, ProbeFailed).value
            self.assertIn("serve the whole chain", str(error))


class _Canned(Protocol):
    """Answers every request with the same bytes, and closes or stays."""

    def __init__(self, answer: bytes, requests: list[bytes], stays: bool) -> None:
        self._answer = answer
        self._requests = requests
        self._stays = stays

    def dataReceived(self, data: bytes) -> None:
        self._requests.append(data)
        assert self.transport is not None
        self.transport.write(self._answer)
        if not self._stays:
            self.transport.loseConnection()


class FetchTests(TestCase):
    """Lists from servers that do well, and that do not."""

    timeout = 60

    def setUp(self) -> None:
        self.requests: list[bytes] = []

    def serve(self, answer: bytes, *, stays: bool = False) -> str:
        """Answer so, on a port of its own; give the URL."""
        factory = Factory.forProtocol(lambda: _Canned(answer, self.requests, stays))
        factory.noisy = False
        listening = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        return f"http://127.0.0.1:{listening.getHost().port}/1.crl"

    def page(self, body: bytes, *headers: str, status: str = "200 OK") -> bytes:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        return "\r\n".join(lines).encode() + body

    async def refuses(self, url: str) -> str:
        try:
            await fetch_crl(reactor, url, {})
        except ProbeFailed as problem:
            self.assertIn(url, str(problem))
            return str(problem)
        self.fail("got it")

    async def test_fetched(self) -> None:
        """The body comes as it is, packed or not, also from where it was moved."""
        data = ROOT.crl()
        self.assertEqual(await fetch_crl(reactor, self.serve(self.page(data)), {}), data)
        packed = self.page(gzip.compress(data), "Content-Encoding: gzip")
        self.assertEqual(await fetch_crl(reactor, self.serve(packed), {}), data)
        moved = self.page(b"", f"Location: {self.serve(self.page(data))}", status="302 Found")
        self.assertEqual(await fetch_crl(reactor, self.serve(moved), {}), data)
        self.assertTrue(self.requests[0].startswith(b"GET /1.crl HTTP/1.1\r\n"))

    async def test_proxy(self) -> None:
        """Requests go through the environment's proxy."""
        data = ROOT.crl()
        proxy = self.serve(self.page(data)).removesuffix("/1.crl")
        self.assertEqual(await fetch_crl(reactor, URL, {"http_proxy": proxy}), data)
        self.assertTrue(self.requests[0].startswith(b"GET http://crl.example/1.crl HTTP/1.1\r\n"))
        with self.assertRaisesRegex(ProbeFailed, "http_proxy names no HTTP proxy"):
            await fetch_crl(reactor, URL, {"http_proxy": "ftp://x"})

    async def test_revocation(self) -> None:
        """A certificate is looked up in the list it names."""
        good = ROOT.leaf(url=self.serve(self.page(ROOT.crl(1)))).certificate
        chain = [good, ROOT.certificate]
        self.assertEqual(await check_revocation(reactor, good, chain, {}), "not revoked")

    async def test_status(self) -> None:
        """Anything but 200 is an error, and told."""
        url = self.serve(self.page(ROOT.crl(), status="404 Not Found"))
        self.assertIn("answers 404 Not Found, not 200", await self.refuses(url))

    async def test_too_long(self) -> None:
        """Nothing longer than the limit is taken, and no more than that is read."""
        self.patch(crl, "MAX_CRL", 1 << 10)
        body = bytes(1 << 10)
        self.assertEqual(await fetch_crl(reactor, self.serve(self.page(body)), {}), body)
        self.assertIn("longer than", await self.refuses(self.serve(self.page(body + b"x"))))
        bomb = self.page(gzip.compress(bytes(1 << 20)), "Content-Encoding: gzip")
        self.assertIn("longer than", await self.refuses(self.serve(bomb)))

    async def test_garbage(self) -> None:
        """Servers that speak no HTTP, or stop in the middle, are told of."""
        for answer in (b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"):
            self.assertIn("cannot be got", await self.refuses(self.serve(answer)))
        away = self.page(b"", "Location: file:///etc/passwd", status="302 Found")
        self.assertIn("from http:// URLs alone", await self.refuses(self.serve(away)))
        loop = self.page(b"", "Location: /1.crl", status="302 Found")
        self.assertIn("cannot be got", await self.refuses(self.serve(loop)))

    async def test_nobody(self) -> None:
        """So is one that is not there."""
        url = f"http://127.0.0.1:{closed_tcp_port(self)}/"
        self.assertIn("refused", await self.refuses(url))

    async def test_no_http(self) -> None:
        """Lists in directories are not fetched."""
        for url in ("ldap://ca.example/cn=CRL", "file:///etc/passwd", "1.crl"):
            self.assertIn("from http:// URLs alone", await self.refuses(url))
        for url in ("http://[::1/1.crl", "http://crl.example:x/", "http://"):
            self.assertIn("cannot be got", await self.refuses(url))

    async def test_given_up(self) -> None:
        """A server that stops at any point is given up in words, and nothing is left of it."""
        whole = self.page(ROOT.crl())
        for answer in (b"", whole[:20], whole[:-9]):
            fetching = Deferred.fromCoroutine(
                fetch_crl(reactor, self.serve(answer, stays=True), {})
            )
            reactor.callLater(0.05, fetching.cancel)
            with self.assertRaisesRegex(ProbeFailed, "did not come in time"):
                await fetching
