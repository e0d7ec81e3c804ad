"""
The client library against servers in processes of their own: ours, and the reference's if
``DERP_TEST_DERPER`` names the command that starts it. The flags are the same.
"""

from __future__ import annotations

import contextlib  # not its "suppress": trial looks for that name in modules
import os
import shlex
import socket
import ssl
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from derp.net.relay_client import RelayClient
from derp.net.relay_connector import connect
from derp.net.relay_errors import ConnectFailed, LoginRefused
from derp.wire.derp_map import Node, Region
from derp.wire.disco import DISCO_MAGIC
from derp.wire.frames import MAX_PACKET, PeerGoneReason, PeerPresentFlags
from derp.wire.keys import generate_private
from derp.wire.messages import PeerGone, PeerPresent, ReceivedPacket
from derp.wire.node_json import pin_of
from tests.integration.relay_case import HOST, MESH_KEY, Heard, RelayTestCase, reactor

COMMAND = os.environ.get("DERP_TEST_DERPER", "")


def flags_of(place: Path) -> tuple[str, ...]:
    """A relay with a self-signed certificate for its address and a mesh key."""
    (place / "mesh").write_text(MESH_KEY.hex())
    return (
        *("-c", str(place / "key.json"), "-mesh-psk-file", str(place / "mesh")),
        *("-certmode", "manual", "-certdir", str(place / "certs"), "-hostname", HOST),
        *("-http-port", "-1", "-stun=false"),
    )


def region_of(place: Path, port: int) -> Region:
    """A region of this relay alone, known by the certificate it wrote."""
    pem = (place / "certs" / f"{HOST}.crt").read_text(encoding="ascii")
    pin = pin_of(ssl.PEM_cert_to_DER_cert(pem))
    node = Node(name="900a", host_name=HOST, cert_name=pin, derp_port=port)
    return Region(region_id=900, code="test", nodes=(node,))


class Derper(ProcessProtocol):
    """A derper of the reference, until stopped."""

    def __init__(self, place: Path, *flags: str) -> None:
        with socket.socket() as free:  # it would not tell which port the kernel chose
            free.bind((HOST, 0))
            self.port = free.getsockname()[1]
        command = [*shlex.split(COMMAND), *flags_of(place), "-a", f"{HOST}:{self.port}", *flags]
        self.ended: Deferred[None] = Deferred()
        self.output = ""
        reactor.spawnProcess(self, command[0], command, os.environ, str(place))

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """See ``ProcessProtocol``."""
        self.output += data.decode("utf-8", "replace")

    def processEnded(self, reason: Failure) -> None:
        """See ``ProcessProtocol``."""
        reason.trap(ProcessDone, ProcessTerminated)
        self.ended.callback(None)

    def accepts_connections(self) -> bool:
        """Whether it listens; it has to be alive."""
        if self.ended.called:
            raise AssertionError(f"derper ended early:\n{self.output}")
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def stop(self) -> Deferred[None]:
        """Kill it, and see it end."""
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")  # type: ignore[union-attr]
        return self.ended


class OurDerperTests(RelayTestCase):
    """Everything a client does, as our server sees it."""

    timeout = 60

    async def derper(self, *flags: str) -> Region:
        """Start a server; give its region once it accepts connections."""
        place = self.place()
        child = self.start_child(*flags_of(place), "-a", f"{HOST}:0", *flags)
        await child.ready()
        return region_of(place, child.port())

    def place(self) -> Path:
        """A directory for the server's files."""
        place = Path(self.mktemp()).absolute()
        place.mkdir()
        return place

    async def client_of(self, target: Any, **options: Any) -> tuple[RelayClient, Heard]:
        """A client that checks what it connects to."""
        options.setdefault("insecure_for_tests", False)
        return await self.client(0, target=target, **options)

    async def test_login(self) -> None:
        """By its pin, fast and not; the key is the same both ways."""
        region = await self.derper()
        fast, _ = await self.client_of(region)
        slow, _ = await self.client_of(region, fast_start=False)
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
            await self.client_of(url)
        self.assertIn(node.cert_name, str(caught.exception))
        await self.client_of(url, insecure_for_tests=True)

    async def test_packets(self) -> None:
        """Packets of all sizes arrive at the addressee in order, and come back."""
        region = await self.derper()
        alice, to_alice = await self.client_of(region, preferred=True)
        bob, to_bob = await self.client_of(region, fast_start=False)
        sizes = (0, 1, 1200, MAX_PACKET - 1, MAX_PACKET)
        for size in sizes:
            self.assertTrue(alice.send(bob.public_key, bytes(size)))
        for size in sizes:
            self.assertEqual(await to_bob.next(), ReceivedPacket(alice.public_key, bytes(size)))
        bob.send(alice.public_key, b"back")
        self.assertEqual(await to_alice.next(), ReceivedPacket(bob.public_key, b"back"))
        self.assertEqual(to_bob.waiting, [])

    async def test_peer_gone(self) -> None:
        """Who is not here is said to be so; who leaves is missed by those it had sent to."""
        region = await self.derper()
        alice, to_alice = await self.client_of(region)
        bob, to_bob = await self.client_of(region)
        nobody = bytes(range(32))
        alice.send(nobody, DISCO_MAGIC + bytes(56))
        self.assertEqual(await to_alice.next(), PeerGone(nobody, PeerGoneReason.NOT_HERE))
        bob.send(alice.public_key, b"hello")
        await to_alice.next()
        await bob.close()
        gone = PeerGone(bob.public_key, PeerGoneReason.DISCONNECTED)
        self.assertEqual(await to_alice.next(), gone)
        self.assertEqual(to_bob.waiting, [])

    async def test_mesh(self) -> None:
        """A mesh peer sees who is there, forwards, and can have a client closed."""
        region = await self.derper()
        watcher, seen = await self.client_of(region, mesh_key=MESH_KEY, watch_conns=True)
        present = await seen.next()
        self.assertEqual(present.key, watcher.public_key)
        self.assertEqual(present.flags, PeerPresentFlags.MESH_PEER)
        client, heard = await self.client_of(region)
        present = await seen.next()
        self.assertIsInstance(present, PeerPresent)
        self.assertEqual((present.key, str(present.ip)), (client.public_key, HOST))
        source = bytes(range(32))
        self.assertTrue(watcher.forward(source, client.public_key, b"forwarded"))
        self.assertEqual(await heard.next(), ReceivedPacket(source, b"forwarded"))
        watcher.close_peer(client.public_key)
        error = await client.when_closed()
        self.assertIn("connection lost", str(error))
        gone = PeerGone(client.public_key, PeerGoneReason.DISCONNECTED)
        self.assertEqual(await seen.next(), gone)

    async def test_no_mesh_rights(self) -> None:
        """Who watches without the mesh key is closed."""
        region = await self.derper()
        client, _ = await self.client_of(region, mesh_key=bytes(31) + b"x")
        self.assertTrue(client.watch_conns())
        self.assertIsNotNone(await client.when_closed())

    async def test_refused(self) -> None:
        """A key that is not admitted is told so, as well as can be."""
        region = await self.derper(
            "-verify-client-url", "http://127.0.0.1:1/", "-verify-client-url-fail-open=false"
        )
        for fast_start in (True, False):
            with self.assertRaises(LoginRefused):
                await self.client_of(region, fast_start=fast_start)

    async def test_derp_turned_off(self) -> None:
        """A derper without DERP answers 404, to either kind of start."""
        region = await self.derper("-derp=false")
        with self.assertRaises(ConnectFailed) as caught:
            await self.client_of(region, fast_start=False)
        self.assertIn("404", str(caught.exception))
        client = await connect(reactor, region, generate_private())
        self.assertIn("404", str(await client.when_closed()))


class ReferenceDerperTests(OurDerperTests):
    """The same, as the reference's server sees it: what we hold ourselves to is true of it."""

    skip = None if COMMAND else "DERP_TEST_DERPER names no derper of the reference"

    async def derper(self, *flags: str) -> Region:
        """See :meth:`OurDerperTests.derper`."""
        place = self.place()
        derper = Derper(place, *flags)
        self.addCleanup(derper.stop)
        await self.until(derper.accepts_connections, "a derper of the reference")
        return region_of(place, derper.port)
