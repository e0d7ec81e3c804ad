"""
Every flag of the relay, by task: derper's own under their own names, then ours.

The table is what the parser (:mod:`derp.goflag`), ``--help`` and shell completion read; what a
value means is decided in :mod:`derp.command_line`. A default that depends on the environment
is empty here and described in ``default_text``.
"""

from __future__ import annotations

from typing import Final

from derp.goflag import Flag, Kind
from derp.limit_table import LIMITS

LISTENING: Final = (
    Flag(
        "dev",
        Kind.BOOL,
        False,
        "Try the relay out: plain HTTP on port 3340, a key that is forgotten at the end, no file "
        "read or written, no privilege needed. The mesh key comes from TAILSCALE_DERPER_MESH_KEY.",
    ),
    Flag("a", Kind.STRING, ":443", "Address to listen on: :port, ip:port or [ipv6]:port."),
    Flag(
        "tls",
        Kind.BOOL,
        False,
        "Speak TLS whatever the port is. Without it only port 443 and --certmode manual do, "
        "and what means it.",
    ),
    Flag("http-port", Kind.INT, 80, "Port for plain HTTP beside TLS, on the same IP; -1 is off."),
    Flag("stun", Kind.BOOL, True, "Answer STUN."),
    Flag("stun-port", Kind.INT, 3478, "UDP port for STUN, on the same IP as -a."),
    Flag("stun-addr", Kind.STRING, "", "Address for STUN (host:port) when it is not that of -a."),
    Flag(
        "stun-generic",
        Kind.BOOL,
        False,
        "Answer STUN requests of any software, not only Tailscale's: 10 per second and address "
        "(IPv6: /64), none with more than 1.6 times the bytes that came.",
    ),
    Flag(
        "listen",
        Kind.STRINGS,
        (),
        "One more place to serve what -a serves: tls:host:port, tcp:host:port (without TLS), "
        "unix:path (without TLS) or fd:number, a listening socket inherited from whoever started "
        "us, which speaks TLS if -a does.",
    ),
    Flag(
        "trusted-proxies",
        Kind.STRING,
        "",
        "Networks of proxies, comma-separated, that may say who their client is: by a PROXY "
        "header (version 1 or 2), X-Forwarded-For or X-Real-IP. unix stands for unix sockets.",
    ),
    Flag(
        "derp",
        Kind.BOOL,
        True,
        "Relay. When false, /derp answers 404 and everything else works: for a server that is "
        "being retired.",
    ),
)

IDENTITY: Final = (
    Flag(
        "c",
        Kind.STRING,
        "",
        "File of the relay's key; made if it is missing.",
        "/var/lib/derper/derper.key for root, and for derper itself wherever that directory is",
    ),
    Flag(
        "hostname",
        Kind.STRING,
        "derp.tailscale.com",
        "Name in the certificate. May be an IP address with --certmode manual, which then makes "
        "a certificate and prints the pin for clients, and with --acme-ip-certs.",
    ),
    Flag(
        "certmode",
        Kind.STRING,
        "letsencrypt",
        "Where certificates come from: letsencrypt or gcp (Google) get and renew them by ACME, "
        "manual reads files, also when they change.",
    ),
    Flag(
        "certdir",
        Kind.STRING,
        "",
        "Directory of certificates: <hostname>.crt and <hostname>.key with --certmode manual, else "
        "what was got by ACME, as derper keeps it.",
        "$XDG_CACHE_HOME/tailscale/derper-certs, else $HOME/.cache/tailscale/derper-certs",
    ),
)

ACME: Final = (
    Flag(
        "acme-email",
        Kind.STRING,
        "",
        "Where the certificate authority may write to; needed with --certmode gcp.",
    ),
    Flag(
        "acme-directory",
        Kind.STRING,
        "",
        "Get certificates from another authority than Let's Encrypt: URL of its ACME directory. "
        "Means --tls.",
        "that of --certmode",
    ),
    Flag(
        "acme-ca-file",
        Kind.STRING,
        "",
        "File with the roots (PEM) to trust that authority's server by, for a private one.",
        "those of the system",
    ),
    Flag("acme-eab-kid", Kind.STRING, "", "Key id of an external account (gcp, ZeroSSL)."),
    Flag("acme-eab-key", Kind.STRING, "", "HMAC key of the external account, base64 or base64url."),
    Flag(
        "acme-ip-certs",
        Kind.BOOL,
        False,
        "Get certificates for the IP addresses that clients dial; --hostname may be one then. "
        "Only with --certmode letsencrypt.",
    ),
    Flag(
        "acme-ip-address",
        Kind.STRINGS,
        (),
        "Public IP address to get a certificate for, where this machine is behind NAT and does "
        "not have it. Means --acme-ip-certs and --tls.",
    ),
    Flag(
        "acme-profile",
        Kind.STRING,
        "",
        "Profile to ask that authority for, such as shortlived or tlsserver of Let's Encrypt's.",
        "the authority's choice; shortlived for addresses",
    ),
    Flag(
        "acme-dns-hook",
        Kind.STRING,
        "",
        "Prove the name by DNS where ports 80 and 443 cannot be reached: a command that is run as "
        "<command> add|remove <record> <value> and sets that TXT record.",
    ),
)

PAGES: Final = (
    Flag(
        "home",
        Kind.STRING,
        "",
        "What / shows: nothing given is a short page about the relay, blank is an empty page, "
        "a URL (http:// or https://) is redirected to.",
    ),
    Flag(
        "bootstrap-dns-names",
        Kind.STRING,
        "",
        "Host names, comma-separated, whose addresses /bootstrap-dns tells everybody.",
    ),
    Flag(
        "unpublished-bootstrap-dns-names",
        Kind.STRING,
        "",
        "Host names, comma-separated, told only to who asks for one by name. name/txtname: "
        "the TXT record txtname holds the percentage (0 to 100) of clients that get it.",
    ),
    Flag(
        "metrics-addr",
        Kind.STRING,
        "",
        "Address (host:port) for /metrics, /healthz and /readyz, open to whoever reaches it; "
        "empty is off.",
    ),
    Flag("ace", Kind.BOOL, False, "Forward CONNECT requests to Tailscale's control servers."),
)

SETEC_PLACES: Final = (
    Flag(
        "secrets-path-prefix",
        Kind.STRING,
        "prod/derp",
        "What the name of the mesh key in setec begins with; /meshkey follows.",
    ),
    Flag(
        "secrets-cache-dir",
        Kind.STRING,
        "",
        "File (not directory) that keeps the mesh key of setec between runs.",
        "$HOME/.cache/derper-secrets",
    ),
)
"""Where in setec, and where on disk, the mesh key is; the prober has these flags, too."""

MESH: Final = (
    Flag(
        "mesh-psk-file",
        Kind.STRING,
        "",
        "File with the key shared by the relays of a mesh: 64 hex digits.",
        "the first of /home/derp/keys/derp-mesh.key and $HOME/keys/derp-mesh.key that exists",
    ),
    Flag(
        "mesh-with",
        Kind.STRING,
        "",
        "Relays to mesh with, comma-separated, each as host[:port][/dialhost][#sha256-raw:<hex>]: "
        "what its certificate is made for, what to dial instead, and its CertName if it made its "
        "certificate itself. This relay's own name may be among them.",
    ),
    Flag(
        "mesh-with-file",
        Kind.STRING,
        "",
        "File with more of them, one per line, # for comments. A changed file is read again.",
    ),
    Flag(
        "mesh-ca-file",
        Kind.STRING,
        "",
        "PEM file of CA certificates that the other relays' may lead to, besides the system's.",
    ),
    Flag(
        "secrets-url",
        Kind.STRING,
        "",
        "URL of a setec server that holds the mesh key; it is asked until it gives it.",
    ),
    *SETEC_PLACES,
)

ADMISSION: Final = (
    Flag(
        "verify-clients",
        Kind.BOOL,
        False,
        "Admit only clients that a tailscaled on this machine knows.",
    ),
    Flag(
        "socket",
        Kind.STRINGS,
        (),
        "Socket of that tailscaled. Given several times: whom any of them knows is admitted.",
        "the usual place on this system",
    ),
    Flag(
        "verify-client-url",
        Kind.STRINGS,
        (),
        "Admit only clients this URL agrees to (Headscale has one: https://<server>/verify). "
        "Given several times: whom any of them agrees to is admitted.",
    ),
    Flag(
        "verify-client-url-fail-open",
        Kind.BOOL,
        True,
        "Admit whoever logs in while --verify-client-url cannot be reached.",
    ),
    Flag(
        "allow-clients",
        Kind.STRING,
        "",
        "Admit only clients in this file of node keys: one nodekey:... per line, # for comments. "
        "A changed file is read again.",
    ),
    Flag(
        "verify-policy",
        Kind.STRING,
        "all",
        "Whether tailscaled, URLs and file must all admit a client, or any of them: all or any.",
    ),
    Flag(
        "reverify-interval",
        Kind.DURATION,
        0.0,
        "Ask about every connected client again within this time, and close those refused twice; "
        "0 is never. SIGHUP and a changed --allow-clients file ask at once.",
    ),
)

LIFE: Final = (
    Flag(
        "drain-seconds",
        Kind.DURATION,
        5.0,
        "How long a relay that is stopped takes to send its clients away, one after the other; "
        "they are told before. Two seconds later it ends in any case. 0 is at once.",
    ),
    Flag(
        "handover-socket",
        Kind.STRING,
        "",
        "Unix socket through which a new relay with the same flags takes the open ports over "
        "from this one, which then drains and exits: a restart that refuses nobody.",
    ),
    Flag(
        "stun-follows-readiness",
        Kind.BOOL,
        False,
        "Answer neither STUN nor probes whenever /readyz says no: clients then move away. "
        "Without it only while starting and stopping.",
    ),
)

OTHER: Final = (
    Flag(
        "config",
        Kind.STRING,
        "",
        "File of settings (TOML): flags by name, such as stun-port = 3478. What else is given "
        "takes the place of what it says.",
    ),
    Flag(
        "check-config",
        Kind.BOOL,
        False,
        "Check flags and files as a start does, without listening; exit with 0 or 1.",
    ),
    Flag("version", Kind.BOOL, False, "Print the version and exit."),
)

GROUPS: Final[tuple[tuple[str, tuple[Flag, ...]], ...]] = (
    ("Listening", LISTENING),
    ("Identity and certificates", IDENTITY),
    ("Certificates by ACME", ACME),
    ("Pages", PAGES),
    ("Mesh", MESH),
    ("Who may use the relay", ADMISSION),
    ("Limits", LIMITS),
    ("Starting and stopping", LIFE),
    ("Other", OTHER),
)
"""Heading and flags, in the order of ``--help``."""

FLAGS: Final[tuple[Flag, ...]] = tuple(flag for _, group in GROUPS for flag in group)
"""Every flag once."""

IMPLY_TLS: Final = ("acme-directory", "acme-ip-address")
"""Flags that ask for TLS whatever the port is."""
