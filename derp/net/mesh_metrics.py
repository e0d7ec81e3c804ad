"""What each link to another relay of the mesh counts, as metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from derp.net.link_state import LinkFailure, LinkState

if TYPE_CHECKING:
    from derp.net.mesh_link import MeshLink

_COUNTERS: Final[tuple[tuple[str, str, Callable[[MeshLink], int]], ...]] = (
    ("connects", "Times the link came up.", lambda link: link.connects),
    ("forwarded_packets", "Packets the link took.", lambda link: link.forwarded),
    (
        "dropped_packets",
        "Packets the link could not take, being down or full; among derp_packets_dropped_total.",
        lambda link: link.dropped,
    ),
    (
        "unconfirmed_packets",
        "Packets the link took last before it broke, of which the peer may have read none.",
        lambda link: link.unconfirmed,
    ),
    (
        "refused_keys",
        "Clients the peer announced beyond what it may.",
        lambda link: link.announced.refused,
    ),
)


def mesh_metrics(links: Iterable[MeshLink]) -> Iterator[Metric]:
    """Make the ``derp_mesh_…`` metrics of one relay; a link to itself has none."""
    links = [link for link in links if link.state is not LinkState.ITSELF]
    up = _gauge("up", "Whether there is a link to the peer.")
    clients = _gauge("clients", "Clients the peer announces.")
    round_trip = _gauge("round_trip_seconds", "To the peer and back, while there is a link.")
    for link in links:
        up.add_metric([link.peer.name], link.state is LinkState.UP)
        clients.add_metric([link.peer.name], len(link.announced))
        if link.round_trip_s is not None:
            round_trip.add_metric([link.peer.name], link.round_trip_s)
    yield from (up, clients, round_trip)
    for name, description, read in _COUNTERS:
        counter = CounterMetricFamily(f"derp_mesh_{name}", description, labels=["peer"])
        for link in links:
            counter.add_metric([link.peer.name], read(link))
        yield counter
    failures = CounterMetricFamily(
        "derp_mesh_failures",
        "Why there was no link: the peer could not be reached, refused our mesh key, said "
        "nothing, or was lost.",
        labels=["peer", "reason"],
    )
    for link in links:
        for reason in LinkFailure:
            failures.add_metric([link.peer.name, reason.value], link.failures[reason])
    yield failures


def _gauge(name: str, description: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"derp_mesh_peer_{name}", description, labels=["peer"])
