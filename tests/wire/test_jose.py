"""Signatures of ACME requests, checked with cryptography and published examples."""

import json
from base64 import urlsafe_b64decode
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.trial.unittest import SynchronousTestCase

from derp.wire.jose import AccountKey, b64url, dns_record_value

URL = "https://ca.example/new-order"


def unb64(text: str) -> bytes:
    """Undo base64url without padding."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def protected(body: bytes) -> dict[str, Any]:
    """Read the protected header."""
    return dict(json.loads(unb64(json.loads(body)["protected"])))


class AccountKeyTests(SynchronousTestCase):
    """Keys and what they sign."""

    def test_ec_signature(self) -> None:
        """ES256 over head.body, r and s of 32 bytes each."""
        private = ec.generate_private_key(ec.SECP256R1())
        body = AccountKey(private).sign(URL, b'{"a":1}', "nonce1", None)
        parts = json.loads(body)
        signature = unb64(parts["signature"])
        self.assertEqual(len(signature), 64)
        r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
        private.public_key().verify(
            encode_dss_signature(r, s),
            f"{parts['protected']}.{parts['payload']}".encode(),
            ec.ECDSA(SHA256()),
        )
        self.assertEqual(unb64(parts["payload"]), b'{"a":1}')
        head = protected(body)
        self.assertEqual((head["alg"], head["nonce"], head["url"]), ("ES256", "nonce1", URL))
        self.assertEqual(sorted(head["jwk"]), ["crv", "kty", "x", "y"])

    def test_rsa_signature(self) -> None:
        """RS256 for accounts others made with RSA keys."""
        private = rsa.generate_private_key(65537, 2048)
        key = AccountKey.parse(
            private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        parts = json.loads(key.sign(URL, b"", "n", "https://ca.example/acct/1"))
        private.public_key().verify(
            unb64(parts["signature"]),
            f"{parts['protected']}.{parts['payload']}".encode(),
            padding.PKCS1v15(),
            SHA256(),
        )
        self.assertIn(b"BEGIN RSA PRIVATE KEY", key.pem())

    def test_account_url_replaces_key(self) -> None:
        """Once registered the key is not sent; a POST-as-GET has an empty payload."""
        body = AccountKey.generate().sign(URL, b"", "n", "https://ca.example/acct/1")
        head = protected(body)
        self.assertEqual(head["kid"], "https://ca.example/acct/1")
        self.assertNotIn("jwk", head)
        self.assertEqual(json.loads(body)["payload"], "")

    def test_external_account_binding(self) -> None:
        """HS256 over our public key, under the key id the authority gave."""
        key = AccountKey.generate()
        binding = key.external_account_binding("kid-1", b"secret", "https://ca.example/acct")
        mac = HMAC(b"secret", SHA256())
        mac.update(f"{binding['protected']}.{binding['payload']}".encode())
        mac.verify(unb64(binding["signature"]))
        self.assertEqual(json.loads(unb64(binding["payload"])), key.jwk())
        head = json.loads(unb64(binding["protected"]))
        self.assertEqual(head, {"alg": "HS256", "kid": "kid-1", "url": "https://ca.example/acct"})

    def test_pem_round_trip(self) -> None:
        """SEC1 as Go writes it, and the same account when read again."""
        key = AccountKey.generate()
        self.assertTrue(key.pem().startswith(b"-----BEGIN EC PRIVATE KEY-----\n"))
        self.assertEqual(AccountKey.parse(key.pem()).thumbprint(), key.thumbprint())

    def test_unusable_keys(self) -> None:
        """Garbage, a wrong type, a weak key: said without quoting the input."""
        ed = ed25519.Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        for pem in (b"", b"garbage-secret", ed):
            error = self.assertRaises(ValueError, AccountKey.parse, pem)
            self.assertNotIn("secret", str(error))
        weak = rsa.generate_private_key(65537, 1024)
        self.assertRaises(ValueError, AccountKey, weak)
        self.assertRaises(ValueError, AccountKey, ec.generate_private_key(ec.SECP224R1()))

    def test_key_authorization(self) -> None:
        """Token, dot, thumbprint; its digest is what dns-01 publishes."""
        key = AccountKey.generate()
        self.assertEqual(key.key_authorization("tok"), f"tok.{key.thumbprint()}")
        self.assertEqual(dns_record_value("abc"), "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0")


class EncodingTests(SynchronousTestCase):
    """Bytes as text."""

    def test_b64url(self) -> None:
        """No padding, no plus, no slash."""
        self.assertEqual(b64url(b"\xfb\xff"), "-_8")
