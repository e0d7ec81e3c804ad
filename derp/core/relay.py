"""
The relay's whole state: who is here, who is elsewhere, who must be told.

Joins registry, forwarder table and watchers and keeps them consistent: a key *leaves the
region* when neither a local connection nor a forwarder for it is left, and then everybody who
was sent packets from it hears PeerGone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hmac import compare_digest

from derp.core.announced_keys import AnnouncedKeys
from derp.core.connection import Connection, kind_of
from derp.core.duplicate_alarm import DuplicateAlarm
from derp.core.health import Health
from derp.core.mesh import ForwarderTable, PacketForwarder, Watchers
from derp.core.outbox import DEFAULT_DEPTH
from derp.core.registry import DuplicatePolicy, Registry
from derp.core.stats import DropReason, PacketKind, Stats
from derp.wire.frames import PeerGoneReason
from derp.wire.handshake import encode_server_key
from derp.wire.keys import public_of

HOME_MOVE_AGE_S = 5.0
"""A NotePreferred later than this after login is a move, not part of the login."""
MAX_HEARD = 50_000
"""
Sources one connection is told the end of. Clients come one by one, but a mesh peer can write any
source into what it forwards.
"""
MAX_HEARD_IN_ALL = 1_000_000
"""The same of all connections together: some 400 MB of books."""


@dataclass(frozen=True)
class RelayIdentity:
    """Who this relay is to clients and to its mesh."""

    private: bytes
    mesh_key: bytes | None = None


class Relay:
    """
    State of one relay.

    :param outbox_depth: packets per lane that wait for a connection whose socket is full.
    :param policy: what duplicate connections of a key may do.
    """

    def __init__(
        self,
        identity: RelayIdentity,
        *,
        outbox_depth: int = DEFAULT_DEPTH,
        policy: DuplicatePolicy = DuplicatePolicy.LAST_WRITER,
    ) -> None:
        self.private = identity.private
        self.mesh_key = identity.mesh_key
        self.public = public_of(identity.private)
        self.greeting = encode_server_key(self.public)
        self.outbox_depth = outbox_depth
        self.stats = Stats()
        self.registry = Registry(self.stats, policy)
        self.forwarders = ForwarderTable(self.stats)
        self.watchers = Watchers(self.stats)
        self.health = Health(self.registry.connections)
        self.duplicate_alarm = DuplicateAlarm(self.registry, self.health)
        self.mesh_books: list[AnnouncedKeys] = []
        """What each mesh link has announced, for :mod:`derp.core.consistency`."""
        self.now = 0.0
        """
        Seconds on the adapter's clock, set by it before it hands anything in. One reading
        serves a whole turn of the event loop, however many packets it carries.
        """
        self._subscribers: dict[bytes, set[Connection]] = {}
        self._heard = 0
        """Sources that connections remember, all together."""

    # -- coming and going ------------------------------------------------------------------

    def register(self, conn: Connection) -> None:
        """A connection has logged in (its ServerInfo is written) and is routable from now on."""
        self.registry.register(conn)
        if conn.not_ideal:
            self.stats.notideal_connections += 1
        if len(self.watchers):
            self.watchers.tell_present(conn.presence_frame())
        self.duplicate_alarm.joined(conn, self.now)
        self.health.greet(conn)

    def note_activity(self, conn: Connection) -> None:
        """One of several connections of a key has sent a frame."""
        self.registry.note_activity(conn)
        self.duplicate_alarm.spoke(conn, self.now)

    def unregister(self, conn: Connection) -> None:
        """A registered connection ended, for whatever reason."""
        last = self.registry.unregister(conn)
        self.duplicate_alarm.left(conn)
        self.watchers.forget(conn)
        if conn.not_ideal:
            self.stats.notideal_connections -= 1
        if conn.preferred:
            conn.preferred = False
            self.stats.home_connections -= 1
        conn.drop_queued()
        self._heard -= len(conn.heard or ())
        for source in conn.heard or ():
            subscribers = self._subscribers.get(source)
            if subscribers is not None:
                subscribers.discard(conn)
                if not subscribers:
                    del self._subscribers[source]
        if last:
            self.watchers.tell_gone(conn.key, PeerGoneReason.DISCONNECTED)
            if conn.key not in self.forwarders:
                self._gone_from_region(conn.key)

    def _gone_from_region(self, key: bytes) -> None:
        for subscriber in self._subscribers.pop(key, ()):
            subscriber.send_peer_gone(key, PeerGoneReason.DISCONNECTED)

    def note_heard(self, dest: Connection, source: bytes) -> None:
        """
        A connection is sent its first packet from a source: it will want to know when that
        leaves. It is remembered for the life of the connection, even past such a notice, so a
        source that comes back is not announced gone a second time (as in derper). Beyond the
        limits it is not remembered, and will leave without a notice.
        """
        if dest.heard is None:
            dest.heard = set()
        if len(dest.heard) >= MAX_HEARD or self._heard >= MAX_HEARD_IN_ALL:
            return
        self._heard += 1
        dest.heard.add(source)
        self._subscribers.setdefault(source, set()).add(dest)

    def subscriptions(self) -> Iterator[tuple[bytes, set[Connection]]]:
        """Sources, and who will be told when they leave the region."""
        return iter(self._subscribers.items())

    # -- the mesh --------------------------------------------------------------------------

    def is_mesh_key(self, offered: bytes | None) -> bool:
        """Whether a client that offers this key is a mesh peer."""
        return (
            self.mesh_key is not None
            and offered is not None
            and compare_digest(self.mesh_key, offered)
        )

    def add_forwarder(self, key: bytes, link: PacketForwarder) -> None:
        """A mesh link announces a key."""
        self.forwarders.add(key, link)

    def remove_forwarder(self, key: bytes, link: PacketForwarder) -> None:
        """A mesh link lost a key, or is lost itself."""
        if key not in self.forwarders and key in self.registry:
            self.stats.packet_forwarder_delete_other_value += 1
        if self.forwarders.remove(key, link) and key not in self.registry:
            self._gone_from_region(key)

    def watch(self, conn: Connection) -> None:
        """A mesh peer wants to know who comes and goes; asking again repeats the flood."""
        if conn.key == self.public:
            return  # our own link to ourselves: telling it would make us our own neighbour
        present = [active.presence_frame() for active in self.registry.active.values()]
        self.watchers.enroll(conn, present)

    @property
    def clients_remote(self) -> int:
        """Keys that only other relays have."""
        return sum(key not in self.registry for key in self.forwarders.keys())  # noqa: SIM118

    # -- what clients ask ------------------------------------------------------------------

    def note_preferred(self, conn: Connection, preferred: bool) -> None:
        """A client makes this relay its home, or no longer."""
        if conn.preferred == preferred:
            return
        conn.preferred = preferred
        moved = self.now - conn.connected_at > HOME_MOVE_AGE_S
        if preferred:
            self.stats.home_connections += 1
            self.stats.home_moves_in += moved
        else:
            self.stats.home_connections -= 1
            self.stats.home_moves_out += moved

    def close_peer(self, key: bytes, why: str = "a mesh peer asked for it (ClosePeer)") -> int:
        """
        Close every local connection of a key. Nothing keeps it from coming back.

        :param why: who asked, for the log.
        :return: how many there were.
        """
        closed = 0
        for conn in self.registry.connections_of(key):
            conn.sink.close(why)
            closed += 1
        return closed

    # -- packets that do not take the packet path ------------------------------------------

    def forward_in(
        self, link: Connection, source: bytes, destination: bytes, packet: bytes
    ) -> None:
        """A mesh peer forwards a packet for one of our clients. It is never forwarded again."""
        self.stats.packets_forwarded_in += 1
        dest = self.registry.active.get(destination)
        if dest is None:
            reason = DropReason.UNKNOWN_DEST_ON_FWD
            self.undeliverable(link, source, destination, packet, reason)
            return
        if dest.heard is None or source not in dest.heard:
            self.note_heard(dest, source)
        dest.send_packet(source, packet, self.now)

    def undeliverable(
        self,
        asker: Connection,
        source: bytes,
        destination: bytes,
        packet: bytes,
        reason: DropReason,
    ) -> None:
        """
        Count a packet nobody can get; tell the asker, if it looked for a path (disco).

        :param asker: who handed the packet in: the sender, or the mesh peer that forwarded it.
        """
        kind = kind_of(packet)
        if destination in self.registry.duplicates:
            reason = DropReason.DUP_CLIENT
        self.stats.drop(reason, kind, len(packet), source, destination)
        if reason is DropReason.DUP_CLIENT or kind is not PacketKind.DISCO:
            return
        if asker.may_ask_not_here(self.now):
            asker.send_peer_gone(destination, PeerGoneReason.NOT_HERE)
