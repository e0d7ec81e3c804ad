"""
Our end of the connection to one other relay of the mesh.

==============  =============================================================================
state           what happens
==============  =============================================================================
``CONNECTING``  TCP, TLS, HTTP; then ClientInfo with the mesh key, and WatchConns, leave together
``LOGGING_IN``  they are on their way; the relay's first PeerPresent (it announces at least
                this connection) shows that it gave us the rights of a mesh peer
``UP``          it tells who comes and goes; packets to those it has are forwarded to it
``WAITING``     the connection failed or broke; another one is made after a pause
``ITSELF``      the relay there is ourselves (our own name is in the list): no link is needed
``STOPPED``     it is in the list no more, or we end
==============  =============================================================================

Like derper's ``RunWatchConnectionLoop``, but: the pause grows and is jittered (there: 5 s); a
packet that the link cannot take is dropped and counted, never waited for, and makes nobody
reconnect; a peer that says when it will be back (Restarting) is asked then, if that is sooner; a
link that is dead is found out by pings within 15 s (there: 120 s without a frame);
and the connection to ourselves is closed.

**What a broken link loses is counted**, as far as anybody can know: a pong proves that the peer
read all that was forwarded before the ping, and what was forwarded after the last one proven is
:attr:`MeshLink.unconfirmed`, an upper bound, once the link has broken.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger

from derp.core.announced_keys import MAX_KEYS, AnnouncedKeys
from derp.core.connection import kind_of
from derp.core.stats import DropReason
from derp.net.link_pulse import LinkPulse
from derp.net.link_state import LinkFailure, LinkState
from derp.net.relay_errors import RelayError
from derp.quoting import quoted
from derp.wire.frames import PeerGoneReason
from derp.wire.keys import short_key
from derp.wire.messages import PeerGone, PeerPresent, Restarting

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall
    from twisted.python.failure import Failure

    from derp.config import MeshPeer
    from derp.core.client_session import ClientEvent
    from derp.core.relay import Relay
    from derp.net.relay_client import RelayClient

FIRST_PAUSE_S: Final = 1.0
MAX_PAUSE_S: Final = 30.0
"""Between two attempts to connect; each pause is varied by half of it either way."""
STEADY_S: Final = 10.0
"""A link that was up for so long begins with the first pause again."""
LOGIN_S: Final = 10.0
"""For the first PeerPresent to come."""
REPEAT_LOG_S: Final = 600.0
"""How soon the same trouble is worth another line."""
SETTLED_S: Final = 0.2
"""So long after the last PeerPresent of the flood its size is told."""
COUNT_LOG_S: Final = 10.0
"""Between two lines about how many clients a peer has."""

_REFUSED: Final = (
    "it answers, but closed the connection when we asked to watch its clients: its mesh key is "
    "not ours, or it has none; compare the files of --mesh-psk-file. Or it takes no logins at "
    "present (quota, drain): its log says which"
)
_PIN_HINT: Final = (
    "; in the mesh CertName is what stands behind # in a peer's name, and --mesh-ca-file names a CA"
)


class Connector(Protocol):
    """Makes connections to one peer (:class:`derp.net.relay_connector.RelayConnector`)."""

    def connect(
        self, on_message: Callable[[ClientEvent], object] | None = None
    ) -> Deferred[RelayClient]:
        """Make one."""


class MeshLink:
    """
    A link that comes back whenever it breaks.

    :param connector: connects as this relay, with the mesh key, and watches.
    :param vary: gives a random number between two.
    :param max_keys: how many clients are believed to be at the peer.
    """

    log = Logger(namespace="derp")

    def __init__(
        self,
        reactor: Any,
        relay: Relay,
        peer: MeshPeer,
        connector: Connector,
        *,
        vary: Callable[[float, float], float] = random.uniform,
        max_keys: int = MAX_KEYS,
    ) -> None:
        self.peer = peer
        self.state = LinkState.STOPPED
        self.announced = AnnouncedKeys(relay, self, max_keys)
        """The peer's clients."""
        self.connects = 0
        """How often the link came up."""
        self.failures = dict.fromkeys(LinkFailure, 0)
        self.problem = ""
        """Why there is no link, as long as there is none."""
        self.forwarded = 0
        """Packets the link took."""
        self.dropped = 0
        """Packets it could not take."""
        self.unconfirmed = 0
        """Packets it took and may have lost when it broke."""
        self._reactor = reactor
        self._relay = relay
        self._connector = connector
        self._vary = vary
        self._client: RelayClient | None = None
        self._connecting: Deferred[Any] | None = None
        self._timers: dict[str, IDelayedCall] = {}
        self._pause_s = FIRST_PAUSE_S
        self._up_at = 0.0
        self._back_at = math.inf
        """When the peer said that it will be back."""
        self._pulse: LinkPulse | None = None
        self._logged: dict[str, float] = {}
        self._counted_at = 0.0
        self._timed_out = False

    # -- from outside ----------------------------------------------------------------------

    def start(self) -> None:
        """Connect, and keep at it."""
        self._relay.mesh_books.append(self.announced)
        if self.peer.dial_host:
            self._info(f"will dial {self.peer.dial_host} for {self.peer.host}")
        self._connect()

    def stop(self) -> Deferred[Any]:
        """End the link; fires when its connection is closed."""
        client = self._client
        if self.state is LinkState.STOPPED:
            return succeed(None)
        self.state = LinkState.STOPPED
        if self._connecting is not None:
            self._connecting.cancel()
        self._down()
        self._relay.mesh_books.remove(self.announced)
        return client.close() if client is not None else succeed(None)

    def forward_packet(self, source: bytes, destination: bytes, packet: bytes) -> None:
        """See :class:`derp.core.mesh.PacketForwarder`."""
        client = self._client
        if client is not None and client.forward(source, destination, packet):
            self.forwarded += 1
            return
        self.dropped += 1
        self._relay.stats.drop(
            DropReason.MESH_LINK, kind_of(packet), len(packet), source, destination
        )

    def describe(self) -> str:
        """How the link fares, in a line for people."""
        parts = [self.state.value]
        if self.state is LinkState.UP:
            parts.append(f"{len(self.announced)} clients")
            if self.round_trip_s is not None:
                parts.append(f"round trip {self.round_trip_s * 1000:.1f} ms")
        counts = (self.forwarded, self.dropped, self.unconfirmed)
        if self.state is not LinkState.ITSELF:
            parts.append("{} forwarded, {} dropped, {} unconfirmed".format(*counts))
        if self.problem:
            parts.append(self.problem)
        return ", ".join(parts)

    @property
    def round_trip_s(self) -> float | None:
        """To the peer and back, as last measured; ``None`` while there is no link."""
        return self._pulse.round_trip_s if self._pulse is not None else None

    # -- connecting ------------------------------------------------------------------------

    def _connect(self) -> None:
        self.state = LinkState.CONNECTING
        # It may have failed already, and is forgotten then before it is looked at again.
        self._connecting = connecting = self._connector.connect(self._hear)
        connecting.addCallbacks(self._connected, self._not_connected)
        connecting.addErrback(self._surprised)

    def _connected(self, client: RelayClient) -> None:
        self._connecting = None
        if self.state is LinkState.STOPPED:
            client.close()
            return
        if client.server_key == self._relay.public:
            self.state = LinkState.ITSELF
            self.problem = ""
            self._info("this is our own address; no link is needed")
            client.close()
            return
        self.state = LinkState.LOGGING_IN
        self._client = client
        self._pulse = LinkPulse(self._reactor, client, lambda: self.forwarded)
        self._timed_out = False
        self._set_timer("login", LOGIN_S, self._login_timed_out)
        client.when_closed().addCallback(self._closed, client).addErrback(self._surprised)

    def _not_connected(self, failure: Failure) -> None:
        self._connecting = None
        if self.state is LinkState.STOPPED or failure.check(CancelledError):
            return
        if not failure.check(RelayError):
            self.log.failure("mesh({name}): connecting failed", failure, name=self._name)
        text = failure.getErrorMessage()
        self._failed(LinkFailure.UNREACHABLE, text + _PIN_HINT if "CertName" in text else text)

    def _surprised(self, failure: Failure) -> None:
        """Report a mistake of ours; it must not end the link for good."""
        self.log.failure("mesh({name})", failure, name=self._name)
        if self._client is not None:
            self._client.abort("something went wrong here")

    def _login_timed_out(self) -> None:
        assert self._client is not None
        self._timed_out = True
        self._client.abort(f"told us of no client within {LOGIN_S:g} s, not even of ourselves")

    def _closed(self, error: RelayError | None, client: RelayClient) -> None:
        if self.state is LinkState.STOPPED or client is not self._client:
            return
        was_up = self.state is LinkState.UP
        back_at, self._back_at = self._back_at, math.inf
        back_s = math.inf
        if was_up and self._reactor.seconds() - self._up_at >= STEADY_S:
            self._pause_s = FIRST_PAUSE_S
            back_s = max(0.0, back_at - self._reactor.seconds())
        taken_back = self._down()
        if taken_back:
            self._info(f"connection lost, {taken_back} clients are no longer known")
        text = str(error)
        if was_up:
            restarts = "it said that it restarts; " if back_at < math.inf else ""
            self._failed(LinkFailure.LOST, restarts + text, back_s)
        elif self._timed_out:
            self._failed(LinkFailure.SILENT, text)
        else:
            self._failed(LinkFailure.REFUSED, f"{_REFUSED} ({text})")

    def _failed(self, why: LinkFailure, text: str, back_s: float = math.inf) -> None:
        """Log it, unless it was just logged, and try again after a pause, or when it is back."""
        self.state = LinkState.WAITING
        self.failures[why] += 1
        self.problem = f"{why.value}: {text}"
        pause = min(self._pause_s * self._vary(0.5, 1.5), back_s)
        self._pause_s = min(self._pause_s * 2, MAX_PAUSE_S)
        now = self._reactor.seconds()
        if now - self._logged.get(self.problem, -REPEAT_LOG_S) >= REPEAT_LOG_S:
            self._logged = {self.problem: now}
            self.log.warn("mesh({name}): {text}", name=self._name, text=self.problem)
        self._set_timer("pause", pause, self._connect)

    def _down(self) -> int:
        """Take back what the connection brought; give how many clients that were."""
        self._client = None
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._pulse is not None:
            self._pulse.stop()
            self.unconfirmed += self.forwarded - self._pulse.proven
            self._pulse = None
        return self.announced.clear()

    # -- being told ------------------------------------------------------------------------

    def _hear(self, message: ClientEvent) -> None:
        if self.state not in (LinkState.LOGGING_IN, LinkState.UP):
            return
        if self._pulse is not None:
            self._pulse.heard()
        if isinstance(message, PeerPresent):
            self._present(message)
        elif isinstance(message, PeerGone):
            self._gone(message)
        elif isinstance(message, Restarting):
            self._back_at = self._reactor.seconds() + message.reconnect_in_ms / 1000
        self._tell_count()

    def _present(self, message: PeerPresent) -> None:
        if self.state is LinkState.LOGGING_IN:
            self._come_up()
        if not self.announced.present(message.key):
            self._say_seldom(f"it announces more than {len(self.announced)} clients: not believed")
        if "settled" in self._timers:
            self._timers["settled"].reset(SETTLED_S)

    def _come_up(self) -> None:
        assert self._pulse is not None
        self._timers.pop("login").cancel()
        self.state = LinkState.UP
        self.problem = ""
        self._logged.clear()
        self.connects += 1
        self._up_at = self._reactor.seconds()
        self._set_timer("settled", SETTLED_S, self._settled)
        self._pulse.start()

    def _settled(self) -> None:
        self._counted_at = self._reactor.seconds()
        self._info(f"connected; {len(self.announced)} peers")

    def _tell_count(self) -> None:
        if self.state is not LinkState.UP or "settled" in self._timers:
            return
        now = self._reactor.seconds()
        if now - self._counted_at >= COUNT_LOG_S:
            self._counted_at = now
            self._info(f"{len(self.announced)} peers")

    def _gone(self, message: PeerGone) -> None:
        self.announced.gone(message.key)
        if message.reason != PeerGoneReason.DISCONNECTED:
            self._say_seldom(
                f"no longer knows {short_key(message.key)} (PeerGone reason {message.reason})"
            )

    # -- small things ----------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return quoted(self.peer.name)

    def _info(self, text: str) -> None:
        self.log.info("mesh({name}): {text}", name=self._name, text=text)

    def _say_seldom(self, text: str) -> None:
        """A line that a peer can cause at will: at most one in ten seconds."""
        now = self._reactor.seconds()
        if now - self._logged.get("seldom", -COUNT_LOG_S) >= COUNT_LOG_S:
            self._logged["seldom"] = now
            self._info(text)

    def _set_timer(self, name: str, seconds: float, act: Callable[[], object]) -> None:
        def due() -> None:
            del self._timers[name]
            act()

        self._timers[name] = self._reactor.callLater(seconds, due)
