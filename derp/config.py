"""
Everything the operator decides, as frozen values.

:class:`Config` has one field per flag (its name is the flag's, ``-`` written ``_``);
:class:`DebugKnobs` has the environment variables the server process itself reads.
``derp.tap`` makes them from a command line; nothing below it parses text again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

NO_BURST_LIMIT = (1 << 63) - 1
"""Default of ``--accept-connection-burst``: the largest Go ``int``."""


class CertMode(StrEnum):
    """Values of ``--certmode``."""

    MANUAL = "manual"
    LETSENCRYPT = "letsencrypt"
    GCP = "gcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshPeer:
    """One relay to mesh with, as ``--mesh-with`` or a line of ``--mesh-with-file`` names it."""

    name: str
    """``host[:port][/dialhost]`` as given, for logs and metrics."""
    host: str
    """TLS server name and ``Host`` header; dialed unless :attr:`dial_host` is given."""
    port: int = 443
    dial_host: str = ""
    pin: str = ""
    """``sha256-raw:<hex>``: accept exactly this certificate."""


class PlaceKind(StrEnum):
    """Sorts of places in ``--listen``."""

    TCP = "tcp"
    TLS = "tls"
    UNIX = "unix"
    FD = "fd"


@dataclass(frozen=True, slots=True)
class ListeningPlace:
    """One place to listen."""

    kind: PlaceKind
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1
    tls: bool = False
    """Whether TLS is spoken there; an inherited descriptor does as the main port."""


@dataclass(frozen=True, kw_only=True)
class DebugKnobs:
    """The debug variables of derper (:mod:`derp.environment`) that change a run."""

    send_queue_depth: int = 32
    """``TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH``: packets per lane and client."""
    verbose_drops: frozenset[bytes] = frozenset()
    """``TS_DEBUG_VERBOSE_DROPS``: raw keys of destinations whose drops are logged."""
    debug_logs: bool = False
    """``DERP_DEBUG_LOGS``."""
    prober_debug_logs: bool = False
    """``DERP_PROBER_DEBUG_LOGS``."""
    disable_rtt_stats: bool = False
    """``TS_DERP_DISABLE_RTT_STATS``."""
    allow_debug_ip: str = ""
    """``TS_ALLOW_DEBUG_IP``: one address, compared as text."""
    trusted_cidrs: tuple[IPv4Network | IPv6Network, ...] = ()
    """``TS_DEBUG_TRUSTED_CIDRS``."""
    debug_key_path: str = ""
    """``TS_DEBUG_KEY_PATH``: file whose trimmed content opens debug pages as ``?debugkey=``."""
    log_rate_all: bool = False
    """``TS_DEBUG_LOG_RATE=all``: no log line is rate-limited."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """One relay as its operator asked for it. Durations are seconds, sizes bytes."""

    dev: bool = False
    host: str = ""
    """Host part of ``-a`` as an IP; empty means every address, IPv4 and IPv6."""
    port: int = 443
    """Port part of ``-a``."""
    http_port: int = 80
    """Plain HTTP beside TLS; negative is off."""
    stun_port: int = 3478
    key_file: str = ""
    """``-c`` or its default; empty with ``dev`` and only then."""
    certmode: CertMode = CertMode.LETSENCRYPT
    certdir: str = ""
    acme_email: str = ""
    acme_eab_kid: str = ""
    acme_eab_key: str = field(default="", repr=False)
    """As given, found to be base64 or base64url."""
    acme_ip_certs: bool = False
    """Certificates for addresses: the flag, or :attr:`acme_ip_address`."""
    acme_directory: str = ""
    """URL of an ACME directory; empty is that of ``--certmode``."""
    acme_ca_file: str = ""
    """PEM roots for that server in place of the system's; empty is the system's."""
    acme_profile: str = ""
    """Profile to order by; empty is the authority's choice, and ``shortlived`` for addresses."""
    acme_ip_address: tuple[str, ...] = ()
    """Addresses clients dial, in their usual form."""
    acme_dns_hook: tuple[str, ...] = ()
    """Command that sets TXT records; empty is none."""
    hostname: str = "derp.tailscale.com"
    tls: bool = True
    """Whether the main port speaks TLS: port 443, ``--certmode manual`` or ``--tls``."""
    stun: bool = True
    derp: bool = True
    home: str = ""
    bootstrap_dns_names: tuple[str, ...] = ()
    unpublished_bootstrap_dns_names: tuple[str, ...] = ()
    mesh_key: bytes | None = field(default=None, repr=False)
    """32 raw bytes; ``None`` is no mesh key, or one that is still to come (``secrets_url``)."""
    mesh_with: tuple[MeshPeer, ...] = ()
    mesh_with_file: str = ""
    """Further peers, one per line; read again on SIGHUP."""
    mesh_ca_file: str = ""
    """PEM file of roots that mesh peers' certificates may lead to, besides the system's."""
    secrets_url: str = ""
    """setec server that holds the mesh key."""
    secrets_path_prefix: str = "prod/derp"
    """What its name there begins with; ``/meshkey`` follows."""
    secrets_cache_dir: str = ""
    """The file where it is kept between runs; empty is nowhere."""
    mesh_psk_file: str = ""
    """Where :attr:`mesh_key` was read; empty if it was not read from a file."""
    verify_clients: bool = False
    socket: tuple[str, ...] = ()
    """Of tailscaled; none is the default one."""
    verify_client_url: tuple[str, ...] = ()
    verify_client_url_fail_open: bool = True
    allow_clients: str = ""
    verify_policy: str = "all"
    """``all`` or ``any``."""
    reverify_interval: float = 0.0
    """Seconds; 0 is never."""
    accept_connection_limit: float = math.inf
    accept_connection_burst: int = NO_BURST_LIMIT
    rate_config: str = ""
    """JSON file; what it names takes the place of the flags for limits."""
    server_rate_limit: int = 0
    """Bytes per second; 0 is no limit, here and in the next four."""
    max_handshakes: int = 0
    max_clients: int = 0
    max_clients_per_ip: int = 0
    monthly_quota: int = 0
    quota_state: str = ""
    """Empty is ``derper.quota`` beside the key file; with ``dev`` nothing is remembered."""
    listen: tuple[ListeningPlace, ...] = ()
    """Besides ``-a``."""
    stun_host: str | None = None
    """Host part of ``--stun-addr``; ``None`` is that of ``-a``."""
    stun_generic: bool = False
    """Whether STUN requests of other software than Tailscale's are answered, too."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    trust_unix_sockets: bool = False
    """``unix`` in ``--trusted-proxies``."""
    drain_seconds: float = 5.0
    """How long sending everybody away may take before the process exits."""
    handover_socket: str = ""
    """Unix socket through which a new process takes the listening sockets over; empty is off."""
    stun_follows_readiness: bool = False
    """Whether STUN and probe paths fall silent for every reason that ``/readyz`` has."""
    tcp_keepalive_time: float = 600.0
    """Idle seconds before the first probe; 0 is 15 s (Go's default), negative is off."""
    tcp_user_timeout: float = 15.0
    """``TCP_USER_TIMEOUT``; 0 leaves the kernel's own."""
    tcp_write_timeout: float = 2.0
    """How long a client other than a mesh peer may accept no byte; 0 is for ever."""
    ace: bool = False
    metrics_addr: str = ""
    """``ip:port``, ``[ipv6]:port`` or ``:port`` for ``/metrics`` and ``/healthz``; empty is off."""
    knobs: DebugKnobs = field(default_factory=DebugKnobs)
    notices: tuple[str, ...] = ()
    """Sentences to log at the start: what was given and has no effect, or was chosen for lack."""
