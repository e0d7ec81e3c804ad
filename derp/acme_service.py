"""
Certificates of ``--certmode letsencrypt`` and ``gcp``.

txacme is imported here, when it is needed: should a release of it or of Twisted break that
import, the relay says so and renews by its own watch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from twisted.logger import Logger

from derp.certificate_service import CertificateService
from derp.config import CertMode, Config
from derp.core.relay import Relay
from derp.net.acme_certificates import ACMECertificates
from derp.net.acme_challenges import HTTP01, TLSALPN01
from derp.net.acme_chooser import TAILSCALE, ACMEChooser, host_policy, normal_name
from derp.net.acme_client import (
    GOOGLE,
    LETSENCRYPT,
    ACMEClient,
    ExternalAccount,
    Profile,
)
from derp.net.acme_dns_hook import DNS01Hook, require_program
from derp.net.acme_http import SignedRequests
from derp.net.acme_order import Solver
from derp.net.acme_trust import AuthorityTrust, acme_agent
from derp.net.cert_files import parse_ip
from derp.net.certificate_cache import AddressFiles, CertificateStore, HostFiles
from derp.net.certificate_status import CertificateStatus
from derp.net.reload import ReloadableFile
from derp.wire.eab_key import parse_eab_key
from derp.wire.jose import AccountKey

HOST_LIMIT_S: Final = 300.0
"""How long an attempt for a name may take (autocert); for an address below (ipcert.go)."""
ADDRESS_LIMIT_S: Final = 180.0
IP_PROFILE: Final = Profile("shortlived")
"""The only profile Let's Encrypt issues for addresses."""

log = Logger(namespace="derp")


class ACMEService(CertificateService):
    """Certificates for a name, for addresses, or for both."""

    def __init__(
        self,
        config: Config,
        reactor: Any,
        wall_time: Callable[[], float],
        relay: Relay,
        look_s: float,
        luck: Callable[[], float],
    ) -> None:
        super().__init__(config, reactor, wall_time, relay, look_s)
        self.watchdog.when_clock_was_set = self.forgive
        self._server_public = relay.public
        self._luck = luck
        self._trust = AuthorityTrust(config.acme_ca_file)
        self._agent = acme_agent(reactor, self._trust)
        self._tls_alpn = TLSALPN01(wall_time)
        self._http = HTTP01(lambda host: self.chooser.allows_host(host))
        self.challenges = self._http
        self.hosts: ACMECertificates | None = None
        self.addresses: ACMECertificates | None = None
        if parse_ip(config.hostname) is None:
            self.hosts = self._make_hosts()
        if config.acme_ip_certs:
            self.addresses = self._make_addresses()
        self.chooser: ACMEChooser = ACMEChooser(
            self._tls_alpn,
            hosts=self.hosts,
            policy=host_policy(config.hostname),
            addresses=self.addresses,
            public=config.acme_ip_address,
            private=bool(config.acme_directory),
        )

    def startService(self) -> None:
        """Begin to renew; get the certificates of configured addresses."""
        self._complain_of_directory()
        super().startService()
        for each in self._all():
            each.start()
        if self.addresses is not None:
            self.addresses.want(self.config.acme_ip_address)

    def stopService(self) -> Any:
        """End whatever is under way; nothing is waited for."""
        for each in self._all():
            each.stop()
        return super().stopService()

    def statuses(self) -> list[CertificateStatus]:
        return [status for each in self._all() for status in each.statuses.values()]

    def tick(self) -> None:
        for each in self._all():
            each.tick()
        if self.addresses is not None:
            self.addresses.want(self.config.acme_ip_address)

    def describe(self) -> str:
        directory = self._directory().split("/")[2]
        wanted = super().describe() or "certificates for addresses, each on its first use"
        return f"ACME at {directory}: {wanted}"

    def ca_file(self) -> ReloadableFile:
        """``--acme-ca-file``, as something that is read again; then what failed is tried again."""

        def load() -> None:
            self._trust.load()
            self.retry()

        paths = (self.config.acme_ca_file,)
        return ReloadableFile(name="acme_ca", flag="--acme-ca-file", paths=paths, load=load)

    def retry(self) -> None:
        """The operator has mended something; nobody waits for the end of a pause."""
        self.forgive()
        self.tick()

    def forgive(self) -> None:
        """Let the next attempts be made at once."""
        for each in self._all():
            each.forgive()

    def _all(self) -> list[ACMECertificates]:
        return [each for each in (self.hosts, self.addresses) if each is not None]

    def _make_hosts(self) -> ACMECertificates:
        config = self.config
        solvers: list[Solver] = [self._tls_alpn]
        if config.http_port >= 0:
            solvers.append(self._http)
        if config.acme_dns_hook:
            require_program(config.acme_dns_hook)
            solvers = [DNS01Hook(self.clock, config.acme_dns_hook)]
        hosts = self._make(HostFiles(Path(config.certdir)), solvers, HOST_LIMIT_S)
        hosts.load([normal_name(config.hostname)])
        hosts.rotation = txacme_rotation(self.clock, self.wall_time, hosts, self._luck)
        return hosts

    def _make_addresses(self) -> ACMECertificates:
        config = self.config
        solvers: list[Solver] = [self._tls_alpn]
        if config.http_port >= 0:
            solvers.insert(0, self._http)
        files = AddressFiles(Path(config.certdir))
        addresses = self._make(files, solvers, ADDRESS_LIMIT_S, IP_PROFILE)
        addresses.load(config.acme_ip_address)
        return addresses

    def _make(
        self,
        files: CertificateStore,
        solvers: list[Solver],
        limit_s: float,
        profile: Profile | None = None,
    ) -> ACMECertificates:
        if self.config.acme_profile:
            profile = Profile(self.config.acme_profile, "--acme-profile")
        made = ACMECertificates(
            self.clock,
            self.wall_time,
            files,
            self._make_client,
            self._server_public,
            solvers=solvers,
            limit_s=limit_s,
            luck=self._luck,
            profile=profile,
        )
        made.changed = self.watchdog.check
        return made

    def _make_client(self, key: AccountKey) -> ACMEClient:
        config = self.config
        email = config.acme_email
        if not email and normal_name(config.hostname) == TAILSCALE:
            email = "security@tailscale.com"
        external = None
        if config.acme_eab_key:
            external = ExternalAccount(config.acme_eab_kid, parse_eab_key(config.acme_eab_key))
        requests = SignedRequests(self._agent, self.clock, self.wall_time)
        return ACMEClient(
            requests, self.clock, self._directory(), key, email=email, external=external
        )

    def _directory(self) -> str:
        default = GOOGLE if self.config.certmode is CertMode.GCP else LETSENCRYPT
        return self.config.acme_directory or default

    def _complain_of_directory(self) -> None:
        path = Path(self.config.certdir)
        while not path.exists() and path != path.parent:
            path = path.parent
        if not os.access(path, os.W_OK | os.X_OK):
            log.error(
                "--certdir {certdir}: the relay may not write there. Without the key of an ACME "
                "account in it no certificate can be got; with one, each is lost at the relay's "
                "end: make it writable for the user the relay runs as",
                certdir=self.config.certdir,
            )


def txacme_rotation(
    clock: Any, wall_time: Callable[[], float], hosts: ACMECertificates, luck: Callable[[], float]
) -> Any:
    """Make the loop that renews, or ``None`` with a loud word if txacme cannot be used."""
    try:
        from derp.net.acme_rotation import TxacmeRotation

        return TxacmeRotation(clock, wall_time, hosts, luck)
    except Exception:
        log.failure(
            "txacme cannot be used; certificates are renewed without it. "
            "Install the versions this release was tested with"
        )
        return None
