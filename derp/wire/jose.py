"""
What an ACME account signs: JSON Web Signatures and what hangs on its key (RFC 7515, RFC 8555).

Every request to a certificate authority is one *flattened* JWS::

    {"protected": b64({alg, nonce, url, jwk | kid}), "payload": b64(…), "signature": b64(…)}

``jwk`` names the key itself and is used until the account has a URL, which is ``kid`` from then
on. An empty payload (not ``{}``) makes the request a "POST-as-GET".

The private half of an account may also be RSA, for directories written by others.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

import josepy
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

_EC_ALGORITHMS: Final = {256: josepy.ES256, 384: josepy.ES384, 521: josepy.ES512}
_MIN_RSA_BITS: Final = 2048


def b64url(data: bytes) -> str:
    """Encode in base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


class AccountKey:
    """
    The key an ACME account is known by.

    :raises ValueError: if ACME has no signature algorithm for it.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
        self._key = key
        self._algorithm: josepy.JWASignature
        self._jwk: josepy.JWK
        if isinstance(key, rsa.RSAPrivateKey):
            if key.key_size < _MIN_RSA_BITS:
                raise ValueError(f"an RSA account key of {key.key_size} bits is too short")
            self._algorithm = josepy.RS256
            self._jwk = josepy.JWKRSA(key=key).public_key()
            return
        if key.curve.key_size not in _EC_ALGORITHMS:
            raise ValueError(f"no ACME signature for the curve {key.curve.name}")
        self._algorithm = _EC_ALGORITHMS[key.curve.key_size]
        self._jwk = josepy.JWKEC(key=key).public_key()

    @classmethod
    def generate(cls) -> AccountKey:
        """Make a P-256 key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def parse(cls, pem: bytes) -> AccountKey:
        """
        Read a PEM key (SEC1, PKCS#1 or PKCS#8, not encrypted).

        :raises ValueError: saying what is wrong, without quoting the input.
        """
        try:
            key = load_pem_private_key(pem, None)
        except TypeError:
            raise ValueError("the key is encrypted") from None
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError("no PEM private key can be read from it") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise ValueError("neither an EC nor an RSA key")
        return cls(key)

    def pem(self) -> bytes:
        """The private key as Go writes it: ``EC PRIVATE KEY`` or ``RSA PRIVATE KEY``."""
        return self._key.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        )

    def jwk(self) -> dict[str, Any]:
        """The public key as a JSON Web Key."""
        return dict(self._jwk.to_json())

    def thumbprint(self) -> str:
        """RFC 7638, SHA-256, base64url."""
        return b64url(self._jwk.thumbprint())

    def key_authorization(self, token: str) -> str:
        """What proves that this account asked for a challenge (RFC 8555 section 8.1)."""
        return f"{token}.{self.thumbprint()}"

    def sign(self, url: str, payload: bytes, nonce: str, account_url: str | None) -> bytes:
        """
        Make one request body.

        :param payload: JSON, or empty for POST-as-GET.
        :param account_url: ``None`` while the account has none: the key itself is sent.
        """
        protected: dict[str, Any] = {"alg": str(self._algorithm), "nonce": nonce, "url": url}
        if account_url is None:
            protected["jwk"] = self.jwk()
        else:
            protected["kid"] = account_url
        return encode_json(_flattened(protected, payload, self._algorithm, self._key))

    def external_account_binding(self, kid: str, hmac_key: bytes, url: str) -> dict[str, str]:
        """
        Bind this key to an account known elsewhere (RFC 8555 section 7.3.4).

        :param url: where the account is registered.
        """
        protected = {"alg": "HS256", "kid": kid, "url": url}
        return _flattened(protected, encode_json(self.jwk()), josepy.HS256, hmac_key)


def tls_alpn_digest(key_authorization: str) -> bytes:
    """What the acmeIdentifier extension of a tls-alpn-01 certificate holds (RFC 8737)."""
    return sha256(key_authorization.encode("ascii")).digest()


def dns_record_value(key_authorization: str) -> str:
    """What the TXT record of a dns-01 challenge holds (RFC 8555 section 8.4)."""
    return b64url(tls_alpn_digest(key_authorization))


def encode_json(value: Any) -> bytes:
    """JSON without blanks."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _flattened(
    protected: Mapping[str, Any], payload: bytes, algorithm: josepy.JWASignature, key: Any
) -> dict[str, str]:
    head, body = b64url(encode_json(protected)), b64url(payload)
    signature = algorithm.sign(key, f"{head}.{body}".encode("ascii"))
    return {"protected": head, "payload": body, "signature": b64url(signature)}
