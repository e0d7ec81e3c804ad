"""Tests for :mod:`derp.wire.eab_key`."""

from twisted.trial.unittest import SynchronousTestCase

from derp.wire.eab_key import parse_eab_key


class EABKeyTests(SynchronousTestCase):
    """The HMAC key as authorities hand it out."""

    def test_both_forms(self) -> None:
        """base64url without padding, or padded base64."""
        for text in ("dGVzdC1rZXk", "dGVzdC1rZXk="):
            self.assertEqual(parse_eab_key(text), b"test-key")
        self.assertEqual(parse_eab_key("-_8"), b"\xfb\xff")
        self.assertEqual(parse_eab_key("+/8="), b"\xfb\xff")

    def test_neither(self) -> None:
        """Everything else is refused."""
        for text in ("not-valid!", "", "a", "dGVz dC1r", "\u00e9\u00e9\u00e9\u00e9", "+_8="):
            self.assertRaises(ValueError, parse_eab_key, text)
