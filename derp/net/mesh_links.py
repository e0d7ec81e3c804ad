"""
The links of this relay to all others of its mesh.

Each relay has one link to every other one, and each of those has one to it: packets travel on
the sender's. The list may change while the relay runs (:meth:`MeshLinks.set_peers`); links to
relays that stay in it are not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from derp.errors import ConfigError
from derp.net.link_state import LinkState
from derp.net.mesh_link import Connector, MeshLink
from derp.net.relay_connector import RelayConnector
from derp.net.relay_dialer import RelayAddress
from derp.net.relay_errors import ConnectFailed
from derp.net.server_check import ServerCheck

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from derp.config import MeshPeer
    from derp.core.client_session import ClientEvent
    from derp.core.relay import Relay
    from derp.net.relay_client import RelayClient

MakeConnector = Callable[["MeshPeer"], Connector]


class MeshLinks(Service):
    """
    Keeps the links while it runs.

    They begin once the relay has its mesh key: with the service, or when :meth:`begin` is
    called because the key came later.

    :param ca_file: PEM file of roots that peers' certificates may lead to, besides the
        system's; read at every connection.
    :param make_connector: what connects to a peer.
    """

    log = Logger(namespace="derp")

    def __init__(
        self,
        reactor: Any,
        relay: Relay,
        *,
        ca_file: str = "",
        make_connector: MakeConnector | None = None,
    ) -> None:
        if ca_file:
            check_ca_file(ca_file)
        self._reactor = reactor
        self._relay = relay
        self._make_connector = make_connector or partial(PeerConnector, reactor, relay, ca_file)
        self._links: dict[MeshPeer, MeshLink] = {}
        self._ending: set[Deferred[Any]] = set()

    def __iter__(self) -> Iterator[MeshLink]:
        """The links, in the order their peers were named in."""
        return iter(self._links.values())

    def __len__(self) -> int:
        return len(self._links)

    @property
    def missing(self) -> list[str]:
        """Names of the relays to which there is no link, though there should be one."""
        fine = (LinkState.UP, LinkState.ITSELF)
        return [link.peer.name for link in self if link.state not in fine]

    def set_peers(self, peers: Sequence[MeshPeer]) -> None:
        """Mesh with these, and with nobody else."""
        old, self._links = self._links, {}
        for peer in peers:
            link = old.pop(peer, None)
            self._links[peer] = link or self._make_link(peer)
        for peer, link in old.items():
            if self.running:
                self.log.info("mesh: {name} is in the list no more", name=peer.name)
            self._end(link)
        self.begin()

    def begin(self) -> None:
        """Start the links that can be and are not."""
        if not self.running or self._relay.mesh_key is None:
            return
        for link in self:
            if link.state is LinkState.STOPPED:
                link.start()

    def startService(self) -> None:
        """Connect to all peers."""
        super().startService()
        self.begin()

    def stopService(self) -> Deferred[Any]:
        """Close all links; fires when they are closed."""
        super().stopService()
        for link in self:
            self._end(link)
        return DeferredList(list(self._ending))

    def _make_link(self, peer: MeshPeer) -> MeshLink:
        return MeshLink(self._reactor, self._relay, peer, self._make_connector(peer))

    def _end(self, link: MeshLink) -> None:
        ending = link.stop()
        self._ending.add(ending)
        ending.addBoth(lambda _: self._ending.discard(ending))


def check_ca_file(path: str) -> None:
    """
    Try a file of roots before it is needed.

    :raises ConfigError: if it is unusable.
    """
    try:
        ServerCheck("localhost", ca_file=path)
    except ConfigError as error:
        raise ConfigError(_unusable(str(error))) from None


def _unusable(problem: str) -> str:
    return f"--mesh-ca-file: {problem}: name a PEM file of CA certificates"


def _without_ca_file(failure: Failure) -> NoReturn:
    """The file was fine when we started: what it is now must not stop us, nor be a surprise."""
    failure.trap(ConfigError)
    raise ConnectFailed(_unusable(failure.getErrorMessage())) from None


class PeerConnector:
    """
    Connects to one peer as this relay.

    The mesh key and the file of roots are those of the moment of each connection.
    """

    def __init__(self, reactor: Any, relay: Relay, ca_file: str, peer: MeshPeer) -> None:
        where = f"[{peer.host}]" if ":" in peer.host else peer.host
        self._reactor = reactor
        self._relay = relay
        self._ca_file = ca_file
        self._target = RelayAddress(
            label=f"https://{where}:{peer.port}/derp",
            host=peer.host,
            port=peer.port,
            dial_host=peer.dial_host,
            cert_name=peer.pin,
        )

    def connect(
        self, on_message: Callable[[ClientEvent], object] | None = None
    ) -> Deferred[RelayClient]:
        """See :class:`derp.net.mesh_link.Connector`."""
        return self.make().connect(on_message).addErrback(_without_ca_file)

    def make(self) -> RelayConnector:
        """Make what connects once."""
        return RelayConnector(
            reactor=self._reactor,
            target=self._target,
            private_key=self._relay.private,
            mesh_key=self._relay.mesh_key,
            watch_conns=True,
            ca_file=self._ca_file,
        )
