"""A relay that is stopped while an authority keeps it waiting."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from tests.certificate_files import NOW, issue
from tests.integration.relay_case import HOST, RelayTestCase, reactor
from tests.integration.tls_peek import peek
from tests.integration.waiting import in_time

NAME = "derp.example.test"
AT_ONCE_S = 10.0
"""Far below any deadline of an order (30 s for a request), far above what an end takes."""


class _Silent(Protocol):
    """An authority that takes a connection and says nothing."""

    def connectionMade(self) -> None:
        silent: Any = self.factory
        self.transport.setTcpNoDelay(True)  # type: ignore[union-attr]
        if not silent.asked.called:
            silent.asked.callback(None)
        silent.connections.append(self)


class StopTests(RelayTestCase):
    """SIGTERM ends the process, whatever is under way."""

    async def test_stop_during_an_order(self) -> None:
        """The authority hangs, a client waits for its certificate, and the relay is stopped."""
        factory: Any = Factory.forProtocol(_Silent)
        factory.asked, factory.connections = Deferred(), []
        authority = reactor.listenTCP(0, factory, interface=HOST)
        self.addCleanup(authority.stopListening)
        self.addCleanup(lambda: [each.transport.abortConnection() for each in factory.connections])
        roots = Path(self.mktemp()).absolute()
        roots.write_bytes(issue(["ca.test"], ends=timedelta(seconds=time.time() - NOW + 3600)).pem)
        child = self.start_child(
            *("-a", f"{HOST}:0", "--http-port", "0", "--stun-port", "0", "-c", "derper.key"),
            *("--hostname", NAME, "--certdir", "certs", "--acme-ca-file", str(roots)),
            *("--acme-directory", f"https://{HOST}:{authority.getHost().port}/dir"),
        )
        await child.ready()
        waiting = peek(reactor, HOST, child.port(), NAME)
        waiting.addErrback(lambda _: None)
        await in_time(reactor, factory.asked, "the request to the authority")
        steady = self.steady_time()
        began = steady.seconds()
        ending = await child.end("TERM")
        self.assertLess(steady.seconds() - began, AT_ONCE_S)
        self.assertEqual(ending.code, 0, child.everything)
        self.assertNotIn("Traceback", child.everything)
        await waiting
