"""Tests for :mod:`derp.net.mesh_service`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from derp.config import Config, MeshPeer
from derp.errors import ConfigError
from derp.net import mesh_service
from derp.net.mesh_service import NO_KEY, MeshService
from derp.net.reload import Reloader
from derp.net.secrets_cache import Secret
from derp.wire.frames import FrameType
from tests.core.fakes import MESH_KEY, FakeClient, make_relay

A = MeshPeer(name="192.0.2.1", host="192.0.2.1")


class ReplacedSetec:
    """Meanwhile a service asks a test instead of setec; the questions are by name."""

    def __init__(self, case: SynchronousTestCase) -> None:
        self._case = case

    def __enter__(self) -> dict[str, Deferred[Secret]]:
        answers: dict[str, Deferred[Secret]] = {}

        class FakeSetec:
            url = "http://setec.test"

            def __init__(self, reactor: object, url: str) -> None:
                assert url == self.url

            def get(self, name: str) -> Deferred[Secret]:
                return answers.setdefault(name, Deferred())

        self._patch = self._case.patch(mesh_service, "Setec", FakeSetec)
        return answers

    def __exit__(self, *_: object) -> None:
        self._patch.restore()


class MeshServiceTests(SynchronousTestCase):
    """From flags to links."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.reloader = Reloader(self.reactor)
        self.file = Path(self.mktemp())

    def make(self, **fields: object) -> MeshService:
        config = replace(Config(mesh_key=MESH_KEY), **fields)  # type: ignore[arg-type]
        self.relay = make_relay(mesh_key=config.mesh_key)
        return MeshService(self.reactor, self.relay, config, self.reloader)

    def names(self, service: MeshService) -> list[str]:
        return [link.peer.name for link in service.links]

    def test_nobody(self) -> None:
        """A relay alone needs no key, and has no links and no file."""
        service = self.make(mesh_key=None)
        self.assertEqual((self.names(service), self.reloader.files), ([], []))

    def test_key_is_needed(self) -> None:
        """Peers without a key are one sentence that says where to put it."""
        for fields, flag, place in (
            ({"mesh_with": (A,)}, "--mesh-with needs", "--mesh-psk-file"),
            ({"mesh_with_file": "/f"}, "--mesh-with-file needs", "--mesh-psk-file"),
            ({"mesh_with": (A,), "dev": True}, "--mesh-with needs", "TAILSCALE_DERPER_MESH_KEY"),
        ):
            with self.assertRaises(ConfigError) as caught:
                self.make(mesh_key=None, **fields)
            self.assertIn(flag, str(caught.exception))
            self.assertIn(place, str(caught.exception))

    def test_file(self) -> None:
        """The file adds to the flag; read again, it is the new list; unusable, the old stays."""
        self.file.write_text("192.0.2.2\n192.0.2.1\n")
        service = self.make(mesh_with=(A,), mesh_with_file=str(self.file))
        self.assertEqual(self.names(service), ["192.0.2.1", "192.0.2.2"])
        service.startService()
        self.assertEqual(len(self.reactor.tcpClients), 2)
        self.file.write_text("192.0.2.3\n")
        self.reloader.reload_all()
        self.assertEqual(self.names(service), ["192.0.2.1", "192.0.2.3"])
        self.assertEqual([dialed[0] for dialed in self.reactor.tcpClients][2:], ["192.0.2.3"])
        self.file.write_text("192.0.2.4\n/\n")
        self.reloader.reload_all()
        self.assertEqual(self.names(service), ["192.0.2.1", "192.0.2.3"])
        (file,) = self.reloader.files
        self.assertEqual((file.name, file.loads, file.failures), ("mesh_with", 1, 1))
        service.stopService()

    def test_setec(self) -> None:
        """The key comes later: until then there are no links, and clients are told."""
        with ReplacedSetec(self) as answers:
            service = self.make(mesh_key=None, mesh_with=(A,), secrets_url="http://setec.test")
        service.startService()
        client = FakeClient(self.relay, "alice")
        self.assertEqual(client.take_raw(), [(FrameType.HEALTH, NO_KEY.encode())])
        self.assertEqual(self.reactor.tcpClients, [])
        self.assertEqual(list(answers), ["prod/derp/meshkey"])
        answers["prod/derp/meshkey"].callback(Secret(MESH_KEY.hex().encode(), 1))
        self.assertEqual(self.relay.mesh_key, MESH_KEY)
        self.assertEqual(len(self.reactor.tcpClients), 1)
        self.assertEqual(client.take_raw(), [(FrameType.HEALTH, b"")])
        service.stopService()

    def test_setec_without_peers(self) -> None:
        """Who meshes with nobody misses nothing meanwhile."""
        with ReplacedSetec(self):
            service = self.make(mesh_key=None, secrets_url="http://setec.test")
        service.startService()
        self.assertEqual(FakeClient(self.relay, "alice").take_raw(), [])
        service.stopService()

    def test_bad_file(self) -> None:
        """A file that is not there, and one that is no list, stop the start."""
        with self.assertRaisesRegex(ConfigError, "--mesh-with-file: cannot read"):
            self.make(mesh_with_file=str(self.file))
        self.file.write_text("a/b/c")
        with self.assertRaisesRegex(ConfigError, "--mesh-with-file: .+ line 1: .a/b/c. is no"):
            self.make(mesh_with_file=str(self.file))

    def test_bad_ca_file(self) -> None:
        """So does a file of roots that holds none."""
        with self.assertRaisesRegex(ConfigError, "--mesh-ca-file: "):
            self.make(mesh_with=(A,), mesh_ca_file="/nowhere/at/all.pem")
