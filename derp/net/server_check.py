"""
Is this the relay we meant? How a client checks a relay's TLS certificate.

=====================  ================================================================
``CertName``           what is checked
=====================  ================================================================
empty                  chain to a trusted root, valid now, made for the host name
a plain name           the same for that name, while SNI stays the host name
``sha256-raw:<hex>``   exactly this one certificate, valid now, made for the host name
=====================  ================================================================

Trusted roots are those of the system (``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` are honoured by
OpenSSL) and those of an extra file. A relay's meta certificate is no part of the check: it
proves nothing. Source: Go ``net/tlsdial``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final
from weakref import WeakMethod

from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import (
    verify_certificate_hostname,
    verify_certificate_ip_address,
)
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Protocol
from zope.interface import implementer

from derp.errors import ConfigError, DERPError
from derp.wire.metacert import is_metacert
from derp.wire.node_json import PIN_PREFIX, pin_of

_TLS_1_2: Final = SSL.TLS1_2_VERSION

# X509_V_ERR_*: what an operator can do something about, in words.
_SELF_SIGNED: Final = frozenset((18, 19))
_UNKNOWN_ISSUER: Final = frozenset((2, 20, 21, 27))
_VERIFY_ERRORS: Final = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed, and no trusted root",
    19: "its root is self-signed, and not trusted",
    20: "its issuer is not trusted, or an intermediate certificate is missing",
    21: "its issuer is not trusted, or an intermediate certificate is missing",
    26: "it is not made for TLS servers",
}
_HINTS: Final = {
    "unrecognized name": "the relay has no certificate for this name",
    "wrong version number": "this port does not speak TLS; a relay without TLS has an http:// URL",
    "packet length too long": "this port does not speak TLS",
    "protocol version": "the relay speaks no TLS version from 1.2 on",
}


class CertificateRefused(DERPError):
    """The relay showed a certificate we do not take for its own."""


def is_ip_literal(host: str) -> bool:
    """Whether this is an address, not a name: it is verified as such and never sent as SNI."""
    return isIPAddress(host) or isIPv6Address(host)


def peer_chain(connection: SSL.Connection) -> list[bytes]:
    """All certificates the server presented in DER, leaf first, meta certificate included."""
    chain = connection.get_peer_cert_chain() or []
    return [crypto.dump_certificate(crypto.FILETYPE_ASN1, cert) for cert in chain]


def explain_tls_error(error: SSL.Error) -> str:
    """Say what went wrong in a handshake, and what that usually means."""
    details = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reasons = [str(detail[2]) for detail in details] or [type(error).__name__]
    # OpenSSL 3.0 puts a general reason behind the telling one, later versions do not.
    telling = [
        (reason, hint) for reason in reasons for words, hint in _HINTS.items() if words in reason
    ]
    reason, hint = telling[-1] if telling else (reasons[-1], "")
    return f"TLS handshake failed: {reason}" + (f" ({hint})" if hint else "")


def check_pin(
    chain: Sequence[bytes], cert_name: str, server_name: str, wall_time: float
) -> x509.Certificate:
    """
    Check a ``sha256-raw:`` pin.

    Certificates whose common name starts with ``derpkey`` do not count. The digits of the pin
    must be lower case, as in the reference.

    :param chain: what the server presented, in DER.
    :param server_name: must stand in the certificate, unless empty.
    :param wall_time: Unix time in seconds.
    :raises CertificateRefused: saying what was expected, what came, and what to do.
    """
    certs = [der for der in chain if not is_metacert(der)]
    if len(certs) != 1:
        raise CertificateRefused(
            f"CertName pins one certificate, but the relay presented {len(certs)} (the meta"
            " certificate not counted): pin only a relay with a single self-signed certificate,"
            " or leave CertName empty"
        )
    presented = pin_of(certs[0])
    if presented != cert_name:
        raise CertificateRefused(
            f"CertName expects {cert_name}, the relay presented {presented}: if the relay got a"
            " new certificate, put this value into CertName"
        )
    leaf = _load(certs[0])
    now = datetime.fromtimestamp(wall_time, UTC)
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        raise CertificateRefused(f"the pinned certificate is {_validity(leaf)}: renew it")
    if server_name:
        check_name(leaf, server_name)
    return leaf


def check_name(leaf: x509.Certificate, name: str) -> None:
    """
    Check that a certificate was made for this host name or IP address.

    :raises CertificateRefused: if its subject alternative names do not hold it.
    """
    try:
        if is_ip_literal(name):
            verify_certificate_ip_address(leaf, name)
        else:
            verify_certificate_hostname(leaf, name)
    except (VerificationError, CertificateError, ValueError) as error:
        raise CertificateRefused(
            f"expected a certificate for {name}, the relay presented {_describe(leaf)}: correct"
            " the host name, or name the certificate in CertName"
        ) from error


@implementer(IOpenSSLClientConnectionCreator)
class ServerCheck:
    """
    The TLS client side of one connection, and its verdict on the server.

    :param server_name: host name or IP literal from the URL or DERP map.
    :param cert_name: ``CertName`` of the DERP map.
    :param ca_file: PEM file with more trusted roots.
    :param insecure: check nothing.
    :param wall_time: gives Unix time in seconds, for a pin's validity.
    """

    def __init__(
        self,
        server_name: str,
        *,
        cert_name: str = "",
        ca_file: str = "",
        insecure: bool = False,
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        self.problem: CertificateRefused | None = None
        """Why the chain was refused; OpenSSL itself reports only that it was."""
        self._server_name = server_name.removesuffix(".")
        self._pin = cert_name if cert_name.startswith(PIN_PREFIX) else ""
        self._name = (cert_name.removesuffix(".") if not self._pin else "") or self._server_name
        self._insecure = insecure
        self._wall_time = wall_time
        # Without such a file the context is made when it is needed, and not kept: roots are read
        # for connections alone that come to a handshake, and go with them.
        self._context = self._make_context(ca_file) if ca_file else None

    def clientConnectionForTLS(self, tlsProtocol: Protocol) -> SSL.Connection:
        """See ``IOpenSSLClientConnectionCreator``."""
        connection = SSL.Connection(self._context or self._make_context(), None)
        if self._server_name and not is_ip_literal(self._server_name):
            connection.set_tlsext_host_name(self._server_name.encode("idna"))
        return connection

    def check_handshake(self, chain: Sequence[bytes]) -> None:
        """
        Check what can only be seen after the handshake; nothing may be sent before.

        :param chain: :func:`peer_chain`.
        :raises CertificateRefused: if the pin does not fit.
        """
        if self._pin and not self._insecure:
            check_pin(chain, self._pin, self._server_name, self._wall_time())

    def _make_context(self, ca_file: str = "") -> SSL.Context:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(_TLS_1_2)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        if self._insecure or self._pin:
            context.set_verify(SSL.VERIFY_NONE)
            return context
        context.set_default_verify_paths()
        if ca_file:
            try:
                context.load_verify_locations(ca_file)
            except SSL.Error as error:
                raise ConfigError(
                    f"CA file {ca_file}: cannot be read, or holds no PEM certificate"
                ) from error
        # A context that pointed back to us would keep its roots (a megabyte) until the garbage
        # collector comes by.
        weakly = WeakMethod(self._verify)

        def verify(*asked: Any) -> bool:
            judge = weakly()
            return judge is not None and judge(*asked)

        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        return context

    def _verify(
        self, connection: SSL.Connection, cert: crypto.X509, code: int, depth: int, ok: int
    ) -> bool:
        """Judge one certificate; OpenSSL asks for each from the root down to the leaf."""
        try:
            if not ok:
                self._refuse(cert, code, depth)
            elif depth == 0:
                check_name(_load(crypto.dump_certificate(crypto.FILETYPE_ASN1, cert)), self._name)
        except CertificateRefused as problem:
            self.problem = self.problem or problem
        return self.problem is None

    def _refuse(self, cert: crypto.X509, code: int, depth: int) -> None:
        der = crypto.dump_certificate(crypto.FILETYPE_ASN1, cert)
        why = _VERIFY_ERRORS.get(code, f"OpenSSL refuses it (verify error {code})")
        what = "the relay's certificate" if depth == 0 else "a certificate in the relay's chain"
        if code in _SELF_SIGNED and depth == 0:
            cure = f"if it is yours, put {pin_of(der)} into CertName, or trust its CA"
        elif code in _SELF_SIGNED | _UNKNOWN_ISSUER:
            cure = "serve the whole chain, or add its root to the trusted ones (SSL_CERT_FILE)"
        else:
            cure = "renew it, and check this machine's clock"
        shown = _describe(_load(der))
        raise CertificateRefused(
            f"expected a trusted certificate for {self._name}; {what} is {shown}, and {why}: {cure}"
        )


def _load(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError as error:
        digest = sha256(der).hexdigest()
        raise CertificateRefused(f"the relay's certificate {digest} cannot be read") from error


def _describe(cert: x509.Certificate) -> str:
    """Names, issuer and validity of a certificate, however broken it is."""
    try:
        names = _names(cert) or f"no names ({cert.subject.rfc4514_string()})"
        issuer = cert.issuer.rfc4514_string()
    except ValueError:
        names, issuer = "unreadable names", "unknown"
    return f"for {names}, issued by {issuer}, {_validity(cert)}"


def _names(cert: x509.Certificate) -> str:
    try:
        san = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    names = [*san.get_values_for_type(x509.DNSName)]
    names += [str(ip) for ip in san.get_values_for_type(x509.IPAddress)]
    return ", ".join(names[:5])


def _validity(cert: x509.Certificate) -> str:
    start, end = cert.not_valid_before_utc, cert.not_valid_after_utc
    return f"valid from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
