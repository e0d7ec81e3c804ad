"""
Two throw-away clients, one on each node of a pair, and what passes between them.

Both nodes may be the same. The nodes are looked up anew for each run, so that a pair follows
the map.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    FirstError,
    gatherResults,
)
from twisted.internet.task import deferLater

from derp.core.client_session import ClientEvent
from derp.net.relay_errors import RelayError
from derp.prober.check import ProbeFailed
from derp.prober.node_client import NodeClient, cure_for
from derp.prober.targets import Targets, find_node
from derp.wire.keys import short_key
from derp.wire.messages import ReceivedPacket

GOSSIP_S: Final = 0.1
"""How long a mesh is given to tell of a new client before a packet is sent to it."""


class Pair:
    """
    The clients of one run; made by :func:`run_pair`.

    :ivar stage: what is waited for once both have logged in.
    :ivar heard_by_source: called with what comes to the source, ServerInfo left out.
    :ivar heard_by_destination: the same for the destination.
    :ivar stale: packets that are left out there too, as they come too late.
    """

    def __init__(self, targets: Targets, source: str, destination: str, is_prober: bool) -> None:
        self.meshed = source != destination
        self.stage = ""
        self.heard_by_source: Callable[[ClientEvent], object] = _ignore
        self.heard_by_destination: Callable[[ClientEvent], object] = _ignore
        self.stale: set[bytes] = set()
        self._reactor = targets.reactor
        self._began = targets.reactor.seconds()
        self._waiting: Deferred[Any] | None = None
        self._loss: ProbeFailed | None = None
        self.source = NodeClient(
            targets,
            find_node(targets, source),
            lambda message: self.heard_by_source(message),
            is_prober=is_prober,
        )
        self.destination = NodeClient(
            targets,
            find_node(targets, destination),
            self._destination_heard,
            is_prober=is_prober,
        )
        self._clients = (self.source, self.destination)
        self._logging_in: list[NodeClient] = []

    @property
    def label(self) -> str:
        """Both keys, short, as they stand in the relays' logs."""
        return f"{short_key(self.source.public_key)} to {short_key(self.destination.public_key)}"

    @property
    def way(self) -> str:
        """From which node to which, for sentences."""
        if self.meshed:
            return f"from {self.source.name} to {self.destination.name}"
        return f"through {self.source.name}"

    def send(self, packet: bytes) -> bool:
        """Send a packet from source to destination; ``False`` if it was not taken."""
        return self.source.client.send(self.destination.public_key, packet)

    def wait(self) -> Deferred[Any]:
        """Make a Deferred that fails if a connection ends before it has fired."""
        waiting: Deferred[Any] = Deferred()
        self._waiting = waiting
        if self._loss is not None:
            waiting.errback(self._loss)
        return waiting

    async def log_in(self) -> None:
        """Connect both; across a mesh, give their relays time to tell each other."""
        self._logging_in = list(self._clients)
        logins = [Deferred.fromCoroutine(self._log_in(client)) for client in self._clients]
        try:
            await gatherResults(logins, consumeErrors=True)
        except FirstError as first:
            first.subFailure.raiseException()
        finally:
            for login in logins:
                login.cancel()
        for client in self._clients:
            client.client.when_closed().addCallback(self._lost, client)
        if self.meshed:
            self.stage = "the relays to tell each other of the two clients"
            await deferLater(self._reactor, GOSSIP_S)

    async def close(self) -> None:
        """Close both connections, and wait until they are; cancelling cuts them."""
        try:
            closing = [client.close() for client in self._clients]
            await DeferredList(closing, consumeErrors=True)
        except CancelledError:
            self.abort()

    def abort(self) -> Deferred[Any]:
        """Cut both connections; fires when they are closed, in the next turn."""
        self.heard_by_source = self.heard_by_destination = _ignore
        return DeferredList([client.abort() for client in self._clients])

    def explain_cancel(self) -> str:
        """Say what had not come when the time was over."""
        after = f"nothing after {self._reactor.seconds() - self._began:.1f} s: still waiting for"
        if not self._logging_in:
            return f"{after} {self.stage}"
        stages = {f"{client.name}{client.place}: {client.stage}" for client in self._logging_in}
        cures = {cure_for(client.stage) for client in self._logging_in}
        return f"{after} {' and '.join(sorted(stages))}: {' '.join(sorted(cures))}"

    def _destination_heard(self, message: ClientEvent) -> None:
        if not isinstance(message, ReceivedPacket) or message.packet not in self.stale:
            self.heard_by_destination(message)

    async def _log_in(self, client: NodeClient) -> None:
        await client.log_in()
        self._logging_in.remove(client)

    def _lost(self, why: RelayError | None, client: NodeClient) -> None:
        problem = why or RelayError(f"{client.name}: the connection was closed")
        self._loss = ProbeFailed(f"{problem}, while waiting for {self.stage}")
        if self._waiting is not None and not self._waiting.called:
            self._waiting.errback(self._loss)


def _ignore(message: ClientEvent) -> None:
    """Nobody wants to know."""


async def run_pair(
    targets: Targets,
    source: str,
    destination: str,
    exchange: Callable[[Pair], Awaitable[None]],
    *,
    is_prober: bool,
) -> None:
    """
    Connect two clients, let them exchange something, and leave nothing behind.

    :param source: name of a node of the present map; so is ``destination``.
    :raises ProbeFailed: with both keys in front; at once, if the run is cancelled.
    """
    pair = Pair(targets, source, destination, is_prober)
    try:
        await pair.log_in()
        await exchange(pair)
    except CancelledError:
        pair.abort()  # not waited for: whoever cancels wants to hear why now
        raise ProbeFailed(f"{pair.label}: {pair.explain_cancel()}") from None
    except BaseException as problem:
        await pair.abort()
        if isinstance(problem, ProbeFailed | RelayError):
            raise ProbeFailed(f"{pair.label}: {problem}") from problem
        raise
    await pair.close()
