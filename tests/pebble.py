"""
A real ACME server for tests: Pebble and its mock DNS, as Debian packages them.

Each :class:`Pebble` is a pair of child processes on free ports, with the faults it injects left
on: 15 % of nonces are refused, every second valid authorization is reused. Where the programs
are missing, tests are skipped; with ``CI`` set they fail.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from treq.client import HTTPClient
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure

from derp.net.acme_trust import AuthorityTrust, acme_agent
from derp.net.self_signed import make_self_signed
from tests.free_ports import free_ports

reactor: Any = global_reactor

PROGRAMS = ("pebble", "pebble-challtestsrv")
DEADLINE_S = 60.0
_POLL_S = 0.02


def missing_pebble() -> str | None:
    """
    Why tests with Pebble cannot run here.

    :returns: a reason to skip; ``None`` if they can, or if this is CI, where they have to.
    """
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if not missing or os.environ.get("CI"):
        return None
    return f"{' and '.join(missing)} not found: install Debian's package pebble"


class _Child(ProcessProtocol):
    """A child process: what it said, and when it is gone."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.ended: Deferred[None] = Deferred()
        self.running = True

    def outReceived(self, data: bytes) -> None:
        self.output += data

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        self.running = False
        self.ended.callback(None)

    def kill(self) -> Deferred[None]:
        """Kill it and wait until it is reaped."""
        try:
            assert self.transport is not None
            self.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            pass
        return self.ended


class Pebble:
    """
    One authority.

    :param directory: for its files; unique to this instance.
    :param http_port: where it looks for http-01; ``tls_port`` likewise for tls-alpn-01.
    :param external: key ids and HMAC keys (base64url) if external accounts are required.
    :param validity_s: how long certificates last.
    """

    def __init__(
        self,
        directory: Path,
        *,
        http_port: int = 1,
        tls_port: int = 1,
        external: dict[str, str] | None = None,
        validity_s: int = 90 * 86400,
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        self._port, self._management, self._dns, self.dns_management = free_ports(4)
        self.url = f"https://127.0.0.1:{self._port}/dir"
        self.ca_file = directory / "server.crt"
        certificate, key = make_self_signed(ip_address("127.0.0.1"), time.time() - 60)
        self.ca_file.write_bytes(certificate)
        (directory / "server.key").write_bytes(key)
        settings: dict[str, Any] = {
            "listenAddress": f"127.0.0.1:{self._port}",
            "managementListenAddress": f"127.0.0.1:{self._management}",
            "certificate": str(self.ca_file),
            "privateKey": str(directory / "server.key"),
            "httpPort": http_port,
            "tlsPort": tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": external is not None,
            "externalAccountMACKeys": external or {},
            "certificateValidityPeriod": validity_s,  # of Pebble before 2.7; since then:
            "profiles": {"default": {"description": "", "validityPeriod": validity_s}},
        }
        (directory / "pebble.json").write_text(json.dumps({"pebble": settings}))
        self._children: list[_Child] = []

    async def start(self) -> None:
        """Start both processes and wait until they listen."""
        self._spawn(
            "pebble-challtestsrv",
            *await _dns_flags(f"127.0.0.1:{self._dns}"),
            *("-management", f"127.0.0.1:{self.dns_management}"),
            *("-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""),
        )
        self._spawn(
            "pebble",
            "-strict",
            *("-config", str(self.directory / "pebble.json")),
            *("-dnsserver", f"127.0.0.1:{self._dns}"),
        )
        for port in (self.dns_management, self._port, self._management):
            await self._listening(port)

    async def stop(self) -> None:
        """Kill both processes; harmless twice."""
        children, self._children = self._children, []
        await gatherResults([child.kill() for child in children])

    def said(self) -> str:
        """What the authority logged since its start."""
        return self._children[-1].output.decode("utf-8", "replace")

    async def root(self) -> Path:
        """Fetch the root its certificates lead to, made anew at each start; a PEM file."""
        http = HTTPClient(acme_agent(reactor, AuthorityTrust(str(self.ca_file))))
        response = await http.get(f"https://127.0.0.1:{self._management}/roots/0")
        path = self.directory / "root.crt"
        path.write_bytes(await response.content())
        return path

    def _spawn(self, program: str, *arguments: str) -> None:
        path = _path(program)
        child = _Child()
        environ = {
            "PEBBLE_VA_NOSLEEP": "1",
            "PEBBLE_WFE_NONCEREJECT": "15",
            "PEBBLE_AUTHZREUSE": "50",
            "PEBBLE_CHAIN_LENGTH": "2",
        }
        reactor.spawnProcess(child, path, [program, *arguments], env=environ)
        self._children.append(child)

    async def _listening(self, port: int) -> None:
        deadline = reactor.seconds() + DEADLINE_S
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port, timeout=10)
        while True:
            if not all(child.running for child in self._children):
                raise AssertionError(f"it ended: {[bytes(c.output) for c in self._children]}")
            try:
                protocol = await connectProtocol(endpoint, _Closing())
            except ConnectError:
                if reactor.seconds() > deadline:
                    raise
                await deferLater(reactor, _POLL_S)
            else:
                await protocol.closed
                return


def _path(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise AssertionError(f"{program} not found: install Debian's package pebble")
    return path


async def _dns_flags(address: str) -> list[str]:
    """How the mock DNS is told its address: flags that Pebble 2.7 renamed and added."""
    path = _path("pebble-challtestsrv")
    usage, errors, _ = await getProcessOutputAndValue(path, ["-h"])
    if b"-dns01" in usage + errors:
        return ["-dns01", address]
    return ["-dnsserver", address, "-doh", ""]


class _Closing(Protocol):
    """Connects and goes."""

    def __init__(self) -> None:
        self.closed: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(None)
