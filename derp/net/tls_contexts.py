"""
Server TLS contexts made of PEM in memory.

A context is made once per certificate and then only read: connections pick one before their
handshake, a new certificate is a new context. The settings follow what Go serves by default
(TLS 1.2 and 1.3, ECDHE only) and differ from those of the standard library where it
matters:

* **The client's cipher order counts.** The standard library insists on its own, which puts
  AES-256-GCM first and makes phones without AES instructions use AES.
* **No session tickets** in TLS 1.3 unless asked for: DERP clients never resume, and a ticket
  costs 7 to 15 % of a login.
* **No renegotiation** in TLS 1.2; Go has none either.
* The key exchange groups are OpenSSL's own; naming one would leave that one alone.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

HTTP_1_1: Final = "http/1.1"
"""The only application protocol served; HTTP/2 has no upgrade and would gain nothing."""

TLS12_CIPHERS: Final = ":".join(
    f"ECDHE-{signature}-{cipher}"
    for cipher in (
        "AES128-GCM-SHA256",
        "AES256-GCM-SHA384",
        "CHACHA20-POLY1305",
        "AES128-SHA",
        "AES256-SHA",
    )
    for signature in ("ECDSA", "RSA")
)
"""Go's default suites for TLS 1.2: forward secret, no 3DES, no static RSA, no finite-field DH."""


_PRIORITIZE_CHACHA: Final = 1 << 21
"""``SSL_OP_PRIORITIZE_CHACHA``: clients that want ChaCha20 most have it all the same."""


def server_context(
    chain_pem: bytes,
    key_pem: bytes,
    metacert_pem: bytes,
    *,
    alpn: Sequence[str] = (HTTP_1_1,),
    num_tickets: int = 0,
    rsa_pem: bytes = b"",
) -> ssl.SSLContext:
    """
    Make a context that serves ``chain_pem`` and then the meta certificate.

    :param chain_pem: certificates, leaf first.
    :param key_pem: the leaf's key, not encrypted.
    :param metacert_pem: goes last; see :mod:`derp.wire.metacert`.
    :param alpn: protocols to agree on. Without one in common OpenSSL goes on without ALPN:
        who chooses the context must have refused such a client.
    :param num_tickets: session tickets sent after a TLS 1.3 handshake.
    :param rsa_pem: RSA key and chain for clients that do not know the other's algorithm. Ours
        is the order of preference then: OpenSSL, asked to take the client's, would give the
        RSA certificate to most.
    :raises ssl.SSLError: if OpenSSL takes the certificate or the key not at all (for instance
        an RSA key of 1024 bits), or they do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(TLS12_CIPHERS)
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.num_tickets = num_tickets
    context.set_alpn_protocols(list(alpn))
    # Key first: nothing that stands in a chain file can come before it.
    _load(context, b"\n".join((key_pem, chain_pem, metacert_pem)))
    if rsa_pem:
        _load(context, b"\n".join((rsa_pem, metacert_pem)))
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | _PRIORITIZE_CHACHA
    return context


def _load(context: ssl.SSLContext, content: bytes) -> None:
    with _file_of(content) as path:
        # Without a password OpenSSL would ask the terminal for one.
        context.load_cert_chain(path, password="")


@contextmanager
def _file_of(content: bytes) -> Iterator[str]:
    """Give ``content`` a path for a moment: a memory file, so that no key touches a disk."""
    try:
        descriptor = os.memfd_create("tls-chain", os.MFD_CLOEXEC)
    except (AttributeError, OSError):
        descriptor = -1
    if descriptor < 0 or not os.path.exists(f"/proc/self/fd/{descriptor}"):
        if descriptor >= 0:
            os.close(descriptor)
        with _disk_file_of(content) as path:
            yield path
        return
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"


@contextmanager
def _disk_file_of(content: bytes) -> Iterator[str]:
    """Where memory files or ``/proc`` are missing: a 0600 file in a 0700 directory, removed."""
    with tempfile.TemporaryDirectory(prefix="derp-") as directory:
        path = os.path.join(directory, "tls-chain")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
        yield path
