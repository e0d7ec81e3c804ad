"""Tests of :mod:`derp.wire.keys` against the texts the reference reads and prints."""

import contextlib
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ProtocolError
from derp.wire import keys
from tests.vectors import load

KEYS = load("keys.json")
RAW_KEYS = st.binary(min_size=32, max_size=32)


class KeyVectorTests(SynchronousTestCase):
    """What the reference did with the same input."""

    def check(self, cases: list[dict[str, Any]], parse: Callable[[str], bytes]) -> None:
        for case in cases:
            if case["ok"]:
                self.assertEqual(parse(case["input"]).hex(), case["value_hex"], case)
            else:
                self.assertRaises(ProtocolError, parse, case["input"])

    def test_pairs(self) -> None:
        """Every text form of a recorded pair is read and printed to the letter."""
        for pair in KEYS["pairs"]:
            private = bytes.fromhex(pair["private_hex"])
            public = bytes.fromhex(pair["public_hex"])
            self.assertEqual(keys.public_of(private), public, pair["name"])
            self.assertEqual(keys.format_node_private(private), pair["private_text"])
            self.assertEqual(keys.format_node_public(public), pair["public_text"])
            self.assertEqual(keys.parse_node_private(pair["private_text"]), private)
            self.assertEqual(keys.parse_node_public(pair["public_text"]), public)
            self.assertEqual(keys.short_key(public), pair["short"])

    def test_private(self) -> None:
        """Private keys need their own prefix and exactly 64 digits."""
        self.check(KEYS["parse_private"], keys.parse_node_private)

    def test_public(self) -> None:
        """Public keys need their own prefix, in lower case, and no line end."""
        self.check(KEYS["parse_public"], keys.parse_node_public)

    def test_untyped_public(self) -> None:
        """The untyped form has no prefix."""
        self.check(KEYS["parse_public_untyped"], keys.parse_untyped_public)

    def test_mesh(self) -> None:
        """A mesh key from a file may have white space around it."""
        self.check(KEYS["parse_mesh_key"], keys.parse_mesh_key)

    def test_mesh_in_client_info(self) -> None:
        """A mesh key inside JSON is bare; values that are not strings are the reader's affair."""
        texts = [case for case in KEYS["parse_mesh_key_json"] if case["input"].startswith('"')]
        bare = [{**case, "input": case["input"][1:-1]} for case in texts]
        self.check(bare, keys.parse_mesh_key_hex)
        self.assertRaises(ProtocolError, keys.parse_mesh_key_hex, " " + "ab" * 32)

    def test_zero(self) -> None:
        """The zero key has all text forms but no name in a log."""
        zero = KEYS["zero"]
        self.assertEqual(keys.format_node_private(keys.ZERO_KEY), zero["private_text"])
        self.assertEqual(keys.format_node_public(keys.ZERO_KEY), zero["public_text"])
        self.assertEqual(keys.short_key(keys.ZERO_KEY), zero["public_short"])
        self.assertEqual(keys.parse_mesh_key(zero["mesh_text"]), keys.ZERO_KEY)


class KeyTests(SynchronousTestCase):
    """What no vector shows."""

    def test_is_zero(self) -> None:
        """Only 32 zero bytes are no key."""
        self.assertTrue(keys.is_zero(bytes(32)))
        self.assertFalse(keys.is_zero(bytes(31) + b"\x01"))

    def test_zero_has_no_public_key(self) -> None:
        """Asking for it is our bug (the reference panics)."""
        self.assertRaises(ValueError, keys.public_of, keys.ZERO_KEY)

    def test_generated_is_clamped(self) -> None:
        """New private keys are clamped and differ from each other."""
        made = {keys.generate_private() for _ in range(64)}
        self.assertEqual(len(made), 64)
        for private in made:
            self.assertEqual(private[0] & 7, 0)
            self.assertEqual(private[31] & 0xC0, 0x40)

    def test_wrong_length_is_our_bug(self) -> None:
        """Formatting what is not a key raises ValueError, not ProtocolError."""
        for call in (
            keys.format_node_public,
            keys.format_node_private,
            keys.short_key,
            keys.public_of,
        ):
            for length in (0, 31, 33):
                self.assertRaises(ValueError, call, bytes(length))

    def test_private_text_is_not_repeated(self) -> None:
        """An error about a private key shows none of its digits."""
        secret = "c0ffee" * 10
        for text in (secret, "privkey:" + secret, "privkey:" + "c0ffeezz" * 8):
            error = self.assertRaises(ProtocolError, keys.parse_node_private, text)
            self.assertNotIn("c0ffee", str(error))

    def test_blanks_between_digits(self) -> None:
        """bytes.fromhex skips blanks; a key text must not have them."""
        self.assertRaises(ProtocolError, keys.parse_untyped_public, "ab " * 21 + "c")
        self.assertRaises(ProtocolError, keys.parse_untyped_public, "\u0661" * 64)

    @given(RAW_KEYS)
    def test_round_trip(self, raw: bytes) -> None:
        """Any 32 bytes come back from each of their texts, in either case."""
        self.assertEqual(keys.parse_node_public(keys.format_node_public(raw)), raw)
        self.assertEqual(keys.parse_node_private(keys.format_node_private(raw)), raw)
        self.assertEqual(keys.parse_untyped_public(raw.hex().upper()), raw)

    @given(st.text(max_size=80))
    def test_garbage(self, text: str) -> None:
        """Any text is a key or a ProtocolError."""
        for parse in (
            keys.parse_node_public,
            keys.parse_node_private,
            keys.parse_untyped_public,
            keys.parse_mesh_key,
            keys.parse_mesh_key_hex,
        ):
            with contextlib.suppress(ProtocolError):
                self.assertEqual(len(parse(text)), 32)
