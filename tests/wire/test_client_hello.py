"""Tests of :mod:`derp.wire.client_hello`: real hellos, every split, every kind of damage."""

from __future__ import annotations

import contextlib
import ssl
import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ProtocolError
from derp.wire.client_hello import (
    MAX_BUFFERED_LEN,
    MAX_HELLO_LEN,
    MAX_RECORDS,
    RECORD_HEADER_LEN,
    ClientHello,
    parse_client_hello,
)
from tests.tls_clients import client_context, client_hello


def extension(kind: int, data: bytes) -> bytes:
    """Frame one extension."""
    return struct.pack("!HH", kind, len(data)) + data


def server_name(*names: bytes, kind: int = 0) -> bytes:
    """Build a server_name extension; every entry has the same type."""
    entries = b"".join(struct.pack("!BH", kind, len(name)) + name for name in names)
    return extension(0, struct.pack("!H", len(entries)) + entries)


def message(*extensions: bytes, version: int = 0x0303, body: bytes | None = None) -> bytes:
    """Build a handshake message by hand."""
    if body is None:
        block = b"".join(extensions)
        body = (
            struct.pack("!H32s", version, bytes(32)) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
        )
        if extensions:
            body += struct.pack("!H", len(block)) + block
    return b"\x01" + len(body).to_bytes(3, "big") + body


def records(content: bytes, size: int = 1 << 14) -> bytes:
    """Cut a handshake message into records of ``size`` bytes."""
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(b"\x16\x03\x01" + struct.pack("!H", len(piece)) + piece for piece in pieces)


SUPPORTED_VERSIONS = extension(43, b"\x04\x03\x04\x03\x03")
POST_QUANTUM = message(
    server_name(b"relay.example.test"),
    SUPPORTED_VERSIONS,
    extension(10, b"\x00\x04\x11\xec\x00\x1d"),
    extension(51, struct.pack("!HHH", 1220, 0x11EC, 1216) + bytes(1216)),
)
"""As Go and the browsers send it: X25519MLKEM768 first, 1.3 KB of key share."""

REAL = client_hello(client_context(["h2", "http/1.1"]), "relay.example.test")


class RealHelloTests(SynchronousTestCase):
    """Hellos as OpenSSL writes them."""

    def test_everything(self) -> None:
        """Name, protocols, versions and groups come out of one hello."""
        hello = parse_client_hello(REAL)
        assert hello is not None
        self.assertEqual(hello.server_name, "relay.example.test")
        self.assertEqual(hello.alpn, (b"h2", b"http/1.1"))
        self.assertTrue(hello.offers_tls13)
        self.assertTrue(hello.offers_tls12)
        self.assertIn(0x001D, hello.supported_groups)

    def test_nothing_asked(self) -> None:
        """A client that dials an IP sends no name and no protocol."""
        hello = parse_client_hello(client_hello(client_context()))
        assert hello is not None
        self.assertIsNone(hello.server_name)
        self.assertEqual(hello.alpn, ())

    def test_tls12_only(self) -> None:
        """Without supported_versions the version field itself decides."""
        hello = parse_client_hello(client_hello(client_context(maximum=ssl.TLSVersion.TLSv1_2)))
        assert hello is not None
        self.assertFalse(hello.offers_tls13)
        self.assertTrue(hello.offers_tls12)

    def test_any_buffer(self) -> None:
        """A view into a larger receive buffer reads the same, and what follows is ignored."""
        expected = parse_client_hello(REAL)
        self.assertEqual(parse_client_hello(bytearray(REAL)), expected)
        shared = bytearray(REAL + b"\x17\x03\x03 early data")
        self.assertEqual(parse_client_hello(memoryview(shared)), expected)
        shared[:] = bytes(len(shared))
        self.assertEqual(expected and expected.alpn, (b"h2", b"http/1.1"))

    def test_every_prefix(self) -> None:
        """Fed byte by byte it asks for more until the last byte."""
        for length in range(len(REAL)):
            self.assertIsNone(parse_client_hello(REAL[:length]))

    @given(st.integers(1, 600), st.data())
    def test_split_over_records(self, size: int, data: st.DataObject) -> None:
        """The record boundaries do not matter, nor where the input stops."""
        content = REAL[RECORD_HEADER_LEN:]
        split = records(content, size)
        self.assertEqual(parse_client_hello(split), parse_client_hello(REAL))
        cut = data.draw(st.integers(0, len(split) - 1))
        self.assertIsNone(parse_client_hello(split[:cut]))

    @given(st.lists(st.tuples(st.integers(0, len(REAL) - 1), st.integers(0, 255)), max_size=8))
    def test_damage(self, changes: list[tuple[int, int]]) -> None:
        """A damaged hello is read, incomplete, or a ProtocolError; nothing else happens."""
        damaged = bytearray(REAL)
        for position, value in changes:
            damaged[position] = value
        with contextlib.suppress(ProtocolError):
            parse_client_hello(damaged)

    @given(st.integers(RECORD_HEADER_LEN + 4, len(REAL)), st.binary(max_size=40))
    def test_cut_and_relabelled(self, cut: int, tail: bytes) -> None:
        """A hello whose outer lengths were made to fit a truncated body never reads past it."""
        body = REAL[RECORD_HEADER_LEN + 4 : cut] + tail
        with contextlib.suppress(ProtocolError):
            parse_client_hello(records(message(body=body)) + REAL)

    @given(st.binary(max_size=200))
    def test_garbage(self, data: bytes) -> None:
        """Garbage asks for more or is refused."""
        for start in (b"", b"\x16\x03\x01", b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c"):
            with contextlib.suppress(ProtocolError):
                self.assertIn(type(parse_client_hello(start + data)), (type(None), ClientHello))


class HandMadeHelloTests(SynchronousTestCase):
    """Corners no client library produces on request."""

    def read(self, *extensions: bytes, version: int = 0x0303) -> ClientHello:
        hello = parse_client_hello(records(message(*extensions, version=version)))
        assert hello is not None
        return hello

    def refuse(self, data: bytes) -> None:
        self.assertRaises(ProtocolError, parse_client_hello, data)

    def test_post_quantum(self) -> None:
        """A hello longer than one segment waits for its end, whole or in small records."""
        whole = records(POST_QUANTUM)
        hello = parse_client_hello(whole)
        assert hello is not None
        self.assertEqual(hello.server_name, "relay.example.test")
        self.assertEqual(hello.supported_groups, (0x11EC, 0x001D))
        self.assertIsNone(parse_client_hello(whole[:1200]))
        self.assertEqual(parse_client_hello(records(POST_QUANTUM, 1)), hello)

    def test_no_extensions(self) -> None:
        """The extension block may be missing altogether; then TLS 1.2 is the most offered."""
        self.assertEqual(self.read(), ClientHello(offers_tls12=True))
        self.assertEqual(self.read(version=0x0302), ClientHello())

    def test_supported_versions_overrule(self) -> None:
        """With supported_versions the version field means nothing."""
        only13 = self.read(extension(43, b"\x02\x03\x04"))
        self.assertEqual((only13.offers_tls13, only13.offers_tls12), (True, False))
        neither = self.read(extension(43, b"\x04\x03\x02\x03\x01"))
        self.assertEqual((neither.offers_tls13, neither.offers_tls12), (False, False))

    def test_name_types(self) -> None:
        """Entries of an unknown type are skipped; the case of a name is kept."""
        self.assertIsNone(self.read(server_name(b"x", kind=7)).server_name)
        self.assertEqual(self.read(server_name(b"Relay.Example")).server_name, "Relay.Example")

    def test_bad_names(self) -> None:
        """No name, two names, or one that could not be logged is a protocol error."""
        for bad in (
            server_name(),
            server_name(b""),
            server_name(b"a", b"b"),
            server_name(b"a\nb"),
            server_name(b"a b"),
            server_name(b"a\x00"),
            server_name(b"\xc3\xa4.example"),
            server_name(b"x" * 256),
            extension(0, b""),
            extension(0, b"\x00\x03\x00\x00\x01"),
            extension(0, b"\x00\x02\x00\x00"),
            extension(0, b"\x00\x09\x00\x00\x01a"),
        ):
            self.refuse(records(message(bad)))

    def test_bad_protocol_lists(self) -> None:
        """ALPN must be a non-empty list of non-empty names that fills its extension."""
        for bad in (b"", b"\x00\x00", b"\x00\x01\x00", b"\x00\x02\x00\x00", b"\x00\x03\x03h2"):
            self.refuse(records(message(extension(16, bad))))
        self.refuse(records(message(extension(16, b"\x00\x03\x02h2\x00"))))

    def test_bad_number_lists(self) -> None:
        """Versions and groups are whole 16-bit numbers, at least one."""
        for bad in (b"", b"\x00", b"\x01\x03", b"\x03\x03\x04\x03", b"\x04\x03\x04"):
            self.refuse(records(message(extension(43, bad))))
        self.refuse(records(message(extension(43, b"\x02\x03\x04\x00"))))
        self.refuse(records(message(extension(10, b"\x00\x00"))))

    def test_lengths_do_not_add_up(self) -> None:
        """The extension block ends exactly where the message ends."""
        good = message(SUPPORTED_VERSIONS)[4:]
        overrun = good.replace(SUPPORTED_VERSIONS[:4], b"\x00\x15\x00\x07")
        self.refuse(records(message(body=overrun)) + bytes(20))
        self.refuse(records(message(body=good + b"\x00")))
        self.refuse(records(message(body=good[:-1])))
        self.refuse(records(message(body=good[:20])))
        self.refuse(records(message(body=b"")))

    def test_extension_twice(self) -> None:
        """The second of two names must not decide what the first one passed."""
        self.refuse(records(message(server_name(b"a"), server_name(b"b"))))

    def test_not_tls(self) -> None:
        """Other protocols are recognised at the first byte that differs."""
        for start in (b"G", b"GET / HTTP/1.1", b"DERP", b"\x80\x2e\x01", b"\x00"):
            self.refuse(start)
        self.refuse(b"\x16\x02")
        self.refuse(b"\x16\x02" + REAL[2:])
        self.refuse(b"\x16\x03\x01\x00\x05\x02")
        self.refuse(b"\x17\x03\x01")

    def test_other_record_between(self) -> None:
        """Nothing may stand between the records of one hello."""
        split = records(message(SUPPORTED_VERSIONS), 20)
        self.refuse(split[:25] + b"\x15\x03\x01\x00\x02\x01\x00" + split[25:])

    def test_too_long(self) -> None:
        """A length over the bound is refused from its header on, split or not."""
        self.refuse(records(b"\x01" + (MAX_HELLO_LEN + 1).to_bytes(3, "big")))
        self.refuse(records(b"\x01" + (MAX_HELLO_LEN + 1).to_bytes(3, "big"), 1))
        longest = message(extension(21, bytes(MAX_HELLO_LEN - 47)))
        self.assertEqual(len(longest), MAX_HELLO_LEN + 4)
        self.assertIsNotNone(parse_client_hello(records(longest)))

    def test_bad_record_lengths(self) -> None:
        """Empty and oversized records are refused."""
        self.refuse(b"\x16\x03\x01\x00\x00")
        self.refuse(b"\x16\x03\x01\x40\x01\x01\x00\x00\x10")
        self.refuse(records(message(SUPPORTED_VERSIONS), 20)[:25] + b"\x16\x03\x01\x00\x00")

    def test_too_many_records(self) -> None:
        """One-byte records of a long hello end at the record bound, below the buffer bound."""
        split = records(b"\x01" + MAX_HELLO_LEN.to_bytes(3, "big") + bytes(MAX_HELLO_LEN), 1)
        patience = (MAX_RECORDS + 1) * (RECORD_HEADER_LEN + 1) - 2
        self.assertIsNone(parse_client_hello(split[:patience]))
        self.refuse(split[: patience + 2])
        self.assertLess(patience, MAX_BUFFERED_LEN)
