"""Certificates of ``--certmode manual``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from derp.certificate_service import CertificateService
from derp.config import Config
from derp.core.relay import Relay
from derp.net.cert_files import load_manual, parse_ip
from derp.net.certificate_status import CertificateStatus, moment
from derp.net.certificate_watch import ManualFiles
from derp.net.certificate_watchdog import expiry_note
from derp.net.certificates import ManualCertificates
from derp.net.first_files import FirstFiles
from derp.net.reload import Reloader

log = Logger(namespace="derp")


class ManualService(CertificateService):
    """Two files, swapped when they change."""

    def __init__(
        self,
        config: Config,
        reactor: Any,
        wall_time: Callable[[], float],
        relay: Relay,
        reloader: Reloader,
        first_files: FirstFiles,
        look_s: float,
    ) -> None:
        super().__init__(config, reactor, wall_time, relay, look_s)
        now = wall_time()
        chain = load_manual(config.certdir, config.hostname, now, first_files)
        self.chooser = self._certificates = ManualCertificates(
            config.hostname, chain, relay.public, now
        )
        self._files = ManualFiles(
            wall_time,
            self._certificates,
            config.certdir,
            config.hostname,
            changed=self.watchdog.check,
        )
        self._files.complain(chain)
        if self._certificates.served.not_after <= now:
            log.critical(
                "THE CERTIFICATE FOR {name} HAS EXPIRED on {end}: clients refuse it. {note}",
                name=config.hostname,
                end=moment(self._certificates.served.not_after),
                note=expiry_note(self._files.status, now),
            )
        first_files.add(reloader.add(self._files.file()).written)

    def startService(self) -> None:
        """Watch the files; say how a map names an address, in one line, as derper does."""
        super().startService()
        line = self._certificates.node_line()
        if line is not None:
            log.info("clients know this relay by its pin; as a DERPNode: {line}", line=line)

    def statuses(self) -> list[CertificateStatus]:
        return [self._files.status]

    def pin(self) -> str:
        by_pin = parse_ip(self.config.hostname) is not None
        return self._certificates.pin() if by_pin else ""

    def describe(self) -> str:
        end = self._certificates.served.not_after
        text = f"manual certificate for {self.config.hostname}, valid until {moment(end)}"
        return f"{text}, pinned by CertName" if self.pin() else text
