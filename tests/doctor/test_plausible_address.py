"""Tests for :mod:`derp.doctor.plausible_address`."""

from __future__ import annotations

from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from derp.doctor.plausible_address import doubts, kind_of


class DoubtTests(SynchronousTestCase):
    """Whom the server has asked, where from, and what came back."""

    def test_believed(self) -> None:
        """Our own address, a public one, and a private one that is ours."""
        for server, local, mapped in (
            ("8.8.8.8", "10.0.0.2", "9.9.9.9"),
            ("8.8.8.8", "9.9.9.9", "9.9.9.9"),
            ("10.0.0.1", "10.0.0.2", "10.0.0.2"),
            ("172.17.0.2", "172.17.0.1", "172.17.0.1"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
            ("2606:4700::1", "2a00:1450::1", "2a00:1450::1"),
        ):
            self.assertIsNone(doubts(*map(ip_address, (server, local, mapped))), mapped)

    def test_doubted(self) -> None:
        """Each kind by its name; certain where it cannot be."""
        for server, local, mapped, said, certain in (
            ("8.8.8.8", "10.0.0.2", "172.17.0.1", "of Docker's networks", True),
            ("10.0.0.1", "10.0.0.2", "172.18.0.1", "of Docker's networks", True),
            ("8.8.8.8", "172.31.0.9", "172.31.0.1", "private (172.16.0.0/12", True),
            ("8.8.8.8", "192.168.1.2", "192.168.7.1", "private (192.168.0.0/16)", True),
            ("8.8.8.8", "192.168.1.2", "10.0.0.9", "private (10.0.0.0/8)", True),
            ("8.8.8.8", "192.168.1.2", "100.64.3.4", "carriers' NAT, and of tailnets", True),
            ("8.8.8.8", "192.168.1.2", "169.254.1.1", "link-local", True),
            ("8.8.8.8", "192.168.1.2", "127.0.0.1", "loopback", True),
            ("10.0.0.1", "10.0.0.2", "10.0.0.99", "private (10.0.0.0/8) and not ours", False),
            ("10.0.0.1", "10.0.0.2", "127.0.0.1", "loopback and not ours", True),
            ("8.8.8.8", "192.168.1.2", "0.0.0.0", "no address that anybody has", True),
            ("8.8.8.8", "192.168.1.2", "240.0.0.1", "reserved", True),
            ("2606:4700::1", "2a00:1450::1", "fd7a:115c:a1e0::5", "of a tailnet", True),
            ("2606:4700::1", "2a00:1450::1", "fd00::5", "private (fc00::/7)", True),
            ("8.8.8.8", "192.168.1.2", "2a00:1450::1", "an IPv6 address, where we asked", True),
        ):
            doubt = doubts(*map(ip_address, (server, local, mapped)))
            assert doubt is not None, mapped
            self.assertIn(said, doubt.said, mapped)
            self.assertEqual(doubt.certain, certain, mapped)
            self.assertNotEqual(doubt.cure, "")

    def test_public(self) -> None:
        """A public address has no kind."""
        self.assertEqual(kind_of(ip_address("9.9.9.9")), "")
