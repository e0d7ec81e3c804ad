"""Tests for :mod:`derp.net.trusted_proxies`."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from derp.net.trusted_proxies import MAX_HOPS, TrustedProxies, parse_proxies

PROXY = IPv4Address("TCP", "10.0.0.1", 999)
STRANGER = IPv4Address("TCP", "192.0.2.99", 999)


class ClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        networks, unix = parse_proxies("--x", "10.0.0.0/8, fd00::/8, unix")
        self.proxies = TrustedProxies(networks, unix=unix)

    def client(self, *forwarded: str, real: str = "", peer: object = PROXY) -> tuple[str, int]:
        headers = Headers()
        if forwarded:
            headers.setRawHeaders("X-Forwarded-For", list(forwarded))
        if real:
            headers.setRawHeaders("X-Real-IP", [real])
        client = self.proxies.client_of(headers, peer)
        return getattr(client, "host", ""), getattr(client, "port", 0)

    def test_nobody_speaks(self) -> None:
        """Without headers the peer is the client; nothing is counted."""
        self.assertEqual(self.client(), ("10.0.0.1", 999))
        self.assertEqual((self.proxies.stats.believed, self.proxies.stats.ignored), (0, 0))

    def test_forwarded(self) -> None:
        """What a trusted proxy says, in every spelling there is."""
        for text, client in {
            "192.0.2.7": ("192.0.2.7", 0),
            "192.0.2.7:51": ("192.0.2.7", 51),
            "2001:db8::7": ("2001:db8::7", 0),
            "[2001:db8::7]:51": ("2001:db8::7", 51),
            "[2001:db8::7]": ("2001:db8::7", 0),
            "::ffff:192.0.2.7": ("192.0.2.7", 0),
        }.items():
            self.assertEqual(self.client(text), client)
            self.assertEqual(self.client(real=text), client)
        self.assertEqual(self.proxies.stats.believed, 12)

    def test_spoofed(self) -> None:
        """Strangers are not believed, and counted."""
        self.assertEqual(self.client("10.0.0.7", peer=STRANGER), ("192.0.2.99", 999))
        self.assertEqual(self.client(real="127.0.0.1", peer=STRANGER), ("192.0.2.99", 999))
        self.assertEqual(self.proxies.stats.ignored, 2)

    def test_what_the_client_wrote_itself(self) -> None:
        """Only what trusted proxies appended counts: the last address that is not theirs."""
        self.assertEqual(self.client("127.0.0.1, 192.0.2.7, 10.2.3.4"), ("192.0.2.7", 0))
        self.assertEqual(self.client("127.0.0.1", "192.0.2.7", "10.2.3.4"), ("192.0.2.7", 0))

    def test_all_trusted(self) -> None:
        """A request from within the trusted network is from its first address."""
        self.assertEqual(self.client("10.9.9.9, 10.2.3.4"), ("10.9.9.9", 0))

    def test_no_address(self) -> None:
        """What is no address ends the search at what was found so far."""
        self.assertEqual(self.client("unknown"), ("10.0.0.1", 999))
        self.assertEqual(self.client("unknown, 10.2.3.4"), ("10.2.3.4", 0))
        self.assertEqual(self.client(real="_hidden"), ("10.0.0.1", 999))

    def test_both(self) -> None:
        """X-Forwarded-For is the better known, and counts."""
        self.assertEqual(self.client("192.0.2.7", real="192.0.2.8"), ("192.0.2.7", 0))

    def test_unix(self) -> None:
        """Peers on unix sockets are trusted if that was said."""
        peer = UNIXAddress(b"/x")
        self.assertEqual(self.client("192.0.2.7", peer=peer), ("192.0.2.7", 0))
        self.proxies = TrustedProxies()
        self.assertFalse(self.proxies)
        self.assertEqual(self.client("192.0.2.7", peer=peer), ("", 0))

    def test_ipv6(self) -> None:
        """IPv6 networks, mapped addresses and scopes."""
        self.assertTrue(self.proxies.trusts(IPv6Address("TCP", "fd00::1", 1)))
        self.assertTrue(self.proxies.trusts(IPv6Address("TCP", "fd00::1%eth0", 1)))
        self.assertTrue(self.proxies.trusts(IPv6Address("TCP", "::ffff:10.0.0.1", 1)))
        self.assertFalse(self.proxies.trusts(IPv6Address("TCP", "fe80::1", 1)))
        self.assertFalse(self.proxies.trusts(None))

    def test_endless(self) -> None:
        """A chain is followed so far and no farther."""
        chain = ", ".join(["192.0.2.7"] + ["10.0.0.2"] * MAX_HOPS)
        self.assertEqual(self.client(chain), ("10.0.0.2", 0))

    @given(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=80))
    def test_garbage(self, text: str) -> None:
        """Any header gives a client."""
        self.assertTrue(self.client(text)[0])
