"""``/derp``: which request becomes what. (The take-over itself: ``test_upgrade``.)"""

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from derp.config import Config
from derp.net.derp_resource import upgrade_head
from derp.net.web import build_main_site
from tests.net.sites import SERVER_KEY, FakeRelay, Visit, get, site_parts
from tests.vectors import load


class DERPResourceTests(SynchronousTestCase):
    """Choices by header."""

    def setUp(self) -> None:
        self.relay = FakeRelay()
        self.site = build_main_site(site_parts(Clock(), Config(tls=False), relay=self.relay))
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def logged(self) -> list[str]:
        own = [event for event in self.events if "DERPResource" in event.get("log_namespace", "")]
        return [event["log_format"].format(**event) for event in own]

    def test_recorded_head(self) -> None:
        """The 101 is the recorded one."""
        steps = load("transcripts/login-upgrade.json")["steps"]
        recorded = next(s for s in steps if s["unit"] == "http" and s["dir"] == "s2c")
        self.assertEqual(upgrade_head(SERVER_KEY).hex(), recorded["hex"])

    def test_weird_upgrade(self) -> None:
        """An upgrade to something else is refused and logged, in bounded length."""
        for value in ("h2c", "derp, websocket", "derpy", "x" * 5000):
            answer = Visit(self.site).send(get("/derp", f"Upgrade: {value}"))
            self.assertIn(b"426 Upgrade Required", answer)
        lines = self.logged()
        self.assertEqual(len(lines), 4)
        self.assertIn("h2c", lines[0])
        self.assertLess(len(lines[3]), 100)
        self.assertEqual(self.relay.connections, [])

    def test_no_upgrade(self) -> None:
        """Without one there is nothing to log."""
        self.assertIn(b"426 Upgrade Required", Visit(self.site).send(get("/derp")))
        self.assertEqual(self.logged(), [])

    def test_bad_websocket_is_logged(self) -> None:
        """A WebSocket handshake that fails leaves a line."""
        request = get("/derp", "Upgrade: websocket", "Sec-WebSocket-Protocol: derp")
        self.assertIn(b"426 Upgrade Required", Visit(self.site).send(request))
        (line,) = self.logged()
        self.assertIn("Connection header", line)

    def test_first_upgrade_header_decides(self) -> None:
        """Of two Upgrade lines the first is read."""
        Visit(self.site).send(get("/derp", "Upgrade: DERP", "Upgrade: h2c"))
        self.assertEqual(len(self.relay.connections), 1)

    def test_empty_options(self) -> None:
        """Empty headers are as good as none."""
        Visit(self.site).send(get("/derp", "Upgrade: DERP", "Ideal-Node:", "Derp-Fast-Start:"))
        (connection,) = self.relay.connections
        self.assertEqual(connection.head, upgrade_head(SERVER_KEY))
        self.assertFalse(connection.options["not_ideal"])
