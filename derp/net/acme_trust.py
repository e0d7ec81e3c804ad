"""
Whom we trust as a certificate authority's server.

Trusted roots are those of the system (``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` are honoured by
OpenSSL itself), and with ``--acme-ca-file`` those of that file in their stead, read again when it
changes.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS
from twisted.web.iweb import IAgent, IPolicyForHTTPS
from zope.interface import implementer

from derp.errors import ConfigError
from derp.net.bounded_http import QuietPool
from derp.quoting import quoted

CONNECT_S: Final = 15.0
_MAX_FILE_LEN: Final = 1 << 20
_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"


def read_roots(path: str) -> list[Certificate]:
    """
    Read the certificates of ``--acme-ca-file``.

    :raises ConfigError: if there is none in it.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_FILE_LEN)
    except OSError as error:
        raise ConfigError(
            f"--acme-ca-file: {quoted(path)}: cannot read it ({error.strerror}); "
            "name a PEM file with the root certificate of the authority's server"
        ) from None
    try:
        roots = [Certificate.loadPEM(_BEGIN + part) for part in content.split(_BEGIN)[1:]]
    except Exception:
        roots = []
    if not roots:
        raise ConfigError(
            f"--acme-ca-file: {quoted(path)}: no PEM certificate can be read from it; "
            "put the root certificate of the authority's server there"
        )
    return roots


@implementer(IPolicyForHTTPS)
class AuthorityTrust:
    """
    The roots of the moment: those of a file, or the system's.

    :raises ConfigError: if the file cannot be used.
    """

    def __init__(self, ca_file: str = "") -> None:
        self._ca_file = ca_file
        self._policy = BrowserLikePolicyForHTTPS()
        self.load()

    def load(self) -> None:
        """
        Read the file, for connections from then on.

        :raises ConfigError: if it cannot be used; what it held before stays in use.
        """
        if self._ca_file:
            roots = trustRootFromCertificates(read_roots(self._ca_file))
            self._policy = BrowserLikePolicyForHTTPS(roots)

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        """See ``IPolicyForHTTPS``."""
        return self._policy.creatorForNetloc(hostname, port)


def acme_agent(reactor: Any, trust: AuthorityTrust) -> IAgent:
    """Make what dials authorities; no connection outlives its request."""
    pool = QuietPool(reactor, persistent=False)
    return Agent(reactor, contextFactory=trust, connectTimeout=CONNECT_S, pool=pool)
