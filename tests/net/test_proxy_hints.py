"""Tests for :mod:`derp.net.proxy_hints`, and for when they are given."""

from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from derp.config import Config
from derp.net.proxy_header import V2_START
from derp.net.proxy_hints import MAX_SAID, ProxyHints
from derp.net.trusted_proxies import TrustedProxies, parse_proxies
from derp.net.web import build_main_site
from tests.net.sites import AbortableTransport, Visit, get, site_parts

PROXY = "10.0.0.1"
STRANGER = "192.0.2.99"
UPGRADE = "Upgrade: DERP"
FORWARDED = "X-Forwarded-For: 198.51.100.7"


class WhenTests(SynchronousTestCase):
    """Requests to a site that trusts one network."""

    def setUp(self) -> None:
        networks, unix = parse_proxies("--x", "10.0.0.0/8, unix")
        clock = Clock()
        proxies = TrustedProxies(networks, unix=unix)
        self.site = build_main_site(site_parts(clock, Config(tls=False), proxies=proxies))

    def said(self, peer: str, request: bytes, *, named: bool = False) -> list[str]:
        """What is logged while a peer sends this on a connection of its own."""
        visit = Visit(self.site, AbortableTransport(peer))
        visit.channel.client_named = named
        with capturedLogs() as logs:
            visit.send(request)
        return [formatEvent(event) or "" for event in logs]

    def the_hint(self, *arguments: Any) -> str:
        (hint,) = self.said(*arguments)
        return hint

    def test_all_well(self) -> None:
        """Clients with an address of their own are nothing to speak of, however it is known."""
        self.assertEqual(self.said(STRANGER, get("/derp", UPGRADE)), [])
        self.assertEqual(self.said(PROXY, get("/derp", UPGRADE, FORWARDED)), [])
        self.assertEqual(self.said(PROXY, get("/derp", UPGRADE), named=True), [])
        self.assertEqual(self.said(STRANGER, get("/derp", UPGRADE, FORWARDED), named=True), [])

    def test_unnamed(self) -> None:
        """A proxy of ours lets a client log in and names nobody."""
        hint = self.the_hint(PROXY, get("/derp", UPGRADE))
        self.assertTrue(hint.startswith("10.0.0.1 is in --trusted-proxies but"), hint)

    def test_unnamed_websocket(self) -> None:
        """Nor does it for a browser."""
        websocket = (
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec-WebSocket-Protocol: derp",
        )
        self.the_hint(PROXY, get("/derp", *websocket))

    def test_unbelieved(self) -> None:
        """Somebody we do not trust forwards a client."""
        hint = self.the_hint(STRANGER, get("/derp", UPGRADE, FORWARDED))
        self.assertTrue(hint.startswith("192.0.2.99 sends X-Forwarded-For"), hint)
        self.assertIn("add it to --trusted-proxies", hint)

    def test_real_ip(self) -> None:
        """The other header is one as well."""
        self.the_hint(STRANGER, get("/derp", UPGRADE, "X-Real-IP: 198.51.100.7"))

    def test_no_login(self) -> None:
        """Health checks and visitors of other pages are no clients."""
        for page in ("/derp", "/readyz", "/derp/probe", "/generate_204", "/"):
            self.assertEqual(self.said(PROXY, get(page)), [])
            self.assertEqual(self.said(STRANGER, get(page, FORWARDED)), [])

    def test_upgrade_lost(self) -> None:
        """A client's request without its Upgrade header has come through a proxy."""
        hint = self.the_hint(STRANGER, get("/derp", "User-Agent: Go-http-client/1.1", FORWARDED))
        self.assertTrue(hint.startswith("192.0.2.99 passes /derp on without"), hint)

    def test_browser(self) -> None:
        """Somebody who looks at the path with a browser."""
        self.assertEqual(self.said(STRANGER, get("/derp", "User-Agent: Mozilla/5.0")), [])

    def test_stray_header(self) -> None:
        """A PROXY header of somebody we do not trust, in both versions."""
        for start in (b"PROXY TCP4 198.51.100.7 192.0.2.1 5 443\r\n", V2_START + b"\x21\x11"):
            hint = self.the_hint(STRANGER, start)
            self.assertTrue(hint.startswith("192.0.2.99 begins with a PROXY header"), hint)
            self.site.proxies.hints = ProxyHints()

    def test_only_at_the_start(self) -> None:
        """What comes later is no header."""
        visit = Visit(self.site, AbortableTransport(STRANGER))
        with capturedLogs() as logs:
            visit.send(get("/derp/probe"))
            visit.send(b"PROXY TCP4 198.51.100.7 192.0.2.1 5 443\r\n")
        self.assertEqual(logs, [])


class HowOftenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.hints = ProxyHints()

    def said(self, hint: Any, *hosts: str) -> int:
        """How many lines it makes of these peers."""
        with capturedLogs() as logs:
            for host in hosts:
                hint(AbortableTransport(host).getPeer())
        return len(logs)

    def test_once(self) -> None:
        """One line for each address and each thing that is wrong."""
        self.assertEqual(self.said(self.hints.unnamed, PROXY, PROXY, "10.0.0.2", PROXY), 2)
        self.assertEqual(self.said(self.hints.unbelieved, PROXY, PROXY), 1)

    def test_bounded(self) -> None:
        """Strangers cannot fill the log."""
        hosts = [f"198.51.100.{number}" for number in range(100)]
        self.assertEqual(self.said(self.hints.unbelieved, *hosts), MAX_SAID)
        self.assertEqual(self.said(self.hints.unnamed, PROXY), 0)

    def test_unix(self) -> None:
        """A socket without a name is called what it is."""
        with capturedLogs() as logs:
            self.hints.unnamed(UNIXAddress(None))
        self.assertTrue((formatEvent(logs[0]) or "").startswith("a unix socket is in"))
