"""A throw-away client of one node: dialed, logged in, and gone without a trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, succeed

from derp.core.client_session import ClientEvent
from derp.errors import ConfigError
from derp.net.relay_client import RelayClient
from derp.net.relay_connector import RelayConnector
from derp.net.relay_errors import LoginRefused, RelayError
from derp.net.socket_address import peer_name
from derp.prober.check import ProbeFailed
from derp.prober.targets import Targets, node_name, relay_address
from derp.wire.derp_map import Node
from derp.wire.handshake import ServerInfo
from derp.wire.keys import generate_private, public_of

_CURES: Final = (
    ("address of", "is HostName right, and does this machine's name server answer?"),
    ("the TCP connection", "does the relay run, and is this TCP port open in its firewall?"),
    ("the TLS handshake", "what listens there accepts connections and speaks no TLS"),
    ("the HTTP", "is it a relay that hangs, or a proxy that lets no upgrade pass?"),
    ("the relay's greeting", "does a proxy keep back what follows the upgrade?"),
    ("the answer to the login", "does the relay hang, or wait for those who verify its clients?"),
)
"""What to do about a stage that does not end, by words of its name."""
_ADMISSION: Final = (
    "if it verifies its clients, give this prober its mesh key (-mesh-psk-file);"
    " if that was given, it is another relay's"
)


def cure_for(stage: str) -> str:
    """Say what may help if this stage does not end."""
    return next((cure for words, cure in _CURES if words in stage), "look at the relay's log")


class NodeClient:
    """
    A client with a key of its own.

    :param is_prober: what it says of itself.
    :param on_message: called with what comes behind ServerInfo.
    :raises ProbeFailed: if the node cannot be dialed at all.
    """

    def __init__(
        self,
        targets: Targets,
        node: Node,
        on_message: Callable[[ClientEvent], object],
        *,
        is_prober: bool,
    ) -> None:
        self.name = node_name(node)
        private_key = generate_private()
        self.public_key = public_of(private_key)
        self._on_message = on_message
        self._connected = False
        self._unexpected = ""
        try:
            address = relay_address(node)
        except ConfigError as problem:
            raise ProbeFailed(f"the DERP map cannot be used: {problem}") from problem
        self._connector = RelayConnector(
            reactor=targets.reactor,
            target=address,
            private_key=private_key,
            mesh_key=targets.mesh_key,
            is_prober=is_prober,
            wall_time=targets.wall_time,
        )

    @property
    def client(self) -> RelayClient:
        """The connection, once there is one."""
        client = self._connector.client
        assert client is not None
        return client

    @property
    def stage(self) -> str:
        """What is waited for until the login is answered."""
        return self._connector.stage

    @property
    def place(self) -> str:
        """`` at 192.0.2.1:443`` once there is a connection."""
        client = self._connector.client
        return "" if client is None else f" at {peer_name(client.peer_address)}"

    async def log_in(self) -> None:
        """
        Connect and log in.

        :raises ProbeFailed: saying where it ended. Cancelling gives up; :meth:`end` is due
            all the same.
        """
        try:
            client = await self._connector.connect(self._heard)
            await client.when_logged_in()
        except LoginRefused as problem:
            raise ProbeFailed(f"{problem}{self._dialed}: {_ADMISSION}") from problem
        except RelayError as problem:
            cure = f": {cure_for(self.stage)}" if "still waiting" in str(problem) else ""
            raise ProbeFailed(f"{problem}{self._dialed}{cure}") from problem
        if self._unexpected:
            raise ProbeFailed(
                f"{self.name}{self.place} sent {self._unexpected} before ServerInfo: it is no"
                " derper"
            )

    def close(self) -> Deferred[RelayError | None]:
        """Close what is open, and let the relay close too; fires after two seconds at most."""
        client = self._connector.client
        return succeed(None) if client is None else client.close()

    def abort(self) -> Deferred[RelayError | None]:
        """Cut what is open; fires in the next turn, when it is closed."""
        client = self._connector.client
        if client is None:
            return succeed(None)
        client.abort("the probe has ended")
        return client.when_closed()

    @property
    def _dialed(self) -> str:
        client = self._connector.client
        return "" if client is None else f" (connected to {peer_name(client.peer_address)})"

    def _heard(self, message: ClientEvent) -> None:
        if isinstance(message, ServerInfo):
            self._connected = True
        elif self._connected:
            self._on_message(message)
        else:
            self._unexpected = self._unexpected or type(message).__name__
