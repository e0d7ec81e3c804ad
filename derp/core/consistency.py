"""
Whether the relay's books agree with each other (``/debug/check``).

Walks everything, so it is for an operator who asks, not for every turn.

Two of the reference's conditions have no counterpart: it keeps an entry per key known in the
region, here a local key needs none. One is kept although it is none of ours:

**Trap**: as many connections as keys are expected, so a key that is connected twice is
reported, for as long as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from derp.core.connection import Connection
from derp.core.mesh import ForwarderTable
from derp.core.registry import Registry
from derp.core.relay import Relay


def check(relay: Relay) -> list[str]:
    """
    Look for contradictions.

    :return: a phrase for each, none if all is well. They name no keys: who reads the page need
        not know the clients.
    """
    present = set(relay.registry.connections())
    return [
        *_connection_problems(relay, present),
        *_duplicate_problems(relay.registry),
        *_gauge_problems(relay, present),
        *_subscription_problems(relay, present),
        *_forwarder_problems(relay.forwarders),
        *_mesh_problems(relay),
    ]


def _count(what: str, wrong: Iterable[bool]) -> Iterator[str]:
    """Say how many there are of a thing that should not be."""
    number = sum(wrong)
    if number:
        yield f"{number} {what}"


def _differ(what: str, counted: int, found: int) -> Iterator[str]:
    """Say that a gauge is off."""
    if counted != found:
        yield f"{what}: {counted} counted, {found} found"


def _connection_problems(relay: Relay, present: set[Connection]) -> Iterator[str]:
    connections, keys = relay.stats.connections, len(relay.registry)
    if connections != keys:
        yield f"connections: {connections} of {keys} keys"
    yield from _differ("connections", connections, len(present))
    yield from _count(
        "connections with packets waiting although their socket takes them",
        (bool(conn.outbox) and not conn.blocked for conn in present),
    )
    yield from _count(
        "watchers that are not connected", (conn not in present for conn in relay.watchers)
    )


def _duplicate_problems(registry: Registry) -> Iterator[str]:
    yield from _count(
        "keys whose active connection is another key's",
        (conn.key != key for key, conn in registry.active.items()),
    )
    yield from _count(
        "keys whose active connection is none of their several ones",
        (
            key in registry.active and registry.active[key] not in duplicates.members
            for key, duplicates in registry.duplicates.items()
        ),
    )
    yield from _count(
        "keys with several connections that are not several",
        (len(duplicates.members) < 2 for duplicates in registry.duplicates.values()),
    )
    yield from _count(
        "connections wrongly marked as one of several, or not marked",
        (conn.dup != (conn.key in registry.duplicates) for conn in registry.connections()),
    )


def _gauge_problems(relay: Relay, present: set[Connection]) -> Iterator[str]:
    stats, duplicates = relay.stats, relay.registry.duplicates
    yield from _differ(
        "home connections", stats.home_connections, sum(conn.preferred for conn in present)
    )
    yield from _differ(
        "not ideal connections",
        stats.notideal_connections,
        sum(conn.not_ideal for conn in present),
    )
    yield from _differ("duplicate keys", stats.dup_client_keys, len(duplicates))
    yield from _differ(
        "duplicate connections",
        stats.dup_client_conns,
        sum(len(several.members) for several in duplicates.values()),
    )


def _subscription_problems(relay: Relay, present: set[Connection]) -> Iterator[str]:
    subscriptions = list(relay.subscriptions())
    yield from _count(
        "sources of whose end nobody wants to hear",
        (not subscribers for _, subscribers in subscriptions),
    )
    yield from _count(
        "subscribers that are not connected",
        (conn not in present for _, subscribers in subscriptions for conn in subscribers),
    )
    yield from _count(
        "subscribers to a source they never heard",
        (
            source not in (conn.heard or ())
            for source, subscribers in subscriptions
            for conn in subscribers
        ),
    )


def _forwarder_problems(forwarders: ForwarderTable) -> Iterator[str]:
    links_by_key = [forwarders.links_of(key) for key in list(forwarders.keys())]
    yield from _count("remote keys without a link", (not links for links in links_by_key))
    yield from _count(
        "remote keys with a link twice",
        (len(links) != len(set(map(id, links))) for links in links_by_key),
    )


def _mesh_problems(relay: Relay) -> Iterator[str]:
    """Keys by link and links by key must say the same."""
    forwarders, books = relay.forwarders, relay.mesh_books
    yield from _count(
        "keys a mesh link announced that are not forwarded to it",
        (
            not any(link is book.link for link in forwarders.links_of(key))
            for book in books
            for key in book
        ),
    )
    book_of = {id(book.link): book for book in books}
    yield from _count(
        "keys forwarded to a mesh link that did not announce them",
        (
            id(link) in book_of and key not in book_of[id(link)]
            for key in list(forwarders.keys())
            for link in forwarders.links_of(key)
        ),
    )
