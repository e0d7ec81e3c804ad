"""A relay under examination: real sockets and TLS, in this process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread

from derp.config import Config
from derp.doctor.doors import Doors
from derp.doctor.finding import Finding
from derp.doctor.quick import check
from derp.services import RelayService
from tests.certificate_files import issue
from tests.integration.relay_case import HOST, RelayTestCase

NAME = "relay.test"
"""What certificates of the tests are made for."""


class DoctorTestCase(RelayTestCase):
    """Starts what a test asks for, and examines it."""

    def certdir(self, config: Config, **issued: Any) -> None:
        """Put a self-signed certificate for :data:`NAME` where the relay looks for it."""
        place = Path(config.certdir)
        place.mkdir(parents=True, exist_ok=True)
        certificate = issue([NAME], **issued)
        (place / f"{NAME}.crt").write_bytes(certificate.pem)
        key = place / f"{NAME}.key"
        key.write_bytes(certificate.key_pem())
        key.chmod(0o600)

    def doors(self, service: RelayService, **fields: Any) -> Doors:
        """Where a relay in this process is."""
        config = service.config
        known: dict[str, Any] = {
            "hostname": config.hostname,
            "host": HOST,
            "port": self.port_of(service),
            "tls": config.tls,
            "stun": (HOST, self.port_of(service, "--stun-port")) if service.stun else None,
        }
        return Doors(**(known | fields))

    async def health(self, doors: Doors, now: float | None = None, timeout: float = 3.0) -> Finding:
        """
        Check it from a thread, while the relay goes on here.

        :param now: what time it is, for certificates of :meth:`certdir`.
        """
        clock = time.time if now is None else lambda: now
        finding: Finding = await deferToThread(check, doors, timeout, clock)
        return finding
