"""
Every flag of the prober, by task: derpprobe's own under their own names, then those of alerts.

What a value means is decided in :mod:`derp.probe_command_line`.
"""

from __future__ import annotations

from typing import Final

from derp.flags import SETEC_PLACES
from derp.goflag import Flag, Kind
from derp.probe_config import DERP_MAP, LISTEN_PORT
from derp.prober.targets import BANDWIDTH_SIZE, QUEUE_DELAY_TIMEOUT_S

WHAT: Final = (
    Flag(
        "derp-map",
        Kind.STRING,
        DERP_MAP,
        "The relays to probe: an https:// or http:// URL of a DERP map, file:///path of one, or "
        "local, which asks the tailscaled of this machine.",
    ),
    Flag("interval", Kind.DURATION, 15.0, "How often the DERP map is read again."),
    Flag(
        "region-code",
        Kind.STRING,
        "",
        "Probe only the region that has this code, or this number.",
    ),
    Flag(
        "once",
        Kind.BOOL,
        False,
        "Run every probe once, say which are good and which are bad, and exit: with 1 if one is "
        "bad.",
    ),
)

PROBES: Final = (
    Flag("tls-interval", Kind.DURATION, 15.0, "How often certificates are looked at; 0 is never."),
    Flag("stun-interval", Kind.DURATION, 15.0, "How often STUN is asked; 0 is never."),
    Flag(
        "mesh-interval",
        Kind.DURATION,
        15.0,
        "How often a packet is sent through each node, and between all nodes of a region; 0 is "
        "never.",
    ),
    Flag(
        "bw-interval",
        Kind.DURATION,
        0.0,
        "How often bandwidth is measured, through each node and between nodes; 0 is never.",
    ),
    Flag("bw-probe-size-bytes", Kind.INT, BANDWIDTH_SIZE, "What is sent to measure bandwidth."),
    Flag(
        "bw-tun-ipv4-addr",
        Kind.STRING,
        "",
        "Not offered here: bandwidth of TCP through a TUN device.",
    ),
    Flag(
        "qd-packets-per-second",
        Kind.INT,
        0,
        "Send so many packets per second all the time, and measure how long each takes; 0 is not "
        "to.",
    ),
    Flag(
        "qd-packet-timeout",
        Kind.DURATION,
        QUEUE_DELAY_TIMEOUT_S,
        "After how long such a packet counts as lost.",
    ),
    Flag(
        "max-latency",
        Kind.DURATION,
        0.0,
        "A STUN answer, or a packet through relays, that takes longer is a failure; 0 is to wait "
        "as long as a probe does.",
    ),
    Flag(
        "max-loss",
        Kind.FLOAT,
        0.0,
        "Percentage of a node's last 100 STUN requests beyond which their loss is a failure; 0 is "
        "not to count.",
    ),
    Flag(
        "spread",
        Kind.BOOL,
        True,
        "Begin each probe at a moment of its own within its interval, instead of all at once.",
    ),
)

KEY: Final = (
    Flag(
        "mesh-psk-file",
        Kind.STRING,
        "",
        "File with the mesh key of the relays, 64 hex digits: it exempts the probes from who may "
        "use a relay, and how much.",
    ),
    Flag(
        "dev",
        Kind.BOOL,
        False,
        "Take the mesh key from TAILSCALE_DERPER_MESH_KEY, and from nowhere else.",
    ),
    Flag(
        "secrets-url",
        Kind.STRING,
        "",
        "URL of a setec server that holds the mesh key; probing begins when it has given it.",
    ),
    *SETEC_PLACES,
)

ALERTS: Final = (
    Flag(
        "alert-url",
        Kind.STRING,
        "",
        "URL that is told, by POST, when a probe begins to fail and when it works again.",
    ),
    Flag(
        "alert-format",
        Kind.STRING,
        "json",
        "What is posted: json, or alertmanager for the API of Prometheus' Alertmanager.",
    ),
    Flag(
        "alert-secret-file",
        Kind.STRING,
        "",
        "File with a secret of 16 characters or more that signs what is posted.",
    ),
    Flag("alert-failures", Kind.INT, 2, "Failures in a row before an alert."),
    Flag("alert-successes", Kind.INT, 2, "Successes in a row before it is over."),
    Flag(
        "alert-repeat",
        Kind.DURATION,
        0.0,
        "How often what still fails is told again.",
        "4h, and 1m to an Alertmanager, which has to hear of it all the time",
    ),
    Flag(
        "alert-state-file",
        Kind.STRING,
        "",
        "File that remembers what was told, so that a restart neither repeats nor forgets it.",
    ),
    Flag(
        "alert-page-url",
        Kind.STRING,
        "",
        "Where people reach the status page, for links to it in what is posted.",
    ),
)

OTHER: Final = (
    Flag(
        "listen",
        Kind.STRING,
        f":{LISTEN_PORT}",
        "Address of the status page and the metrics, plain HTTP: :port, ip:port or [ipv6]:port.",
    ),
    Flag("version", Kind.BOOL, False, "Print the version and exit."),
)

GROUPS: Final[tuple[tuple[str, tuple[Flag, ...]], ...]] = (
    ("What to probe", WHAT),
    ("Probes", PROBES),
    ("Mesh key", KEY),
    ("Alerts", ALERTS),
    ("Other", OTHER),
)
"""Heading and flags, in the order of ``--help``."""

FLAGS: Final[tuple[Flag, ...]] = tuple(flag for _, group in GROUPS for flag in group)
"""Every flag once."""
