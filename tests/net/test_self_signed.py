"""Tests of :mod:`derp.net.self_signed` against the certificate derper generated."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from twisted.trial.unittest import SynchronousTestCase

from derp.net.self_signed import THE_PAST, VALID_FOR, make_self_signed
from tests.certificate_files import NOW
from tests.vectors import load

GROUP = load("tls.json")["groups"][0]
RECORDED = x509.load_der_x509_certificate(bytes.fromhex(GROUP["leaf_der_hex"]))


class MakeSelfSignedTests(SynchronousTestCase):
    """The generated certificate."""

    def make(self, address: str = "127.0.0.1") -> tuple[x509.Certificate, bytes]:
        pem, key_pem = make_self_signed(ip_address(address), NOW)
        return x509.load_pem_x509_certificate(pem), key_pem

    def test_fields(self) -> None:
        """Names and extensions, their order and criticality, are derper's."""
        made, _ = self.make()
        self.assertEqual(list(made.extensions), list(RECORDED.extensions))
        self.assertEqual(made.subject.rfc4514_string(), GROUP["chain"][0]["subject"])
        self.assertEqual(made.issuer, made.subject)
        self.assertEqual(made.version, RECORDED.version)
        self.assertEqual(made.signature_algorithm_oid, RECORDED.signature_algorithm_oid)
        key = made.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        self.assertIsInstance(key.curve, ec.SECP256R1)

    def test_lasts_ten_years(self) -> None:
        """It begins now; unlike derper's it is not over after a year."""
        made, _ = self.make()
        begins = datetime.fromtimestamp(NOW, UTC)
        self.assertEqual(made.not_valid_before_utc, begins)
        self.assertEqual(made.not_valid_after_utc, begins + timedelta(days=3650))

    def test_clock_not_set_yet(self) -> None:
        """Made in 1970 it has begun, and is no less valid when the clock is right."""
        pem, _ = make_self_signed(ip_address("127.0.0.1"), 5.0)
        made = x509.load_pem_x509_certificate(pem)
        self.assertEqual(made.not_valid_before_utc.timestamp(), 5.0)
        self.assertEqual(made.not_valid_after_utc, THE_PAST + VALID_FOR)
        self.assertLess(THE_PAST.timestamp(), NOW)

    def test_serial(self) -> None:
        """Serial numbers are random, positive and at most 128 bits."""
        serials = {self.make()[0].serial_number for _ in range(8)}
        self.assertEqual(len(serials), 8)
        self.assertTrue(all(0 < serial < 1 << 128 for serial in serials))

    def test_key(self) -> None:
        """The key is SEC1 and its own; the certificate is signed by it."""
        made, key_pem = self.make()
        self.assertTrue(key_pem.startswith(b"-----BEGIN EC PRIVATE KEY-----\n"))
        key = load_pem_private_key(key_pem, None)
        self.assertEqual(key.public_key(), made.public_key())
        made.verify_directly_issued_by(made)

    def test_ipv6(self) -> None:
        """An IPv6 address is written in its short form."""
        made, _ = self.make("2001:db8:0::7")
        self.assertEqual(made.subject.rfc4514_string(), "CN=2001:db8::7")
        names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(list(names), [x509.IPAddress(ip_address("2001:db8::7"))])
