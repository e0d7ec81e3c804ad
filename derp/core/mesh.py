"""
The region beyond this relay: forwarders to other relays' clients, watchers of ours.

Every relay of a region keeps a client connection to every other one. Those connections
*watch* (they are told of each of our clients) and what we learn over ours becomes the
*forwarder table*: key to the link its packets go out on. Source: tailscale ``derpserver``
``AddPacketForwarder``, ``RemovePacketForwarder``, ``multiForwarder``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from derp.core.connection import Connection
from derp.core.stats import Stats


class PacketForwarder(Protocol):
    """A link to another relay."""

    def forward_packet(self, source: bytes, destination: bytes, packet: bytes) -> None:
        """Send a packet on, or drop and count it if the link cannot take it now."""


class ForwarderTable:
    """
    Which links reach a key, the one seen longest first.

    The oldest link is preferred, so that routes stay while a client moves between relays.
    """

    def __init__(self, stats: Stats) -> None:
        self._links: dict[bytes, list[PacketForwarder]] = {}
        self._stats = stats

    def __contains__(self, key: bytes) -> bool:
        return key in self._links

    def __len__(self) -> int:
        return len(self._links)

    def keys(self) -> Iterator[bytes]:
        """Keys that some other relay has."""
        return iter(self._links)

    def lookup(self, key: bytes) -> PacketForwarder | None:
        """The link to forward a key's packets on."""
        links = self._links.get(key)
        return links[0] if links else None

    def links_of(self, key: bytes) -> Sequence[PacketForwarder]:
        """Every link that reaches a key, the preferred one first."""
        return self._links.get(key, ())

    def add(self, key: bytes, link: PacketForwarder) -> None:
        """A relay has the key. Adding a link twice changes nothing."""
        links = self._links.setdefault(key, [])
        if any(known is link for known in links):
            return
        links.append(link)
        if len(links) == 2:
            self._stats.multiforwarder_created += 1

    def remove(self, key: bytes, link: PacketForwarder) -> bool:
        """
        A relay no longer has the key.

        :return: whether no link reaches the key any more (and one did before).
        """
        links = self._links.get(key)
        if links is None:
            return False
        kept = [known for known in links if known is not link]
        if len(kept) == len(links):
            if len(links) == 1:
                self._stats.packet_forwarder_delete_other_value += 1
            return False
        if not kept:
            del self._links[key]
            return True
        if len(kept) == 1:
            self._stats.multiforwarder_deleted += 1
        self._links[key] = kept
        return False


class Watchers:
    """The connections that want to know who comes and goes."""

    def __init__(self, stats: Stats) -> None:
        self._watchers: dict[Connection, None] = {}
        self._stats = stats

    def __len__(self) -> int:
        return len(self._watchers)

    def __contains__(self, conn: Connection) -> bool:
        return conn in self._watchers

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._watchers)

    def enroll(self, conn: Connection, present: list[bytes]) -> None:
        """
        Tell a new watcher of everybody present, then of every change.

        :param present: one PeerPresent frame per key.
        """
        # Enrolled first: a watcher that cannot take the flood is closed, and may then be
        # forgotten before this returns.
        self._watchers[conn] = None
        if present:
            conn.send_control(b"".join(present))
            self._note_update(len(present))

    def forget(self, conn: Connection) -> None:
        """A connection ended."""
        self._watchers.pop(conn, None)

    def tell_present(self, frame: bytes) -> None:
        """Pass a PeerPresent frame to every watcher."""
        for watcher in list(self._watchers):
            watcher.send_control(frame)
            self._note_update(1)

    def tell_gone(self, key: bytes, reason: int) -> None:
        """Tell every watcher that a key's last connection ended."""
        for watcher in list(self._watchers):
            watcher.send_peer_gone(key, reason)
            self._note_update(1)

    def _note_update(self, entries: int) -> None:
        self._stats.mesh_update_batch_size.observe(entries)
        self._stats.mesh_update_loop_count.observe(1)
