"""
What all checks need to know, and how nodes are called in labels and sentences.

Each check is made by a function of its module, called with these targets and what is to be
checked:

==========================  ==================================================================
maker                       arguments behind ``targets``
==========================  ==================================================================
``tls_check``               region, node
``udp_check``               region, node, ``"ipv4"`` or ``"ipv6"``
``mesh_check``              region, source node, destination node
``bandwidth_check``         the same
``queue_delay_check``       the same
==========================  ==================================================================

What each has found of itself (:attr:`derp.prober.check.Check.findings`); a key is missing until
it is known:

=========================================  ===================================================
``days_left``, ``issuer``, ``names``       of the node's own certificate
``revocation``                             what is known of it, in words
``address``, ``tls_version``               what was connected to, and how
``mapped_address``                         where STUN saw us, ``ip:port``
``rtt_ms``, ``loss``, ``sent``, ``lost``   STUN: the last answer; the last 100 requests
``packet_ms``                              a packet from source to destination
``mbit_per_second``, ``seconds``           the last transfer
``p50_ms``, ``p90_ms``, ``p99_ms``         queuing delay of the last 1000 packets
``loss``, ``sent``, ``lost``               of these
=========================================  ===================================================

``loss`` is a fraction from 0 to 1.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from derp.net.relay_dialer import RelayAddress, region_addresses
from derp.prober.check import ProbeFailed
from derp.wire.derp_map import DERPMap, Node, Region

BANDWIDTH_SIZE: Final = 1_000_000
QUEUE_DELAY_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What is the same for all checks of a prober."""

    reactor: Any
    current_map: Callable[[], DERPMap]
    """Gives the map that was fetched last; checks of pairs look their nodes up in it."""
    mesh_key: bytes | None = field(default=None, repr=False)
    """Makes our clients mesh peers, who are exempt from admission and limits."""
    wall_time: Callable[[], float] = time.time
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    """Names the proxy for requests of HTTP."""
    bandwidth_size: int = BANDWIDTH_SIZE
    """Bytes of one transfer (``-bw-probe-size-bytes``)."""
    qd_rate: int = 0
    """Packets a second (``-qd-packets-per-second``)."""
    qd_timeout: float = QUEUE_DELAY_TIMEOUT_S
    """Seconds after which a packet counts as lost (``-qd-packet-timeout``)."""


def node_labels(region: Region, node: Node) -> dict[str, str]:
    """Give the labels that every metric of a node has."""
    return {
        "region": region.code,
        "region_id": str(region.region_id),
        "hostname": node.host_name,
    }


def pair_labels(region: Region, source: Node, destination: Node) -> dict[str, str]:
    """Give the labels of a pair: those of the source, and whether the mesh is on the way."""
    path = "single" if source.name == destination.name else "mesh"
    return {**node_labels(region, source), "derp_path": path}


def node_name(node: Node) -> str:
    """Give what sentences call a node: ``node 1a (derp1.example.com)``."""
    return f"node {node.name} ({node.host_name})"


def relay_address(node: Node) -> RelayAddress:
    """
    Give what is dialed for a node. One that is for STUN only is dialed all the same.

    :raises ConfigError: if it has no usable host name.
    """
    alone = Region(region_id=node.region_id, nodes=(replace(node, stun_only=False),))
    return replace(region_addresses(alone)[0], label=node_name(node))


def find_node(targets: Targets, name: str) -> Node:
    """
    Look up a node of the present map.

    :raises ProbeFailed: if it has gone.
    """
    node = targets.current_map().node(name)
    if node is None:
        raise ProbeFailed(f"node {name} is in the DERP map no more")
    return node
