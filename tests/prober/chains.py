"""Certificates as public CAs issue them, with key identifiers and revocation lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.certificate_files import general_name
from tests.net.relay_fakes import Credentials

DAY = timedelta(days=1)
NOW = datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True)
class CA:
    """An issuer: a root, or an intermediate that another one signed."""

    credentials: Credentials

    @property
    def der(self) -> bytes:
        return self.credentials.der

    @property
    def certificate(self) -> x509.Certificate:
        return self.credentials.certificate

    def leaf(
        self,
        names: Sequence[str] = ("127.0.0.1",),
        *,
        url: str = "",
        begins: timedelta = -30 * DAY,
        ends: timedelta = 60 * DAY,
        key_ids: bool = True,
    ) -> Credentials:
        """Issue a certificate for a server; its revocation list is at ``url``."""
        return _issue(
            names[0], self.credentials, begins, ends, names=names, url=url, key_ids=key_ids
        )

    def intermediate(self, ends: timedelta = 90 * DAY, organization: str = "") -> CA:
        """Issue another issuer."""
        return CA(
            _issue("Middle", self.credentials, -300 * DAY, ends, ca=True, organization=organization)
        )

    def crl(self, *serials: int) -> bytes:
        """Sign a list of revoked certificates."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(NOW - DAY)
            .next_update(NOW + DAY)
        )
        for serial in serials:
            revoked = x509.RevokedCertificateBuilder().serial_number(serial)
            builder = builder.add_revoked_certificate(revoked.revocation_date(NOW - DAY).build())
        return builder.sign(self.credentials.key, SHA256()).public_bytes(Encoding.DER)


def make_ca(organization: str = "Test Trust", *, begins: timedelta = -400 * DAY) -> CA:
    """Make a root."""
    return CA(_issue("Root", None, begins, 3650 * DAY, ca=True, organization=organization))


def _issue(
    common_name: str,
    issuer: Credentials | None,
    begins: timedelta,
    ends: timedelta,
    *,
    names: Sequence[str] = (),
    ca: bool = False,
    url: str = "",
    organization: str = "",
    key_ids: bool = True,
) -> Credentials:
    key = ec.generate_private_key(ec.SECP256R1())
    signer = issuer.key if issuer else key
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    subject = x509.Name(attributes)
    builder = (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .not_valid_before(NOW + begins)
        .not_valid_after(NOW + ends)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if key_ids:
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
        builder = builder.add_extension(own, False).add_extension(authority, False)
    if names:
        entries = [general_name(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(entries), critical=False)
    if url:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)
        builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
    return Credentials(builder.sign(signer, SHA256()), key)
