"""
Whom we trust as a certificate authority's server.

Trusted roots are those of the system (``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` are honoured by
OpenSSL itself), and with ``--acme-ca-file`` those of that file in their stead.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool
from twisted.web.iweb import IAgent

from derp.errors import ConfigError
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


class _QuietPool(HTTPConnectionPool):
    """Keeps Twisted from logging two lines for each of the dozen requests of an order."""

    def __init__(self, reactor: Any, persistent: bool) -> None:
        super().__init__(reactor, persistent)
        quiet: Any = type("_QuietFactory", (HTTPConnectionPool._factory,), {"noisy": False})
        self._factory = quiet


def acme_agent(reactor: Any, ca_file: str = "") -> IAgent:
    """
    Make what dials authorities; no connection outlives its request.

    :raises ConfigError: if ``ca_file`` cannot be used.
    """
    policy = BrowserLikePolicyForHTTPS()
    if ca_file:
        policy = BrowserLikePolicyForHTTPS(trustRootFromCertificates(read_roots(ca_file)))
    pool = _QuietPool(reactor, persistent=False)
    return Agent(reactor, contextFactory=policy, connectTimeout=CONNECT_S, pool=pool)
