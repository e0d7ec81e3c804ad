"""A whole relay takes back what it admitted, on real sockets."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from derp.core.admission import Verdict
from derp.net import local_api, reverify
from derp.net.metrics import make_registry
from derp.net.relay_client import RelayClient
from derp.net.relay_errors import RelayError
from derp.net.reverify import GOODBYE
from derp.services import RelayService
from derp.wire.keys import format_node_public, public_of
from derp.wire.messages import Health
from tests.net.admission_fakes import (
    ALLOW,
    CLOSE,
    DENY,
    KEY,
    KNOWN,
    UNKNOWN,
    AdmissionTestCase,
    FakeServer,
    respond,
)
from tests.net.test_admission_vectors import answers

INTERVAL_S = 0.2
OTHER = bytes(range(1, 33))
RUNNING = respond(b'{"BackendState":"Running"}')
STARTING = respond(b'{"BackendState":"Starting"}')


class RevocationTests(AdmissionTestCase):
    """Told, closed, counted."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(reverify, "MAX_CONFIRM_S", 0.05)
        self.patch(local_api, "EARLY_S", 0.0)

    async def assert_revoked(self, relay: RelayService, client: RelayClient) -> None:
        """The frame, the close, the metric, the log."""
        await client.when_closed()
        self.assertEqual(self.messages[-1], Health(GOODBYE))
        self.assertEqual(relay.admission.stats.revoked, 1)
        self.assertEqual(self.metric(relay, "derp_clients_revoked_total"), 1)
        self.assertEqual(len(self.logged(f"client {KEY} is no longer admitted")), 1)

    def metric(self, relay: RelayService, name: str, **labels: str) -> float | None:
        return make_registry(relay.sources).get_sample_value(name, labels)

    def recheck(self, relay: RelayService, count: int, server: FakeServer) -> Deferred[None]:
        """Wait until somebody was asked again so often."""
        return server.when(lambda: sum(relay.admission.stats.rechecks.values()) >= count)

    async def test_url(self) -> None:
        """A URL that says no to a connected client."""
        server = await self.fake()
        relay = self.relay(verify_client_url=(server.url,), reverify_interval=INTERVAL_S)
        client = await self.login(relay)
        server.answer = DENY
        await self.assert_revoked(relay, client)
        with self.assertRaises(RelayError):
            await self.login(relay)

    async def test_socket(self) -> None:
        """A tailscaled that runs and knows it no more."""
        server = await self.fake(KNOWN, path := self.mktemp())
        relay = self.relay(verify_clients=True, socket=(path,), reverify_interval=INTERVAL_S)
        client = await self.login(relay)
        server.answer_to = answers({b"/whois": UNKNOWN, b"/status": RUNNING})
        await self.assert_revoked(relay, client)

    async def test_socket_starting(self) -> None:
        """A tailscaled that is starting knows nobody; that throws nobody out."""
        server = await self.fake(KNOWN, path := self.mktemp())
        relay = self.relay(verify_clients=True, socket=(path,), reverify_interval=INTERVAL_S)
        client = await self.login(relay)
        server.answer_to = answers({b"/whois": UNKNOWN, b"/status": STARTING})
        await self.recheck(relay, 4, server)
        self.assertEqual(relay.admission.stats.rechecks[Verdict.DENIED], 0)
        server.answer_to = answers({b"/whois": UNKNOWN, b"/status": RUNNING})
        await self.assert_revoked(relay, client)

    def keys(self, *keys: bytes) -> str:
        """Write an allow list."""
        path = Path(self.mktemp())
        path.write_text("".join(f"{format_node_public(key)}\n" for key in keys))
        return str(path)

    async def test_file(self) -> None:
        """A changed allow list, at once; the others stay."""
        mine = bytes.fromhex(KEY.partition(":")[2])
        path = self.keys(mine, public_of(OTHER))
        relay = self.relay(allow_clients=path)
        other = await self.login(relay, private_key=OTHER)
        client = await self.login(relay)
        os.replace(self.keys(public_of(OTHER)), path)
        relay.reloader.look()
        relay.reloader.look()
        await self.assert_revoked(relay, client)
        self.assertTrue(other.send(public_of(OTHER), b"x"))
        labels = {"file": "allow_clients", "result": "success"}
        self.assertEqual(self.metric(relay, "derp_reloads_total", **labels), 1)

    async def test_bad_file(self) -> None:
        """A list that cannot be used changes nothing but a counter."""
        path = self.keys(bytes.fromhex(KEY.partition(":")[2]))
        relay = self.relay(allow_clients=path)
        await self.login(relay)
        Path(path).write_text("rubbish\n")
        relay.reloader.reload_all()
        self.assertEqual(len(self.logged('line 1: "rubbish" is no node key')), 1)
        await self.login(relay)
        labels = {"file": "allow_clients", "result": "failure"}
        self.assertEqual(self.metric(relay, "derp_reloads_total", **labels), 1)

    async def test_hang_up(self) -> None:
        """SIGHUP asks about everybody at once, without an interval."""
        server = await self.fake()
        relay = self.relay(verify_client_url=(server.url,))
        client = await self.login(relay)
        server.answer = DENY
        os.kill(os.getpid(), signal.SIGHUP)
        await self.assert_revoked(relay, client)

    async def test_flapping_url(self) -> None:
        """A URL that comes and goes throws nobody out, and fails open meanwhile."""
        server = await self.fake()
        relay = self.relay(verify_client_url=(server.url,), reverify_interval=INTERVAL_S)
        client = await self.login(relay)
        flapping = [ALLOW, CLOSE, respond(b"{", "502 Bad Gateway"), respond(b"garbage")] * 2
        server.answer_to = lambda request: flapping.pop()
        await server.when(lambda: not flapping)
        self.assertTrue(client.send(public_of(OTHER), b"x"))
        self.assertEqual(relay.admission.stats.revoked, 0)
        server.answer_to = lambda request: CLOSE
        await self.login(relay, private_key=OTHER)

    async def test_fail_open_keeps_nobody_refused(self) -> None:
        """A refusal stands also when the URL vanishes behind it."""
        server = await self.fake()
        relay = self.relay(verify_client_url=(server.url,), reverify_interval=INTERVAL_S)
        client = await self.login(relay)
        says = [CLOSE, CLOSE, DENY, CLOSE, DENY]
        server.answer_to = lambda request: says.pop() if says else CLOSE
        await self.assert_revoked(relay, client)
        self.assertGreaterEqual(relay.admission.stats.rechecks[Verdict.UNREACHABLE], 1)
        with self.assertRaises(RelayError):
            await self.login(relay)
        await self.login(relay, private_key=OTHER)

    async def test_socket_returns(self) -> None:
        """A tailscaled that is restarted: refused meanwhile, asked again afterwards."""
        path = self.mktemp()
        server = await self.fake(KNOWN, path)
        relay = self.relay(verify_clients=True, socket=(path,), reverify_interval=INTERVAL_S)
        client = await self.login(relay)
        await server.stop()
        self.assertFalse(os.path.exists(path))
        with self.assertRaises(RelayError):
            await self.login(relay, private_key=OTHER)
        await self.login(relay)  # said to be known a moment ago
        again = await self.fake(KNOWN, path)
        await self.login(relay, private_key=OTHER)
        await again.when(lambda: any(KEY.encode()[8:] in request for request in again.requests))
        self.assertTrue(client.send(public_of(OTHER), b"x"))

    async def test_several(self) -> None:
        """Of several sockets one that knows is enough, and all must be sure to revoke."""
        first = await self.fake(UNKNOWN, one := self.mktemp())
        second = await self.fake(KNOWN, two := self.mktemp())
        relay = self.relay(verify_clients=True, socket=(one, two), reverify_interval=INTERVAL_S)
        first.answer_to = answers({b"/whois": UNKNOWN, b"/status": RUNNING})
        client = await self.login(relay)
        await second.stop()
        await self.recheck(relay, 3, first)
        self.assertTrue(client.send(public_of(OTHER), b"x"))
        third = await self.fake(path=two)
        third.answer_to = answers({b"/whois": UNKNOWN, b"/status": RUNNING})
        await self.assert_revoked(relay, client)

    async def test_any(self) -> None:
        """Under ``any``, who is in the file needs no URL, and the other way round."""
        server = await self.fake(DENY)
        path = self.keys(bytes.fromhex(KEY.partition(":")[2]))
        relay = self.relay(verify_client_url=(server.url,), allow_clients=path, verify_policy="any")
        await self.login(relay)
        self.assertEqual(server.requests, [])
        with self.assertRaises(RelayError):
            await self.login(relay, private_key=OTHER)
        server.answer = ALLOW
        await self.login(relay, private_key=bytes(range(2, 34)))
        bodies = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in server.requests]
        self.assertEqual(len(bodies), 2)


class MeshKeyReloadTests(AdmissionTestCase):
    """The mesh key file is read again, too."""

    async def test_new_key(self) -> None:
        """Logins with the new key are a mesh peer's; an empty file changes nothing."""
        path = Path(self.mktemp())
        new: bytes = bytes(range(40, 72))
        relay = self.relay(mesh_key=bytes(range(32)), mesh_psk_file=str(path))
        path.write_text("")
        relay.reloader.reload_all()
        self.assertEqual(relay.relay.mesh_key, bytes(range(32)))
        path.write_text(new.hex() + "\n")
        relay.reloader.reload_all()
        client: Any = await self.login(relay, mesh_key=new, watch_conns=True)
        self.assertTrue(client.watch_conns())
        await client.ping()
        self.assertEqual(len(relay.relay.watchers), 1)
