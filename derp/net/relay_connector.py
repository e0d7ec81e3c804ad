"""
Connect to a relay: by URL, or by a region of a DERP map.

::

    client = await connect(reactor, "https://derp.example.com/derp", private_key)
    await client.when_logged_in()
    client.send(destination, b"packet")

Limits: 10 s for the whole attempt, 1.5 s for the TCP connection of each node of a region.
There is one attempt and no retry; a connector may be asked again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory

from derp.core.client_session import ClientEvent, ClientSession
from derp.net.relay_client import RelayClient
from derp.net.relay_dialer import (
    CONNECT_TIMEOUT,
    NODE_TIMEOUT,
    DialError,
    DialStage,
    RelayAddress,
    dial,
    parse_relay_url,
    region_addresses,
)
from derp.net.relay_errors import ConnectFailed
from derp.net.server_check import ServerCheck
from derp.wire.derp_map import Region
from derp.wire.frames import NONCE_LEN, PROTOCOL_VERSION
from derp.wire.handshake import ClientInfo

OnMessage = Callable[[ClientEvent], object]


@dataclass(kw_only=True)
class RelayConnector:
    """
    Where to connect and as whom; makes one connection per :meth:`connect`.

    :raises ConfigError: if the target is none.
    """

    reactor: Any
    target: str | Region | RelayAddress
    """A URL, a region of a DERP map, or one relay of one's own description."""
    private_key: bytes = field(repr=False)
    """32 raw bytes."""
    mesh_key: bytes | None = field(default=None, repr=False)
    is_prober: bool = False
    can_ack_pings: bool = False
    app_name: str = ""
    preferred: bool = False
    """Say that this relay is our home."""
    watch_conns: bool = False
    """Ask for the relay's connections; the relay closes if the mesh key is not its own."""
    dial_host: str = ""
    """With a URL: connect there instead; names and port stay the URL's."""
    ca_file: str = ""
    """PEM file of roots to trust besides the system's."""
    insecure_for_tests: bool = False
    """Check no certificate."""
    fast_start: bool = True
    timeout: float = CONNECT_TIMEOUT
    wall_time: Callable[[], float] = time.time
    generation: int = 0
    """How often :meth:`connect` was called."""
    _last: _Attempt | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.target, str):
            self._relays = [parse_relay_url(self.target, self.dial_host)]
            self.label = self.target
        elif isinstance(self.target, RelayAddress):
            self._relays = [self.target]
            self.label = self.target.label
        else:
            self._relays = region_addresses(self.target)
            self.label = f"region {self.target.region_id} ({self.target.code})"

    @property
    def client(self) -> RelayClient | None:
        """The client of the last attempt, from its TCP connection on; perhaps ended since."""
        return None if self._last is None else self._last.client

    @property
    def stage(self) -> str:
        """What the last attempt is waiting for, or was when it ended."""
        return "the start" if self._last is None else self._last.stage

    def connect(self, on_message: OnMessage | None = None) -> Deferred[RelayClient]:
        """
        Connect once.

        :param on_message: gets every message; may also be set on the client before control
            returns to the reactor.
        :return: fires when ClientInfo is sent, which is before the relay has admitted us;
            fails with :exc:`~derp.net.relay_errors.ConnectFailed`. Cancelling gives up.
        """
        self.generation += 1
        self._last = attempt = _Attempt(self, self.generation, on_message)

        def timed_out(result: object, seconds: float) -> RelayClient:
            raise ConnectFailed(
                f"cannot connect to {self.label}: no connection within {seconds:g} s,"
                f" still waiting for {attempt.stage}"
            )

        connecting = Deferred.fromCoroutine(attempt.run(self._relays))
        return connecting.addTimeout(self.timeout, self.reactor, timed_out)

    def make_client(
        self, relay: RelayAddress, generation: int, on_message: OnMessage | None
    ) -> RelayClient:
        """Make the client of one connection, for a transport of one's own."""
        info = ClientInfo(
            mesh_key=self.mesh_key,
            version=PROTOCOL_VERSION,
            can_ack_pings=self.can_ack_pings,
            is_prober=self.is_prober,
            app_name=self.app_name,
        )
        session = ClientSession(
            self.private_key,
            info,
            token_bytes(NONCE_LEN),
            preferred=self.preferred,
            watch_conns=self.watch_conns,
        )
        client = RelayClient(
            self.reactor,
            relay,
            session,
            check=self._make_check(relay),
            fast_start=self.fast_start,
            generation=generation,
            on_message=on_message,
        )
        client.preferred = self.preferred
        return client

    def _make_check(self, relay: RelayAddress) -> ServerCheck | None:
        if not relay.tls:
            return None
        return ServerCheck(
            relay.host,
            cert_name=relay.cert_name,
            ca_file=self.ca_file,
            insecure=relay.insecure or self.insecure_for_tests,
            wall_time=self.wall_time,
        )


class _Attempt:
    """One connection being made."""

    def __init__(
        self, connector: RelayConnector, generation: int, on_message: OnMessage | None
    ) -> None:
        self._connector = connector
        self._generation = generation
        self._on_message = on_message
        self._dialing = DialStage()
        self.client: RelayClient | None = None

    @property
    def stage(self) -> str:
        return str(self._dialing) if self.client is None else self.client.stage

    async def run(self, relays: list[RelayAddress]) -> RelayClient:
        connector = self._connector
        by_region = isinstance(connector.target, Region)
        node_timeout = NODE_TIMEOUT if by_region else None
        try:
            await dial(connector.reactor, relays, self._factory_for, node_timeout, self._dialing)
        except DialError as problem:
            # A single relay is called by the label that stands in front already.
            reason = str(problem).removeprefix(f"{connector.label}: ")
            raise ConnectFailed(f"cannot connect to {connector.label}: {reason}") from problem
        assert self.client is not None
        try:
            return await self.client.when_connected()
        except CancelledError:
            self.client.abort(f"given up while waiting for {self.stage}")
            raise

    def _factory_for(self, relay: RelayAddress) -> IProtocolFactory:
        client = self._connector.make_client(relay, self._generation, self._on_message)
        factory = _ClientFactory(client, self._set_client)
        if client.check is None:
            return factory
        return TLSMemoryBIOFactory(client.check, True, factory, clock=self._connector.reactor)

    def _set_client(self, client: RelayClient) -> None:
        self.client = client


class _ClientFactory(Factory):
    """Give the one connection that is made its client."""

    noisy = False

    def __init__(self, client: RelayClient, connected: Callable[[RelayClient], None]) -> None:
        self._client = client
        self._connected = connected

    def buildProtocol(self, addr: IAddress) -> RelayClient:  # type: ignore[override]
        """See ``IProtocolFactory``."""
        self._connected(self._client)
        return self._client


def connect(
    reactor: Any, target: str | Region | RelayAddress, private_key: bytes, **options: Any
) -> Deferred[RelayClient]:
    """
    Connect once to a relay; the options are the fields of :class:`RelayConnector`, and
    ``on_message``.
    """
    on_message = options.pop("on_message", None)
    connector = RelayConnector(reactor=reactor, target=target, private_key=private_key, **options)
    return connector.connect(on_message)
