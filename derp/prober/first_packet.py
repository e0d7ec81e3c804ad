"""
The first packet between two fresh clients: eight random bytes.

Relays of a mesh tell each other of new clients only after their login was answered, and what
comes too early they drop in silence. So if the packet does not arrive soon, others follow that
look like disco: their loss a relay admits (PeerGone, not here), up to three at once and one a
second from then on. Either one of them arrives, or we know where the way ends.
"""

from __future__ import annotations

from secrets import token_bytes
from typing import Final

from twisted.internet.interfaces import IDelayedCall

from derp.core.client_session import ClientEvent
from derp.prober.check import ProbeFailed
from derp.prober.pair import Pair
from derp.prober.targets import Targets
from derp.wire.disco import DISCO_MAGIC, DISCO_MIN_LEN
from derp.wire.keys import short_key
from derp.wire.messages import PeerGone, ReceivedPacket

PACKET_LEN: Final = 8
AGAIN_S: Final = 0.5
UNKNOWN_S: Final = 3.0
"""How long a relay may not know the destination before that counts as its answer."""


async def send_first_packet(targets: Targets, pair: Pair) -> float:
    """
    Send some random bytes from source to destination.

    :return: seconds until they were there.
    :raises ProbeFailed: if they do not arrive as they were sent.
    """
    sending = _Sending(targets, pair)
    try:
        return await sending.arrives()
    finally:
        sending.stop()


class _Sending:
    """One packet on its way."""

    def __init__(self, targets: Targets, pair: Pair) -> None:
        self._reactor = targets.reactor
        self._pair = pair
        self._sent_at: dict[bytes, float] = {}
        self._again: IDelayedCall | None = None
        self._arrived = pair.wait()
        self._began = self._reactor.seconds()
        pair.heard_by_destination = self._delivered
        pair.heard_by_source = self._answered

    async def arrives(self) -> float:
        """Send it; give the seconds it took."""
        self._send(token_bytes(PACKET_LEN))
        taken: float = await self._arrived
        return taken

    def stop(self) -> None:
        """Send no more; what arrives after this is nobody's."""
        if self._again is not None and self._again.active():
            self._again.cancel()
        self._pair.stale.update(self._sent_at)

    def _send(self, packet: bytes) -> None:
        self._sent_at[packet] = self._reactor.seconds()
        times = f" ({len(self._sent_at)} times)" if self._again is not None else ""
        self._pair.stage = f"the packet that was sent {self._pair.way}{times}"
        if not self._pair.send(packet):
            self._fail(f"{self._pair.source.name} takes no packet")
            return
        self._again = self._reactor.callLater(AGAIN_S, self._ask)

    def _ask(self) -> None:
        """Send what does not get lost in silence."""
        self._send(DISCO_MAGIC + token_bytes(DISCO_MIN_LEN))

    def _delivered(self, message: ClientEvent) -> None:
        if not isinstance(message, ReceivedPacket) or self._arrived.called:
            return
        if message.source != self._pair.source.public_key:
            self._fail(
                f"a packet from {short_key(message.source)} came {self._pair.way}, which that"
                " client did not send to us: the relay mixes up its clients"
            )
        elif message.packet not in self._sent_at:
            self._fail(
                f"the packet that was sent {self._pair.way} came changed:"
                f" {message.packet[:16].hex()}… ({len(message.packet)} bytes) instead of"
                f" {next(iter(self._sent_at)).hex()}"
            )
        else:
            self._arrived.callback(self._reactor.seconds() - self._sent_at[message.packet])

    def _answered(self, message: ClientEvent) -> None:
        """The source's relay knows no such client, perhaps not yet."""
        if not isinstance(message, PeerGone) or message.key != self._pair.destination.public_key:
            return
        waited = self._reactor.seconds() - self._began
        if not self._pair.meshed or waited >= UNKNOWN_S:
            self._fail(self._unknown())

    def _unknown(self) -> str:
        source, destination = self._pair.source.name, self._pair.destination.name
        if not self._pair.meshed:
            return f"{source} says it has no such client, though both of ours are logged in there"
        return (
            f"{source} knows no client of {destination}: are both started with the same mesh key"
            " (--mesh-psk-file), and each with the other in --mesh-with?"
        )

    def _fail(self, problem: str) -> None:
        if not self._arrived.called:
            self._arrived.errback(ProbeFailed(problem))
