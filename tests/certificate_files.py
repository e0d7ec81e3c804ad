"""Certificates and keys for tests: any key type, any names, any dates, with or without a CA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC).timestamp()
"""Unix time of the tests."""

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True)
class Issued:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: Key

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(
        self,
        form: PrivateFormat = PrivateFormat.PKCS8,
        encryption: KeySerializationEncryption | None = None,
    ) -> bytes:
        """Its key; ``TraditionalOpenSSL`` is PKCS#1 for RSA and SEC1 for EC."""
        return self.key.private_bytes(Encoding.PEM, form, encryption or NoEncryption())


def issue(
    names: Sequence[str] | None,
    *,
    common_name: str = "test",
    key: Key | None = None,
    issuer: Issued | None = None,
    begins: timedelta = timedelta(hours=-1),
    ends: timedelta = timedelta(days=90),
) -> Issued:
    """
    Issue a certificate; dates are relative to :data:`NOW`.

    :param names: DNS names and IP addresses; ``None`` leaves the extension out.
    :param issuer: who signs; the certificate itself if missing.
    """
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.fromtimestamp(NOW, UTC)
    builder = (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .public_key(key.public_key())
    )
    if names is not None:
        entries = [general_name(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(entries), critical=False)
    signer = issuer.key if issuer else key
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else SHA256()
    return Issued(builder.sign(signer, algorithm), key)


def general_name(name: str) -> x509.GeneralName:
    """Make the entry a name of this form belongs in."""
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
