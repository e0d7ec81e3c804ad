"""A real ``twistd -n derper``: how it starts, what it refuses, how it ends."""

from __future__ import annotations

import json
import re
import socket
import stat
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from derp.wire.derp_map import Region, parse_derp_map
from derp.wire.frames import MAX_PACKET
from derp.wire.keys import format_node_public, parse_node_private, public_of
from derp.wire.messages import Health, ReceivedPacket, Restarting
from tests.certificate_files import issue
from tests.integration.child import ANY_PORTS, Ending, RelayChild
from tests.integration.relay_case import HOST, RelayTestCase
from tests.vectors import DATA, load

TLS_FLAGS = ("-certmode", "manual", "-certdir", "certs", "-hostname", HOST)
PLAIN = ("-a", f"{HOST}:0", "--stun=false")
"""The least a relay can do: no file but its key's, one port."""
IN_ORDER = Ending(0, None)
CONFIG = load("config.json")


class ChildCase(RelayTestCase):
    """Children, and what they leave behind."""

    def place(self, **files: bytes | str) -> Path:
        """A directory for a child, with some files in it."""
        place = Path(self.mktemp()).absolute()
        place.mkdir()
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            (place / name).write_bytes(data)
        return place

    async def assert_refused(self, child: RelayChild, *parts: str) -> None:
        """It ends with exit code 1 and one sentence on stderr that has all these parts."""
        ending = await child.over()
        self.assertEqual(ending, Ending(1, None), child.everything)
        self.assertNotIn("Traceback", child.everything)
        self.assertTrue(child.errors.startswith("derper: "), child.everything)
        sentence = child.errors.removesuffix("(twistd derper --help lists the flags)\n")
        self.assertEqual(sentence.count("\n"), 1, child.everything)
        for part in parts:
            self.assertIn(part, sentence)
        self.assertFalse((child.directory / "twistd.pid").exists())

    async def assert_ends(self, child: RelayChild) -> None:
        """SIGTERM ends it at once and in order."""
        self.assertEqual(await child.end("TERM"), IN_ORDER, child.everything)
        self.assertEqual(child.errors, "")
        self.assertNotIn("Traceback", child.log)
        self.assertNotIn("Unhandled", child.log)
        self.assertFalse((child.directory / "twistd.pid").exists())


class ServingTests(ChildCase):
    """A start that works."""

    async def test_everything(self) -> None:
        """Each port serves what the start block says, and the block is enough to connect by."""
        flags = (*ANY_PORTS, "-c", "key/derper.key", *TLS_FLAGS, "--metrics-addr", f"{HOST}:0")
        child = self.start_child(*flags)
        await child.ready()
        region = self.printed_region(child)
        alice, to_alice = await self.client(0, target=region, insecure_for_tests=False)
        bob, to_bob = await self.client(0, target=region, insecure_for_tests=False)
        self.assertEqual(alice.tls_version, "TLSv1.3")
        alice.send(bob.public_key, bytes(MAX_PACKET))
        self.assertEqual(await to_bob.next(), ReceivedPacket(alice.public_key, bytes(MAX_PACKET)))
        server_key = alice.server_key
        assert server_key is not None
        self.assertIn(f"public key   {format_node_public(server_key)}\n", child.log)
        self.assertEqual((await self.get(child.port("--http-port"), "/generate_204")).status, 204)
        health = await self.get(child.port("--metrics-addr"), "/healthz")
        self.assertEqual(health.status, 200)
        self.assertEqual((await self.get(child.port("--metrics-addr"), "/derp")).status, 404)
        await self.assert_ends(child)
        self.assertIsNotNone(await alice.when_closed())
        self.assertEqual([type(each) for each in to_alice.waiting], [Health, Restarting])

    def printed_region(self, child: RelayChild) -> Region:
        """The region of the policy block, read as an operator's paste would be."""
        block = child.log.partition('"derpMap": ')[2]
        described, _ = json.JSONDecoder().raw_decode(block)
        (region,) = parse_derp_map(json.dumps(described)).regions.values()
        (node,) = region.nodes
        self.assertEqual(node.derp_port, child.port())
        self.assertEqual(node.stun_port, child.port("--stun-port"))
        return region

    async def test_ends_amid_work(self) -> None:
        """SIGTERM while clients are connected, silent and half-way in is as clean an end."""
        child = self.start_child(*ANY_PORTS, "-c", "derper.key", *TLS_FLAGS)
        await child.ready()
        client, _ = await self.client(child.port())
        await self.wire(child.port())
        upgrading = await self.wire(child.port("--http-port"))
        upgrading.transport.write(b"GET / HT")
        await self.assert_ends(child)
        self.assertIsNotNone(await client.when_closed())
        await self.until(lambda: upgrading.closed, "the end of a half-sent request")


class KeyFileTests(ChildCase):
    """The recorded key files, and the one it makes."""

    async def served_key(self, child: RelayChild) -> str:
        """The public key of a relay's HTTP answer, in hex."""
        wire = await self.wire(child.port())
        wire.transport.write(b"GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\n\r\n")
        answer = await wire.answer()
        key = answer.header("Derp-Public-Key")
        assert key is not None
        return str(key)

    async def test_recorded(self) -> None:
        """What the reference runs with we run with; where it fails or crashes, code 1."""
        cases = CONFIG["key_file_cases"]
        checks = [Deferred.fromCoroutine(self.check_recorded(case)) for case in cases]
        await gatherResults(checks, consumeErrors=True)

    async def check_recorded(self, case: dict[str, Any]) -> None:
        place = self.place(key=case["file"])
        child = self.start_child(*PLAIN, "-c", str(place / "key"))
        if case["result"] == "runs":
            await child.ready()
            self.assertEqual(await self.served_key(child), case["served_public_key"])
        else:
            await self.assert_refused(child, str(place / "key"))
        self.assertEqual((place / "key").read_text(), case["file"])

    async def test_made(self) -> None:
        """A missing file is made as the reference makes it, with its directory; and kept."""
        recorded = CONFIG["key_file_written_by_server"]
        child = self.start_child(*PLAIN, "-c", "var/lib/derper.key")
        await child.ready()
        path = child.directory / "var/lib/derper.key"
        text = path.read_text()
        shape = re.compile(r"privkey:[0-9a-f]{64}")
        self.assertEqual(
            shape.sub("", text), shape.sub("", bytes.fromhex(recorded["bytes_hex"]).decode())
        )
        self.assertEqual(f"{stat.S_IMODE(path.stat().st_mode):04o}", recorded["mode"])
        found = shape.search(text)
        assert found is not None
        public = public_of(parse_node_private(found[0]))
        self.assertEqual(await self.served_key(child), public.hex())
        self.assertNotIn(found[0][8:], child.everything)
        await self.assert_ends(child)

    async def test_of_the_reference(self) -> None:
        """The reference's own file is taken over as it is."""
        written = (DATA / "derper.key").read_bytes()
        child = self.start_child(*PLAIN, "-c", str(self.place(key=written) / "key"))
        await child.ready()
        private = parse_node_private(json.loads(written)["PrivateKey"])
        self.assertEqual(await self.served_key(child), public_of(private).hex())


class RefusedStartTests(ChildCase):
    """What cannot work is said in one sentence before anything is served."""

    async def test_certificates(self) -> None:
        """The recorded start failures."""
        (host,) = {case["hostname_flag"] for case in load("tls.json")["start_failures"]}
        other = issue(["other.example.test"])
        files = {f"{host}.crt": other.pem, f"{host}.key": other.key_pem()}
        expected = {
            "DNS hostname, files missing": ("--certdir", f"{host}.crt"),
            "unknown certmode": ("--certmode", '"bogus"'),
            "certificate for another name": ("--hostname", host, "other.example.test"),
        }
        children = []
        for case in load("tls.json")["start_failures"]:
            wrong = case["name"] == "certificate for another name"
            certs = self.place(**(files if wrong else {}))
            flags = ["-a", f"{HOST}:0", *case["extra_flags"], "-certdir", str(certs)]
            child = self.start_child(*flags, "-c", "derper.key", "-hostname", host)
            self.assertEqual(case["exit_code"], 1)
            children.append((child, expected[case["name"]]))
        for child, parts in children:
            await self.assert_refused(child, *parts)

    async def test_ports_in_use(self) -> None:
        """A port in use is named with its flag, whichever of the four it is."""
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((HOST, 0))
            tcp.listen()
            udp.bind((HOST, 0))
            ports = {each: str(each.getsockname()[1]) for each in (tcp, udp)}
            flags = {"-a": f"{HOST}:0", "--http-port": "0", "--stun-port": "0"}
            taken = {
                "-a": f"{HOST}:{ports[tcp]}",
                "--http-port": ports[tcp],
                "--stun-port": ports[udp],
                "--metrics-addr": f"{HOST}:{ports[tcp]}",
            }
            children = []
            for flag, value in taken.items():
                words = [word for pair in (flags | {flag: value}).items() for word in pair]
                child = self.start_child(*words, "-c", "derper.key", *TLS_FLAGS)
                children.append((child, flag, ports[udp if flag == "--stun-port" else tcp]))
            for child, flag, port in children:
                await self.assert_refused(child, flag, port, "in use")

    async def test_values(self) -> None:
        """A value that makes no sense is named with its flag or variable."""
        children = [
            (self.start_child(*PLAIN, "-c", "k", "--home", "nowhere"), "--home"),
            (self.start_child(*PLAIN, "-c", "k", "--tcp-write-timeout", "2"), "-tcp-write-timeout"),
            (self.start_child(*PLAIN, "-c", "/proc/nowhere/derper.key"), "/proc/nowhere"),
            (self.start_child("-a", f"{HOST}:x", "-c", "k"), "-a"),
            (
                self.start_child(
                    *PLAIN,
                    *("-c", "k"),
                    environ={"TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH": "none"},
                ),
                "TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH",
            ),
        ]
        for child, part in children:
            await self.assert_refused(child, part)
