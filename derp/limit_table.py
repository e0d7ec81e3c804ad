"""The relay's flags that bound what it does; the rest of the table is :mod:`derp.flags`."""

from __future__ import annotations

import math
from typing import Final

from derp.config import NO_BURST_LIMIT
from derp.goflag import Flag, Kind

LIMITS: Final = (
    Flag(
        "accept-connection-limit",
        Kind.FLOAT,
        math.inf,
        "New connections per second; what comes beyond that is closed at once.",
        "+Inf",
    ),
    Flag(
        "accept-connection-burst",
        Kind.INT,
        NO_BURST_LIMIT,
        "New connections at once.",
        "one second's worth",
    ),
    Flag(
        "max-handshakes",
        Kind.INT,
        0,
        "Connections at a time that have not come to a request yet; 0 is no limit.",
    ),
    Flag("max-clients", Kind.INT, 0, "Logged-in clients; 0 is no limit."),
    Flag(
        "max-clients-per-ip",
        Kind.INT,
        0,
        "Logged-in clients from one IPv4 address or IPv6 /64 network; 0 is no limit.",
    ),
    Flag(
        "rate-config",
        Kind.STRING,
        "",
        "JSON file of limits, read again when it changes and on SIGHUP. derper's "
        "PerClientRateLimitBytesPerSec and PerClientRateBurstBytes, and every other limit: "
        "ServerRateLimitBytesPerSec, ServerRateBurstBytes, AcceptConnectionLimit, "
        "AcceptConnectionBurst, MaxHandshakes, MaxClients, MaxClientsPerIP, MonthlyQuota. "
        "What it names takes the place of the flag; 0 removes a limit.",
    ),
    Flag(
        "server-rate-limit",
        Kind.STRING,
        "",
        "What all clients together may send per second, such as 10MB; shared fairly.",
    ),
    Flag(
        "monthly-quota",
        Kind.STRING,
        "",
        "Volume per calendar month (UTC), in and out together, such as 500GB or 2TiB. When it is "
        "used up nothing is relayed until the next month; STUN goes on.",
    ),
    Flag(
        "quota-state",
        Kind.STRING,
        "",
        "File that remembers the month's volume.",
        "derper.quota beside the key file",
    ),
    Flag(
        "tcp-keepalive-time",
        Kind.DURATION,
        600.0,
        "Idle time before the first TCP keepalive probe; 0 is 15s, negative is off.",
    ),
    Flag(
        "tcp-user-timeout",
        Kind.DURATION,
        15.0,
        "How long sent data may stay unacknowledged "
        "before the connection is cut; 0 leaves it to the kernel.",
    ),
    Flag(
        "tcp-write-timeout",
        Kind.DURATION,
        2.0,
        "How long a client may accept nothing of what "
        "is sent to it before it is cut; 0 is for ever. Mesh peers have more.",
    ),
)
