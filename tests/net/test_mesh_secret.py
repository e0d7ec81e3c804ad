"""Tests for :mod:`derp.net.mesh_secret`: when who is asked for the key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ConfigError
from derp.net.mesh_secret import FIRST_PAUSE_S, MAX_PAUSE_S, MeshSecret
from derp.net.secrets_cache import Secret, SecretsCache
from derp.net.setec import SetecError
from tests.core.fakes import MESH_KEY

NAME = "prod/derp/meshkey"
SECRET = Secret(MESH_KEY.hex().encode() + b"\n", 2)


class FakeSetec:
    """A server whose answers a test gives."""

    url = "http://setec.test"

    def __init__(self) -> None:
        self.asked: list[Deferred[Secret]] = []

    def get(self, name: str) -> Deferred[Secret]:
        assert name == NAME
        self.asked.append(Deferred())
        return self.asked[-1]


class MeshSecretTests(SynchronousTestCase):
    """From the cache, or from the server, sooner or later."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.setec = FakeSetec()
        self.path = Path(self.mktemp()).absolute()
        self.keys: list[bytes] = []

    def make(self, *, cached: bool = True) -> MeshSecret:
        cache = SecretsCache(str(self.path)) if cached else None
        setec: Any = self.setec
        return MeshSecret(self.clock, setec, NAME, cache, self.keys.append)

    def fail(self, text: str = "no route") -> None:
        self.setec.asked[-1].errback(SetecError(text))

    def test_from_server(self) -> None:
        """Nobody knows it: the server is asked, once, and the cache keeps the answer."""
        secret = self.make()
        self.assertTrue(secret.waiting)
        secret.startService()
        self.assertEqual(self.keys, [])
        self.setec.asked[0].callback(SECRET)
        self.assertEqual((self.keys, secret.waiting), ([MESH_KEY], False))
        self.assertEqual(SecretsCache(str(self.path)).read(NAME), SECRET)
        secret.stopService()
        self.assertEqual((len(self.setec.asked), self.clock.getDelayedCalls()), (1, []))

    def test_from_cache(self) -> None:
        """The cache has it: it is there before anything starts, and nobody is asked."""
        SecretsCache(str(self.path)).write(NAME, SECRET, 0)
        secret = self.make()
        self.assertEqual((self.keys, secret.waiting), ([MESH_KEY], False))
        secret.startService()
        self.assertEqual(self.setec.asked, [])
        self.assertGreater(int(json.loads(self.path.read_bytes())[NAME]["lastAccess"]), 0)
        secret.stopService()

    def test_pauses(self) -> None:
        """Asked again after 1 ms, then twice as long each time, at most 4096 ms; for ever."""
        secret = self.make()
        secret.startService()
        pauses = []
        for _ in range(15):
            self.fail()
            (pause,) = self.clock.getDelayedCalls()
            pauses.append(round((pause.getTime() - self.clock.seconds()) * 1000))
            self.clock.advance(pause.getTime() - self.clock.seconds())
        self.assertEqual(pauses, [2**n for n in range(13)] + [4096] * 2)
        self.assertEqual((FIRST_PAUSE_S, MAX_PAUSE_S), (0.001, 4.096))
        self.setec.asked[-1].callback(SECRET)
        self.assertEqual(self.keys, [MESH_KEY])
        secret.stopService()

    def test_stopped(self) -> None:
        """The end comes while it is asked, or between two questions."""
        for failed in (False, True):
            secret = self.make()
            secret.startService()
            if failed:
                self.fail()
            secret.stopService()
            self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual([asked.called for asked in self.setec.asked], [True, True])

    def test_stopped_and_failed(self) -> None:
        """A question that fails because it is given up is not asked again."""
        secret = self.make()
        secret.startService()
        asked = self.setec.asked[0]
        asked._canceller = lambda _: asked.errback(SetecError("given up"))
        secret.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bad_value(self) -> None:
        """A secret that is no key is not kept; the server is asked again, without haste."""
        secret = self.make()
        secret.startService()
        for number, value in enumerate((b"0123", b"")):
            self.setec.asked[-1].callback(Secret(value, 1))
            self.assertTrue(secret.waiting)
            self.assertFalse(self.path.exists())
            self.clock.advance(MAX_PAUSE_S - 0.5)
            self.assertEqual(len(self.setec.asked), number + 1)
            self.clock.advance(0.6)
            self.assertEqual(len(self.setec.asked), number + 2)
        secret.stopService()

    def test_bad_value_in_cache(self) -> None:
        """A cached secret that is no key stops the start."""
        for value in (b"0123", b""):
            SecretsCache(str(self.path)).write(NAME, Secret(value, 1), 0)
            with self.assertRaisesRegex(ConfigError, "--secrets-cache-dir: .* mesh key"):
                self.make()

    def test_unusable_cache(self) -> None:
        """A broken cache is as good as none."""
        self.path.write_bytes(b"{")
        secret = self.make()
        secret.startService()
        self.setec.asked[0].callback(SECRET)
        self.assertEqual(self.keys, [MESH_KEY])
        self.assertEqual(SecretsCache(str(self.path)).read(NAME), SECRET)
        secret.stopService()

    def test_no_cache(self) -> None:
        """It works without."""
        secret = self.make(cached=False)
        secret.startService()
        self.setec.asked[0].callback(SECRET)
        self.assertEqual(self.keys, [MESH_KEY])
        self.assertFalse(self.path.exists())
        secret.stopService()

    def test_cache_cannot_be_written(self) -> None:
        """The key is used all the same."""
        blocked = self.path
        blocked.write_bytes(b"")
        self.path = blocked / "cache"
        secret = self.make()
        secret.startService()
        self.setec.asked[0].callback(SECRET)
        self.assertEqual(self.keys, [MESH_KEY])
        secret.stopService()
