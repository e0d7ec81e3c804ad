"""
When to tell a client that its key is in use twice (tailscale issue 2746).

Two machines with one node key (a cloned disk, a copied state directory) take the active place
from each other with every frame, and neither finds out why half of its packets are missing.
But most keys with two connections are harmless: a client reconnects, and the relay has not yet
noticed that the old connection is dead. That *silent twin* speaks no more, or at most what was
still under way. So the alarm wants proof that both live::

    c2 registers … (SETTLE_S) … c1 speaks, c2 speaks, c1 speaks    -> told
    one of them ends, or nobody else speaks for QUIET_S             -> told that it is over

Time is an argument. Nothing runs by itself: a silence is noticed at the next frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from derp.wire.frames import encode_health

if TYPE_CHECKING:
    from derp.core.connection import Connection
    from derp.core.health import Health
    from derp.core.registry import Registry

SETTLE_S: Final = 5.0
"""After a login, frames that the key's older connections had under way prove nothing."""
TURNS: Final = 3
"""How often the speaker must have changed."""
QUIET_S: Final = 60.0
"""After so long without a change of speaker there is only one left who speaks."""
AGAIN_S: Final = 300.0
"""The least time between two alarms for one key."""

ALARM: Final = (
    "two connections use this node's key at the same time, so each gets only some of its"
    " packets: was this machine cloned, or its state directory copied? Log in again on one of"
    " them to give it a key of its own"
)
"""What clients are told; clients show it as a health warning."""


class _Dispute:
    """What is known about the connections of one key."""

    __slots__ = ("alarmed_at", "settles_at", "speaker", "told", "turned_at", "turns")

    def __init__(self, speaker: Connection, now: float) -> None:
        self.speaker = speaker
        self.settles_at = now + SETTLE_S
        self.turns = 0
        self.turned_at = now
        self.told = False
        self.alarmed_at = float("-inf")


class DuplicateAlarm:
    """
    Watches the keys with several connections; tells them, not mesh peers, what it finds.

    :param registry: says which connections a key has.
    :param health: the relay's own condition, told in the same text.
    :ivar alarms: how often a key was told.
    """

    def __init__(self, registry: Registry, health: Health) -> None:
        self.alarms = 0
        self._registry = registry
        self._health = health
        self._disputes: dict[bytes, _Dispute] = {}
        health.suffix = self._suffix

    def __len__(self) -> int:
        """Keys that have been told and not yet told otherwise."""
        return sum(dispute.told for dispute in self._disputes.values())

    def joined(self, conn: Connection, now: float) -> None:
        """A connection has registered (and is in the registry)."""
        if not conn.dup:
            return
        dispute = self._disputes.get(conn.key)
        if dispute is None:
            self._disputes[conn.key] = _Dispute(conn, now)
        else:
            dispute.speaker = conn
            dispute.settles_at = now + SETTLE_S

    def left(self, conn: Connection) -> None:
        """A connection has ended (and is in the registry no more)."""
        key = conn.key
        if key in self._registry.duplicates or key not in self._disputes:
            return
        dispute = self._disputes.pop(key)
        if dispute.told:
            self._tell(key)

    def spoke(self, conn: Connection, now: float) -> None:
        """A connection whose key has several has sent a frame."""
        dispute = self._disputes.get(conn.key)
        if dispute is None or conn.is_mesh:
            return
        if dispute.turns and now - dispute.turned_at >= QUIET_S:
            dispute.turns = 0
            if dispute.told:
                dispute.told = False
                self._tell(conn.key)
        if conn is dispute.speaker:
            return
        dispute.speaker = conn
        if now < dispute.settles_at:
            return
        dispute.turns += 1
        dispute.turned_at = now
        if dispute.turns >= TURNS and not dispute.told and now - dispute.alarmed_at >= AGAIN_S:
            dispute.told = True
            dispute.alarmed_at = now
            self.alarms += 1
            self._tell(conn.key)

    def _suffix(self, conn: Connection) -> str:
        dispute = self._disputes.get(conn.key)
        return ALARM if dispute is not None and dispute.told and not conn.is_mesh else ""

    def _tell(self, key: bytes) -> None:
        for conn in self._registry.connections_of(key):
            if not conn.is_mesh:
                conn.send_control(encode_health(self._health.text_for(conn)))
