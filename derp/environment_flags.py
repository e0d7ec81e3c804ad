"""
Flags from environment variables, as the Docker images of derper have them.

Two families of names are in people's files, each with its own defaults; a third is ours, for
flags that neither has. An empty variable is one that is not set. Only the ``derper`` script
reads these (:mod:`derp.derper_script`), ``twistd derper`` does not.

A variable of a flag that may be given several times holds its values separated by blanks: a
comma may be part of a URL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from derp import environment
from derp.errors import ConfigError
from derp.flags import FLAGS
from derp.goflag import FlagError, Kind, Value, parse_value
from derp.quoting import nearest

DOMAIN_FAMILY: Final[dict[str, str]] = {
    "DERP_DOMAIN": "hostname",
    "DERP_CERT_DIR": "certdir",
    "DERP_CERT_MODE": "certmode",
    "DERP_ADDR": "a",
    "DERP_STUN": "stun",
    "DERP_STUN_PORT": "stun-port",
    "DERP_HTTP_PORT": "http-port",
    "DERP_VERIFY_CLIENTS": "verify-clients",
    "DERP_VERIFY_CLIENT_URL": "verify-client-url",
    "DERP_VERIFY_CLIENT_URL_FAIL_OPEN": "verify-client-url-fail-open",
}
"""Variable to flag: fredliang44/derper and its descendants."""

PLAIN_FAMILY: Final[dict[str, str]] = {
    "DEV": "dev",
    "VERSION_FLAG": "version",
    "ADDR": "a",
    "HTTP_PORT": "http-port",
    "STUN_PORT": "stun-port",
    "CONFIG_PATH": "c",
    "CERT_MODE": "certmode",
    "CERTMODE": "certmode",
    "CERT_DIR": "certdir",
    "HOSTNAME": "hostname",
    "RUN_STUN": "stun",
    "RUN_DERP": "derp",
    "FLAGHOME": "home",
    "MESH_PSKFILE": "mesh-psk-file",
    "MESH_WITH": "mesh-with",
    "SECRETS_URL": "secrets-url",
    "SECRETS_PREFIX": "secrets-path-prefix",
    "SECRET_PREFIX": "secrets-path-prefix",
    "SECRETS_CACHEDIR": "secrets-cache-dir",
    "BOOTSTRAP_DNS": "bootstrap-dns-names",
    "UNPUBLISHED_DNS": "unpublished-bootstrap-dns-names",
    "VERIFY_CLIENTS": "verify-clients",
    "VERIFY_CLIENT_URL": "verify-client-url",
    "VERIFY_FAIL_OPEN": "verify-client-url-fail-open",
    "SOCKET": "socket",
    "ACCEPT_CONNECTION_LIMIT": "accept-connection-limit",
    "ACCEPT_CONNECTION_BURST": "accept-connection-burst",
    "TCP_KEEPALIVE_TIME": "tcp-keepalive-time",
    "TCP_USER_TIMEOUT": "tcp-user-timeout",
    "TCP_WRITE_TIMEOUT": "tcp-write-timeout",
}
"""Variable to flag: XavierAlpha/derper (whose README and image spell one of them differently)."""

OWN_FAMILY: Final[dict[str, str]] = {
    f"DERP_{flag.name.upper().replace('-', '_')}": flag.name
    for flag in FLAGS
    if flag.name not in {*DOMAIN_FAMILY.values(), *PLAIN_FAMILY.values()}
}
"""Variable to flag: whatever the images lack."""

VARIABLES: Final[dict[str, str]] = {**DOMAIN_FAMILY, **PLAIN_FAMILY, **OWN_FAMILY}
"""Every variable with its flag."""

PLACEHOLDER: Final = "your-hostname.com"
"""What the images of the first family take for a name if they are told none."""

DOMAIN_DEFAULTS: Final[dict[str, Value]] = {"hostname": PLACEHOLDER, "certdir": "/app/certs"}
"""Where the first family's defaults are not derper's."""

PLAIN_DEFAULTS: Final[dict[str, Value]] = {
    "hostname": "127.0.0.1",
    "certmode": "manual",
    "certdir": "derper-certs",
    "verify-clients": True,
    "secrets-cache-dir": "derper-secrets",
}
"""Where the second family's are not."""

_HOSTNAME: Final = "HOSTNAME"
_NO_SETTINGS: Final = frozenset({environment.DEBUG_LOGS, environment.PROBER_DEBUG_LOGS})
_KUBERNETES: Final = re.compile(
    r"DERP_PORT|DERP_(\w+_)?"
    r"(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
"""What Kubernetes sets in a pod for a service named ``derp``, or ``derp-`` something; of the
latter also ``DERP_SOMETHING_PORT`` with a :data:`_SERVICE_URL` as its value."""
_SERVICE_URL: Final = re.compile(r"(tcp|udp|sctp)://")

_CURES: Final[dict[Kind, str]] = {
    Kind.BOOL: ": write true or false",
    Kind.INT: ": write a whole number",
    Kind.FLOAT: ": write a number",
}


@dataclass(frozen=True, slots=True)
class EnvironmentFlags:
    """What the variables say."""

    given: dict[str, Value] = field(default_factory=dict)
    """Flag to value."""
    names: dict[str, str] = field(default_factory=dict)
    """Flag to the variable that sets it."""
    defaults: dict[str, Value] = field(default_factory=dict)
    """Flag to value, where the family's default is not derper's."""
    warnings: tuple[str, ...] = ()


def read_environment(
    environ: Mapping[str, str], machine_name: str, *, hostname_given: bool = False
) -> EnvironmentFlags:
    """
    Read the variables.

    :param machine_name: what ``HOSTNAME`` is in every container and most shells.
    :param hostname_given: whether ``--hostname`` is on the command line.
    :raises ConfigError: naming the variable, if a value does not fit or two contradict.
    """
    names = [name for name in VARIABLES if environ.get(name)]
    if _HOSTNAME in names and (
        hostname_given
        or environ.get("DERP_DOMAIN")
        or environ[_HOSTNAME].lower() == machine_name.lower()
    ):
        names.remove(_HOSTNAME)
    given: dict[str, Value] = {}
    set_by: dict[str, str] = {}
    for name in names:
        flag = VARIABLES[name]
        value = _value(name, environ[name])
        if flag in given and given[flag] != value:
            raise ConfigError(
                f"environment variables {set_by[flag]} and {name} set the same to different "
                "values: remove one of them"
            )
        given[flag] = value
        set_by.setdefault(flag, name)
    prefixed = [name for name in names if name.startswith("DERP_")]
    plain = [name for name in names if not name.startswith("DERP_")]
    defaults = DOMAIN_DEFAULTS if prefixed else PLAIN_DEFAULTS if plain else {}
    warnings = [_unknown(name) for name in sorted(environ) if _is_unknown(name, environ[name])]
    if "verify-clients" not in given and prefixed and plain:
        warnings.append(
            f"environment variables {prefixed[0]} and {plain[0]} are of two kinds, and the "
            "first kind's defaults hold: clients are not verified unless you ask for it"
        )
    return EnvironmentFlags(given, set_by, dict(defaults), tuple(warnings))


def variable_of(flag: str, defaults: Mapping[str, Value]) -> str:
    """Say which variable of the family with these defaults sets a flag."""
    family = DOMAIN_FAMILY if defaults == DOMAIN_DEFAULTS else PLAIN_FAMILY
    return next(name for name in family if family[name] == flag)


def _value(name: str, text: str) -> Value:
    """The value of one variable."""
    flag = next(flag for flag in FLAGS if flag.name == VARIABLES[name])
    if flag.kind is Kind.STRINGS:
        return tuple(text.split())
    try:
        return parse_value(flag, text)
    except FlagError as error:
        cure = _CURES.get(flag.kind, "")
        if _SERVICE_URL.match(text):
            cure = ": Kubernetes has set it for a service; rename that, or set enableServiceLinks"
            cure += " to false in the pod"
        sentence = str(error).removeprefix(flag.spelling)
        raise ConfigError(f"environment variable {name}{sentence}{cure}") from None


def _is_unknown(name: str, value: str) -> bool:
    """Whether a variable looks like one for us and is none."""
    if not value or not name.startswith("DERP_") or name in VARIABLES or name in _NO_SETTINGS:
        return False
    if _KUBERNETES.fullmatch(name):
        return False
    return not (name.endswith("_PORT") and _SERVICE_URL.match(value))


def _unknown(name: str) -> str:
    rest = name.removeprefix("DERP_")
    flags = {flag.name.upper().replace("-", "_"): flag.name for flag in FLAGS}
    meant = VARIABLES.get(rest) or flags.get(rest)
    exact = [known for known, flag in VARIABLES.items() if flag == meant]
    near = exact[0] if exact else nearest(name, VARIABLES, 0.8)
    hint = f": did you mean {near}?" if near else ""
    return f"environment variable {name} is unknown and has no effect{hint}"
