"""
The certificate of ``--certmode manual`` and its files, which may be replaced at any time.

:mod:`derp.net.reload` says when they are read again; here they are checked as at the start and
only then served, to connections from then on. What cannot be served leaves the old certificate
in place. Missing files are not made here, not even for an IP: whoever is pinned to the old
certificate would be cut off.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from derp.errors import ConfigError
from derp.net.cert_files import KeyedChain, complaints, manual_paths, parse_ip, read_manual
from derp.net.certificate_status import CertificateStatus
from derp.net.certificates import ManualCertificates
from derp.net.reload import ReloadableFile

log = Logger()


class ManualFiles:
    """
    Swaps the certificate when its files change.

    :param wall_time: Unix seconds.
    :param certificates: serves what the files held at the start.
    :param changed: called after each attempt.
    """

    def __init__(
        self,
        wall_time: Callable[[], float],
        certificates: ManualCertificates,
        certdir: str,
        hostname: str,
        *,
        changed: Callable[[], None],
    ) -> None:
        self._wall_time = wall_time
        self._certificates = certificates
        self._certdir = certdir
        self._hostname = hostname
        self._changed = changed
        self.status = CertificateStatus(hostname, "manual")
        self._describe()

    def file(self) -> ReloadableFile:
        """The two files, as something that is read again."""
        paths = tuple(map(str, manual_paths(self._certdir, self._hostname)))
        return ReloadableFile(name="certificate", flag="--certdir", paths=paths, load=self.load)

    def load(self) -> None:
        """
        Load the files, check them, serve what they hold.

        :raises ConfigError: if that cannot be served; nothing has changed then.
        """
        now = self._wall_time()
        try:
            chain = read_manual(self._certdir, self._hostname)
            self._certificates.replace(chain, now)
        except ConfigError as error:
            self.status.failed(now, str(error))
            self._changed()
            raise
        self.status.succeeded(now)
        self._describe()
        self.complain(chain)
        self._changed()

    def complain(self, chain: KeyedChain) -> None:
        """Log what will keep clients away."""
        for complaint in complaints(chain, self._hostname, self._wall_time()):
            log.warn("--hostname {host}: {complaint}", host=self._hostname, complaint=complaint)

    def _describe(self) -> None:
        served = self._certificates.served
        # Only what we made ourselves, or could have: one for a name is renewed by whoever made it.
        ours = served.self_signed and parse_ip(self._hostname) is not None
        self.status.source = "self-signed" if ours else "manual"
        self.status.not_before, self.status.not_after = served.not_before, served.not_after
