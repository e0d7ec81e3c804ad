"""A site whose connections are taken over, on strings."""

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import NOT_DONE_YET

from derp.config import Config
from derp.net.derp_resource import upgrade_head
from derp.net.web import build_main_site
from tests.net.sites import (
    SERVER_KEY,
    AbortableTransport,
    FakeConnection,
    FakeRelay,
    TextPage,
    Visit,
    get,
    site_parts,
)

HEAD = upgrade_head(SERVER_KEY)
UPGRADE = get("/derp", "Connection: Upgrade", "Upgrade: DERP")
FAST = get("/derp", "Upgrade: DERP", "Derp-Fast-Start: 1")
CLIENT_INFO = b"\x02\x00\x00\x00\x04info"


class SwappingTransport(AbortableTransport):
    """Has ``setProtocol``, as our own transport."""

    swapped: Any = None
    tls_version: str | None = "1.3"

    def setProtocol(self, protocol: Any) -> None:
        self.swapped = protocol


class LaterPage(TextPage):
    """Answers when told to, in chunks."""

    def render(self, request: Any) -> Any:
        self.request = request
        request.write(b"first ")
        return NOT_DONE_YET


class UpgradeTestCase(SynchronousTestCase):
    """A site with a fake relay, on strings."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.relay = FakeRelay()
        self.later = LaterPage(b"")
        self.parts = site_parts(
            self.clock,
            Config(tls=False),
            relay=self.relay,
            debug_pages={"/debug/later": self.later, "/debug/long": TextPage(b"x" * 100_000)},
        )
        self.site = build_main_site(self.parts)

    def visit(self, transport: Any = None) -> Visit:
        return Visit(self.site, transport, self.clock)

    @property
    def connection(self) -> FakeConnection:
        (connection,) = self.relay.connections
        return connection
