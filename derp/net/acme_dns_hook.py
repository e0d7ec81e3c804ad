"""
dns-01 through a command of the operator's (``--acme-dns-hook``).

For relays that the authority can reach on neither port. The command is run without a shell::

    <command> add    _acme-challenge.derp.example.com <value>
    <command> remove _acme-challenge.derp.example.com <value>

and shall exit with 0 when the TXT record can be seen from outside, or is gone. For certbot's
hooks ``CERTBOT_DOMAIN`` and ``CERTBOT_VALIDATION`` are set, too. What it prints is logged; it
is killed at its deadline.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from derp.errors import ConfigError
from derp.net.acme_problem import ACMEError, printable
from derp.quoting import quoted
from derp.wire.jose import dns_record_value

HOOK_S: Final = 180.0
MAX_OUTPUT_LEN: Final = 4096
_SECRET: Final = ("TAILSCALE_DERPER_MESH_KEY",)

log = Logger()


def require_program(command: tuple[str, ...]) -> None:
    """
    See to it that there is something to run, before it is needed.

    :raises ConfigError: if there is not.
    """
    if shutil.which(command[0]) is None:
        raise ConfigError(
            f"--acme-dns-hook: {quoted(command[0])} is no program that this user may run; "
            "give its path and make it executable"
        )


class DNS01Hook:
    """
    Answers dns-01 by running a command.

    :param reactor: runs processes.
    :param command: the program, looked for in ``PATH``, and its first arguments.
    """

    challenge_type = "dns-01"

    def __init__(
        self, reactor: Any, command: tuple[str, ...], environ: Mapping[str, str] | None = None
    ) -> None:
        self._reactor = reactor
        self._command = command
        environ = os.environ if environ is None else environ
        self._environ = {name: value for name, value in environ.items() if name not in _SECRET}

    def present(self, name: str, token: str, key_authorization: str) -> Deferred[None]:
        """See :class:`derp.net.acme_order.Solver`."""
        return self._run("add", name, dns_record_value(key_authorization))

    def withdraw(self, name: str, token: str, key_authorization: str) -> Deferred[None]:
        """See :class:`derp.net.acme_order.Solver`."""
        return self._run("remove", name, dns_record_value(key_authorization))

    def _run(self, action: str, name: str, value: str) -> Deferred[None]:
        arguments = [*self._command, action, f"_acme-challenge.{name}", value]
        environ = {**self._environ, "CERTBOT_DOMAIN": name, "CERTBOT_VALIDATION": value}
        hook = _Hook(f"{self._command[0]} {action}")
        try:
            self._reactor.spawnProcess(hook, arguments[0], arguments, env=environ)
        except OSError as error:
            hook.fail(f"cannot be run: {error.strerror}")
            return hook.done
        deadline = self._reactor.callLater(HOOK_S, hook.timed_out)

        def over(result: Any) -> Any:
            if deadline.active():
                deadline.cancel()
            return result

        return hook.done.addBoth(over)


class _Hook(ProcessProtocol):
    """One run of the command."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._output = bytearray()
        self._timed_out = False
        self.done: Deferred[None] = Deferred(lambda _: self._kill())

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        self._output += data[: MAX_OUTPUT_LEN - len(self._output)]

    errReceived = outReceived

    def timed_out(self) -> None:
        """It has had its time."""
        self._timed_out = True
        self._kill()

    def _kill(self) -> None:
        if self.transport is None:
            return
        try:
            self.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            return
        # Grandchildren may hold the pipes open; nobody waits for them.
        for descriptor in (1, 2):
            self.transport.closeChildFD(descriptor)

    def processEnded(self, reason: Failure) -> None:
        output = printable(self._output.decode("utf-8", "replace"), MAX_OUTPUT_LEN)
        done = reason.check(ProcessDone) is not None
        say = log.info if done else log.warn
        say("--acme-dns-hook: {what}: {output}", what=self._what, output=output or "no output")
        if done and not self._timed_out:
            self._finish(None)
        elif self._timed_out:
            self.fail(f"took longer than {HOOK_S:g} s and was killed")
        else:
            code = getattr(reason.value, "exitCode", None)
            ended = f"exits with {code}" if code is not None else "was killed"
            self.fail(f"{ended}: {printable(output, 200) or 'no output'}")

    def fail(self, text: str) -> None:
        """Say why there is no record."""
        self._finish(Failure(ACMEError(f"--acme-dns-hook: {self._what} {text}")))

    def _finish(self, result: Failure | None) -> None:
        if not self.done.called:
            self.done.callback(result)
