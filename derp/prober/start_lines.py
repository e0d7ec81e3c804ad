"""What a starting prober tells its operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from derp.durations import format_duration
from derp.net.http_url import shown
from derp.sizes import format_size

if TYPE_CHECKING:
    from derp.probe_config import ProbeConfig


def start_block(config: ProbeConfig, version: str, where: str) -> str:
    """
    Compose it.

    :param where: what is listened on.
    """
    region = f", region {config.region_code} only" if config.region_code else ""
    lines = [
        f"derpprobe {version} is ready",
        f"  listening    {where:<21} status page, /metrics, /debug/ (--listen)",
        f"  DERP map     {_map(config.derp_map)} every {format_duration(config.interval)}{region}",
        f"  probes       {', '.join(_probes(config)) or 'none: every interval is 0'}",
        f"  mesh key     {_mesh_key(config)}",
        f"  alerts       {_alerts(config)}",
    ]
    return "\n".join(lines)


def _map(text: str) -> str:
    return text if "://" not in text or text.startswith("file:") else shown(text)


def _probes(config: ProbeConfig) -> list[str]:
    kinds = config.intervals
    size = f"bandwidth ({format_size(config.bandwidth_size)})"
    found = [
        f"{what} every {format_duration(seconds)}"
        for what, seconds in (
            ("TLS", kinds.tls),
            ("STUN", kinds.stun),
            ("packets", kinds.mesh),
            (size, kinds.bandwidth if config.bandwidth_size else 0),
        )
        if seconds
    ]
    if config.qd_rate:
        found.append(f"queuing delay by {config.qd_rate} packets per second")
    return found


def _mesh_key(config: ProbeConfig) -> str:
    if config.secrets_url:
        return "from setec (--secrets-url)"
    return "set, the relays take the probes for mesh peers" if config.mesh_key else "none"


def _alerts(config: ProbeConfig) -> str:
    if not config.alerts.url:
        return "none (--alert-url)"
    signed = "signed" if config.alerts.secret_file else "not signed"
    return f"after {config.alerts.failures} failures in a row (--alert-url), {signed}"
