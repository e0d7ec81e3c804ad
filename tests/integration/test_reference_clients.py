"""
The reference's own programs against our relay, as a child.

=======================  ===================================================================
``DERP_TEST_STUNC``      ``stunc``: asks STUN
``DERP_TEST_DERPPROBE``  ``derpprobe``: TLS, STUN, and packets between two logged-in clients
``DERP_TEST_DERPER``     ``derper``: meshes with us, so watches us and forwards to us
=======================  ===================================================================

Each names a command. They are not ours to install, so these tests are skipped without them.
"""

from __future__ import annotations

import contextlib  # not its "suppress": trial looks for that name in modules
import json
import os
import shlex
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest

from derp.wire.derp_map import Node, Region
from derp.wire.messages import PeerPresent, ReceivedPacket
from derp.wire.node_json import pin_of
from tests.certificate_files import NOW, issue
from tests.integration.child import HOST, RelayChild
from tests.integration.relay_case import MESH_KEY, Heard, RelayTestCase, reactor
from tests.integration.waiting import in_time

NAME = "localhost"
"""Go's tools check the name of a certificate, and cannot do so for an address."""


def reference(variable: str) -> list[str]:
    """The command a variable names; without it there is nothing to test."""
    command = shlex.split(os.environ.get(variable, ""))
    if not command:
        raise SkipTest(f"{variable} names no program of the reference")
    return command


class Program(ProcessProtocol):
    """A program of the reference, and all it says."""

    def __init__(self, command: list[str], place: Path, environ: dict[str, str]) -> None:
        self.said = ""
        self.exit_code: int | None = None
        self.ended: Deferred[None] = Deferred()
        reactor.spawnProcess(self, command[0], command, os.environ | environ, str(place))

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """See ``ProcessProtocol``."""
        self.said += data.decode("utf-8", "replace")

    def processEnded(self, reason: Failure) -> None:
        """See ``ProcessProtocol``."""
        reason.trap(ProcessDone, ProcessTerminated)
        value: Any = reason.value
        self.exit_code = value.exitCode
        self.ended.callback(None)

    async def end(self) -> None:
        """Kill it, if need be, and see it end."""
        assert self.transport is not None
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")
        if self.exit_code is None and not self.ended.called:
            await in_time(reactor, self.ended, "the end of a program")


class ReferenceClientTests(RelayTestCase):
    """What runs with derper runs with us."""

    async def start(self) -> RelayChild:
        """Our relay as a child, with a certificate that the programs can check."""
        self.place = Path(self.mktemp()).absolute()
        self.place.mkdir()
        self.issue()
        (self.place / "mesh").write_text(MESH_KEY.hex())
        child = self.start_child(
            *("-a", f"{HOST}:0", "--http-port", "0", "--stun-port", "0", "-c", "derper.key"),
            *("-certmode", "manual", "-certdir", str(self.place), "-hostname", NAME),
            *("-mesh-psk-file", str(self.place / "mesh")),
        )
        return await child.ready()

    def issue(self) -> None:
        """A certificate for localhost that is valid now, and its issuer for the programs."""
        later = timedelta(seconds=time.time() - NOW)
        begins, ends = later - timedelta(hours=1), later + timedelta(days=90)
        issued = issue([NAME], begins=begins, ends=ends)
        (self.place / f"{NAME}.crt").write_bytes(issued.pem)
        (self.place / f"{NAME}.key").write_bytes(issued.key_pem())
        self.pin = pin_of(issued.certificate.public_bytes(Encoding.DER))

    def run_program(self, command: list[str], *arguments: str) -> Program:
        """Start a program that trusts our certificate; killed and reaped with the test."""
        trust = {"SSL_CERT_FILE": str(self.place / f"{NAME}.crt")}
        program = Program([*command, *arguments], self.place, trust)
        self.addCleanup(program.end)
        return program

    async def finished(self, program: Program) -> str:
        """See it end well; give what it said."""
        await in_time(reactor, program.ended, "the end of a program")
        self.assertEqual(program.exit_code, 0, program.said)
        return program.said

    def node(self, port: int, name: str = "900a") -> Node:
        """A relay on this machine, known by its certificate."""
        return Node(name=name, host_name=NAME, ipv4=HOST, cert_name=self.pin, derp_port=port)

    async def test_stunc(self) -> None:
        """``stunc`` is told its own address."""
        command = reference("DERP_TEST_STUNC")
        child = await self.start()
        port = child.port("--stun-port")
        said = await self.finished(self.run_program(command, HOST, str(port)))
        self.assertIn(f"sent addr: {HOST}:{port}\n", said)
        self.assertRegex(said, rf"stun addr: {HOST}:\d+\n")

    async def test_derpprobe(self) -> None:
        """``derpprobe`` finds nothing wrong: certificate, STUN, and relaying of much data."""
        command = reference("DERP_TEST_DERPPROBE")
        child = await self.start()
        node = {
            "Name": "900a",
            "RegionID": 900,
            "HostName": NAME,
            "IPv4": HOST,
            "DERPPort": child.port(),
            "STUNPort": child.port("--stun-port"),
        }
        region = {"RegionID": 900, "RegionCode": "test", "Nodes": [node]}
        (self.place / "map.json").write_text(json.dumps({"Regions": {"900": region}}))
        flags = ["-once", "-spread=false", "-derp-map", f"file://{self.place}/map.json"]
        program = self.run_program(command, *flags, "-bw-interval", "10s")
        said = await self.finished(program)
        for probe in ("900a/tls", "900a/udp", "900a/900a/mesh", "900a/900a/bw"):
            self.assertIn(f"good: derp/test/{probe}: ", said)
        self.assertNotIn("bad: ", said)

    async def test_mesh(self) -> None:
        """A derper of the reference watches us, and forwards to our clients."""
        command = reference("DERP_TEST_DERPER")
        child = await self.start()
        with socket.socket() as free:
            free.bind((HOST, 0))
            port = free.getsockname()[1]
        derper = self.run_program(
            command,
            *("-a", f"{HOST}:{port}", "-http-port", "-1", "-stun=false", "-c", "theirs.key"),
            *("-certmode", "manual", "-certdir", str(self.place), "-hostname", NAME),
            *("-mesh-psk-file", str(self.place / "mesh"), "-mesh-with", f"{NAME}:{child.port()}"),
        )
        await self.until(lambda: "connected; " in derper.said, f"a mesh link:\n{derper.said}")
        ours, to_ours = await self.client_of(child.port())
        theirs, to_theirs = await self.client_of(port, mesh_key=MESH_KEY, watch_conns=True)
        self.assertIsInstance(await to_theirs.next(), PeerPresent)
        # The link hears of our client by and by; what was sent before is lost.
        while not to_ours.waiting:
            theirs.send(ours.public_key, b"through the mesh")
            await theirs.ping()
        packet = await to_ours.next()
        self.assertEqual(packet, ReceivedPacket(theirs.public_key, b"through the mesh"))
        page = await self.varz(child.port("--http-port"))
        self.assertGreaterEqual(page.value("derp_packets_forwarded_in"), 1)
        self.assertEqual(page.value("derp_watchers"), 1)

    async def client_of(self, port: int, **options: Any) -> tuple[Any, Heard]:
        """A client of ours, at either relay."""
        region = Region(region_id=900, code="test", nodes=(self.node(port),))
        return await self.client(port, target=region, insecure_for_tests=False, **options)
