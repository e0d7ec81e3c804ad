"""
The relay's counters as metrics with conventional Prometheus names.

Base units, ``_total`` on counters, and labels only where their values are few and known.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from derp.core.stats import DropReason, Histogram, PacketKind
from derp.net.admission_metrics import admission_metrics
from derp.net.lifecycle_metrics import lifecycle_metrics
from derp.net.limit_metrics import limit_metrics, proxy_metrics, quota_metrics
from derp.net.mesh_metrics import mesh_metrics
from derp.net.metric_sources import Sources

_STATS_COUNTERS: Final = (
    ("received_bytes", "bytes_received", "Data in packets from clients."),
    ("packets_sent", "packets_sent", "Packets to clients."),
    ("sent_bytes", "bytes_sent", "Data in packets to clients."),
    ("pings_received", "got_ping", "Pings from clients."),
    ("pongs_sent", "sent_pong", "Pings answered."),
    ("accepts", "accepts", "Connections handed to DERP, refused ones included."),
    ("logins_refused", "logins_refused", "Logins refused by admission."),
    ("login_timeouts", "login_timeouts", "Connections closed for not logging in in time."),
    ("protocol_errors", "protocol_errors", "Connections closed for breaking the protocol."),
    ("write_timeouts", "sclient_write_timeouts", "Connections closed for taking no data."),
    (
        "duplicate_connections_made",
        "total_dup_client_conns",
        "Logins with a key that was connected already.",
    ),
    (
        "multiforwarders_created",
        "multiforwarder_created",
        "Keys that came to be at a second relay of the mesh.",
    ),
    ("multiforwarders_deleted", "multiforwarder_deleted", "Keys that are so no longer."),
    (
        "forwarder_mismatches",
        "packet_forwarder_delete_other_value",
        "Forwarders to be removed that were not the ones known.",
    ),
)
"""Metric without ``derp_``, attribute of :class:`derp.core.stats.Stats`, description."""

_STATS_GAUGES: Final = (
    ("connections", "connections", "Logged-in connections."),
    ("home_connections", "home_connections", "Connections that call this relay home."),
    ("not_ideal_connections", "notideal_connections", "Connections meant for another relay."),
    ("duplicate_keys", "dup_client_keys", "Keys with more than one connection."),
    ("duplicate_connections", "dup_client_conns", "Connections of such keys."),
)

_LISTENER_COUNTERS: Final = (
    ("listener_accepted_connections", "accepted_connections", "Connections accepted."),
    (
        "listener_rejected_connections",
        "rejected_connections",
        "Connections closed at once by the accept limit.",
    ),
    (
        "listener_accept_pauses",
        "accept_paused",
        "Times accepting paused for want of file descriptors.",
    ),
    ("listener_handshake_failures", "handshake_failures", "TLS handshakes that failed."),
    ("listener_handshake_timeouts", "handshake_timeouts", "TLS handshakes that took too long."),
)

_CERTIFICATE_TIMES: Final = (
    ("not_before", "When what is served begins to be valid."),
    ("not_after", "When what is served ends."),
    ("last_success", "When another certificate last came to be served."),
    ("last_failure", "When that last failed."),
)
"""Attribute of :class:`derp.net.certificate_status.CertificateStatus`, description."""

_LOOKUPS: Final = (
    ("published", "hit", "published_hits"),
    ("published", "miss", "published_misses"),
    ("unpublished", "hit", "unpublished_hits"),
    ("unpublished", "miss", "unpublished_misses"),
    ("unpublished", "percent_miss", "unpublished_percent_misses"),
)

_GENERIC_STUN: Final = (
    "success",
    "unknown_attributes",
    "rate_limited",
    "too_short",
    "write_error",
)


class RelayMetrics(Collector):
    """The ``derp_…`` metrics of one relay."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        sources = self._sources
        yield InfoMetricFamily(
            "derp",
            "What runs here.",
            value={
                "version": sources.version,
                "hostname": sources.hostname,
                "python": platform.python_version(),
            },
        )
        yield from _counters(_STATS_COUNTERS, sources.relay.stats)
        for name, attribute, description in _STATS_GAUGES:
            yield _gauge(name, description, getattr(sources.relay.stats, attribute))
        yield from self._packets()
        yield from self._clients()
        yield from self._histograms()
        yield from _counters(_LISTENER_COUNTERS, sources.listener)
        yield _counter("websocket_accepts", "WebSockets accepted.", sources.websocket_accepts())
        yield from self._tls_requests()
        yield from self._stun()
        yield from self._bootstrap_dns()
        yield from self._certificates()
        yield from self._reloads()
        yield from self._limits()
        yield from admission_metrics(sources.admission)
        yield from mesh_metrics(sources.mesh_links)
        yield from lifecycle_metrics(sources.lifecycle)

    def _limits(self) -> Iterator[Metric]:
        sources = self._sources
        if sources.limits is not None:
            yield from limit_metrics(sources.limits)
        if sources.quota is not None:
            yield from quota_metrics(sources.quota)
        if sources.proxies is not None:
            yield from proxy_metrics(sources.proxies)

    def _packets(self) -> Iterator[Metric]:
        stats = self._sources.relay.stats
        disco = stats.disco_received
        kinds = {"disco": disco, "other": stats.packets_received - disco}
        yield _labelled("packets_received", "Packets from clients.", "kind", kinds)
        yield _dropped("packets_dropped", "Packets lost.", stats.packets_dropped)
        yield _dropped("dropped_bytes", "Data in packets lost.", stats.bytes_dropped)
        ways = {"in": stats.packets_forwarded_in, "out": stats.packets_forwarded_out}
        yield _labelled("packets_forwarded", "Packets from and to the mesh.", "direction", ways)
        yield _gauge(
            "queue_wait_average_seconds",
            "How long packets wait for slow clients; moving average over all packets.",
            stats.average_queue_duration_ms / 1000,
        )

    def _clients(self) -> Iterator[Metric]:
        relay = self._sources.relay
        stats = relay.stats
        clients = GaugeMetricFamily(
            "derp_clients", "Keys connected here, or elsewhere in the mesh.", labels=["location"]
        )
        clients.add_metric(["local"], len(relay.registry))
        clients.add_metric(["remote"], relay.clients_remote)
        yield clients
        alarm = relay.duplicate_alarm
        yield _counter("duplicate_alarms", "Times a key was told it is used twice.", alarm.alarms)
        yield _gauge("watchers", "Mesh peers that watch our clients.", len(relay.watchers))
        ways = {"in": stats.home_moves_in, "out": stats.home_moves_out}
        yield _labelled("home_moves", "Clients that changed their home.", "direction", ways)
        yield _labelled(
            "peer_gone_frames",
            "Clients told that a peer is gone.",
            "reason",
            {
                "disconnected": stats.peer_gone_disconnected_frames,
                "not_here": stats.peer_gone_not_here_frames,
            },
        )
        yield _labelled(
            "tcp_rtt_samples",
            "Round-trip times TCP measured, each counted at its own upper bound only.",
            "bound",
            stats.tcp_rtt,
        )

    def _histograms(self) -> Iterator[Metric]:
        stats = self._sources.relay.stats
        yield _histogram(
            "write_frames", "Packets written to a client at once.", stats.buffered_write_frames
        )
        yield _histogram(
            "mesh_update_entries",
            "Comings and goings a watcher is told at once.",
            stats.mesh_update_batch_size,
        )
        yield _histogram(
            "mesh_update_rounds",
            "Rounds it takes to tell a watcher.",
            stats.mesh_update_loop_count,
        )

    def _tls_requests(self) -> Iterator[Metric]:
        stats = self._sources.tls_requests
        yield _labelled("tls_requests", "HTTP requests over TLS.", "version", stats.requests)
        active = GaugeMetricFamily(
            "derp_tls_active_requests",
            "Those not over yet; a DERP connection is one request.",
            labels=["version"],
        )
        for version, count in stats.active.items():
            active.add_metric([version], count)
        yield active

    def _stun(self) -> Iterator[Metric]:
        stun = self._sources.stun
        outcomes = ("success", "not_stun", "read_error", "write_error", "withheld")
        yield _labelled(
            "stun_requests",
            "Datagrams by what became of them.",
            "disposition",
            {outcome: getattr(stun, outcome) for outcome in outcomes},
        )
        yield _labelled(
            "stun_generic_requests",
            "Binding requests of other software (--stun-generic) by what became of them.",
            "disposition",
            {outcome: getattr(stun, f"generic_{outcome}") for outcome in _GENERIC_STUN},
        )
        families = {"ipv4": stun.ipv4, "ipv6": stun.ipv6}
        yield _labelled("stun_address_family", "STUN requests answered.", "family", families)

    def _bootstrap_dns(self) -> Iterator[Metric]:
        stats = self._sources.bootstrap_dns
        yield _counter("bootstrap_dns_requests", "Bootstrap DNS requests.", stats.requests)
        lookups = CounterMetricFamily(
            "derp_bootstrap_dns_lookups",
            "Names asked for, by the list that was to have them.",
            labels=["list", "result"],
        )
        for which, result, attribute in _LOOKUPS:
            lookups.add_metric([which, result], getattr(stats, attribute))
        yield lookups
        yield _gauge(
            "bootstrap_dns_queried_domains",
            "Distinct names asked for, since counting them last began anew.",
            stats.queried_domains,
        )

    def _certificates(self) -> Iterator[Metric]:
        attempts = CounterMetricFamily(
            "derp_certificate_attempts",
            "Times another certificate was to be got, or read.",
            labels=["name", "source", "result"],
        )
        times = [
            GaugeMetricFamily(
                f"derp_certificate_{each}_timestamp_seconds", text, labels=["name", "source"]
            )
            for each, text in _CERTIFICATE_TIMES
        ]
        for status in self._sources.certificates():
            labels = [status.name, status.source]
            attempts.add_metric([*labels, "success"], status.attempts - status.failures)
            attempts.add_metric([*labels, "failure"], status.failures)
            for family, (each, _) in zip(times, _CERTIFICATE_TIMES, strict=True):
                value = getattr(status, each)
                if value is not None:
                    family.add_metric(labels, value)
        yield attempts
        yield from times

    def _reloads(self) -> Iterator[Metric]:
        reloads = CounterMetricFamily(
            "derp_reloads",
            "Times a file was read again while running; one that failed changed nothing.",
            labels=["file", "result"],
        )
        loaded_at = GaugeMetricFamily(
            "derp_reload_last_success_timestamp_seconds",
            "When what is in use of a file was read.",
            labels=["file"],
        )
        for file in self._sources.reloadable_files:
            reloads.add_metric([file.name, "success"], file.loads)
            reloads.add_metric([file.name, "failure"], file.failures)
            loaded_at.add_metric([file.name], file.loaded_at)
        yield reloads
        yield loaded_at


def _counters(table: Iterable[tuple[str, str, str]], counts: object) -> Iterator[Metric]:
    for name, attribute, description in table:
        yield _counter(name, description, getattr(counts, attribute))


def _counter(name: str, description: str, value: float) -> Metric:
    return CounterMetricFamily(f"derp_{name}", description, value=value)


def _gauge(name: str, description: str, value: float) -> Metric:
    return GaugeMetricFamily(f"derp_{name}", description, value=value)


def _labelled(name: str, description: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"derp_{name}", description, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _dropped(name: str, description: str, counts: list[list[int]]) -> Metric:
    family = CounterMetricFamily(f"derp_{name}", description, labels=["reason", "kind"])
    for reason, kind in product(DropReason, PacketKind):
        family.add_metric([reason.name.lower(), kind.name.lower()], counts[kind][reason])
    return family


def _histogram(name: str, description: str, histogram: Histogram) -> Metric:
    bounds = map(floatToGoString, (*histogram.bounds, float("inf")))
    buckets = list(zip(bounds, map(float, histogram.cumulative()), strict=True))
    return HistogramMetricFamily(f"derp_{name}", description, buckets, histogram.total)
