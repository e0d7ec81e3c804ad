"""``derper doctor`` in a child process."""

from __future__ import annotations

import json
import socket
import subprocess
from secrets import token_hex
from typing import Any

from twisted.internet.threads import deferToThread

from tests.integration.child import ANY_PORTS, run_python
from tests.integration.relay_case import HOST, RelayTestCase

QUICK_S = 5.0
TRIES = 3
"""For a machine that stood still for seconds."""


class DoctorTests(RelayTestCase):
    """The command, from its command line to its exit code."""

    def run_doctor(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return run_python("-m", "derp.derper_command", "doctor", *words)

    async def doctor(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The same from a thread; nothing is on stderr."""
        done = await deferToThread(self.run_doctor, *words)
        self.assertEqual(done.stderr, "")
        return done

    async def test_relay(self) -> None:
        """A relay in another process: as text, as JSON, and on its own machine."""
        key_file = f"{token_hex(8)}.key"
        flags = ("-c", key_file, "-certmode=manual", "-certdir=certs", "-hostname", HOST)
        relay = await self.start_child(*ANY_PORTS, *flags).ready()
        ports = ("--stun-port", str(relay.port("--stun-port")), "--http-port")
        where = (f"{HOST}:{relay.port()}", *ports, str(relay.port("--http-port")))
        done = await self.doctor(*where)
        self.assertEqual(done.returncode, 0, done.stdout)
        for text in (
            ", 1 to look at, 0 wrong",
            "a packet of 1200 bytes",
            '"derpMap"',
            "\n  regions:",
        ):
            self.assertIn(text, done.stdout)
        self.assertNotIn("\x1b", done.stdout)
        document = await self.document(*where)
        pin = document["derpMap"]["Regions"]["900"]["Nodes"][0]["CertName"]
        for _ in range(TRIES):
            document = await self.document(*where, "--pin", pin)
            if document["seconds"] < QUICK_S:
                break
        self.assertLess(document["seconds"], QUICK_S, "also when tried again")
        self.assertEqual(document["verdict"], "ok", document)
        known = (f"-a={HOST}:{relay.port()}", f"-stun-port={relay.port('--stun-port')}")
        known += (f"-http-port={relay.port('--http-port')}",)
        place = str(relay.directory)
        settings = ("-certmode=manual", f"-certdir={place}/certs", f"-c={place}/{key_file}")
        document = await self.document(
            *("--local", "--json", "--", *known, *settings, "-hostname", HOST)
        )
        found = {(each["examination"], each["verdict"]) for each in document["findings"]}
        self.assertNotIn("fail", {verdict for _, verdict in found}, document)
        for expected in ("key file", "cert files", "login", "STUN"):
            self.assertIn((expected, "ok"), found)
        # Its own command line, with paths that begin where it was started.
        document = await self.document("--local", "--json", "--", *ANY_PORTS, *flags)
        found = {(each["examination"], each["verdict"]) for each in document["findings"]}
        for expected in ("process", "key file", "cert files"):
            self.assertIn((expected, "ok"), found)

    async def document(self, *words: str) -> Any:
        """The report as JSON, which stands alone on stdout."""
        done = await self.doctor(*(words if "--json" in words else (*words, "--json")))
        document = json.loads(done.stdout)
        self.assertEqual(done.returncode, document["verdict"] == "fail")
        return document

    async def test_failure(self) -> None:
        """Nobody there: exit code 1, in JSON as well."""
        with socket.create_server((HOST, 0)) as closed:
            where = f"{HOST}:{closed.getsockname()[1]}"
        done = await self.doctor(where, "--no-stun", "--http-port=-1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("connection refused", done.stdout)
        document = await self.document(where, "--no-stun", "--http-port=-1")
        self.assertEqual(document["verdict"], "fail")

    async def test_hanging_lookup(self) -> None:
        """A resolver that hangs keeps nobody: the report comes, and the process ends."""
        script = (
            "import socket, time, sys; socket.getaddrinfo = lambda *_: time.sleep(300);"
            "import derp.derper_command as command;"
            "sys.exit(command.run(['doctor', 'a.test', '-timeout=200ms']))"
        )
        done = await deferToThread(run_python, "-c", script)
        self.assertEqual((done.returncode, done.stderr), (1, ""))
        self.assertIn("the DNS server does not answer within 0.2 s", done.stdout)

    async def test_usage(self) -> None:
        """A wrong command line: one sentence on stderr, nothing on stdout, exit code 2."""
        for words in ((), ("a.test", "--jsno"), ("a.test", "--key-file", "/nowhere")):
            done = await deferToThread(self.run_doctor, *words)
            self.assertEqual((done.returncode, done.stdout), (2, ""), words)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertTrue(done.stderr.startswith("derper doctor: "), done.stderr)
        done = await self.doctor("-h")
        self.assertEqual(done.returncode, 0)
        self.assertIn("Usage: derper doctor", done.stdout)
