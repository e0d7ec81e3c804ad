"""Tests for :mod:`derp.wire.der`."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.wire.der import read_validity
from derp.wire.metacert import build_metacert
from tests.certificate_files import NOW, issue


def at(year: int) -> timedelta:
    """How far from the tests' now a year begins."""
    return datetime(year, 1, 1, tzinfo=UTC) - datetime.fromtimestamp(NOW, UTC)


class ValidityTests(SynchronousTestCase):
    """:func:`read_validity`."""

    def test_as_the_library_reads_it(self) -> None:
        """Both forms of time: before 2050 with two digits of the year, later with four."""
        for begins, ends in ((1999, 2026), (2049, 2050), (1950, 2049), (2050, 2100)):
            certificate = issue(["a.test"], begins=at(begins), ends=at(ends)).certificate
            read = read_validity(certificate.public_bytes(Encoding.DER))
            wanted = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
            self.assertEqual(read, tuple(int(each.timestamp()) for each in wanted))

    def test_meta_certificate(self) -> None:
        """What the library may refuse to read is read here."""
        made = 1_700_000_000
        begins, ends = read_validity(build_metacert(bytes(range(32)), made).der)
        self.assertEqual((made - begins, ends - made), (30 * 86400, 30 * 86400))

    @given(st.binary(max_size=80))
    def test_garbage(self, data: bytes) -> None:
        """What is no certificate raises ``ValueError`` only."""
        self.assertRaises(ValueError, read_validity, data)

    def test_damaged(self) -> None:
        """Wherever a certificate is cut or bent."""
        der = issue(["a.test"]).certificate.public_bytes(Encoding.DER)
        for position in range(len(der)):
            self.assertRaises(ValueError, read_validity, der[:position])
            bent = bytearray(der)
            bent[position] ^= 0x95
            with contextlib.suppress(ValueError):
                read_validity(bytes(bent))
