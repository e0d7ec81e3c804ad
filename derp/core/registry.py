"""
Who is connected: key to connections, and which of several is the active one.

A key usually has one connection. When a client reconnects before its old connection died, or
when two machines run with the same key, it has several, and packets go to one of them:

================================  =====================================================
policy                            who is active
================================  =====================================================
``LAST_WRITER`` (the one in use)  whoever spoke last
``DISABLE_FIGHTERS``              the newest; two that take turns speaking disable each
                                  other and every connection of the key
================================  =====================================================

Every connection stays open and is read, active or not. Source: tailscale ``derpserver``
``registerClient``, ``unregisterClient``, ``noteClientActivity``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum

from derp.core.connection import Connection
from derp.core.stats import Stats


class DuplicatePolicy(Enum):
    """What happens when several connections of one key speak."""

    LAST_WRITER = "last writer is active"
    DISABLE_FIGHTERS = "disable fighters"


class DuplicateSet:
    """The connections of a key that has more than one."""

    __slots__ = ("last", "members", "send_history")

    def __init__(self, old: Connection, new: Connection) -> None:
        self.members = {old, new}
        self.last: Connection | None = new
        """Whoever registered or (by policy) spoke last."""
        self.send_history = [old]
        """
        Who came or spoke, the latest last; each once, as only its latest time matters. The
        second connection of a key is not entered until it speaks (as in derper).
        """

    def add(self, conn: Connection) -> None:
        """A further connection of the key comes."""
        self.members.add(conn)
        self.last = conn
        self.send_history.append(conn)

    def remove(self, conn: Connection) -> None:
        """One goes; whoever spoke latest of the others takes its place."""
        self.members.discard(conn)
        if conn in self.send_history:
            self.send_history.remove(conn)
        if self.last is conn:
            self.last = self.send_history[-1] if self.send_history else None

    def note_speaker(self, conn: Connection) -> None:
        """Remember who spoke."""
        if conn in self.send_history:
            self.send_history.remove(conn)
        self.send_history.append(conn)


class Registry:
    """
    The local connections by key.

    ``active`` is what the packet path looks into: the one connection of a key that packets go
    to. A key with duplicates of which none is active is missing there.
    """

    def __init__(self, stats: Stats, policy: DuplicatePolicy = DuplicatePolicy.LAST_WRITER) -> None:
        self.active: dict[bytes, Connection] = {}
        self.duplicates: dict[bytes, DuplicateSet] = {}
        self.policy = policy
        self._stats = stats

    def __contains__(self, key: bytes) -> bool:
        """Whether a key has any local connection."""
        return key in self.active or key in self.duplicates

    def __len__(self) -> int:
        """Keys with a local connection."""
        return len(self.active) + sum(key not in self.active for key in self.duplicates)

    def keys(self) -> Iterator[bytes]:
        """Keys with a local connection."""
        yield from self.active
        yield from (key for key in self.duplicates if key not in self.active)

    def connections_of(self, key: bytes) -> Iterable[Connection]:
        """Every local connection of a key (a copy: they may be closed meanwhile)."""
        duplicates = self.duplicates.get(key)
        if duplicates is not None:
            return list(duplicates.members)
        conn = self.active.get(key)
        return [] if conn is None else [conn]

    def connections(self) -> Iterator[Connection]:
        """Every local connection."""
        for key in list(self.keys()):
            yield from self.connections_of(key)

    def register(self, conn: Connection) -> None:
        """A connection logs in; it becomes the active one of its key."""
        key = conn.key
        stats = self._stats
        stats.connections += 1
        duplicates = self.duplicates.get(key)
        old = self.active.get(key)
        if duplicates is not None:
            conn.dup = True
            duplicates.add(conn)
            stats.dup_client_conns += 1
            stats.total_dup_client_conns += 1
        elif old is not None:
            old.dup = conn.dup = True
            self.duplicates[key] = DuplicateSet(old, conn)
            stats.dup_client_keys += 1
            stats.dup_client_conns += 2
            stats.total_dup_client_conns += 1
        self.active[key] = conn

    def unregister(self, conn: Connection) -> bool:
        """
        A registered connection ends.

        :return: whether it was the key's last.
        """
        key = conn.key
        self._stats.connections -= 1
        duplicates = self.duplicates.get(key)
        if duplicates is None:
            del self.active[key]
            return True
        duplicates.remove(conn)
        self._stats.dup_client_conns -= 1
        if len(duplicates.members) == 1:
            self._end_duplicates(key, duplicates)
        elif duplicates.last is not None and not duplicates.last.disabled:
            self.active[key] = duplicates.last
        else:
            self.active.pop(key, None)
        return False

    def _end_duplicates(self, key: bytes, duplicates: DuplicateSet) -> None:
        """One is left: it is an ordinary connection again, whatever it did."""
        (survivor,) = duplicates.members
        del self.duplicates[key]
        self._stats.dup_client_conns -= 1
        self._stats.dup_client_keys -= 1
        survivor.dup = survivor.disabled = False
        self.active[key] = survivor

    def note_activity(self, conn: Connection) -> None:
        """One of several connections of a key speaks: who is active now?"""
        duplicates = self.duplicates.get(conn.key)
        if duplicates is None or conn.disabled:
            return
        if self.policy is DuplicatePolicy.LAST_WRITER:
            duplicates.last = conn
            self.active[conn.key] = conn
        else:
            self._note_fighter(duplicates, conn)
        duplicates.note_speaker(conn)

    def _note_fighter(self, duplicates: DuplicateSet, conn: Connection) -> None:
        # The reference also makes a speaker active if nobody is the last: with two members or
        # more there always is one, as only the second one may be missing in the history.
        history = duplicates.send_history
        if conn in history and history[-1] is not conn:
            for member in duplicates.members:
                member.disabled = True
            self.active.pop(conn.key, None)
