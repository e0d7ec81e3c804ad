"""
Has a certificate been revoked? As its issuer's list (CRL) says.

The list comes from the first distribution point the certificate names, over HTTP, and counts
only if the issuer signed it. The issuer is the certificate in the presented chain whose subject
key is the one that the revoked or unrevoked one names as its authority's.

=====================================  ===================================================
a certificate without a list           is fine, but for Let's Encrypt's since
                                       2025-05-07, unless they live for ten days at most
a list that cannot be got or read      is an error, and so is one that somebody else signed
=====================================  ===================================================

Source: Go ``prober/tls.go``; RFC 5280 section 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes
from cryptography.x509.oid import NameOID
from twisted.internet.defer import CancelledError

from derp.errors import ConfigError
from derp.net.bounded_http import BrokenAnswer, Head, NoAnswer, read_body
from derp.net.outgoing_http import OutgoingHTTP
from derp.prober.check import ProbeFailed
from derp.quoting import quoted

MAX_CRL: Final = 10 << 20
"""Bytes."""
SHORT_LIVED: Final = timedelta(days=10)
"""A certificate that lives no longer needs no list (CA/Browser Forum BR 4.9.7)."""
MAX_REDIRECTS: Final = 9
_REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))
_CRL_SINCE: Final = datetime(2025, 5, 7, tzinfo=UTC)
"""From here on all of Let's Encrypt's name a list."""
_LETS_ENCRYPT: Final = "Let's Encrypt"


def lifetime(cert: x509.Certificate) -> timedelta:
    """How long a certificate is valid in all."""
    return cert.not_valid_after_utc - cert.not_valid_before_utc


def key_ids(cert: x509.Certificate) -> tuple[bytes, bytes]:
    """Give subject and authority key identifier; each empty if there is none."""
    own = authority = b""
    try:
        subject = cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        own = subject.value.digest
    except (x509.ExtensionNotFound, ValueError):
        pass
    try:
        issuer = cert.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        authority = issuer.value.key_identifier or b""
    except (x509.ExtensionNotFound, ValueError):
        pass
    return own, authority


def crl_url(cert: x509.Certificate) -> str:
    """Where the list of a certificate is; empty if it names none."""
    try:
        points = cert.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except (x509.ExtensionNotFound, ValueError):
        return ""
    names = (name for point in points for name in point.full_name or ())
    return next((n.value for n in names if isinstance(n, x509.UniformResourceIdentifier)), "")


async def check_revocation(
    reactor: Any,
    leaf: x509.Certificate,
    chain: Sequence[x509.Certificate],
    environ: Mapping[str, str],
) -> str:
    """
    Look whether a certificate has been revoked.

    :param chain: what was presented with it, itself included or not.
    :param environ: names the proxy to use, if there is one.
    :return: what is known, in words.
    :raises ProbeFailed: if it has been, or if that cannot be known and ought to be.
        Cancelling gives up.
    """
    url = crl_url(leaf)
    if not url:
        _need_no_crl(leaf)
        return "no revocation list"
    issuer = _issuer_in(leaf, chain)
    data = await fetch_crl(reactor, url, environ)
    look_up(leaf, issuer, data, url)
    return "not revoked"


def look_up(leaf: x509.Certificate, issuer: x509.Certificate, data: bytes, url: str) -> None:
    """
    Look a certificate up in a list.

    :param data: the list in DER or PEM.
    :raises ProbeFailed: if it is in there, or if the list is none of this issuer's.
    """
    what = f"revocation list {quoted(url)}"
    try:
        pem = data.startswith(b"-----BEGIN")
        crl = (x509.load_pem_x509_crl if pem else x509.load_der_x509_crl)(data)
        genuine = crl.is_signature_valid(_issuer_key(issuer))
        found = crl.get_revoked_certificate_by_serial_number(leaf.serial_number)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ProbeFailed(f"{what} cannot be read: {error}") from error
    if not genuine:
        raise ProbeFailed(
            f"{what} is not signed by {issuer.subject.rfc4514_string()}, the certificate's issuer"
        )
    if found is not None:
        raise ProbeFailed(
            f"the certificate with serial number {leaf.serial_number:x} was revoked at"
            f" {found.revocation_date_utc:%Y-%m-%d %H:%M} UTC, as {what} says: get a new one"
        )


async def fetch_crl(reactor: Any, url: str, environ: Mapping[str, str]) -> bytes:
    """
    Get a list, of at most 10 MiB.

    :raises ProbeFailed: if it cannot be got.
    """
    what = f"revocation list {quoted(url)}"
    http = None
    try:
        http = OutgoingHTTP(reactor, environ)
        head = await _get(http, url)
        if head.status != 200:
            await head.drop()
            raise ProbeFailed(f"{what}: the server answers {head.status_line}, not 200")
        data = await read_body(head, MAX_CRL + 1)
    except (NoAnswer, BrokenAnswer, ConfigError, ValueError) as error:
        raise ProbeFailed(f"{what} cannot be got: {error}") from error
    except CancelledError:
        raise ProbeFailed(
            f"{what} did not come in time: is its server reachable from here?"
        ) from None
    finally:
        if http is not None:
            await http.close()
    if len(data) > MAX_CRL:
        raise ProbeFailed(f"{what} is longer than {MAX_CRL >> 20} MiB, and was not read")
    return data


async def _get(http: OutgoingHTTP, url: str) -> Head:
    for _ in range(MAX_REDIRECTS + 1):
        if urlsplit(url).scheme not in ("http", "https"):
            raise NoAnswer("lists are fetched from http:// URLs alone")
        head = await http.send("GET", url, {})
        if head.status not in _REDIRECTS or not head.location:
            return head
        await head.drop()
        url = urljoin(url, head.location)
    raise NoAnswer(f"stopped after {MAX_REDIRECTS + 1} redirects")


def _need_no_crl(leaf: x509.Certificate) -> None:
    organizations = leaf.issuer.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if (
        any(name.value == _LETS_ENCRYPT for name in organizations)
        and leaf.not_valid_before_utc >= _CRL_SINCE
        and lifetime(leaf) > SHORT_LIVED
    ):
        raise ProbeFailed(
            "the certificate names no revocation list, though Let's Encrypt puts one into all"
            f" since {_CRL_SINCE:%Y-%m-%d}: was it really issued by them?"
        )


def _issuer_in(leaf: x509.Certificate, chain: Sequence[x509.Certificate]) -> x509.Certificate:
    _, authority = key_ids(leaf)
    for cert in chain:
        if authority and key_ids(cert)[0] == authority:
            return cert
    raise ProbeFailed(
        f"the issuer of the certificate ({leaf.issuer.rfc4514_string()}) was not presented with"
        " it, so that its revocation list cannot be checked: serve the whole chain"
    )


def _issuer_key(issuer: x509.Certificate) -> CertificateIssuerPublicKeyTypes:
    key = issuer.public_key()
    # cryptography types this wider than what it takes; the others make it raise TypeError
    return key  # type: ignore[return-value]
