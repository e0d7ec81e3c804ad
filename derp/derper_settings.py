"""
What command line, environment and ``--config`` of the ``derper`` script say together.

Apart from the script since a health check reads the same and must not load a relay for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from derp.config_file import FLAG as CONFIG
from derp.config_file import read_config_file
from derp.environment_flags import EnvironmentFlags, read_environment
from derp.errors import ConfigError
from derp.goflag import Value

NOTHING_GIVEN = (
    "no flag and no environment variable says what to do: start me as derper -hostname "
    "derp.example.com, or set DERP_DOMAIN=derp.example.com (like fredliang44/derper) or "
    "VERIFY_CLIENTS=true (like camllia/derper: for 127.0.0.1, with tailscaled's socket); "
    "derper -h lists the flags"
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What command line, environment and file say together."""

    given: dict[str, Value]
    """By flag, without those left at derper's default."""
    environment: EnvironmentFlags
    names: dict[str, str]
    """Flag to the variable or the file whose value is the one that counts."""


def read_settings(
    flags: Mapping[str, Value], environ: Mapping[str, str], machine_name: str
) -> Settings:
    """
    Put the sources of settings in their order.

    :param flags: those of the command line.
    :raises ConfigError: if a variable or the file holds something wrong, or nothing is given.
    """
    read = read_environment(environ, machine_name, hostname_given="hostname" in flags)
    if not flags and not read.given:
        raise ConfigError("; ".join((*read.warnings, NOTHING_GIVEN)))
    above = {**read.given, **flags}
    path = above.get(CONFIG)
    file = read_config_file(str(path)) if path else {}
    given = {**read.defaults, **file, **above}
    given.pop(CONFIG, None)
    names = {**dict.fromkeys(file, str(path)), **read.names}
    return Settings(given, read, {flag: names[flag] for flag in names if flag not in flags})
