"""``derper health`` in a child process, against a relay in another."""

from __future__ import annotations

import subprocess
import tempfile
from datetime import timedelta
from pathlib import Path

from twisted.internet.threads import deferToThread

from tests.certificate_files import issue
from tests.doctor.doctor_case import NAME
from tests.integration.child import ANY_PORTS, run_python
from tests.integration.relay_case import HOST, RelayTestCase


class HealthTests(RelayTestCase):
    """The command as an image or an orchestrator runs it."""

    def run_health(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return run_python("-m", "derp.derper_command", "health", *words, **environ)

    async def health(self, *words: str, **environ: str) -> tuple[int, str]:
        """Exit code and the line it prints; nothing else is printed."""
        done = await deferToThread(self.run_health, *words, **environ)
        self.assertEqual(done.stderr, "")
        self.assertEqual(done.stdout.count("\n"), 1, done.stdout)
        return done.returncode, done.stdout

    async def test_turns_red(self) -> None:
        """Green, by flags as by variables; red when the certificate has expired, or all is gone."""
        certs = Path(tempfile.mkdtemp(dir=Path.cwd()))
        self.put_certificate(certs, timedelta(days=400000))
        line = ("-certmode=manual", "-certdir", str(certs), "-hostname", NAME)
        relay = await self.start_child(*ANY_PORTS, "-c", "derper.key", *line).ready()
        where, stun = f"{HOST}:{relay.port()}", str(relay.port("--stun-port"))
        known = ("-a", where, "-stun-port", stun, *line)
        code, said = await self.health(*known)
        self.assertEqual((code, said.startswith("healthy: port ")), (0, True), said)
        variables = {"DERP_ADDR": where, "DERP_STUN_PORT": stun, "DERP_DOMAIN": NAME}
        code, said = await self.health("-certmode=manual", **variables)
        self.assertEqual((code, "admits" in said), (0, True), said)
        self.put_certificate(certs, timedelta(days=-2000))
        relay.send("HUP")
        await self.until(lambda: "EXPIRED" in relay.log or "expired" in relay.log, "a new file")
        code, said = await self.health(*known)
        self.assertEqual((code, said.startswith("unhealthy: the certificate has ex")), (1, True))
        await relay.end()
        code, said = await self.health(*known)
        self.assertEqual((code, "Connection refused" in said), (1, True), said)

    def put_certificate(self, place: Path, ends: timedelta) -> None:
        """A certificate for the relay that ends so long from the tests' now."""
        made = issue([NAME], begins=timedelta(days=-9000), ends=ends)
        (place / f"{NAME}.crt").write_bytes(made.pem)
        (place / f"{NAME}.key").write_bytes(made.key_pem())

    async def test_wrong_flag(self) -> None:
        """Usage and exit code 2."""
        done = await deferToThread(self.run_health, "-stan")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("did you mean --stun?", done.stderr)

    async def test_wrong_variable(self) -> None:
        """What stops a relay makes it unhealthy, in the same words."""
        code, said = await self.health("-dev", DERP_STUN="maybe")
        self.assertEqual(code, 1)
        self.assertIn("environment variable DERP_STUN", said)

    async def test_cheap(self) -> None:
        """It loads neither Twisted nor what reads certificates: it runs every half a minute."""
        script = (
            "import sys, derp.derper_command as c; c.run(['health', '-dev', '-a', '127.0.0.1:1']);"
            "print(*sorted(sys.modules))"
        )
        done = await deferToThread(run_python, "-c", script)
        loaded = {name.partition(".")[0] for name in done.stdout.split("\n")[1].split()}
        self.assertIn("derp", loaded)
        self.assertEqual(loaded & {"twisted", "cryptography", "OpenSSL", "asyncio", "treq"}, set())
