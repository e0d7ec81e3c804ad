"""
Answers to an authority's challenges on our own ports.

=============  =======================================================  ==================
challenge      where the authority looks                                source
=============  =======================================================  ==================
http-01        ``http://<name>/.well-known/acme-challenge/<token>``     RFC 8555 section 8.3
tls-alpn-01    TLS on port 443 with ALPN ``acme-tls/1``: a certificate  RFC 8737
               with the proof in an extension; for an address the name  (RFC 8738)
               asked for is the reverse one, ``7.113.0.203.in-addr.arpa``
=============  =======================================================  ==================
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from twisted.web.resource import Resource

from derp.net.acme_order import leaf_key_pem, new_leaf_key
from derp.net.answers import first_header, plain_error
from derp.net.cert_files import parse_ip
from derp.net.tls_contexts import server_context
from derp.wire.jose import tls_alpn_digest

if TYPE_CHECKING:
    from derp.net.web_request import WebRequest

ACME_TLS_1: Final = "acme-tls/1"
_ACME_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_OCTET_STRING_32: Final = b"\x04\x20"
_VALID_FOR: Final = timedelta(days=1)


class HTTP01(Resource):
    """
    Answers http-01 on the plain port.

    :param allows: whether a Host is one we get certificates for; others are told nothing.
    """

    isLeaf = True
    challenge_type = "http-01"

    def __init__(self, allows: Callable[[str], bool]) -> None:
        super().__init__()
        self._allows = allows
        self._proofs: dict[bytes, bytes] = {}

    def present(self, name: str, token: str, key_authorization: str) -> None:
        """See :class:`derp.net.acme_order.Solver`."""
        self._proofs[token.encode("ascii")] = key_authorization.encode("ascii")

    def withdraw(self, name: str, token: str, key_authorization: str) -> None:
        """See :class:`derp.net.acme_order.Solver`."""
        self._proofs.pop(token.encode("ascii"), None)

    def render(self, request: WebRequest) -> bytes:
        """Show the proof; the token is ``request.postpath[0]``."""
        host = first_header(request, b"Host").decode("ascii", "replace")
        if not self._allows(host_without_port(host)):
            return plain_error(request, 403, "no certificate is got for this host")
        assert request.postpath is not None
        proof = self._proofs.get(request.postpath[0])
        if proof is None:
            return plain_error(request, 404, "404 page not found")
        request.setHeader(b"Content-Type", b"text/plain")
        return proof


class TLSALPN01:
    """
    Answers tls-alpn-01 on the TLS port.

    :param wall_time: Unix seconds, for the validity of the certificates it makes.
    """

    challenge_type = "tls-alpn-01"

    def __init__(self, wall_time: Callable[[], float]) -> None:
        self._wall_time = wall_time
        self._contexts: dict[str, ssl.SSLContext] = {}

    def present(self, name: str, token: str, key_authorization: str) -> None:
        """See :class:`derp.net.acme_order.Solver`."""
        self._contexts[asked_name(name)] = challenge_context(
            name, tls_alpn_digest(key_authorization), self._wall_time()
        )

    def withdraw(self, name: str, token: str, key_authorization: str) -> None:
        """See :class:`derp.net.acme_order.Solver`."""
        self._contexts.pop(asked_name(name), None)

    def context_for(self, server_name: str | None) -> ssl.SSLContext | None:
        """What an authority gets that offers ``acme-tls/1``; ``None`` if nothing is asked."""
        return self._contexts.get((server_name or "").lower())


def asked_name(name: str) -> str:
    """The SNI under which an authority asks for a name or address."""
    address = parse_ip(name)
    return name if address is None else address.reverse_pointer


def host_without_port(host: str) -> str:
    """Reduce a Host header to what can be compared: lower case, no port, no brackets."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, colon, port = host.rpartition(":")
    host = name if colon and port.isdigit() and ":" not in name else host
    return host.removesuffix(".")


def challenge_context(name: str, digest: bytes, now: float) -> ssl.SSLContext:
    """Make a context that serves the self-signed certificate of RFC 8737 section 3."""
    key = new_leaf_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ACME challenge")])
    address = parse_ip(name)
    entry = x509.DNSName(name) if address is None else x509.IPAddress(address)
    moment = datetime.fromtimestamp(int(now), UTC)
    certificate = (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .subject_name(subject)
        .issuer_name(subject)
        .not_valid_before(moment - _VALID_FOR)
        .not_valid_after(moment + _VALID_FOR)
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName([entry]), critical=False)
        .add_extension(
            x509.UnrecognizedExtension(_ACME_IDENTIFIER, _OCTET_STRING_32 + digest), critical=True
        )
        .sign(key, SHA256())
    )
    pem = certificate.public_bytes(Encoding.PEM)
    return server_context(pem, leaf_key_pem(key), b"", alpn=(ACME_TLS_1,))
