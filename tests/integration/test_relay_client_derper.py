"""
The client library against a real derper.

Set ``DERP_TEST_DERPER`` to the command that starts one: the reference's binary, or
``"twistd -n derper"`` for our own server; the flags are the same.
"""

from __future__ import annotations

import os
import shlex
import socket
import ssl
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from derp.net.relay_client import RelayClient
from derp.net.relay_connector import connect
from derp.net.relay_errors import ConnectFailed, LoginRefused
from derp.wire.derp_map import Node, Region
from derp.wire.disco import DISCO_MAGIC
from derp.wire.frames import MAX_PACKET, PeerGoneReason, PeerPresentFlags
from derp.wire.handshake import ServerInfo
from derp.wire.keys import generate_private
from derp.wire.messages import KeepAlive, PeerGone, PeerPresent, ReceivedPacket
from derp.wire.node_json import pin_of

reactor: Any = global_reactor

COMMAND = os.environ.get("DERP_TEST_DERPER", "")
HOST = "127.0.0.1"
MESH_KEY = bytes.fromhex("0123456789abcdef" * 4)


class Derper(ProcessProtocol):
    """A derper with a self-signed certificate for its address, until stopped."""

    def __init__(self, directory: str, *flags: str) -> None:
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.port = free.getsockname()[1]
        directory = os.path.abspath(directory)
        os.makedirs(directory)
        mesh_file = os.path.join(directory, "mesh")
        with open(mesh_file, "w", encoding="ascii") as file:
            file.write(MESH_KEY.hex())
        arguments = [
            *shlex.split(COMMAND),
            *("-c", os.path.join(directory, "key.json")),
            *("-certmode", "manual", "-certdir", os.path.join(directory, "certs")),
            *("-hostname", HOST, "-a", f"{HOST}:{self.port}", "-http-port", "-1"),
            *("-stun=false", "-mesh-psk-file", mesh_file),
            *flags,
        ]
        self.ended: Deferred[None] = Deferred()
        self._cert_file = os.path.join(directory, "certs", f"{HOST}.crt")
        self._output = ""
        reactor.spawnProcess(self, arguments[0], arguments, os.environ, directory)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._output += data.decode("utf-8", "replace")

    def processEnded(self, reason: Failure) -> None:
        reason.trap(ProcessDone, ProcessTerminated)
        self.ended.callback(None)

    async def region(self) -> Region:
        """A region of it alone, pinned, once it accepts connections."""
        while not self._accepts_connections():
            if self.ended.called:
                raise AssertionError(f"derper ended early:\n{self._output}")
            await deferLater(reactor, 0.02)
        with open(self._cert_file, encoding="ascii") as file:
            pin = pin_of(ssl.PEM_cert_to_DER_cert(file.read()))
        node = Node(name="900a", host_name=HOST, cert_name=pin, derp_port=self.port)
        return Region(region_id=900, code="test", nodes=(node,))

    def _accepts_connections(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def stop(self) -> Deferred[None]:
        if self.transport is not None and self.transport.pid:
            self.transport.signalProcess("KILL")
        return self.ended


class DerperTests(TestCase):
    """Everything a client does, as a real server sees it."""

    timeout = 30
    skip = None if COMMAND else "DERP_TEST_DERPER names no derper to test against"

    def setUp(self) -> None:
        self.clients: list[RelayClient] = []

    async def tearDown(self) -> None:
        for client in self.clients:
            await client.close()

    async def derper(self, *flags: str) -> Region:
        derper = Derper(self.mktemp(), *flags)
        self.addCleanup(derper.stop)
        return await derper.region()

    async def client(self, target: Any, **options: Any) -> tuple[RelayClient, DeferredQueue[Any]]:
        """A client that is logged in, and what it hears, keep-alives left out."""
        heard: DeferredQueue[Any] = DeferredQueue()

        def on_message(message: Any) -> None:
            if not isinstance(message, KeepAlive):
                heard.put(message)

        options.setdefault("private_key", generate_private())
        client = await connect(reactor, target, on_message=on_message, **options)
        self.clients.append(client)
        await client.when_logged_in()
        self.assertEqual(await heard.get(), ServerInfo(2), "the first message")
        return client, heard

    async def test_login(self) -> None:
        """By its pin, fast and not; the key is the same both ways."""
        region = await self.derper()
        fast, _ = await self.client(region)
        slow, _ = await self.client(region, fast_start=False)
        self.assertEqual(fast.server_key, slow.server_key)
        self.assertEqual(fast.tls_version, "TLSv1.3")
        self.assertLess(await fast.ping(), 5.0)
        self.assertLess(await slow.ping(), 5.0)

    async def test_unpinned(self) -> None:
        """By URL its certificate is refused, and the pin to use instead is offered."""
        region = await self.derper()
        (node,) = region.nodes
        url = f"https://{HOST}:{node.derp_port}/derp"
        with self.assertRaises(ConnectFailed) as caught:
            await self.client(url)
        self.assertIn(node.cert_name, str(caught.exception))
        await self.client(url, insecure_for_tests=True)

    async def test_packets(self) -> None:
        """Packets of all sizes arrive at the addressee in order, and come back."""
        region = await self.derper()
        alice, to_alice = await self.client(region, preferred=True)
        bob, to_bob = await self.client(region, fast_start=False)
        sizes = (0, 1, 1200, MAX_PACKET - 1, MAX_PACKET)
        for size in sizes:
            self.assertTrue(alice.send(bob.public_key, bytes(size)))
        for size in sizes:
            self.assertEqual(await to_bob.get(), ReceivedPacket(alice.public_key, bytes(size)))
        bob.send(alice.public_key, b"back")
        self.assertEqual(await to_alice.get(), ReceivedPacket(bob.public_key, b"back"))
        self.assertEqual(to_bob.pending, [])

    async def test_peer_gone(self) -> None:
        """Who is not here is said to be so; who leaves is missed by those it had sent to."""
        region = await self.derper()
        alice, to_alice = await self.client(region)
        bob, to_bob = await self.client(region)
        nobody = bytes(range(32))
        alice.send(nobody, DISCO_MAGIC + bytes(56))
        self.assertEqual(await to_alice.get(), PeerGone(nobody, PeerGoneReason.NOT_HERE))
        bob.send(alice.public_key, b"hello")
        await to_alice.get()
        await bob.close()
        gone = PeerGone(bob.public_key, PeerGoneReason.DISCONNECTED)
        self.assertEqual(await to_alice.get(), gone)
        self.assertEqual(to_bob.pending, [])

    async def test_mesh(self) -> None:
        """A mesh peer sees who is there, forwards, and can have a client closed."""
        region = await self.derper()
        watcher, seen = await self.client(region, mesh_key=MESH_KEY, watch_conns=True)
        present = await seen.get()
        self.assertEqual(present.key, watcher.public_key)
        self.assertEqual(present.flags, PeerPresentFlags.MESH_PEER)
        client, heard = await self.client(region)
        present = await seen.get()
        self.assertIsInstance(present, PeerPresent)
        self.assertEqual((present.key, str(present.ip)), (client.public_key, HOST))
        source = bytes(range(32))
        self.assertTrue(watcher.forward(source, client.public_key, b"forwarded"))
        self.assertEqual(await heard.get(), ReceivedPacket(source, b"forwarded"))
        watcher.close_peer(client.public_key)
        error = await client.when_closed()
        self.assertIn("connection lost", str(error))
        gone = PeerGone(client.public_key, PeerGoneReason.DISCONNECTED)
        self.assertEqual(await seen.get(), gone)

    async def test_no_mesh_rights(self) -> None:
        """Who watches without the mesh key is closed."""
        region = await self.derper()
        client, _ = await self.client(region, mesh_key=bytes(31) + b"x")
        self.assertTrue(client.watch_conns())
        self.assertIsNotNone(await client.when_closed())

    async def test_refused(self) -> None:
        """A key that is not admitted is told so, as well as can be."""
        region = await self.derper(
            "-verify-client-url", "http://127.0.0.1:1/", "-verify-client-url-fail-open=false"
        )
        for fast_start in (True, False):
            with self.assertRaises(LoginRefused):
                await self.client(region, fast_start=fast_start)

    async def test_derp_turned_off(self) -> None:
        """A derper without DERP answers 404, to either kind of start."""
        region = await self.derper("-derp=false")
        with self.assertRaises(ConnectFailed) as caught:
            await self.client(region, fast_start=False)
        self.assertIn("404", str(caught.exception))
        client = await connect(reactor, region, generate_private())
        self.assertIn("404", str(await client.when_closed()))
