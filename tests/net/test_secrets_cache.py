"""Tests for :mod:`derp.net.secrets_cache`."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ConfigError, ProtocolError
from derp.net.secrets_cache import Secret, SecretsCache, read_secret_json

NAME = "prod/derp/meshkey"
ENTRY = {"secret": {"Value": "c2VjcmV0", "Version": 3}, "lastAccess": "1732000000"}


class SecretsCacheTests(SynchronousTestCase):
    """A file that derper could have written, and reads."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute() / "deep" / "cache"
        self.cache = SecretsCache(str(self.path))

    def put(self, content: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(content)

    def test_format(self) -> None:
        """What is written is what setec's client writes, in a file only we can read."""
        self.cache.write(NAME, Secret(b"secret", 3), 1732000000.9)
        self.assertEqual(json.loads(self.path.read_bytes()), {NAME: ENTRY})
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        self.assertEqual(stat.S_IMODE(os.stat(self.path.parent).st_mode), 0o700)
        self.assertEqual(self.cache.read(NAME), Secret(b"secret", 3))
        self.assertEqual(SecretsCache(str(self.path)).read(NAME), Secret(b"secret", 3))

    def test_not_there(self) -> None:
        """Neither the file nor the name have to be."""
        self.assertIsNone(self.cache.read(NAME))
        self.put(json.dumps({"other": ENTRY}).encode())
        self.assertIsNone(self.cache.read(NAME))

    def test_invalid(self) -> None:
        """A file that is no cache, and an entry that is none, are told without the value."""
        well = json.dumps(ENTRY)
        entries = [
            '{"secret": {"Value": "c2VjcmV0"}}',
            '{"secret": {"Value": "c2VjcmV0!", "Version": 1}}',
            '{"secret": {"Value": "c2VjcmV0", "Version": -1}}',
            '{"secret": {"Value": "c2VjcmV0", "Version": true}}',
            "1",
        ]
        for content in (
            "",
            "{",
            "[]",
            '{"": ' + well + "}",
            '{"' + NAME + '": ' + well + ', "x": null}',
            *('{"' + NAME + '": ' + entry + "}" for entry in entries),
        ):
            self.put(content.encode())
            with self.assertRaises(ProtocolError, msg=content) as caught:
                self.cache.read(NAME)
            self.assertNotIn("c2VjcmV0", str(caught.exception))

    def test_no_file(self) -> None:
        """A directory in its place stops the start."""
        self.path.mkdir(parents=True)
        with self.assertRaisesRegex(ConfigError, "--secrets-cache-dir: .* not a regular file"):
            SecretsCache(str(self.path))

    def test_value_is_not_shown(self) -> None:
        """Not even when a secret is printed."""
        self.assertNotIn("secret", repr(Secret(b"secret", 3)).lower().replace("secret(", ""))

    @given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
    def test_any_json(self, value: object) -> None:
        """Whatever JSON comes is a secret or refused."""
        for fields in (value, {"Value": value, "Version": 1}, {"Value": "", "Version": value}):
            try:
                read_secret_json(fields)
            except ProtocolError:
                continue
