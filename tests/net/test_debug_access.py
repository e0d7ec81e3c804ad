"""Who may see the debug pages."""

from ipaddress import ip_address, ip_network
from pathlib import Path

from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.config import Config, DebugKnobs
from derp.net.debug_access import is_tailscale_ip
from derp.net.web import build_main_site
from tests.net.sites import AbortableTransport, TextPage, Visit, get, site_parts

CIDRS = tuple(map(ip_network, ("10.0.0.0/8", "192.168.1.0/24", "fd00::/8")))
PAGES = {"/debug/": TextPage(b"index"), "/debug/vars": TextPage(b"vars")}


class DebugAccessTests(SynchronousTestCase):
    """The rules, one after the other."""

    def ask(
        self,
        peer: object,
        request: bytes = b"",
        *,
        dev: bool = False,
        **knobs: object,
    ) -> bytes:
        config = Config(tls=False, dev=dev, knobs=DebugKnobs(**knobs))
        site = build_main_site(site_parts(Clock(), config, debug_pages=PAGES))
        transport = AbortableTransport()
        transport.peerAddr = peer
        if isinstance(peer, str):
            transport = AbortableTransport(peer)
        return Visit(site, transport).send(request or get("/debug/vars"))

    def allowed(self, peer: object, request: bytes = b"", **knobs: object) -> bool:
        answer = self.ask(peer, request, **knobs)
        self.assertEqual(b"403 Forbidden" in answer, not answer.endswith(b"vars"))
        return answer.endswith(b"vars")

    def test_addresses(self) -> None:
        """Tailnet and loopback may, the world may not."""
        cases = {
            "127.0.0.1": True,
            "127.8.8.8": True,
            "100.64.0.0": True,
            "100.100.100.100": True,
            "100.127.255.255": True,
            "100.128.0.0": False,
            "100.115.92.5": False,
            "100.115.93.255": False,
            "100.115.94.0": True,
            "8.8.8.8": False,
            "::1": True,
            "::ffff:100.100.100.100": True,
            "::ffff:127.0.0.1": True,
            "::ffff:8.8.8.8": False,
            "fd7a:115c:a1e0::1": True,
            "fd7a:115c:a1e1::1": False,
            "2001:db8::1": False,
            "fe80::1%eth0": False,
        }
        for peer, good in cases.items():
            address = IPv6Address("TCP", peer, 1) if ":" in peer else peer
            self.assertEqual(self.allowed(address), good, peer)

    def test_no_address(self) -> None:
        """A unix socket's peer is nobody."""
        self.assertFalse(self.allowed(UNIXAddress(b"/tmp/x")))
        self.assertFalse(self.allowed(UNIXAddress(None), allow_debug_ip=""))

    def test_forwarded(self) -> None:
        """What was forwarded may be anybody's."""
        request = get("/debug/vars", "X-Forwarded-For: 127.0.0.1")
        self.assertFalse(self.allowed("127.0.0.1", request))
        self.assertTrue(self.allowed("127.0.0.1", get("/debug/vars", "X-Forwarded-For:")))

    def test_allowed_ip(self) -> None:
        """``TS_ALLOW_DEBUG_IP`` is one address, compared as text."""
        self.assertTrue(self.allowed("8.8.8.8", allow_debug_ip="8.8.8.8"))
        self.assertFalse(self.allowed("8.8.8.9", allow_debug_ip="8.8.8.8"))

    def test_trusted_cidrs(self) -> None:
        """``TS_DEBUG_TRUSTED_CIDRS``."""
        for peer in ("10.1.2.3", "192.168.1.50", "fd00::1"):
            address = IPv6Address("TCP", peer, 1) if ":" in peer else peer
            self.assertTrue(self.allowed(address, trusted_cidrs=CIDRS), peer)
        for peer in ("192.168.2.1", "172.16.0.1", "8.8.8.8", "fe80::1"):
            address = IPv6Address("TCP", peer, 1) if ":" in peer else peer
            self.assertFalse(self.allowed(address, trusted_cidrs=CIDRS), peer)

    def test_key(self) -> None:
        """The key opens for anybody, even forwarded, but only by GET and only if set."""
        path = Path(self.mktemp())
        path.write_text("  s3cret\n")
        forwarded = get("/debug/vars?debugkey=s3cret", "X-Forwarded-For: 1.2.3.4")
        knobs = {"debug_key_path": str(path)}
        self.assertTrue(self.allowed("8.8.8.8", forwarded, **knobs))
        for request in (
            get("/debug/vars?debugkey=s3cre"),
            get("/debug/vars?debugkey="),
            get("/debug/vars?debugkey=%C3%A4"),
            get("/debug/vars?debugkey=s3cret", method="POST"),
        ):
            self.assertFalse(self.allowed("8.8.8.8", request, **knobs))
        self.assertFalse(self.allowed("8.8.8.8", forwarded))
        path.write_text("\n")
        self.assertFalse(self.allowed("8.8.8.8", get("/debug/vars?debugkey="), **knobs))
        path.unlink()
        self.assertFalse(self.allowed("8.8.8.8", forwarded, **knobs))

    def test_hint(self) -> None:
        """In development a stranger is told what to set; on pages, not on the index."""
        hint = b"debug access denied; to permit access, set TS_ALLOW_DEBUG_IP=8.8.8.8\n"
        self.assertTrue(self.ask("8.8.8.8", dev=True).endswith(hint))
        for path in ("/debug/", "/debug/nothing"):
            answer = self.ask("8.8.8.8", get(path), dev=True)
            self.assertTrue(answer.endswith(b"\r\n\r\ndebug access denied\n"))

    def test_ranges(self) -> None:
        """``is_tailscale_ip`` at the edges."""
        self.assertFalse(is_tailscale_ip(ip_address("100.63.255.255")))
        self.assertTrue(is_tailscale_ip(ip_address("100.115.91.255")))
        self.assertFalse(is_tailscale_ip(ip_address("100.115.92.0")))


class GuardTests(SynchronousTestCase):
    """The frame around the pages."""

    def setUp(self) -> None:
        pages = {**PAGES, "/debug/pprof/": TextPage(b"profiles")}
        parts = site_parts(Clock(), Config(tls=False), debug_pages=pages)
        self.visit = Visit(build_main_site(parts))

    def test_policies(self) -> None:
        """Pages may have inline styles, the index may not."""
        self.assertIn(b"style-src 'self' 'unsafe-inline'", self.visit.send(get("/debug/vars")))
        index = self.visit.send(get("/debug/"))
        self.assertIn(b"Content-Security-Policy: default-src", index)
        self.assertNotIn(b"unsafe-inline", index)

    def test_nothing_there(self) -> None:
        """An unknown page is one only to those who may look, and has no headers of a page."""
        answer = self.visit.send(get("/debug/nothing"))
        self.assertIn(b"404 Not Found", answer)
        self.assertNotIn(b"Content-Security-Policy", answer)

    def test_subtree(self) -> None:
        """A page may answer for all below it."""
        for path in ("/debug/pprof/", "/debug/pprof/heap"):
            self.assertTrue(self.visit.send(get(path)).endswith(b"profiles"))

    def test_without_pages(self) -> None:
        """Without an index there is none."""
        visit = Visit(build_main_site(site_parts(Clock(), Config(tls=False))))
        self.assertIn(b"404 Not Found", visit.send(get("/debug/")))
