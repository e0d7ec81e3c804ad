"""
The first packet between two fresh clients.

Relays of a mesh tell each other of new clients only after their login was answered; a relay
that does not know the destination yet says so (PeerGone), and is asked again for a while.
"""

from __future__ import annotations

from secrets import token_bytes
from typing import Final

from twisted.internet.interfaces import IDelayedCall

from derp.core.client_session import ClientEvent
from derp.prober.check import ProbeFailed
from derp.prober.pair import Pair
from derp.prober.targets import Targets
from derp.wire.frames import PeerGoneReason
from derp.wire.keys import short_key
from derp.wire.messages import PeerGone, ReceivedPacket

PACKET_LEN: Final = 8
UNKNOWN_S: Final = 3.0
"""How long a relay may not know the destination before that counts as its answer."""
_AGAIN_S: Final = 0.25


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
        self._packet = token_bytes(PACKET_LEN)
        self._again: IDelayedCall | None = None
        self._arrived = pair.wait()
        self._began = self._sent_at = self._reactor.seconds()
        pair.heard_by_destination = self._delivered
        pair.heard_by_source = self._answered

    async def arrives(self) -> float:
        """Send it; give the seconds it took."""
        self._pair.stage = f"the packet that was sent {self._pair.way}"
        self._send()
        taken: float = await self._arrived
        return taken

    def stop(self) -> None:
        if self._again is not None and self._again.active():
            self._again.cancel()

    def _send(self) -> None:
        self._sent_at = self._reactor.seconds()
        if not self._pair.send(self._packet):
            self._fail(f"{self._pair.source.name} takes no packet")

    def _delivered(self, message: ClientEvent) -> None:
        if not isinstance(message, ReceivedPacket) or self._arrived.called:
            return
        if message.source != self._pair.source.public_key:
            self._fail(
                f"a packet from {short_key(message.source)} came {self._pair.way}, which that"
                " client did not send to us: the relay mixes up its clients"
            )
        elif message.packet != self._packet:
            self._fail(
                f"the packet that was sent {self._pair.way} came changed:"
                f" {message.packet[:16].hex()}… ({len(message.packet)} bytes) instead of"
                f" {self._packet.hex()}"
            )
        else:
            self._arrived.callback(self._reactor.seconds() - self._sent_at)

    def _answered(self, message: ClientEvent) -> None:
        """The source's relay knows no such client, perhaps not yet."""
        if not isinstance(message, PeerGone) or message.key != self._pair.destination.public_key:
            return
        if message.reason != PeerGoneReason.NOT_HERE or self._arrived.called:
            return
        if not self._pair.meshed or self._reactor.seconds() - self._began >= UNKNOWN_S:
            self._fail(self._unknown())
        elif self._again is None or not self._again.active():
            self._again = self._reactor.callLater(_AGAIN_S, self._send)

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
