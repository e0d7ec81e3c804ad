"""The key of an external account at a certificate authority (RFC 8555 section 7.3.4), as text."""

from __future__ import annotations

import binascii
from base64 import b64decode, urlsafe_b64decode


def parse_eab_key(text: str) -> bytes:
    """
    Read the HMAC key of an external account: base64url without padding, else padded base64.

    :raises ValueError: if it is neither, or empty.
    """
    try:
        if "=" in text or "+" in text or "/" in text:
            key = b64decode(text, validate=True)
        else:
            if not text.isascii() or not all(each.isalnum() or each in "-_" for each in text):
                raise ValueError("not base64url")
            key = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if not key:
        raise ValueError("empty")
    return key
