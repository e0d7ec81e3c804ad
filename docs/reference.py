"""
Writes the pages that list what the code has: flags, variables, metrics.

``python docs/reference.py`` writes them anew; a test fails while they say something else than
the code does.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))

from prometheus_client.metrics_core import Metric  # noqa: E402
from twisted.internet.task import Clock  # noqa: E402

from derp import environment  # noqa: E402
from derp.core.limits import Limits  # noqa: E402
from derp.core.relay import Relay, RelayIdentity  # noqa: E402
from derp.doctor_flags import FLAGS as DOCTOR_FLAGS  # noqa: E402
from derp.durations import format_duration  # noqa: E402
from derp.environment_flags import (  # noqa: E402
    DOMAIN_DEFAULTS,
    DOMAIN_FAMILY,
    OWN_FAMILY,
    PLAIN_DEFAULTS,
    PLAIN_FAMILY,
)
from derp.flags import FLAGS, GROUPS  # noqa: E402
from derp.goflag import Flag, Kind  # noqa: E402
from derp.net.derper_variables import derper_variables  # noqa: E402
from derp.net.metric_sources import Sources  # noqa: E402
from derp.net.metrics import make_registry  # noqa: E402
from derp.net.relay_limits import RelayLimits  # noqa: E402
from derp.net.trusted_proxies import ProxyStats  # noqa: E402
from derp.net.varz import varz  # noqa: E402
from derp.net.volume_quota import VolumeQuota  # noqa: E402
from derp.probe_flags import GROUPS as PROBE_GROUPS  # noqa: E402
from derp.stunc_script import FLAGS as STUNC_FLAGS  # noqa: E402

_NOTE: Final = ".. Written by docs/reference.py from the code: change it there.\n\n"

DERPER_NAMES: Final[dict[str, str]] = {
    "bootstrap_dns_published_hits": 'derp_bootstrap_dns_lookups_total{list="published"}',
    "bootstrap_dns_published_misses": 'derp_bootstrap_dns_lookups_total{list="published"}',
    "bootstrap_dns_queried_domains": "derp_bootstrap_dns_queried_domains",
    "bootstrap_dns_requests": "derp_bootstrap_dns_requests_total",
    "bootstrap_dns_unpublished_hits": 'derp_bootstrap_dns_lookups_total{list="unpublished"}',
    "bootstrap_dns_unpublished_misses": 'derp_bootstrap_dns_lookups_total{list="unpublished"}',
    "bootstrap_dns_unpublished_percent_misses": (
        'derp_bootstrap_dns_lookups_total{list="unpublished"}'
    ),
    "derp_accepts": "derp_accepts_total",
    "derp_average_queue_duration_ms": "derp_queue_wait_average_seconds",
    "derp_buffered_write_frames": "derp_write_frames",
    "derp_bytes_dropped": "derp_dropped_bytes_total",
    "derp_bytes_received": "derp_received_bytes_total",
    "derp_bytes_sent": "derp_sent_bytes_total",
    "derp_clients_local": 'derp_clients{location="local"}',
    "derp_clients_remote": 'derp_clients{location="remote"}',
    "derp_clients_total": "sum(derp_clients)",
    "derp_current_connections": "derp_connections",
    "derp_current_dup_client_conns": "derp_duplicate_connections",
    "derp_current_dup_client_keys": "derp_duplicate_keys",
    "derp_current_file_descriptors": "process_open_fds",
    "derp_current_home_connections": "derp_home_connections",
    "derp_current_notideal_connections": "derp_not_ideal_connections",
    "derp_got_ping": "derp_pings_received_total",
    "derp_home_moves_in": 'derp_home_moves_total{direction="in"}',
    "derp_home_moves_out": 'derp_home_moves_total{direction="out"}',
    "derp_memstats_sys0": "",
    "derp_mesh_update_batch_size": "derp_mesh_update_entries",
    "derp_mesh_update_loop_count": "derp_mesh_update_rounds",
    "derp_multiforwarder_created": "derp_multiforwarders_created_total",
    "derp_multiforwarder_deleted": "derp_multiforwarders_deleted_total",
    "derp_packet_forwarder_delete_other_value": "derp_forwarder_mismatches_total",
    "derp_packets_dropped": "derp_packets_dropped_total",
    "derp_packets_forwarded_in": 'derp_packets_forwarded_total{direction="in"}',
    "derp_packets_forwarded_out": 'derp_packets_forwarded_total{direction="out"}',
    "derp_packets_received": "sum(derp_packets_received_total)",
    "derp_packets_received_kind": "derp_packets_received_total",
    "derp_packets_sent": "derp_packets_sent_total",
    "derp_peer_gone_disconnected_frames": 'derp_peer_gone_frames_total{reason="disconnected"}',
    "derp_peer_gone_not_here_frames": 'derp_peer_gone_frames_total{reason="not_here"}',
    "derp_rate_limit_per_client_burst_bytes": 'derp_limit{limit="client_burst_bytes"}',
    "derp_rate_limit_per_client_bytes_per_second": 'derp_limit{limit="client_bytes_per_second"}',
    "derp_rate_limit_per_client_waited": 'derp_limit_waits_total{rate="client"}',
    "derp_sclient_write_timeouts": "derp_write_timeouts_total",
    "derp_sent_pong": "derp_pongs_sent_total",
    "derp_tcp_rtt": "derp_tcp_rtt_samples_total",
    "derp_total_dup_client_conns": "derp_duplicate_connections_made_total",
    "derp_unknown_frames": "",
    "derp_watchers": "derp_watchers",
    "derp_websocket_accepts": "derp_websocket_accepts_total",
    "derper_tls_active_version": "derp_tls_active_requests",
    "derper_tls_request_version": "derp_tls_requests_total",
    "goroutines": "",
    "memstats_heap_alloc": "",
    "memstats_num_gc": "",
    "memstats_sys": "process_resident_memory_bytes",
    "node_boot_time_seconds": "",
    "process_start_unix_time": "process_start_time_seconds",
    "stun_addrfamily": "derp_stun_address_family_total",
    "stun_requests": "derp_stun_requests_total",
    "tls_listener_accepted_connections": "derp_listener_accepted_connections_total",
    "tls_listener_rejected_connections": "derp_listener_rejected_connections_total",
    "uptime_sec": "time() - process_start_time_seconds",
    "version": "derp_info",
}
"""Names on ``/debug/varz``, and where ``/metrics`` has the same; empty for nowhere."""

KNOBS: Final[dict[str, str]] = {
    environment.QUEUE_DEPTH: "Packets that wait for each slow client, in each of two lanes. (32)",
    environment.VERBOSE_DROPS: "Node keys (64 hex digits, comma-separated) whose lost packets "
    "are logged.",
    environment.DEBUG_LOGS: "``true`` logs every frame of every client, and every lost packet.",
    environment.PROBER_DEBUG_LOGS: "``true`` logs every frame of clients that are probers.",
    environment.DISABLE_RTT_STATS: "``true`` does not sample clients' round-trip times.",
    environment.ALLOW_DEBUG_IP: "One more address that may see ``/debug/``.",
    environment.TRUSTED_CIDRS: "Networks, comma-separated, that may see ``/debug/``.",
    environment.DEBUG_KEY_PATH: "File with a key; who sends it as ``?debugkey=`` sees ``/debug/``.",
    environment.LOG_RATE: "``all`` does not thin out the lines of "
    f"``{environment.VERBOSE_DROPS}``.",
    "TAILSCALE_DERPER_MESH_KEY": "The mesh key of a relay started with ``--dev``.",
}
"""derper's debug variables, and what they do."""


def pages() -> dict[str, str]:
    """Every page by its file's name."""
    return {
        "flags.rst": _NOTE + _flags(),
        "environment.rst": _NOTE + _environment(),
        "metrics.rst": _NOTE + _metrics(),
        "tools.rst": _NOTE + _tools(),
    }


def _title(text: str, line: str = "=") -> str:
    return f"{text}\n{line * len(text)}\n"


def _prose(text: str) -> str:
    """A sentence of the code as reST: nothing in it is markup, flags and files are literal."""
    text = re.sub(r"([*`|\\]|_(?!\w))", r"\\\1", text)
    return re.sub(r"(?<![\w/-])(file:///\w+|--?[a-z][a-z0-9-]*|/[a-z][\w/.-]*\w)", r"``\1``", text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A list table; those need no widths."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (head, *rows):
        for place, cell in enumerate(row):
            mark = "   * -" if place == 0 else "     -"
            lines.append(f"{mark} {cell}".rstrip())
    return "\n".join(lines) + "\n"


# -- flags ---------------------------------------------------------------------------------


def _flags() -> str:
    parts = [
        _title("All flags"),
        "``twistd derper`` and ``derper`` take the same flags. One dash or two, the value after a\n"
        "space or ``=``; booleans are ``--flag`` or ``--flag=false``; durations are written\n"
        "``15s``, ``2m30s``, ``500ms``. There are no abbreviations. What a flag is good for is in\n"
        "the pages by task; `Environment <environment.rst>`_ has the variables.\n",
    ]
    for title, flags in GROUPS:
        parts.append(_title(title, "-"))
        parts += [_flag(flag) for flag in flags]
    return "\n".join(parts)


def _flag(flag: Flag) -> str:
    head = f"``{flag.spelling}`` *{flag.kind}*"
    default = _default(flag)
    if default:
        head += f", default {default}"
    text = textwrap.fill(
        _prose(flag.help),
        96,
        initial_indent="    ",
        subsequent_indent="    ",
        break_on_hyphens=False,
        break_long_words=False,
    )
    return f"{head}\n{text}\n"


def _default(flag: Flag) -> str:
    """Its default as reST; empty if it has none."""
    if flag.default_text:
        return _prose(flag.default_text)
    if flag.default in ("", ()):
        return ""
    return f"``{_value(flag.default, flag.kind)}``"


def _value(value: Any, kind: Kind) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return format_duration(value) if kind is Kind.DURATION else str(value)


def _tools() -> str:
    doctor = (("derper doctor", DOCTOR_FLAGS),)
    parts = [
        _title("Flags of the tools"),
        "Written as those of the relay. What they are good for: `derpprobe <derpprobe.rst>`_,\n"
        "`derper doctor <doctor.rst>`_, `stunc <stun.rst>`_.\n",
    ]
    for title, flags in (
        *((f"derpprobe: {title}", flags) for title, flags in PROBE_GROUPS),
        *doctor,
        ("stunc", STUNC_FLAGS),
    ):
        parts.append(_title(title, "-"))
        parts += [_flag(flag) for flag in flags]
    return "\n".join(parts)


# -- environment ---------------------------------------------------------------------------


def _environment() -> str:
    parts = [
        _title("Environment"),
        "The program ``derper`` and the image read variables; ``twistd derper`` reads only those of"
        "\nthe last table. An empty variable is one that is not set. A value that does not fit "
        "stops the\nstart, and so do two variables that set one flag to different values. "
        "Several values\n(``SOCKET``, ``DERP_LISTEN``) are separated by blanks.\n\n"
        "Flags win over the environment, that over the file of ``--config``, and the file over\n"
        "defaults. What the images called each variable before, and what differs: see\n"
        "`Migrating <migrating.rst>`_.\n",
        _title("Like fredliang44/derper", "-"),
        "Any known variable that begins with ``DERP_`` selects these defaults. Their name\n"
        "``your-hostname.com`` is refused where TLS is spoken.\n",
        _family(DOMAIN_FAMILY, DOMAIN_DEFAULTS),
        _title("Like XavierAlpha/derper", "-"),
        "Any of these, and no known one that begins with ``DERP_``, selects these defaults.\n",
        _family(PLAIN_FAMILY, PLAIN_DEFAULTS),
        "``HOSTNAME`` is set in every container and shell. It counts if it is not this machine's\n"
        "own name, and neither ``DERP_DOMAIN`` nor ``--hostname`` is given. If clients are to be\n"
        "verified and variables are set, the socket of tailscaled must be there at the start.\n",
        _title("For all other flags", "-"),
        "``DERP_`` and the flag's name.\n",
        _family(OWN_FAMILY, DOMAIN_DEFAULTS),
        "Another variable that begins with ``DERP_`` draws one warning, but for derper's debug\n"
        "variables and those that Kubernetes sets for a service named ``derp``.\n",
        _title("Debug variables", "-"),
        "derper's, under its names, for ``twistd derper``, too.\n",
        table(("variable", "effect"), [(f"``{name}``", text) for name, text in KNOBS.items()]),
    ]
    return "\n".join(parts)


def _family(family: dict[str, str], defaults: dict[str, Any]) -> str:
    known = {flag.name: flag for flag in FLAGS}
    rows = []
    for variable, name in family.items():
        flag = known[name]
        default = _default(flag)
        if name in defaults:
            default = f"``{_value(defaults[name], flag.kind)}``"
        rows.append((f"``{variable}``", f"``{flag.spelling}``", default or "none"))
    return table(("variable", "flag", "default"), rows)


# -- metrics -------------------------------------------------------------------------------


def make_sources() -> Sources:
    """A relay that has everything that is counted."""
    relay = Relay(RelayIdentity(bytes(31) + b"\1", None))
    clock = Clock()
    limits = RelayLimits(relay, clock, Limits())
    return Sources(
        relay=relay,
        clock=clock,
        tls=True,
        limits=limits,
        limits_file=True,
        quota=VolumeQuota(clock, relay, limits, None),
        proxies=ProxyStats(),
    )


def families(sources: Sources) -> list[Metric]:
    """What ``/metrics`` has."""
    return list(make_registry(sources).collect())


def sample_name(metric: Metric) -> str:
    """What a query calls it."""
    suffix = {"counter": "_total", "info": "_info"}.get(metric.type, "")
    return metric.name + suffix


def derper_names(sources: Sources) -> dict[str, str]:
    """What ``/debug/varz`` has, by name: its type, or ``untyped``."""
    found: dict[str, str] = {}
    for line in varz(derper_variables(sources)).splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            found[name] = kind
        elif not line.startswith("#"):
            name = re.split("[ {]", line)[0]
            if not any(name == known + end for known in found for end in _HISTOGRAM):
                found.setdefault(name, "untyped")
    found.setdefault("derper_tls_request_version", "untyped")  # no line until it counts
    return dict(sorted(found.items()))


_HISTOGRAM: Final = ("_bucket", "_sum", "_count")


def _metrics() -> str:
    sources = make_sources()
    rows = [
        (f"``{sample_name(metric)}``", metric.type, _labels(metric), _prose(metric.documentation))
        for metric in sorted(families(sources), key=lambda each: each.name)
    ]
    return "\n".join(
        [
            _title("All metrics"),
            "Where they are served and what to watch is in `Monitoring <monitoring.rst>`_.\n",
            _title("/metrics", "-"),
            table(("name", "type", "labels", "meaning"), rows),
            _title("/debug/varz", "-"),
            "The names that derper has, for dashboards made for it. It has the ``process_…``\n"
            "metrics above, too.\n",
            table(("name", "type", "on ``/metrics``"), _derper_rows(sources)),
        ]
    )


def _derper_rows(sources: Sources) -> Iterator[tuple[str, str, str]]:
    for name, kind in derper_names(sources).items():
        ours = DERPER_NAMES[name]
        yield f"``{name}``", kind, f"``{ours}``" if ours else "none"


def _labels(metric: Metric) -> str:
    names = getattr(metric, "_labelnames", ())
    if metric.type == "info":
        names = sorted({label for sample in metric.samples for label in sample.labels})
    return ", ".join(f"``{name}``" for name in names)


def main() -> None:
    """Write the pages."""
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
