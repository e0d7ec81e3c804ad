"""dns-01 by a command of the operator's."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.error import ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from derp.errors import ConfigError
from derp.net.acme_dns_hook import HOOK_S, DNS01Hook, require_program
from derp.net.acme_problem import ACMEError
from derp.wire.jose import dns_record_value

reactor: Any = global_reactor
NAME = "derp.example.com"


class CommandTests(SynchronousTestCase):
    """The flag's value."""

    def test_program(self) -> None:
        """By path or by name it has to be one, and executable."""
        for found in (sys.executable, "sh"):
            require_program((found, "an argument"))
        script = Path(self.mktemp())
        script.write_text("#!/bin/sh")
        for missing in ("/nowhere/hook", "no-such-program", str(script), script.anchor):
            error = self.assertRaises(ConfigError, require_program, (missing,))
            self.assertIn(f'--acme-dns-hook: "{missing}" is no program', str(error))
        script.chmod(0o700)
        require_program((str(script),))


class FakeProcesses(Clock):
    """Takes processes and their signals."""

    def __init__(self) -> None:
        super().__init__()
        self.signals: list[str] = []

    def spawnProcess(self, protocol: Any, *_: Any, **__: Any) -> None:
        """Run nothing."""
        self.protocol = protocol
        protocol.makeConnection(self)

    def signalProcess(self, signal: str) -> None:
        """Note a signal."""
        self.signals.append(signal)

    def closeStdin(self) -> None:
        """Nothing to close."""

    def closeChildFD(self, descriptor: int) -> None:
        """Nothing to close."""


class DNS01HookTests(TestCase):
    """Real children."""

    timeout = 60

    def hook(self, script: str, **environ: str) -> DNS01Hook:
        """A hook that runs a script of Python."""
        path = Path(self.mktemp())
        path.write_text(script)
        return DNS01Hook(reactor, (sys.executable, str(path)), {**os.environ, **environ})

    async def test_arguments(self) -> None:
        """What it is told, as arguments and for certbot's hooks; our secrets stay here."""
        seen = Path(self.mktemp()).absolute()
        hook = self.hook(
            "import os, sys\n"
            f"out = open({str(seen)!r}, 'a')\n"
            "print(*sys.argv[1:], os.environ['CERTBOT_DOMAIN'],"
            " os.environ['CERTBOT_VALIDATION'],"
            " 'TAILSCALE_DERPER_MESH_KEY' in os.environ, file=out)\n",
            TAILSCALE_DERPER_MESH_KEY="secret",
        )
        await hook.present(NAME, "token", "token.thumb")
        await hook.withdraw(NAME, "token", "token.thumb")
        value = dns_record_value("token.thumb")
        record = f"_acme-challenge.{NAME} {value} {NAME} {value} False"
        self.assertEqual(seen.read_text(), f"add {record}\nremove {record}\n")

    async def test_failure(self) -> None:
        """Its exit code and its words are the error."""
        hook = self.hook("import sys\nsys.exit('no such zone')")
        with self.assertRaises(ACMEError) as caught:
            await hook.present(NAME, "token", "token.thumb")
        self.assertIn("add exits with 1: no such zone", str(caught.exception))

    async def test_not_there(self) -> None:
        """A command that cannot be run is a failure like others."""
        hook = DNS01Hook(reactor, ("/nonexistent/hook",), {})
        with self.assertRaises(ACMEError):
            await hook.present(NAME, "token", "token.thumb")

    async def test_cancelled(self) -> None:
        """The child is killed; nothing is left in the reactor."""
        running = self.hook("import time\ntime.sleep(100)").present(NAME, "token", "token.thumb")
        running.cancel()
        with self.assertRaises(Exception):  # noqa: B017 - CancelledError, or the kill seen first
            await running

    def test_deadline(self) -> None:
        """Whoever takes too long is killed, and said so."""
        fake = FakeProcesses()
        running = DNS01Hook(fake, ("/bin/hook",), {}).present(NAME, "token", "token.thumb")
        fake.advance(HOOK_S)
        self.assertEqual(fake.signals, ["KILL"])
        fake.protocol.processEnded(Failure(ProcessTerminated(None, 9)))
        error = self.failureResultOf(running, ACMEError)
        self.assertIn("took longer than 180 s and was killed", error.getErrorMessage())
