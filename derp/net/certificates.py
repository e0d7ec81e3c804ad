"""
Which certificate a connection gets, or which alert.

The transport reads the ClientHello, asks a :class:`CertificateChooser`, and starts TLS with the
context it is handed. ``--certmode manual`` is :class:`ManualCertificates`; modes that obtain
certificates while a client waits answer with a Deferred.

===================  ==============================  =====================================
client asks for      answer                          the reference
===================  ==============================  =====================================
only other ALPN      no_application_protocol (120)   the same, but agrees to ``h2`` alone
another SNI          unrecognized_name (112)         internal_error (80)
===================  ==============================  =====================================

Both deviations are ours on purpose: HTTP/2 has no upgrade, so nothing could follow; and an
alert should say what is wrong.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Protocol

from twisted.internet.defer import Deferred

from derp.errors import ConfigError, DERPError
from derp.net.cert_files import KeyedChain, parse_ip
from derp.net.tls_contexts import HTTP_1_1, server_context
from derp.wire.client_hello import ClientHello
from derp.wire.metacert import build_metacert
from derp.wire.node_json import format_node_line, pin_of

UNRECOGNIZED_NAME: Final = 112  # RFC 6066 section 3
NO_APPLICATION_PROTOCOL: Final = 120  # RFC 7301 section 3.2


class HandshakeRefused(DERPError):
    """No certificate for this client: send a fatal alert and close."""

    def __init__(self, alert: int, reason: str) -> None:
        """
        :param alert: AlertDescription of RFC 8446 section 6.
        :param reason: for the log.
        """
        super().__init__(reason)
        self.alert = alert
        self.reason = reason


class CertificateChooser(Protocol):
    """What the transport asks before each handshake."""

    def pick(self, hello: ClientHello, local_ip: str) -> ssl.SSLContext | Deferred[ssl.SSLContext]:
        """
        Choose for one connection.

        :param local_ip: the address the client connected to; IPv4-mapped ones as IPv4.
        :returns: a context now, or a Deferred of one; it fails with :exc:`HandshakeRefused`,
            too, and may be cancelled when the client has gone.
        :raises HandshakeRefused: if there is nothing to serve to this client.
        """


@dataclass(frozen=True, slots=True)
class ServedCertificate:
    """One certificate, ready to be served; instances are replaced, never changed."""

    context: ssl.SSLContext
    leaf_der: bytes = field(repr=False)
    not_before: float
    """Unix seconds; ``not_after`` likewise."""
    not_after: float
    self_signed: bool = False
    """Whether clients can only know it by its pin."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the leaf in lower-case hex."""
        return sha256(self.leaf_der).hexdigest()


def serve(
    chain: KeyedChain,
    server_public: bytes,
    now: float,
    *,
    alpn: Sequence[str] = (HTTP_1_1,),
    num_tickets: int = 0,
    rsa: KeyedChain | None = None,
) -> ServedCertificate:
    """
    Make a certificate ready, with a fresh meta certificate behind it.

    :param server_public: the relay's own key, told by the meta certificate.
    :param now: Unix time in seconds; the meta certificate is valid 30 days around it.
    :param rsa: another one with an RSA key, for clients that know no ECDSA.
    :raises ssl.SSLError: if OpenSSL does not take certificate or key.
    """
    metacert = build_metacert(server_public, now)
    return ServedCertificate(
        server_context(
            chain.chain_pem,
            chain.key_pem,
            metacert.pem,
            alpn=alpn,
            num_tickets=num_tickets,
            rsa_pem=rsa.key_pem + rsa.chain_pem if rsa else b"",
        ),
        chain.leaf_der,
        chain.leaf.not_valid_before_utc.timestamp(),
        chain.leaf.not_valid_after_utc.timestamp(),
        chain.leaf.issuer == chain.leaf.subject,
    )


def require_common_protocol(hello: ClientHello, served: Sequence[bytes]) -> None:
    """
    Refuse a client that offers ALPN but no protocol we serve; OpenSSL would not.

    :raises HandshakeRefused: with no_application_protocol.
    """
    if hello.alpn and not any(protocol in served for protocol in hello.alpn):
        offered = ", ".join(repr(protocol[:32])[1:] for protocol in hello.alpn[:4])
        raise HandshakeRefused(
            NO_APPLICATION_PROTOCOL, f"client offers only unsupported protocols: {offered}"
        )


class ManualCertificates:
    """
    The one certificate of ``--certmode manual``.

    If the hostname is a DNS name, the client must ask for exactly that name, case included (so
    a client that dials the bare IP is refused). If it is an IP address, any name or none will
    do: such clients know the certificate by its pin.
    """

    def __init__(
        self,
        hostname: str,
        chain: KeyedChain,
        server_public: bytes,
        now: float,
        *,
        num_tickets: int = 0,
    ) -> None:
        """
        :param chain: from :func:`derp.net.cert_files.load_manual`.
        :raises ConfigError: if OpenSSL does not take it.
        """
        self._hostname = hostname
        self._any_name = parse_ip(hostname) is not None
        self._server_public = server_public
        self._num_tickets = num_tickets
        self.replace(chain, now)

    def pick(self, hello: ClientHello, local_ip: str) -> ssl.SSLContext:
        """See :meth:`CertificateChooser.pick`."""
        require_common_protocol(hello, (b"http/1.1",))
        if not self._any_name and hello.server_name != self._hostname:
            asked = "no name" if hello.server_name is None else repr(hello.server_name)
            raise HandshakeRefused(
                UNRECOGNIZED_NAME, f"client asks for {asked}, not for {self._hostname!r}"
            )
        return self._served.context

    def replace(self, chain: KeyedChain, now: float) -> None:
        """
        Serve another certificate from the next connection on; the meta certificate is renewed.

        :raises ConfigError: if OpenSSL does not take it; the old one stays.
        """
        try:
            served = serve(chain, self._server_public, now, num_tickets=self._num_tickets)
        except ssl.SSLError as error:
            raise ConfigError(
                f"--hostname {self._hostname}: OpenSSL refuses the certificate or its key "
                f"({error.reason or error}); get one with a P-256 or RSA-2048 key"
            ) from None
        self._served = served

    @property
    def served(self) -> ServedCertificate:
        """The certificate new connections get: its dates and fingerprint."""
        return self._served

    def pin(self) -> str:
        """Return ``sha256-raw:<hex>``, the ``CertName`` of this certificate in a DERP map."""
        return pin_of(self._served.leaf_der)

    def node_line(self) -> str | None:
        """Return the DERPNode JSON derper logs for an IP hostname, ``None`` for a DNS name."""
        return format_node_line(self._hostname, self.pin()) if self._any_name else None
