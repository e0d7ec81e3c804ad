"""Tests for :mod:`derp.net.socket_address`."""

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from derp.net.socket_address import address_of, host_port, peer_name


class AddressTests(SynchronousTestCase):
    """What the kernel says, in Twisted's words and in a log's."""

    def test_families(self) -> None:
        """Each family becomes its own class."""
        for sockname, expected in (
            (("192.0.2.1", 5), IPv4Address("TCP", "192.0.2.1", 5)),
            (("2001:db8::1", 5, 0, 0), IPv6Address("TCP", "2001:db8::1", 5)),
            ("/run/x", UNIXAddress("/run/x")),
            (b"\0abstract", UNIXAddress(b"\0abstract")),
            ("", UNIXAddress(None)),
        ):
            self.assertEqual(address_of(sockname), expected)

    def test_v4_mapped(self) -> None:
        """An IPv4 peer of a dual-stack socket is an IPv4 peer; similar IPv6 ones are not."""
        self.assertEqual(
            address_of(("::ffff:192.0.2.1", 5, 0, 0)), IPv4Address("TCP", "192.0.2.1", 5)
        )
        self.assertEqual(address_of(("::ffff:0:1", 5, 0, 0)), IPv6Address("TCP", "::ffff:0:1", 5))

    def test_names(self) -> None:
        """A log line names a peer so that it can be read back."""
        for address, text in (
            (IPv4Address("TCP", "192.0.2.1", 5), "192.0.2.1:5"),
            (IPv6Address("TCP", "2001:db8::1", 5), "[2001:db8::1]:5"),
            (UNIXAddress("/run/x"), "a unix socket"),
        ):
            self.assertEqual(peer_name(address), text)


class HostPortTests(SynchronousTestCase):
    """See :func:`derp.net.socket_address.host_port`."""

    def test_families(self) -> None:
        """IPv6 stands in brackets, everything else does not."""
        self.assertEqual(host_port("::1", 3478), "[::1]:3478")
        self.assertEqual(host_port("127.0.0.1", 3478), "127.0.0.1:3478")
        self.assertEqual(host_port("*", 3478), "*:3478")
