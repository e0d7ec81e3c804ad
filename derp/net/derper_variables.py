"""
derper's variables, by their raw names, read from the relay's counters.

:mod:`derp.net.varz` and :mod:`derp.net.expvar` print them. Left out is what only Go's runtime
has: ``go_version``, ``go_sync_mutex_wait_seconds``, most of ``memstats``. Kept for the sake
of dashboards, with the nearest meaning: ``goroutines`` counts threads, ``memstats`` measures
the process' memory.
"""

from __future__ import annotations

import threading
from itertools import product
from typing import Final

from derp.core.relay import Relay
from derp.core.stats import DropReason, PacketKind, Stats
from derp.net.expvar import Computed, LabelMap, MemoryStats, MultiLabelMap, Variable
from derp.net.metric_sources import Sources
from derp.net.process_info import (
    boot_time,
    collections,
    heap_bytes,
    open_file_count,
    resident_bytes,
)

_COUNTERS: Final = (
    "accepts",
    "bytes_received",
    "bytes_sent",
    "got_ping",
    "home_moves_in",
    "home_moves_out",
    "multiforwarder_created",
    "multiforwarder_deleted",
    "packet_forwarder_delete_other_value",
    "packets_forwarded_in",
    "packets_forwarded_out",
    "packets_received",
    "packets_sent",
    "peer_gone_disconnected_frames",
    "peer_gone_not_here_frames",
    "sclient_write_timeouts",
    "sent_pong",
    "unknown_frames",
)
"""Variables of the set ``derp`` that are called as the attributes of :class:`Stats`."""


def derper_variables(sources: Sources) -> dict[str, Variable]:
    """Read every variable, as it is now."""
    stats = sources.relay.stats
    variables: dict[str, Variable] = {
        "cmdline": list(sources.command_line),
        "derp": _relay_set(sources),
        "derp_bytes_dropped": _dropped("DERP bytes dropped", stats.bytes_dropped),
        "derp_packets_dropped": _dropped("DERP packets dropped", stats.packets_dropped),
        "derp_websocket_accepts": sources.websocket_accepts(),
        "derper_tls_request_version": LabelMap("version", sources.tls_requests.requests),
        "gauge_derper_tls_active_version": LabelMap("version", sources.tls_requests.active),
        "stun": _stun_set(sources),
        "version": Computed(sources.version),
        **process_variables(sources.uptime, sources.start_unix_time),
        **_bootstrap_dns_variables(sources),
    }
    if sources.tls:
        variables["tls_listener"] = {
            "counter_accepted_connections": sources.listener.accepted_connections,
            "counter_rejected_connections": sources.listener.rejected_connections,
        }
    return variables


def _relay_set(sources: Sources) -> dict[str, Variable]:
    stats = sources.relay.stats
    return {
        **{name: getattr(stats, name) for name in _COUNTERS},
        **_gauges(sources.relay, stats),
        **_rate_limits(sources),
        "average_queue_duration_ms": Computed(stats.average_queue_duration_ms),
        "counter_buffered_write_frames": stats.buffered_write_frames,
        "counter_mesh_update_batch_size": stats.mesh_update_batch_size,
        "counter_mesh_update_loop_count": stats.mesh_update_loop_count,
        "counter_packets_received_kind": LabelMap(
            "kind",
            {
                "disco": stats.disco_received,
                "other": stats.packets_received - stats.disco_received,
            },
        ),
        "counter_tcp_rtt": LabelMap("le", stats.tcp_rtt),
        "counter_total_dup_client_conns": stats.total_dup_client_conns,
        "gauge_current_file_descriptors": Computed(open_file_count()),
        "gauge_memstats_sys0": Computed(sources.memory_at_start),
        "version": sources.version,
    }


def _gauges(relay: Relay, stats: Stats) -> dict[str, Variable]:
    local, remote = len(relay.registry), relay.clients_remote
    return {
        "gauge_clients_local": Computed(local),
        "gauge_clients_remote": Computed(remote),
        "gauge_clients_total": Computed(local + remote),
        "gauge_current_connections": stats.connections,
        "gauge_current_dup_client_conns": stats.dup_client_conns,
        "gauge_current_dup_client_keys": stats.dup_client_keys,
        "gauge_current_home_connections": stats.home_connections,
        "gauge_current_notideal_connections": stats.notideal_connections,
        "gauge_watchers": Computed(len(relay.watchers)),
    }


def _rate_limits(sources: Sources) -> dict[str, Variable]:
    """derper has these only with ``--rate-config``."""
    limits = sources.limits
    if limits is None or not sources.limits_file:
        return {}
    return {
        "rate_limit_per_client_bytes_per_second": Computed(limits.limits.client_rate),
        "rate_limit_per_client_burst_bytes": Computed(limits.limits.client_depth),
        "rate_limit_per_client_waited": limits.own_waits,
    }


def _dropped(what: str, counts: list[list[int]]) -> MultiLabelMap:
    values: dict[tuple[str, ...], int] = {
        (reason.name.lower(), kind.name.lower()): counts[kind][reason]
        for reason, kind in product(DropReason, PacketKind)
        # Where derper loses packets without counting them it has no label: none until it happens.
        if reason is not DropReason.MESH_LINK or counts[kind][reason]
    }
    return MultiLabelMap("counter", f"{what} by reason and by kind", ("reason", "kind"), values)


def _stun_set(sources: Sources) -> dict[str, Variable]:
    stun = sources.stun
    return {
        "counter_requests": LabelMap(
            "disposition",
            {
                "not_stun": stun.not_stun,
                "read_error": stun.read_error,
                "success": stun.success,
                "write_error": stun.write_error,
            },
        ),
        "counter_addrfamily": LabelMap("family", {"ipv4": stun.ipv4, "ipv6": stun.ipv6}),
    }


def _bootstrap_dns_variables(sources: Sources) -> dict[str, Variable]:
    stats = sources.bootstrap_dns
    return {
        f"counter_bootstrap_dns_{name}": getattr(stats, name)
        for name in (
            "published_hits",
            "published_misses",
            "queried_domains",
            "requests",
            "unpublished_hits",
            "unpublished_misses",
            "unpublished_percent_misses",
        )
    }


def process_variables(uptime: int, start_unix_time: int) -> dict[str, Variable]:
    """What every one of tailscale's programs says of its process."""
    variables: dict[str, Variable] = {
        "counter_uptime_sec": Computed(uptime),
        "gauge_goroutines": Computed(threading.active_count()),
        "memstats": MemoryStats(heap_bytes(), resident_bytes(), collections()),
        "process_start_unix_time": Computed(start_unix_time),
    }
    booted = boot_time()
    if booted is not None:
        variables["node_boot_time_seconds"] = Computed(booted)
    return variables
