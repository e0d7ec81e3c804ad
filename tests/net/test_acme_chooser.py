"""Which certificate a ClientHello gets in ACME modes."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.net.acme_certificates import ACMECertificates
from derp.net.acme_challenges import TLSALPN01, asked_name, host_without_port
from derp.net.acme_chooser import INTERNAL_ERROR, ACMEChooser, host_policy, normal_name
from derp.net.acme_client import ACMEClient, Profile
from derp.net.acme_http import SignedRequests
from derp.net.certificate_cache import AddressFiles, HostFiles
from derp.net.certificates import NO_APPLICATION_PROTOCOL, UNRECOGNIZED_NAME, HandshakeRefused
from derp.wire.client_hello import ClientHello
from derp.wire.jose import AccountKey, tls_alpn_digest
from tests.certificate_files import NOW
from tests.net.fake_ca import BASE, FakeCA, problem
from tests.net.test_acme_client import FakeSolver
from tests.tls_clients import client_context, shake_hands
from tests.wall_clock import WallClock

NAME = "derp.example.com"
V4, V6 = "203.0.113.7", "2001:db8::7"


class PolicyTests(SynchronousTestCase):
    """For which names certificates are got."""

    def test_own_name(self) -> None:
        """The flag's name in any case, with or without final dot, as A-labels."""
        policy = host_policy("Derp.Bücher.example")
        for name in ("derp.xn--bcher-kva.example", "DERP.XN--BCHER-KVA.EXAMPLE."):
            self.assertTrue(policy(name), name)
        for name in ("xn--bcher-kva.example", "a.derp.xn--bcher-kva.example", "", "derp"):
            self.assertFalse(policy(name), name)

    def test_tailscale(self) -> None:
        """With the default name every relay of Tailscale's, and nobody else's."""
        policy = host_policy("derp.tailscale.com")
        relays = ("derp", "derp1", "derp1b", "derp2", "derp02", "derp-nyc", "derpfoo")
        for each in relays:
            self.assertTrue(policy(f"{each}.tailscale.com"), each)
        self.assertTrue(policy("derp.tailscale.com."))
        for name in (
            "derp02.bar.tailscale.com",
            "example.net",
            "derp/../../x.tailscale.com",
            "derp.tailscale.com.evil.example",
            "xderp.tailscale.com",
        ):
            self.assertFalse(policy(name), name)

    def test_odd_names(self) -> None:
        """What no name can be made of compares as it is."""
        self.assertEqual(normal_name("a" * 70 + ".test"), "a" * 70 + ".test")
        self.assertEqual(normal_name("a..b"), "a..b")


class ChooserTests(SynchronousTestCase):
    """See :class:`derp.net.acme_chooser.ACMEChooser`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.wall = WallClock(self.clock, NOW)
        self.ca = FakeCA(self.wall)
        self.place = Path(self.mktemp())
        self.challenges = TLSALPN01(self.wall.seconds)
        self.hosts = self.make(HostFiles(self.place))
        self.addresses = self.make(AddressFiles(self.place), Profile("shortlived"))
        self.chooser = self.choose()

    def make(self, files: Any, profile: Profile | None = None) -> ACMECertificates:
        """Certificates of the authority."""

        def client(key: AccountKey) -> ACMEClient:
            return ACMEClient(
                SignedRequests(self.ca, self.clock, self.wall.seconds),
                self.clock,
                f"{BASE}/dir",
                key,
            )

        return ACMECertificates(
            self.clock,
            self.wall.seconds,
            files,
            client,
            bytes(32),
            solvers=[FakeSolver("http-01")],
            limit_s=180,
            luck=lambda: 0.0,
            profile=profile,
        )

    def choose(self, **options: Any) -> ACMEChooser:
        """A chooser for both kinds, unless a test says otherwise."""
        options.setdefault("hosts", self.hosts)
        options.setdefault("addresses", self.addresses)
        return ACMEChooser(self.challenges, policy=host_policy(NAME), **options)

    def pick(self, name: str | None, local_ip: str = V4, *alpn: bytes) -> ssl.SSLContext:
        """What a client gets in the end."""
        context = self.chooser.pick(ClientHello(name, alpn), local_ip)
        if isinstance(context, Deferred):
            self.clock.advance(0)
            context = self.successResultOf(context)
        assert isinstance(context, ssl.SSLContext)
        return context

    def refused(self, name: str | None, local_ip: str = V4, *alpn: bytes) -> HandshakeRefused:
        """Why a client gets nothing."""
        hello = ClientHello(name, alpn)
        return self.assertRaises(HandshakeRefused, self.chooser.pick, hello, local_ip)

    def test_name(self) -> None:
        """The host provider's, whatever the address; no order for an address."""
        context = self.pick("DERP.example.com.")
        self.assertIs(self.pick(NAME, V6, b"http/1.1"), context)
        self.assertEqual([each["identifiers"][0]["value"] for each in self.ca.orders], [NAME])
        self.assertNotIn("profile", self.ca.orders[0])

    def test_addresses(self) -> None:
        """The scenario of the reference's own test: two families, cached, on disk."""
        first = self.pick(None)
        self.assertEqual(self.ca.orders[0]["identifiers"], [{"type": "ip", "value": V4}])
        self.assertEqual(self.ca.orders[0]["profile"], "shortlived")
        self.pick(None, V6)
        self.assertEqual(self.ca.orders[1]["identifiers"], [{"type": "ip", "value": V6}])
        self.assertIs(self.pick(V4), first)
        self.pick("2001:DB8:0::7", V6)
        self.assertEqual(self.refused("203.0.113.8").alert, UNRECOGNIZED_NAME)
        self.addresses = self.make(AddressFiles(self.place))
        self.chooser = self.choose(hosts=None)
        self.pick(None)
        self.assertEqual(len(self.ca.orders), 2)
        self.assertEqual(self.refused(NAME).alert, UNRECOGNIZED_NAME)

    def test_behind_nat(self) -> None:
        """The configured address of the same family stands for a private one."""
        self.chooser = self.choose(public=[V4, V6])
        self.pick(None, "10.0.0.1")
        self.pick(None, "fd00::1")
        self.pick(V6, "10.0.0.1")
        ordered = [each["identifiers"][0]["value"] for each in self.ca.orders]
        self.assertEqual(ordered, [V4, V6])
        self.assertEqual(self.refused("10.0.0.1", "10.0.0.1").alert, UNRECOGNIZED_NAME)

    def test_private_addresses(self) -> None:
        """A public authority is not asked for them; one of the operator's is."""
        for address in ("127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1"):
            refusal = self.refused(None, address)
            self.assertIn("give it with --acme-ip-address", refusal.reason)
        self.assertEqual(self.ca.requests, [])
        self.chooser = self.choose(private=True)
        self.pick(None, "10.1.2.3")

    def test_partly_behind_nat(self) -> None:
        """A public address of our own is itself; a family without a configured one, too."""
        self.chooser = self.choose(public=[V4])
        self.pick(None, "203.0.113.9")
        self.pick(None, V6)
        self.pick(None, "192.168.0.1")
        ordered = [each["identifiers"][0]["value"] for each in self.ca.orders]
        self.assertEqual(ordered, ["203.0.113.9", V6, V4])

    def test_names_only(self) -> None:
        """Without certificates for addresses who asks for nothing is refused."""
        self.chooser = self.choose(addresses=None)
        for name in (None, V4, "other.example.com"):
            self.assertEqual(self.refused(name).alert, UNRECOGNIZED_NAME, name)
        self.assertEqual(self.ca.requests, [])

    def test_alpn(self) -> None:
        """HTTP/2 alone is refused; without a challenge so is acme-tls/1."""
        self.assertEqual(self.refused(NAME, V4, b"h2").alert, NO_APPLICATION_PROTOCOL)
        self.assertEqual(self.refused(NAME, V4, b"acme-tls/1").alert, UNRECOGNIZED_NAME)

    def test_cannot_be_got(self) -> None:
        """The client gets an alert, and the log the reason."""
        self.ca.faults["/dir"] = [problem(500, "serverInternal", "oops")]
        context: Any = self.chooser.pick(ClientHello(NAME), V4)
        self.clock.advance(0)
        refusal: Any = self.failureResultOf(context, HandshakeRefused).value
        self.assertEqual(refusal.alert, INTERNAL_ERROR)
        self.assertIn("no certificate for derp.example.com yet", refusal.reason)
        self.assertIn("oops", refusal.reason)

    def test_challenge(self) -> None:
        """acme-tls/1 gets the proof: for a name, and for an address under its reverse name."""
        for name, asked in ((NAME, NAME), (V4, "7.113.0.203.in-addr.arpa")):
            self.assertEqual(asked_name(name), asked)
            self.challenges.present(name, "token", "token.thumb")
            context = self.pick(asked.upper(), V4, b"acme-tls/1")
            seen = shake_hands(context, client_context(["acme-tls/1"]), asked)
            self.assertEqual(seen.alpn, "acme-tls/1")
            digest = tls_alpn_digest("token.thumb")
            self.assertIn(b"\x06\x08\x2b\x06\x01\x05\x05\x07\x01\x1f\x01\x01\xff", seen.chain[0])
            self.assertIn(b"\x04\x22\x04\x20" + digest, seen.chain[0])
            self.challenges.withdraw(name, "token", "token.thumb")
            self.assertEqual(self.refused(asked, V4, b"acme-tls/1").alert, UNRECOGNIZED_NAME)

    def test_hosts_of_authorities(self) -> None:
        """On the plain port only our hosts are told anything."""
        for host in (f"{NAME}:80", "DERP.EXAMPLE.COM.", V4, f"[{V6}]:80", V6):
            self.assertTrue(self.chooser.allows_host(host_without_port(host)), host)
        self.assertFalse(self.chooser.allows_host("other.example.com"))
        names_only = self.choose(addresses=None)
        self.assertFalse(names_only.allows_host(V4))
        addresses_only = self.choose(hosts=None)
        self.assertFalse(addresses_only.allows_host(NAME))
