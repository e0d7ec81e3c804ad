"""What the certificates of a relay are to the rest of it, wherever they come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import MultiService
from twisted.web.resource import IResource

from derp.config import Config
from derp.core.relay import Relay
from derp.net.certificate_status import CertificateStatus
from derp.net.certificate_watchdog import CertificateWatchdog
from derp.net.certificates import CertificateChooser


class CertificateService(MultiService):
    """
    The certificates of a relay; its subclasses know where they come from.

    :ivar chooser: what the TLS port asks.
    :ivar challenges: what the plain port answers authorities with, if anything.
    """

    chooser: CertificateChooser
    challenges: IResource | None = None

    def __init__(
        self,
        config: Config,
        reactor: Any,
        wall_time: Callable[[], float],
        relay: Relay,
        look_s: float,
    ) -> None:
        super().__init__()
        self.config = config
        self.clock = reactor
        self.wall_time = wall_time
        self.watchdog = CertificateWatchdog(
            reactor, wall_time, self.statuses, relay.health, self.tick, look_s=look_s
        )
        self.watchdog.setServiceParent(self)

    def statuses(self) -> list[CertificateStatus]:
        """What is served, or wanted."""
        return []

    def tick(self) -> None:
        """Renew what is due."""

    def pin(self) -> str:
        """``CertName`` that clients need to know; empty if they check the name."""
        return ""

    def describe(self) -> str:
        """One line for the start block."""
        return "; ".join(each.describe() for each in self.statuses())
