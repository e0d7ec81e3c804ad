"""Tests of :mod:`derp.net.tls_contexts`: what a client in memory gets to see."""

from __future__ import annotations

import contextlib
import os
import ssl
import stat
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from derp.net.tls_contexts import TLS12_CIPHERS, server_context
from derp.wire.metacert import build_metacert, find_server_key
from tests.certificate_files import NOW, Issued, issue
from tests.tls_clients import client_context, shake_hands

SERVER_PUBLIC = bytes(range(32))
METACERT = build_metacert(SERVER_PUBLIC, NOW)
ISSUER = issue(None, common_name="issuer")
LEAF = issue(["relay.example.test"], issuer=ISSUER)
TLS_1_2 = ssl.TLSVersion.TLSv1_2


def context_of(
    leaf: Issued = LEAF, chain: bytes | None = None, num_tickets: int = 0
) -> ssl.SSLContext:
    """Make a context that serves one certificate, or a chain that begins with it."""
    return server_context(chain or leaf.pem, leaf.key_pem(), METACERT.pem, num_tickets=num_tickets)


def leaf_for(server_side: ssl.SSLContext, algorithms: bytes) -> x509.Certificate:
    """The certificate a client gets in TLS 1.3 that names these signatures, in this order."""
    client_side: Any = SSL.Context(SSL.TLS_CLIENT_METHOD)
    library: Any = SSL._lib  # type: ignore[attr-defined]
    assert library.SSL_CTX_set1_sigalgs_list(client_side._context, algorithms) == 1
    client = SSL.Connection(client_side, None)
    client.set_connect_state()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_side.wrap_bio(incoming, outgoing, server_side=True)
    with contextlib.suppress(SSL.WantReadError):
        client.do_handshake()
    incoming.write(client.bio_read(1 << 16))
    with contextlib.suppress(ssl.SSLWantReadError):
        server.do_handshake()
    client.bio_write(outgoing.read())
    client.do_handshake()
    certificate: Any = client.get_peer_certificate()
    found: x509.Certificate = certificate.to_cryptography()
    return found


class ServerContextTests(SynchronousTestCase):
    """Handshakes with clients of both versions."""

    def test_metacert_is_last(self) -> None:
        """Leaf, its issuer, then the meta certificate; in TLS 1.2 and 1.3 alike."""
        context = context_of(chain=LEAF.pem + ISSUER.pem)
        expected = [each.certificate.public_bytes(Encoding.DER) for each in (LEAF, ISSUER)]
        for maximum, version in ((None, "TLSv1.3"), (TLS_1_2, "TLSv1.2")):
            seen = shake_hands(context, client_context(maximum=maximum))
            self.assertEqual(seen.version, version)
            self.assertEqual(seen.chain, [*expected, METACERT.der])
            self.assertEqual(find_server_key(seen.chain), (SERVER_PUBLIC, 2))

    def test_rsa_beside(self) -> None:
        """Who knows ECDSA gets that certificate, others RSA's, both with the meta certificate."""
        old = issue(["relay.example.test"], key=rsa.generate_private_key(65537, 2048))
        pem = old.key_pem() + old.pem
        context = server_context(LEAF.pem, LEAF.key_pem(), METACERT.pem, rsa_pem=pem)
        for client, expected in (
            (client_context(), LEAF),
            (client_context(maximum=TLS_1_2), LEAF),
            (client_context(maximum=TLS_1_2, ciphers="ECDHE-RSA-AES128-GCM-SHA256"), old),
        ):
            seen = shake_hands(context, client)
            leaf = expected.certificate.public_bytes(Encoding.DER)
            self.assertEqual(seen.chain, [leaf, METACERT.der])

    def test_rsa_beside_and_go(self) -> None:
        """Go names RSA first, which its own servers ignore; ours do as well."""
        old = issue(["relay.example.test"], key=rsa.generate_private_key(65537, 2048))
        pem = old.key_pem() + old.pem
        context = server_context(LEAF.pem, LEAF.key_pem(), METACERT.pem, rsa_pem=pem)
        for order, expected in (
            (b"RSA-PSS+SHA256:ECDSA+SHA256", LEAF),
            (b"RSA-PSS+SHA256:RSA+SHA256", old),
        ):
            self.assertEqual(leaf_for(context, order), expected.certificate)

    def test_rsa_beside_and_the_clients_order(self) -> None:
        """Who wants ChaCha20 most has it."""
        old = issue(["relay.example.test"], key=rsa.generate_private_key(65537, 2048))
        pem = old.key_pem() + old.pem
        context = server_context(LEAF.pem, LEAF.key_pem(), METACERT.pem, rsa_pem=pem)
        wanted = "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256"
        seen = shake_hands(context, client_context(maximum=TLS_1_2, ciphers=wanted))
        self.assertEqual(seen.cipher, "ECDHE-ECDSA-CHACHA20-POLY1305")

    def test_chain_does_not_grow(self) -> None:
        """Many handshakes of one context give the same two certificates."""
        context = context_of()
        for _ in range(3):
            self.assertEqual(len(shake_hands(context, client_context()).chain), 2)

    def test_old_versions(self) -> None:
        """TLS 1.1 is refused with the alert that says so."""
        client = client_context(maximum=ssl.TLSVersion.TLSv1_1, ciphers="ALL:@SECLEVEL=0")
        error = self.assertRaises(ssl.SSLError, shake_hands, context_of(), client)
        self.assertEqual(error.reason, "TLSV1_ALERT_PROTOCOL_VERSION")

    def test_client_order_counts(self) -> None:
        """A client that prefers ChaCha20 gets it, one that prefers AES-128 that."""
        for cipher in ("ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-GCM-SHA256"):
            ciphers = f"{cipher}:ECDHE-ECDSA-AES256-GCM-SHA384"
            client = client_context(maximum=TLS_1_2, ciphers=ciphers)
            self.assertEqual(shake_hands(context_of(), client).cipher, cipher)

    def test_ciphers(self) -> None:
        """Each of Go's suites works with a leaf of its kind, and no other one is offered."""
        rsa_leaf = issue(["relay.example.test"], key=rsa.generate_private_key(65537, 2048))
        contexts = {"ECDSA": context_of(), "RSA": context_of(rsa_leaf)}
        names = TLS12_CIPHERS.split(":")
        self.assertEqual(len(names), 10)
        for name in names:
            client = client_context(maximum=TLS_1_2, ciphers=f"{name}:@SECLEVEL=0")
            seen = shake_hands(contexts[name.split("-")[1]], client)
            self.assertEqual(seen.cipher, name)
        offered = {each["name"] for each in contexts["RSA"].get_ciphers()}
        self.assertEqual({name for name in offered if not name.startswith("TLS_")}, set(names))

    def test_no_static_key_exchange(self) -> None:
        """Clients that can do neither ECDHE nor TLS 1.3 are refused."""
        rsa_leaf = issue(["relay.example.test"], key=rsa.generate_private_key(65537, 2048))
        client = client_context(maximum=TLS_1_2, ciphers="AES128-GCM-SHA256:DHE-RSA-AES128-SHA")
        error = self.assertRaises(ssl.SSLError, shake_hands, context_of(rsa_leaf), client)
        self.assertIn("HANDSHAKE_FAILURE", str(error.reason))

    def test_no_renegotiation(self) -> None:
        """A client cannot have the costly part of a handshake again and again."""
        self.assertTrue(context_of().options & ssl.OP_NO_RENEGOTIATION)

    def test_alpn(self) -> None:
        """HTTP/1.1 is agreed to whenever it is offered, and never made up."""
        context = context_of()
        for offered, agreed in (
            (["h2", "http/1.1"], "http/1.1"),
            (["http/1.1"], "http/1.1"),
            ([], None),
        ):
            self.assertEqual(shake_hands(context, client_context(offered)).alpn, agreed)

    def test_tickets(self) -> None:
        """None by default, else as many as asked for."""
        sizes = [
            shake_hands(context_of(num_tickets=count), client_context()).bytes_after_finished
            for count in (0, 1, 2)
        ]
        self.assertEqual(sizes[0], 0)
        self.assertGreater(sizes[1], 100)
        self.assertAlmostEqual(sizes[2] / sizes[1], 2, delta=0.1, msg="lengths vary by a few bytes")

    def test_key_mismatch(self) -> None:
        """A key of another certificate does not load."""
        self.assertRaises(ssl.SSLError, server_context, LEAF.pem, ISSUER.key_pem(), METACERT.pem)

    def test_weak_key(self) -> None:
        """OpenSSL itself refuses keys that are too short."""
        weak = issue(["a.b"], key=rsa.generate_private_key(65537, 1024))
        self.assertRaises(ssl.SSLError, context_of, weak)

    def test_encrypted_key(self) -> None:
        """No passphrase is asked for; the key just does not load."""
        key = LEAF.key_pem(PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
        self.assertRaises(ssl.SSLError, server_context, LEAF.pem, key, METACERT.pem)

    def test_no_line_ends(self) -> None:
        """PEM texts without a final line end do not run into each other."""
        context = server_context(LEAF.pem.strip(), LEAF.key_pem().strip(), METACERT.pem.strip())
        self.assertEqual(len(shake_hands(context, client_context()).chain), 2)


class KeyPlaceTests(SynchronousTestCase):
    """Where the key is while OpenSSL reads it."""

    def build_and_watch(self) -> tuple[str, int]:
        """Build a context; return the path it was read from, its mode and directory's as one."""
        seen: list[tuple[str, int]] = []
        load_cert_chain = ssl.SSLContext.load_cert_chain

        def watch(context: ssl.SSLContext, path: str, password: str) -> None:
            modes = [stat.S_IMODE(os.stat(each).st_mode) for each in (path, os.path.dirname(path))]
            seen.append((path, modes[0] | modes[1]))
            load_cert_chain(context, path, password=password)

        with mock.patch.object(ssl.SSLContext, "load_cert_chain", watch):
            context = context_of()
        self.assertEqual(len(shake_hands(context, client_context()).chain), 2)
        ((path, mode),) = seen
        return path, mode

    def memory_files(self) -> list[str]:
        """Which are open; other descriptors come and go, with other threads and old objects."""
        places = []
        for each in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):
                places.append(os.readlink(f"/proc/self/fd/{each}"))
        return sorted(place for place in places if place.startswith("/memfd:"))

    def test_memory(self) -> None:
        """The usual place is no file system, and the descriptor is closed afterwards."""
        before = self.memory_files()
        path, _ = self.build_and_watch()
        self.assertTrue(path.startswith("/proc/self/fd/"))
        self.assertEqual(self.memory_files(), before)

    def check_disk(self) -> None:
        path, mode = self.build_and_watch()
        self.assertFalse(path.startswith("/proc/"))
        self.assertEqual(mode, 0o700)
        self.assertFalse(Path(path).parent.exists())

    def test_no_memory_files(self) -> None:
        """Without memory files it is a private file that goes away again."""
        for error in (OSError(38, "Function not implemented"), AttributeError("memfd_create")):
            with mock.patch.object(os, "memfd_create", side_effect=error):
                self.check_disk()

    def test_no_proc(self) -> None:
        """Without /proc likewise, and the memory file is closed."""
        before = self.memory_files()
        exists = os.path.exists
        with mock.patch.object(os.path, "exists", lambda p: "/proc" not in str(p) and exists(p)):
            self.check_disk()
        self.assertEqual(self.memory_files(), before)
