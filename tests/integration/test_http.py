"""The recorded HTTP answers, from whole relays over real TLS and plain TCP."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred

from derp.net.key_file import format_key_file
from tests.integration.relay_case import HOST, RelayTestCase, reactor
from tests.integration.virtual_time import VirtualTime
from tests.net.http_exchange import Exchange
from tests.net.http_vectors import CONFIGS, HTTPVectorsMixin
from tests.vectors import load

PRIVATE = bytes.fromhex(load("tls.json")["server_private"].partition(":")[2])
"""The key all servers were recorded with."""


class LocalhostResolver:
    """Knows localhost, by IPv4, on every machine; and nothing else."""

    def resolveHostName(self, receiver: Any, name: str, *arguments: Any, **more: Any) -> None:
        """See ``IHostnameResolver``."""
        receiver.resolutionBegan(self)
        if name == "localhost":
            receiver.addressResolved(IPv4Address("TCP", HOST, 0))
        receiver.resolutionComplete()


class HTTPVectorTests(HTTPVectorsMixin, RelayTestCase):
    """A relay answers as the reference does, TLS and ports and all."""

    def answers_debug_pages(self) -> bool:
        """They are the real ones here."""
        return True

    def open_connection(self, server: str, listener: str) -> Deferred[Exchange]:
        """See :class:`HTTPVectorsMixin`."""
        ours = self.config()
        flags = CONFIGS[server]
        config = replace(
            flags,
            host=HOST,
            port=0,
            http_port=0 if flags.tls else -1,
            stun=False,
            key_file=ours.key_file,
            certdir=ours.certdir,
        )
        key_file = Path(ours.key_file)
        key_file.parent.mkdir()
        key_file.write_bytes(format_key_file(PRIVATE))
        service = self.start_relay(config, VirtualTime(reactor, LocalhostResolver()))
        flag = "-a" if listener == "main" else "--http-port"
        tls = config.tls and listener == "main"
        return Deferred.fromCoroutine(self.wire(self.port_of(service, flag), tls=tls))
