"""Tests of :mod:`derp.prober.tls_check`: real handshakes with scripted relays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from OpenSSL import SSL
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from derp.net.relay_dialer import RelayAddress
from derp.prober.check import Check
from derp.prober.tls_check import date_problems, tls_check
from derp.prober.tls_peek import CLOSE_S, _Visit
from derp.wire.derp_map import Node
from derp.wire.node_json import pin_of
from tests.integration.relay_case import HOST, reactor
from tests.net.relay_fakes import Credentials, FakeRelayFactory, ServerTLS, metacert, over_tls
from tests.net.udp_sockets import why_no_ipv6
from tests.prober.chains import CA, DAY, NOW, make_ca
from tests.prober.check_case import CheckTestCase

ROOT = make_ca()


class DateTests(SynchronousTestCase):
    """How long certificates must be valid."""

    def problems(self, *certs: Credentials | CA, after: timedelta = timedelta()) -> str:
        found = date_problems([cert.certificate for cert in certs], NOW + after)
        return "\n".join(found)

    def test_valid(self) -> None:
        """Seven days and more are enough, for each certificate below the root."""
        middle = ROOT.intermediate(7 * DAY)
        self.assertEqual(self.problems(middle.leaf(ends=7 * DAY), middle), "")

    def test_soon(self) -> None:
        """Less is an error, which says how much is left, and when it ends."""
        text = self.problems(ROOT.leaf(ends=3 * DAY), after=timedelta(hours=12))
        self.assertIn("the certificate expires in 2.5 days", text)
        self.assertIn(f"{NOW + 3 * DAY:%Y-%m-%d %H:%M} UTC", text)
        self.assertIn("renew it", text)

    def test_over(self) -> None:
        """An expired one has expired, and does not expire soon as well."""
        text = self.problems(ROOT.leaf(ends=DAY), after=2 * DAY)
        self.assertIn("has expired at", text)
        self.assertNotIn("expires in", text)

    def test_not_yet(self) -> None:
        """One from the future may be a wrong clock."""
        text = self.problems(ROOT.leaf(begins=DAY))
        self.assertIn("is not valid before", text)
        self.assertIn("clocks", text)

    def test_above(self) -> None:
        """An intermediate that ends is told by its name, beside the first one."""
        middle = ROOT.intermediate(2 * DAY)
        text = self.problems(middle.leaf(ends=DAY), middle)
        self.assertIn("the certificate expires in 1 days", text)
        self.assertIn("the certificate above it (CN=Middle) expires in 2 days", text)

    def test_root(self) -> None:
        """Roots may end when they like: clients have their own copy."""
        self.assertEqual(self.problems(ROOT.leaf(ends=8000 * DAY), ROOT, after=4000 * DAY), "")

    def test_own_root(self) -> None:
        """A certificate that is its own root is looked at, if it is the relay's."""
        self.assertIn("has expired", self.problems(ROOT, after=4000 * DAY))

    def test_short_lived(self) -> None:
        """Those for six days have a quarter of their life to be renewed in."""
        leaf = ROOT.leaf(begins=timedelta(), ends=6 * DAY)
        self.assertEqual(self.problems(leaf, after=4.5 * DAY), "")
        self.assertIn("expires in 1.4 days", self.problems(leaf, after=4.6 * DAY))


class VisitTests(SynchronousTestCase):
    """A visit whose end and deadline come together, as after this machine has slept."""

    def test_both_timers_at_once(self) -> None:
        """Giving up a visit that is being cut already is no error."""
        clock = Clock()
        visit = _Visit(clock, RelayAddress(label="x", host="x"), clock.seconds)
        visit.transport = transport = StringTransport()
        visit.connectionMade()
        visit._closing = clock.callLater(CLOSE_S, transport.abortConnection)
        clock.advance(100)
        self.assertIn(" at 192.168.1.1:", visit.give_up())


class TLSCase(CheckTestCase):
    """Serves certificates, and trusts :data:`ROOT`."""

    def setUp(self) -> None:
        super().setUp()
        roots = self.mktemp()
        with open(roots, "wb") as file:
            file.write(ROOT.credentials.pem)
        environ = patch.dict(os.environ, {"SSL_CERT_FILE": roots, "SSL_CERT_DIR": os.devnull})
        environ.start()
        self.addCleanup(environ.stop)

    def listen(self, factory: Factory, host: str = HOST) -> int:
        """Listen on loopback with the test."""
        return self.closing(reactor.listenTCP(0, factory, interface=host))

    def serve(
        self,
        leaf: Credentials,
        extra: Sequence[bytes] = (ROOT.der,),
        *,
        host: str = HOST,
        maximum: int = SSL.TLS1_3_VERSION,
    ) -> int:
        """Serve this certificate, with its issuer; give the port."""
        self.tls = ServerTLS(leaf, [*extra, metacert()], maximum)
        return self.listen(over_tls(FakeRelayFactory(), self.tls), host)

    def check(self, node: Node, **fields: Any) -> Check:
        return tls_check(self.targets(**fields), self.region, node)

    async def refuses(self, node: Node, seconds: float = 20.0, **fields: Any) -> str:
        """Give the sentence, which always names the node, its host and where it is."""
        text = await self.fails(self.check(node, **fields), seconds)
        self.assertIn(f"node {node.name} ({node.host_name})", text)
        self.assertIn(str(node.derp_port), text)
        return text


class TrustTests(TLSCase):
    """By whom a certificate may be signed, and for whom."""

    async def test_trusted(self) -> None:
        """A certificate of a root in SSL_CERT_FILE, in either TLS version."""
        for version, name in ((SSL.TLS1_2_VERSION, "TLSv1.2"), (SSL.TLS1_3_VERSION, "TLSv1.3")):
            port = self.serve(ROOT.leaf(), maximum=version)
            check = self.check(self.node("900a", port))
            await self.passes(check)
            found = dict(check.findings())
            self.assertEqual(round(float(found.pop("days_left"))), 60)
            self.assertEqual(
                found,
                {
                    "address": f"{HOST}:{port}",
                    "tls_version": name,
                    "names": HOST,
                    "issuer": "Test Trust Root",
                    "revocation": "no revocation list",
                },
            )

    async def test_labels(self) -> None:
        """The labels of a node, and the class."""
        check = self.check(self.node("900a", 1, host_name="derp.example.com"))
        self.assertEqual(check.probe_class, "tls")
        self.assertEqual(
            check.labels, {"region": "test", "region_id": "900", "hostname": "derp.example.com"}
        )

    async def test_untrusted(self) -> None:
        """A certificate of anybody else is refused, and still looked at for the page."""
        check = self.check(self.node("900a", self.serve(make_ca("Other").leaf(), ())))
        text = await self.fails(check)
        self.assertIn("expected a trusted certificate for 127.0.0.1", text)
        self.assertIn("SSL_CERT_FILE", text)
        found = check.findings()
        self.assertEqual(found["issuer"], "Other Root")
        self.assertEqual(round(float(found["days_left"])), 60)
        self.assertNotIn("tls_version", found)

    async def test_other_name(self) -> None:
        """A certificate for another host is refused, unless CertName is that host."""
        port = self.serve(ROOT.leaf(["other.example"]))
        text = await self.refuses(self.node("900a", port))
        self.assertIn("expected a certificate for 127.0.0.1", text)
        self.assertIn("other.example", text)
        await self.passes(self.check(self.node("900b", port, cert_name="other.example")))

    async def test_server_name(self) -> None:
        """HostName is asked for by SNI, wherever the node is dialed."""
        port = self.serve(ROOT.leaf(["derp.example.com"]))
        await self.passes(self.check(self.node("900a", port, host_name="derp.example.com")))
        self.assertEqual(self.tls.server_names, [b"derp.example.com"])

    async def test_ipv6(self) -> None:
        """A node's IPv6 address is dialed too, if that is the one that answers."""
        if why := why_no_ipv6():
            self.skipTest(why)
        port = self.serve(ROOT.leaf(["derp.example.com"]), host="::1")
        node = self.node("900a", port, host_name="derp.example.com", ipv4="none", ipv6="::1")
        check = self.check(node)
        await self.passes(check)
        self.assertEqual(check.findings()["address"], f"[::1]:{port}")

    async def test_insecure(self) -> None:
        """InsecureForTests means what it says: any certificate will do."""
        leaf = make_ca("Other").leaf(["other.example"], ends=timedelta(seconds=-1))
        node = self.node("900a", self.serve(leaf), insecure_for_tests=True)
        check = self.check(node)
        await self.passes(check)
        self.assertEqual(check.findings()["issuer"], "Other Root")

    async def test_stun_only(self) -> None:
        """A node for STUN only is looked at like any other."""
        node = self.node("900a", self.serve(ROOT.leaf()), stun_only=True)
        await self.passes(self.check(node))


class DatesOfServersTests(TLSCase):
    """Dates, as served."""

    async def test_soon(self) -> None:
        """A certificate that clients still take, but not for a week."""
        text = await self.refuses(self.node("900a", self.serve(ROOT.leaf(ends=5 * DAY))))
        self.assertIn("expires in 5 days", text)

    async def test_refused(self) -> None:
        """Certificates that no client takes."""
        expired = self.serve(ROOT.leaf(ends=timedelta(seconds=-5)))
        self.assertIn("it has expired", await self.refuses(self.node("900a", expired)))
        future = self.serve(ROOT.leaf(begins=DAY))
        self.assertIn("it is not valid yet", await self.refuses(self.node("900b", future)))

    async def test_all_problems(self) -> None:
        """Whatever is wrong is told at once."""
        middle = ROOT.intermediate(2 * DAY)
        leaf = middle.leaf(ends=DAY, url="ldap://nowhere")
        port = self.serve(leaf, [middle.der])
        text = await self.refuses(self.node("900a", port))
        for words in ("expires in 1 days", "expires in 2 days", "ldap://nowhere"):
            self.assertIn(words, text)


class PinTests(TLSCase):
    """Relays known by their certificate."""

    def setUp(self) -> None:
        super().setUp()
        self.lone = make_ca().leaf()

    async def test_pinned(self) -> None:
        """A pinned certificate needs nobody's signature, and no revocation list."""
        lone = make_ca("Let's Encrypt").leaf()
        node = self.node("900a", self.serve(lone, ()), cert_name=pin_of(lone.der))
        check = self.check(node)
        await self.passes(check)
        self.assertEqual(round(float(check.findings()["days_left"])), 60)

    async def test_other_pin(self) -> None:
        """Another certificate is refused, and its pin told."""
        node = self.node("900a", self.serve(self.lone, ()), cert_name=pin_of(ROOT.der))
        text = await self.refuses(node)
        self.assertIn(f"CertName expects {pin_of(ROOT.der)}", text)
        self.assertIn(pin_of(self.lone.der), text)

    async def test_soon(self) -> None:
        """A pinned certificate has to be valid for a week as well."""
        lone = make_ca().leaf(ends=6 * DAY)
        node = self.node("900a", self.serve(lone, ()), cert_name=pin_of(lone.der))
        self.assertIn("expires in 6 days", await self.refuses(node))

    async def test_ours(self) -> None:
        """A relay of ours with its own certificate is green."""
        await self.passes(self.check(self.node_of(self.relay(stun=False))))


class RevocationTests(TLSCase):
    """Certificates with a list."""

    def publish(self, data: bytes) -> str:
        """Put a list where it can be got."""
        root = Resource()
        root.putChild(b"1.crl", Data(data, "application/pkix-crl"))
        site = Site(root)
        site.noisy = False
        return f"http://{HOST}:{self.listen(site)}/1.crl"

    async def test_not_listed(self) -> None:
        """A certificate that is not in its issuer's list is fine."""
        check = self.check(self.node("900a", self.serve(ROOT.leaf(url=self.publish(ROOT.crl())))))
        await self.passes(check)
        self.assertEqual(check.findings()["revocation"], "not revoked")

    async def test_listed(self) -> None:
        """One that is in there has been revoked."""
        middle = ROOT.intermediate()
        site = Resource()
        url = f"http://{HOST}:{self.listen(Site(site))}/1.crl"
        leaf = middle.leaf(url=url)
        crl = middle.crl(leaf.certificate.serial_number)
        site.putChild(b"1.crl", Data(crl, "application/pkix-crl"))
        check = self.check(self.node("900a", self.serve(leaf, [middle.der])))
        self.assertIn("was revoked", await self.fails(check))
        self.assertNotIn("revocation", check.findings())

    async def test_not_there(self) -> None:
        """One whose list cannot be got is not known to be good."""
        url = self.publish(ROOT.crl()) + "x"
        text = await self.refuses(self.node("900a", self.serve(ROOT.leaf(url=url))))
        self.assertIn("404", text)

    async def test_slow(self) -> None:
        """A list that does not come ends with the run, and the rest is told all the same."""
        silent = Factory.forProtocol(Protocol)
        silent.noisy = False
        url = f"http://{HOST}:{self.listen(silent)}/1.crl"
        leaf = ROOT.leaf(url=url, ends=5 * DAY)
        text = await self.refuses(self.node("900a", self.serve(leaf)), 2.0)
        self.assertIn("expires in 5 days", text)
        self.assertIn("did not come in time", text)
