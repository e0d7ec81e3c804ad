"""
The meta certificate: how a relay tells its public key inside the TLS handshake.

It stands last in every certificate chain a relay serves and proves nothing. A client that
finds it knows the server's key before the first byte of HTTP and may skip one round trip
(fast start). Source: Go ``derpserver`` ``initMetacert``, ``derphttp`` ``parseMetaCert``.

===================  ======================================================================
serial number        the protocol version
subject = issuer     CN ``derpkey`` + 64 lower-case hex digits, a PrintableString
validity             30 days before to 30 days after the process started
key, signature       Ed25519, made for this one certificate and then forgotten
extensions           BasicConstraints only: critical, CA false
===================  ======================================================================

The common name has 71 characters where X.520 allows 64. Certificate libraries warn about that
or refuse it, so the DER is written and read here; the subset needed is small.
Formally the certificate expires after 30 days of uptime. Clients do not look at that and ours
must not either.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from derp.wire.der import (
    GENERALIZED_TIME,
    SEQUENCE,
    UTC_TIME,
    VERSION,
    Element,
    certificate_fields,
    read_element,
    read_elements,
)
from derp.wire.keys import KEY_LEN

METACERT_VERSION: Final = 2
"""Serial number of our meta certificates: the DERP protocol version spoken."""

COMMON_NAME_PREFIX: Final = "derpkey"
VALID_FOR: Final = timedelta(days=30)
"""Validity on either side of the moment of making."""

_COMMON_NAME: Final = re.compile(COMMON_NAME_PREFIX + r"([0-9A-Fa-f]{64})")
_MAX_SERIAL: Final = 255

_BOOLEAN_TRUE: Final = b"\x01\x01\xff"
_INTEGER: Final = 0x02
_BIT_STRING: Final = 0x03
_OCTET_STRING: Final = 0x04
_OBJECT_ID: Final = 0x06
_UTF8_STRING: Final = 0x0C
_PRINTABLE_STRING: Final = 0x13
_TELETEX_STRING: Final = 0x14
_IA5_STRING: Final = 0x16
_SET: Final = 0x31
_EXTENSIONS: Final = 0xA3

_OID_COMMON_NAME: Final = b"\x06\x03\x55\x04\x03"  # 2.5.4.3
_OID_BASIC_CONSTRAINTS: Final = b"\x06\x03\x55\x1d\x13"  # 2.5.29.19
_OID_ED25519: Final = b"\x06\x03\x2b\x65\x70"  # 1.3.101.112, RFC 8410
_READABLE_STRINGS: Final = frozenset(
    (_UTF8_STRING, _PRINTABLE_STRING, _TELETEX_STRING, _IA5_STRING)
)


@dataclass(frozen=True, slots=True)
class MetaCertificate:
    """One meta certificate in both encodings; its private key is not kept."""

    der: bytes
    pem: bytes


def build_metacert(server_public: bytes, now: float) -> MetaCertificate:
    """
    Make a meta certificate for a server key.

    :param server_public: 32 raw bytes.
    :param now: Unix time in seconds, the middle of the validity.
    :raises ValueError: if ``server_public`` is not 32 bytes.
    """
    if len(server_public) != KEY_LEN:
        raise ValueError(f"a key has {KEY_LEN} bytes, not {len(server_public)}")
    signer = Ed25519PrivateKey.generate()
    algorithm = _der(SEQUENCE, _OID_ED25519)
    name = _name(COMMON_NAME_PREFIX + server_public.hex())
    made = datetime.fromtimestamp(int(now), UTC)
    constraints = _OID_BASIC_CONSTRAINTS + _BOOLEAN_TRUE + _der(_OCTET_STRING, _der(SEQUENCE, b""))
    to_be_signed = _der(
        SEQUENCE,
        _der(VERSION, _der(_INTEGER, b"\x02"))
        + _der(_INTEGER, bytes((METACERT_VERSION,)))
        + algorithm
        + name
        + _der(SEQUENCE, _time(made - VALID_FOR) + _time(made + VALID_FOR))
        + name
        + _der(SEQUENCE, algorithm + _bits(signer.public_key().public_bytes_raw()))
        + _der(_EXTENSIONS, _der(SEQUENCE, _der(SEQUENCE, constraints))),
    )
    der = _der(SEQUENCE, to_be_signed + algorithm + _bits(signer.sign(to_be_signed)))
    return MetaCertificate(der, _pem(der))


def find_server_key(certs_der: Iterable[bytes]) -> tuple[bytes, int] | None:
    """
    Find the server key in the certificates a server presented.

    The first certificate that names a key and whose serial number fits in 8 bits counts.
    Neither signature nor validity is looked at.

    :returns: the raw public key and the protocol version; a client starts fast only if that
        version is not zero. ``None`` if no certificate is a meta certificate.
    """
    for der in certs_der:
        serial, common_name = _read_certificate(der)
        key = parse_metacert_common_name(common_name)
        if key is not None and 0 <= serial <= _MAX_SERIAL:
            return key, serial
    return None


def parse_metacert_common_name(common_name: str) -> bytes | None:
    """Read the server key out of a subject's common name; ``None`` if there is none."""
    match = _COMMON_NAME.fullmatch(common_name)
    return bytes.fromhex(match[1]) if match else None


def is_metacert(der: bytes) -> bool:
    """
    Whether clients leave this certificate out when they check a ``sha256-raw:`` pin.

    The prefix of the common name decides, whatever follows it.
    """
    return _read_certificate(der)[1].startswith(COMMON_NAME_PREFIX)


def _read_certificate(der: bytes) -> tuple[int, str]:
    """Return serial number and last common name; ``(-1, "")`` for what is no certificate."""
    try:
        fields = certificate_fields(der)
        number = der[fields.serial.start : fields.serial.end]
        return int.from_bytes(number, "big", signed=True), _read_common_name(der, fields.subject)
    except (IndexError, ValueError):
        return -1, ""


def _read_common_name(der: bytes, subject: Element) -> str:
    found = ""
    for _, set_at, set_end in read_elements(der, subject.start, subject.end):
        for _, pair_at, pair_end in read_elements(der, set_at, set_end):
            if der[pair_at:pair_end].startswith(_OID_COMMON_NAME):
                tag, at, after = read_element(der, pair_at + len(_OID_COMMON_NAME), pair_end)
                if tag in _READABLE_STRINGS:
                    found = der[at:after].decode("utf-8")
    return found


def _der(tag: int, contents: bytes) -> bytes:
    length = len(contents)
    if length < 0x80:
        return bytes((tag, length)) + contents
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big") + contents


def _name(common_name: str) -> bytes:
    value = _der(_PRINTABLE_STRING, common_name.encode("ascii"))
    return _der(SEQUENCE, _der(_SET, _der(SEQUENCE, _OID_COMMON_NAME + value)))


def _time(when: datetime) -> bytes:
    # RFC 5280 section 4.1.2.5: two-digit years until 2049.
    if when.year < 2050:
        return _der(UTC_TIME, when.strftime("%y%m%d%H%M%SZ").encode("ascii"))
    return _der(GENERALIZED_TIME, when.strftime("%Y%m%d%H%M%SZ").encode("ascii"))


def _bits(value: bytes) -> bytes:
    return _der(_BIT_STRING, b"\x00" + value)  # no unused bits in the last byte


def _pem(der: bytes) -> bytes:
    text = b64encode(der)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return b"\n".join((b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""))
