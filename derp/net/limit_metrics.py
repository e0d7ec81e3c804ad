"""What limits, the quota and proxies count, as metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

if TYPE_CHECKING:
    from derp.net.relay_limits import RelayLimits
    from derp.net.trusted_proxies import ProxyStats
    from derp.net.volume_quota import VolumeQuota


def limit_metrics(limits: RelayLimits) -> Iterator[Metric]:
    """Make the ``derp_limit_…`` metrics of one relay."""
    now = limits.limits
    values = {
        "client_bytes_per_second": now.client_rate,
        "client_burst_bytes": now.client_depth,
        "server_bytes_per_second": now.server_rate,
        "server_burst_bytes": now.server_depth,
        "accepts_per_second": now.accept_rate,
        "accepts_burst": now.accept_burst,
        "handshakes": now.max_handshakes,
        "clients": now.max_clients,
        "clients_per_ip": now.max_clients_per_ip,
    }
    limit = GaugeMetricFamily("derp_limit", "Limits in force; 0 is none.", labels=["limit"])
    for name, value in values.items():
        limit.add_metric([name], value)
    yield limit
    yield _counters(
        "derp_limit_waits",
        "Times a client was not read for a while because of a rate: its own, or that of all.",
        "rate",
        {"client": limits.own_waits, "server": limits.share_waits},
    )
    yield _counters(
        "derp_limit_refused_connections",
        "Connections closed unread, by the limit that was reached.",
        "limit",
        {
            "accepts": limits.door.refused_for_rate,
            "handshakes": limits.door.refused_for_handshakes,
        },
    )
    yield _counters(
        "derp_limit_refused_logins",
        "Logins refused, by the limit that was reached.",
        "limit",
        {
            "clients": limits.occupancy.refused_for_count,
            "clients_per_ip": limits.occupancy.refused_for_address,
            "quota": limits.logins_refused,
        },
    )
    yield GaugeMetricFamily(
        "derp_connections_on_their_way",
        "Connections that have not come to a request yet.",
        value=limits.door.handshakes,
    )
    yield CounterMetricFamily(
        "derp_limit_cut_silent_connections",
        "Connections, silent or slow, that made room for newcomers (--max-handshakes).",
        value=limits.door.cut_for_silence,
    )
    yield CounterMetricFamily(
        "derp_quota_refused_packets",
        "Packets thrown away because the month's volume is used up.",
        value=limits.packets_refused,
    )
    yield CounterMetricFamily(
        "derp_quota_refused_bytes", "Data in them.", value=limits.bytes_refused
    )


def quota_metrics(quota: VolumeQuota) -> Iterator[Metric]:
    """Make the ``derp_quota_…`` metrics that tell of the month."""
    books = quota.quota
    yield GaugeMetricFamily(
        "derp_quota_limit_bytes", "Volume per calendar month; 0 is no limit.", value=books.limit
    )
    yield GaugeMetricFamily(
        "derp_quota_used_bytes", "Volume of this calendar month (UTC).", value=books.used
    )
    yield GaugeMetricFamily(
        "derp_quota_exhausted", "Whether nothing is relayed because of that.", value=books.exhausted
    )
    yield GaugeMetricFamily(
        "derp_quota_save_failures",
        "How often in a row the state file could not be written.",
        value=quota.save_failures,
    )


def proxy_metrics(stats: ProxyStats) -> Iterator[Metric]:
    """Make the ``derp_proxy_…`` metrics."""
    yield _counters(
        "derp_proxy_headers",
        "PROXY headers from trusted proxies, by what became of them.",
        "result",
        {
            "read": stats.proxy_headers,
            "malformed": stats.bad_proxy_headers,
            "too_slow": stats.slow_proxy_headers,
        },
    )
    yield _counters(
        "derp_forwarded_requests",
        "Requests whose headers named another client than who sent them: believed from trusted "
        "proxies, ignored from all others.",
        "result",
        {"believed": stats.believed, "ignored": stats.ignored},
    )


def _counters(name: str, description: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, description, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
