"""Everything the operator of a prober decides, as frozen values; one field per flag."""

from __future__ import annotations

from dataclasses import dataclass, field

from derp.config import DebugKnobs
from derp.prober.alerts import AlertConfig
from derp.prober.map_checks import Intervals
from derp.prober.targets import BANDWIDTH_SIZE, QUEUE_DELAY_TIMEOUT_S
from derp.prober.tolerance import Tolerance

DERP_MAP = "https://login.tailscale.com/derpmap/default"
"""Tailscale's own."""
LISTEN_PORT = 8030


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConfig:
    """What a prober does."""

    derp_map: str = DERP_MAP
    """URL of http, https or file; or ``local``."""
    host: str = ""
    """Of ``--listen``: an address, empty is all."""
    port: int = LISTEN_PORT
    once: bool = False
    """Run every probe once, and end."""
    spread: bool = True
    interval: float = 15.0
    """Seconds between two looks at the map."""
    intervals: Intervals = field(default_factory=Intervals)
    region_code: str = ""
    """The only region to probe, by its code or its number; empty is all."""
    bandwidth_size: int = BANDWIDTH_SIZE
    qd_rate: int = 0
    """Packets per second; 0 is not to measure queuing delay."""
    qd_timeout: float = QUEUE_DELAY_TIMEOUT_S
    tolerance: Tolerance = field(default_factory=Tolerance)
    mesh_key: bytes | None = field(default=None, repr=False)
    """32 raw bytes; ``None`` is none, or one that is still to come (``secrets_url``)."""
    secrets_url: str = ""
    secrets_path_prefix: str = "prod/derp"
    secrets_cache_dir: str = ""
    alerts: AlertConfig = field(default_factory=AlertConfig)
    knobs: DebugKnobs = field(default_factory=DebugKnobs)
    """Who may see the debug pages; the rest of them is the relay's."""
    notices: tuple[str, ...] = ()
    """Sentences to log at the start."""
