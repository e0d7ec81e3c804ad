"""Tests of :mod:`derp.wire.metacert` against recorded certificates and a library's reader."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtensionOID, NameOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.wire.keys import parse_node_public
from derp.wire.metacert import (
    METACERT_VERSION,
    build_metacert,
    find_server_key,
    is_metacert,
    parse_metacert_common_name,
)
from tests.vectors import load

TLS = load("tls.json")
SERVER_PUBLIC = parse_node_public(TLS["server_public"])
RECORDED = bytes.fromhex(TLS["groups"][0]["meta_cert_der_hex"])
LEAF = bytes.fromhex(TLS["groups"][0]["leaf_der_hex"])
RECORDED_AT = datetime(2026, 11, 20, 12, 42, 48, tzinfo=UTC).timestamp()
"""Middle of the recorded certificate's validity."""


def read(der: bytes) -> x509.Certificate:
    """Parse with cryptography, which warns of the long common name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        certificate = x509.load_der_x509_certificate(der)
        assert certificate.subject and certificate.issuer  # parsed here, and cached
    return certificate


def common_name(name: x509.Name) -> str:
    """Return the only attribute of a name."""
    (attribute,) = name
    assert attribute.oid == NameOID.COMMON_NAME
    return str(attribute.value)


class BuildTests(SynchronousTestCase):
    """Certificates of our making."""

    def test_same_bytes_as_recorded(self) -> None:
        """Apart from key and signature, every byte is the reference's."""
        made = build_metacert(SERVER_PUBLIC, RECORDED_AT + 0.9).der
        self.assertEqual(len(made), len(RECORDED))
        key_at = RECORDED.index(b"\x03\x21\x00") + 3
        signature_at = len(RECORDED) - 64
        self.assertEqual(made[:key_at], RECORDED[:key_at])
        self.assertEqual(made[key_at + 32 : signature_at], RECORDED[key_at + 32 : signature_at])
        self.assertNotEqual(made[key_at : key_at + 32], RECORDED[key_at : key_at + 32])

    def test_library_reads_it(self) -> None:
        """Serial, names, validity and the one extension are what the field list says."""
        certificate = read(build_metacert(SERVER_PUBLIC, RECORDED_AT).der)
        self.assertEqual(certificate.serial_number, METACERT_VERSION)
        self.assertEqual(common_name(certificate.subject), "derpkey" + SERVER_PUBLIC.hex())
        self.assertEqual(certificate.issuer, certificate.subject)
        middle = datetime.fromtimestamp(RECORDED_AT, UTC)
        self.assertEqual(certificate.not_valid_before_utc, middle - timedelta(days=30))
        self.assertEqual(certificate.not_valid_after_utc, middle + timedelta(days=30))
        (extension,) = certificate.extensions
        self.assertEqual(extension.oid, ExtensionOID.BASIC_CONSTRAINTS)
        self.assertTrue(extension.critical)
        self.assertEqual(extension.value, x509.BasicConstraints(ca=False, path_length=None))

    def test_signature(self) -> None:
        """It is signed by its own key, and another one each time."""
        made = [build_metacert(SERVER_PUBLIC, RECORDED_AT).der for _ in range(2)]
        certificates = [read(der) for der in made]
        for certificate in certificates:
            key = certificate.public_key()
            assert isinstance(key, Ed25519PublicKey)
            key.verify(certificate.signature, certificate.tbs_certificate_bytes)
        self.assertNotEqual(made[0], made[1])

    def test_pem(self) -> None:
        """The PEM form holds the same certificate and ends with a line end."""
        made = build_metacert(SERVER_PUBLIC, RECORDED_AT)
        self.assertTrue(made.pem.endswith(b"-----END CERTIFICATE-----\n"))
        self.assertTrue(all(len(line) <= 64 for line in made.pem.splitlines()))
        (certificate,) = x509.load_pem_x509_certificates(made.pem)
        self.assertEqual(read(made.der), certificate)

    def test_years_after_2049(self) -> None:
        """The time form changes in 2050 (RFC 5280)."""
        turn = datetime(2050, 1, 1, tzinfo=UTC)
        certificate = read(build_metacert(SERVER_PUBLIC, turn.timestamp()).der)
        self.assertEqual(certificate.not_valid_before_utc, turn - timedelta(days=30))
        self.assertEqual(certificate.not_valid_after_utc, turn + timedelta(days=30))

    def test_no_warning(self) -> None:
        """Neither making nor reading one warns of the long common name."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made = build_metacert(SERVER_PUBLIC, RECORDED_AT)
            self.assertEqual(find_server_key([made.der]), (SERVER_PUBLIC, 2))

    def test_wrong_key_length(self) -> None:
        """A key of another length is our bug."""
        self.assertRaises(ValueError, build_metacert, bytes(31), RECORDED_AT)


class FindTests(SynchronousTestCase):
    """What a client makes of a chain."""

    def changed(self, old: bytes, new: bytes) -> bytes:
        self.assertEqual(len(old), len(new))
        self.assertIn(old, RECORDED)
        return RECORDED.replace(old, new)

    def test_recorded_chains(self) -> None:
        """The key is found behind the leaf in every recorded chain."""
        for group in TLS["groups"]:
            chain = [bytes.fromhex(group[name]) for name in ("leaf_der_hex", "meta_cert_der_hex")]
            self.assertEqual(find_server_key(chain), (SERVER_PUBLIC, 2))
            self.assertEqual([is_metacert(der) for der in chain], [False, True])

    def test_none(self) -> None:
        """Ordinary chains have no server key."""
        self.assertIsNone(find_server_key([]))
        self.assertIsNone(find_server_key([LEAF]))

    def test_serial(self) -> None:
        """The serial number is the version: zero is told, negative is passed over."""
        serial = b"\x02\x01\x02\x02\x01"
        zero = self.changed(serial + b"\x02", serial + b"\x00")
        self.assertEqual(find_server_key([zero]), (SERVER_PUBLIC, 0))
        negative = self.changed(serial + b"\x02", serial + b"\xff")
        self.assertIsNone(find_server_key([negative]))
        self.assertEqual(find_server_key([negative, RECORDED]), (SERVER_PUBLIC, 2))

    def test_large_serial(self) -> None:
        """255 is the largest version; 256 and a CA's random serial number are none."""
        for number, expected in ((255, (SERVER_PUBLIC, 255)), (256, None), (1 << 126, None)):
            self.assertEqual(find_server_key([with_serial(number)]), expected)

    def test_common_name(self) -> None:
        """Only the prefix and exactly 64 hex digits name a key."""
        digits = SERVER_PUBLIC.hex()
        self.assertEqual(parse_metacert_common_name("derpkey" + digits), SERVER_PUBLIC)
        self.assertEqual(parse_metacert_common_name("derpkey" + digits.upper()), SERVER_PUBLIC)
        for text in ("", digits, "derpkey", "DERPKEY" + digits, f"derpkey{digits}0"):
            self.assertIsNone(parse_metacert_common_name(text))
        for text in (f" derpkey{digits}", f"derpkey{digits}\n", f"derpkey {digits[1:]}"):
            self.assertIsNone(parse_metacert_common_name(text))

    def test_prefix_alone_is_left_out_of_pins(self) -> None:
        """A certificate that only looks like one has no key but is still no leaf."""
        odd = self.changed(b"derpkey4", b"derpkeyx")
        self.assertTrue(is_metacert(odd))
        self.assertIsNone(find_server_key([odd]))

    @given(st.integers(0, len(RECORDED) - 1), st.integers(0, 255), st.integers(0, len(RECORDED)))
    def test_damage(self, position: int, value: int, length: int) -> None:
        """Whatever a server presents, looking for its key does not fail."""
        damaged = bytearray(RECORDED)
        damaged[position] = value
        find_server_key([bytes(damaged), bytes(damaged[:length])])

    @given(st.binary(max_size=80))
    def test_garbage(self, data: bytes) -> None:
        """Garbage has no key."""
        self.assertIsNone(find_server_key([data, b"\x30" + data]))


def with_serial(number: int) -> bytes:
    """Return an otherwise equal certificate (unsigned: nobody checks) with another serial."""
    made = build_metacert(SERVER_PUBLIC, RECORDED_AT).der
    tail = made[made.index(b"\x02\x01\x02\x02\x01\x02") + 6 :]
    octets = number.to_bytes(number.bit_length() // 8 + 1, "big")
    body = b"\xa0\x03\x02\x01\x02\x02" + bytes((len(octets),)) + octets
    tbs_len = len(body) + len(tail) - 74  # the signature and its algorithm stand outside
    tbs = b"\x30\x82" + tbs_len.to_bytes(2, "big") + body + tail
    return b"\x30\x82" + len(tbs).to_bytes(2, "big") + tbs
