"""
A mesh of a real derper and ours.

Set ``DERP_TEST_DERPER`` to the command that starts one, as for
:mod:`tests.integration.test_relay_client_derper`. It verifies our certificate as anybody's, so
both have one of a CA made for the test, which it is told of by ``SSL_CERT_FILE`` and ours by
``--mesh-ca-file``. Its lists cannot change, so it reaches ours over a wire that stays.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from derp.net.relay_client import RelayClient
from derp.wire.frames import PeerGoneReason
from derp.wire.messages import PeerGone, ReceivedPacket
from tests.exposition import Exposition
from tests.integration.child import RelayChild
from tests.integration.mesh_case import MeshTestCase
from tests.integration.partition import Wire
from tests.integration.relay_case import HOST, MESH_KEY, Heard, reactor
from tests.integration.waiting import in_time
from tests.net.relay_fakes import make_credentials

COMMAND = os.environ.get("DERP_TEST_DERPER", "")
DIALED = "localhost"
"""What is dialed in the place of the address that certificates are made for."""
FLOOD = 20
AT_ONCE = 20
"""Packets sent in one go: derper drops the oldest of more than 32."""


class Derper(ProcessProtocol):
    """The other derper, until it is ended."""

    def __init__(self, place: Path, *flags: str) -> None:
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.port: int = free.getsockname()[1]
        self.output = ""
        self.ended: Deferred[None] = Deferred()
        arguments = [*shlex.split(COMMAND), "-a", f"{HOST}:{self.port}", *flags]
        environ = {**os.environ, "SSL_CERT_FILE": str(place / "ca.pem")}
        reactor.spawnProcess(self, arguments[0], arguments, environ, str(place))

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self.output += data.decode("utf-8", "replace")

    def processEnded(self, reason: Failure) -> None:
        reason.trap(ProcessDone, ProcessTerminated)
        self.ended.callback(None)

    def accepts(self) -> bool:
        """Whether it accepts connections."""
        assert not self.ended.called, self.output
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    async def end(self) -> None:
        """Kill it, if it still runs."""
        if not self.ended.called:
            assert self.transport is not None
            with contextlib.suppress(ProcessExitedAlready):
                self.transport.signalProcess("KILL")
            await in_time(reactor, self.ended, "the end of derper")


class MixedMeshTests(MeshTestCase):
    """One of each, meshed both ways."""

    skip = None if COMMAND else "DERP_TEST_DERPER names no derper to mesh with"

    def setUp(self) -> None:
        self.place = Path(self.mktemp()).absolute()
        self.place.mkdir()
        authority = make_credentials(["the test's CA"], ca=True)
        leaf = make_credentials([HOST], authority)
        (self.place / "ca.pem").write_bytes(authority.pem)
        (self.place / f"{HOST}.crt").write_bytes(leaf.pem)
        form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.place / f"{HOST}.key").write_bytes(leaf.key.private_bytes(*form))
        (self.place / "mesh.key").write_text(MESH_KEY.hex())
        self.to_ours, self.to_theirs = Wire(reactor), Wire(reactor)
        self.addCleanup(self.to_ours.close)
        self.addCleanup(self.to_theirs.close)
        self.peer = f"{HOST}:{self.to_theirs.port}/{DIALED}"

    def flags(self, who: str, peers: str, mesh_key: str = "mesh.key") -> list[str]:
        """What both understand."""
        return [
            *("-c", str(self.place / f"{who}.json"), "-http-port", "-1", "-stun=false"),
            *("-certmode", "manual", "-certdir", str(self.place), "-hostname", HOST),
            *("-mesh-psk-file", str(self.place / mesh_key), "-mesh-with", peers),
        ]

    async def start_ours(self) -> RelayChild:
        ca_file = str(self.place / "ca.pem")
        flags = [*self.flags("ours", self.peer), "--mesh-ca-file", ca_file, "-a", f"{HOST}:0"]
        child = self.start_child(*flags)
        await child.ready()
        self.to_ours.leads_to = child.port()
        return child

    async def start_theirs(self, mesh_key: str = "mesh.key") -> Derper:
        flags = self.flags("theirs", f"{HOST}:{self.to_ours.port}/{DIALED}", mesh_key)
        derper = Derper(self.place, *flags)
        self.addCleanup(derper.end)
        await self.until(derper.accepts, "a derper that accepts connections")
        self.to_theirs.leads_to = derper.port
        return derper

    async def meshed(self, clients_here: int, clients_there: int) -> None:
        """See each know the other's clients (each relay's link is a client there, too)."""

        async def known() -> bool:
            ours = await self.varz(self.ours.port(), tls=True)
            theirs = await self.their_varz()
            return [
                shown.value(f"derp_clients_{where}")
                for shown in (ours, theirs)
                for where in ("local", "remote")
            ] == [clients_here + 1, clients_there + 1, clients_there + 1, clients_here + 1]

        await self.eventually(known, "a whole mesh")

    async def ask_theirs(self, path: str) -> bytes:
        """Ask in HTTP/1.0, since it sends long pages in chunks otherwise."""
        exchange = await self.wire(self.theirs.port, tls=True)
        exchange.transport.write(f"GET {path} HTTP/1.0\r\nHost: {HOST}\r\n\r\n".encode())
        await self.until(lambda: exchange.closed, "the end of an answer")
        head, _, body = exchange.buffer.partition(b"\r\n\r\n")
        self.assertIn(b" 200 ", head)
        return bytes(body)

    async def their_varz(self) -> Exposition:
        return Exposition.parse((await self.ask_theirs("/debug/varz")).decode())

    async def start_both(self) -> None:
        self.ours = await self.start_ours()
        self.theirs = await self.start_theirs()
        await self.meshed(0, 0)

    async def at_ours(self) -> tuple[RelayClient, Heard]:
        return await self.client(self.ours.port())

    async def at_theirs(self) -> tuple[RelayClient, Heard]:
        return await self.client(self.theirs.port)

    async def say(self, sender: RelayClient, to: RelayClient, heard: Heard, packets: int) -> None:
        """Send packets, and see them arrive in order and unharmed."""
        texts = [bytes((n % 256,)) * (1 + n * 11) for n in range(packets)]
        for begin in range(0, packets, AT_ONCE):
            for text in texts[begin : begin + AT_ONCE]:
                self.assertTrue(sender.send(to.public_key, text))
            for text in texts[begin : begin + AT_ONCE]:
                self.assertEqual(await heard.next(), ReceivedPacket(sender.public_key, text))

    async def test_forwarding(self) -> None:
        """Both ways, and counted alike."""
        await self.start_both()
        alice, to_alice = await self.at_ours()
        bob, to_bob = await self.at_theirs()
        await self.meshed(1, 1)
        await self.say(alice, bob, to_bob, 100)
        await self.say(bob, alice, to_alice, 50)
        ours = await self.varz(self.ours.port(), tls=True)
        for shown, out, incoming in ((ours, 100, 50), (await self.their_varz(), 50, 100)):
            self.assertEqual(shown.value("derp_packets_forwarded_out"), out)
            self.assertEqual(shown.value("derp_packets_forwarded_in"), incoming)
        self.assertIn(b"okay", await self.ask_theirs("/debug/check"))

    async def test_peer_gone(self) -> None:
        """Who leaves one relay is missed at the other, by those who had heard from him."""
        await self.start_both()
        alice, to_alice = await self.at_ours()
        bob, to_bob = await self.at_theirs()
        await self.meshed(1, 1)
        await self.say(alice, bob, to_bob, 1)
        await self.say(bob, alice, to_alice, 1)
        await bob.close()
        gone = PeerGone(bob.public_key, PeerGoneReason.DISCONNECTED)
        self.assertEqual(await to_alice.next(), gone)
        bob, to_bob = await self.at_theirs()
        await self.meshed(1, 1)
        await self.say(alice, bob, to_bob, 1)
        await alice.close()
        gone = PeerGone(alice.public_key, PeerGoneReason.DISCONNECTED)
        self.assertEqual(await to_bob.next(), gone)

    async def test_their_restart(self) -> None:
        """Their relay dies: ours takes its clients back, and learns the new ones by itself."""
        await self.start_both()
        alice, to_alice = await self.at_ours()
        others = [(await self.at_ours())[0] for _ in range(FLOOD)]
        bob, _ = await self.at_theirs()
        await self.meshed(1 + FLOOD, 1)
        await self.say(bob, alice, to_alice, 1)
        await self.theirs.end()
        gone = PeerGone(bob.public_key, PeerGoneReason.DISCONNECTED)
        self.assertEqual(await to_alice.next(), gone)
        self.theirs = await self.start_theirs()
        await self.meshed(1 + FLOOD, 0)  # the flood: all of ours at once
        bob, to_bob = await self.at_theirs()
        await self.meshed(1 + FLOOD, 1)
        await self.say(alice, bob, to_bob, 20)
        await self.say(bob, alice, to_alice, 20)
        self.assertEqual(len(others), FLOOD)

    async def test_our_restart(self) -> None:
        """Ours dies: theirs does the same."""
        await self.start_both()
        alice, to_alice = await self.at_ours()
        bob, to_bob = await self.at_theirs()
        others = [(await self.at_theirs())[0] for _ in range(FLOOD)]
        await self.meshed(1, 1 + FLOOD)
        await self.say(alice, bob, to_bob, 1)
        await self.ours.end()
        gone = PeerGone(alice.public_key, PeerGoneReason.DISCONNECTED)
        self.assertEqual(await to_bob.next(), gone)
        self.ours = await self.start_ours()
        await self.meshed(0, 1 + FLOOD)
        alice, to_alice = await self.at_ours()
        await self.meshed(1, 1 + FLOOD)
        await self.say(alice, bob, to_bob, 20)
        await self.say(bob, alice, to_alice, 20)
        self.assertEqual(len(others), FLOOD)

    async def test_wrong_key(self) -> None:
        """Theirs has another key: ours says so, and neither gets the other's clients."""
        (self.place / "other.key").write_text(MESH_KEY[::-1].hex())
        self.theirs = await self.start_theirs("other.key")
        self.ours = await self.start_ours()

        async def refused() -> bool:
            answer = await self.get(self.ours.port(), "/metrics", tls=True)
            shown = Exposition.parse(answer.body.decode())
            labels = {"peer": self.peer, "reason": "refused"}
            return shown.value("derp_mesh_failures_total", **labels) > 0

        await self.eventually(refused, "a refusal")
        self.assertIn("refused: it answers, but closed", self.ours.log)
        await self.until(lambda: self.to_ours.taken, "their attempt")
        shown = await self.varz(self.ours.port(), tls=True)
        self.assertEqual(shown.value("derp_watchers"), 0)
