"""
The certificate a relay makes for itself when its hostname is an IP address.

Clients accept it by its fingerprint alone (``CertName``, see :mod:`derp.wire.node_json`), so a
new one cuts off every client until the DERP map is changed. That is why it lasts ten years
where derper's lasts one, and that from :data:`THE_PAST` on at the least: a machine without a
battery may make it before anybody has set its clock. All other fields are derper's.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from os import urandom
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID_FOR: Final = timedelta(days=3650)
THE_PAST: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""A time that has been; a clock that shows an earlier one is wrong."""
_SERIAL_BYTES: Final = 16

_KEY_USAGE: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=True,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def make_self_signed(address: IPv4Address | IPv6Address, now: float) -> tuple[bytes, bytes]:
    """
    Make a P-256 key and a certificate for one address.

    :param now: Unix time in seconds, the beginning of its validity.
    :returns: certificate and key (SEC1, not encrypted), both PEM.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(address))])
    made = datetime.fromtimestamp(int(now), UTC)
    serial = int.from_bytes(urandom(_SERIAL_BYTES), "big") or 1
    certificate = (
        x509.CertificateBuilder()
        .serial_number(serial)
        .subject_name(name)
        .issuer_name(name)
        .not_valid_before(made)
        .not_valid_after(max(made, THE_PAST) + VALID_FOR)
        .public_key(key.public_key())
        .add_extension(_KEY_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(address)]), critical=False)
        .sign(key, SHA256())
    )
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    return certificate.public_bytes(Encoding.PEM), key_pem
