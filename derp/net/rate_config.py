"""Reading ``--rate-config``: at the start, and whenever it is read again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from derp.core.limits import Limits, parse_limits, strange_members
from derp.errors import ConfigError, ProtocolError
from derp.quoting import quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from derp.net.relay_limits import RelayLimits

log = Logger(namespace="derp")

MAX_FILE: Final = 64 << 10


def read_limits(path: str, flags: Limits) -> Limits:
    """
    Read the file.

    :param flags: the limits that flags set; the file changes those it names.
    :raises ConfigError: naming the file, what is wrong and what to do.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise ConfigError(
            f"--rate-config: cannot read {quoted(path)}: {reason}; name a JSON file with the "
            'limits, such as {"PerClientRateLimitBytesPerSec": 1000000}'
        ) from None
    if len(data) > MAX_FILE:
        raise ConfigError(
            f"--rate-config: {quoted(path)} has more than {MAX_FILE} bytes: name a file of limits"
        )
    try:
        limits = parse_limits(data, flags)
    except ProtocolError as error:
        raise ConfigError(f"--rate-config: {quoted(path)}: {error}") from None
    for name, meant in strange_members(data).items():
        log.warn(
            "--rate-config: {path}: there is no limit {name}, it is ignored{advice}",
            path=quoted(path),
            name=quoted(name),
            advice=f"; did you mean {meant}?" if meant else "",
        )
    return limits


def loader(path: str, flags: Limits, limits: RelayLimits) -> Callable[[], None]:
    """Make what reads the file again and lets it hold."""
    return lambda: limits.apply(read_limits(path, flags))
