"""A mesh peer that does what a test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from derp.net.outcome import Outcome
from derp.net.relay_errors import ConnectFailed, RelayError
from derp.wire.frames import PeerGoneReason, PeerPresentFlags
from derp.wire.handshake import ServerInfo
from derp.wire.messages import PeerGone, PeerPresent

PEER_KEY = bytes(range(32))
"""The peer's own key."""


class FakePeerClient:
    """Our end of one connection, as a link sees it."""

    def __init__(self, clock: Clock, on_message: Any, server_key: bytes = PEER_KEY) -> None:
        self.server_key = server_key
        self.forwarded: list[tuple[bytes, bytes, bytes]] = []
        self.takes = True
        """Whether it takes packets to forward."""
        self.pings: list[Deferred[float]] = []
        self.aborted: list[str] = []
        self.closed = False
        self.lingers = False
        """Whether closing takes its time."""
        self._clock = clock
        self._on_message = on_message
        self._end: Outcome[RelayError | None] = Outcome()

    # What a link uses.

    def forward(self, source: bytes, destination: bytes, packet: bytes) -> bool:
        if self.takes and not self._end.settled:
            self.forwarded.append((source, destination, packet))
            return True
        return False

    def ping(self, timeout: float) -> Deferred[float]:
        if self._end.settled:
            return fail(RelayError("closed"))

        def timed_out(result: object, seconds: float) -> float:
            raise RelayError("no pong")

        ping: Deferred[float] = Deferred()
        self.pings.append(ping)
        return ping.addTimeout(timeout, self._clock, timed_out)

    def when_closed(self) -> Deferred[RelayError | None]:
        return self._end.when()

    def close(self) -> Deferred[RelayError | None]:
        self.closed = True
        if not self.lingers:
            self._end.succeed(None)
        return self._end.when()

    def abort(self, problem: str) -> None:
        self.aborted.append(problem)
        self.lose(problem)

    # What a test does.

    def tell(self, *messages: Any) -> None:
        for message in messages:
            self._on_message(message)

    def present(self, *keys: bytes) -> None:
        for key in keys:
            self.tell(PeerPresent(key, None, 0, PeerPresentFlags.REGULAR))

    def gone(self, key: bytes, reason: int = PeerGoneReason.DISCONNECTED) -> None:
        self.tell(PeerGone(key, reason))

    def pong(self, seconds: float = 0.25) -> None:
        ping = self.pings.pop()
        ping.callback(seconds)

    def lose(self, problem: str = "connection lost") -> None:
        pings, self.pings = self.pings, []
        for ping in pings:
            if not ping.called:
                ping.errback(RelayError(problem))
        self._end.succeed(RelayError(problem))


class FakeConnector:
    """Makes such connections; :attr:`clients` are those that came about."""

    def __init__(self, clock: Clock, server_key: bytes = PEER_KEY) -> None:
        self.attempts: list[Deferred[Any]] = []
        self.given_up = 0
        self.clients: list[FakePeerClient] = []
        self._clock = clock
        self._server_key = server_key
        self._on_message: Callable[[Any], object] | None = None

    def connect(self, on_message: Any = None) -> Deferred[Any]:
        self._on_message = on_message
        attempt: Deferred[Any] = Deferred(self._give_up)
        self.attempts.append(attempt)
        return attempt

    def _give_up(self, attempt: Deferred[Any]) -> None:
        self.given_up += 1

    def accept(self, *keys: bytes) -> FakePeerClient:
        """Let the last attempt succeed; announce keys if there are any."""
        client = FakePeerClient(self._clock, self._on_message, self._server_key)
        self.clients.append(client)
        self.attempts[-1].callback(client)
        if keys:
            client.tell(ServerInfo(2))
            client.present(*keys)
        return client

    def refuse(self, problem: str = "cannot connect") -> None:
        """Let the last attempt fail."""
        self.attempts[-1].errback(ConnectFailed(problem))
