"""
The monthly quota over restarts: its state file, and what happens when it is used up.

What counts is what DERP carries, in and out together: packets with their frame headers. TLS
and TCP/IP come on top of it, some five percent with packets of usual size.

State file, written atomically once a minute, when a drain begins, and at the end::

    {"months": {"2026-11": 123456789}}

Two processes share it while one takes the other's place (``--handover-socket``). Each adds to
what is there what it has counted itself.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from derp.core.quota import MONTH, MonthlyQuota, first_of_next, month_of
from derp.errors import ConfigError
from derp.net.private_files import make_private_directory, write_file
from derp.quoting import quoted
from derp.sizes import format_size
from derp.wire.frames import HEADER_LEN, KEY_LEN

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from derp.core.relay import Relay
    from derp.net.relay_limits import RelayLimits

log = Logger(namespace="derp")

LOOK_S: Final = 1.0
"""How often the volume is looked at; what passes meanwhile may exceed the quota."""
SAVE_S: Final = 60.0
"""How often it is written down; what passed since is forgotten by a crash."""
MAX_FILE: Final = 64 << 10
_FRAME: Final = HEADER_LEN + KEY_LEN


def volume_of(relay: Relay, limits: RelayLimits) -> int:
    """Bytes that have passed since the start, in and out; those refused came in, too."""
    stats = relay.stats
    packets = stats.packets_received + stats.packets_sent
    data = stats.bytes_received + stats.bytes_sent
    return data + _FRAME * packets + limits.bytes_refused + HEADER_LEN * limits.packets_refused


def read_months(path: Path) -> dict[str, int]:
    """
    Read the state file; none at all is an empty one.

    :raises ConfigError: if it cannot be read or holds something else.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE)
        months = json.loads(data)["months"]
        if not all(
            MONTH.fullmatch(month) and type(used) is int and 0 <= used < 1 << 80
            for month, used in months.items()
        ):
            raise ValueError
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unusable(path, f"cannot be read ({(error.strerror or '').lower()})") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _unusable(path, "does not hold what this relay writes there") from None
    return dict(months)


def _unusable(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"--quota-state: {quoted(str(path))} {what}: remove it to count from zero, or name another"
    )


class VolumeQuota(Service):
    """
    Counts, remembers, and closes the relay when the month's volume is used up.

    :param path: the state file; ``None`` remembers nothing (``--dev``).
    :param wall_time: Unix seconds.
    :ivar when_changed: told whether it is used up, when that changes.
    :raises ConfigError: if the state file is unusable.
    """

    def __init__(
        self,
        reactor: Any,
        relay: Relay,
        limits: RelayLimits,
        path: Path | None,
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        self.save_failures = 0
        self.when_changed: Callable[[bool], object] = lambda used_up: None
        self._relay = relay
        self._limits = limits
        self._path = path
        self._wall_time = wall_time
        self._clock = reactor
        self._looking = LoopingCall(self.look)
        self._looking.clock = reactor
        self._saved_at = reactor.seconds()
        months = read_months(path) if path else {}
        self.quota = MonthlyQuota(months, self._month(), limits.limits.monthly_quota)
        self._there = months
        """What the file held when it was last read or written."""

    def _make_file(self, path: Path) -> None:
        try:
            make_private_directory(path.parent)
            self._share(path)
        except OSError as error:
            raise _unusable(path, f"cannot be written ({(error.strerror or '').lower()})") from None

    def _month(self) -> str:
        now = time.gmtime(max(0.0, self._wall_time()))
        return month_of(now.tm_year, now.tm_mon)

    def privilegedStartService(self) -> None:
        """
        Find out whether the state file can be written.

        :raises ConfigError: if not.
        """
        super().privilegedStartService()
        if self._path is not None and self.quota.limit:
            self._make_file(self._path)

    def startService(self) -> None:
        """Count from now on."""
        super().startService()
        self._looking.start(LOOK_S)

    def stopService(self) -> None:
        """Count once more, and write that down."""
        super().stopService()
        if self._looking.running:
            self._looking.stop()
            self.save()

    def look(self) -> None:
        """Enter what has passed; open or close the relay accordingly."""
        quota = self.quota
        quota.limit = self._limits.limits.monthly_quota
        quota.note(volume_of(self._relay, self._limits), self._month())
        reason = ""
        if quota.exhausted:
            reason = (
                f"this relay's volume of {format_size(quota.limit)} a month is used up "
                f"until {first_of_next(quota.month)}"
            )
        self._tell(reason)
        if self._clock.seconds() - self._saved_at >= SAVE_S:
            self._save()

    def save(self) -> None:
        """Count and write down: there may be no later opportunity."""
        self.look()
        self._save()

    def _tell(self, reason: str) -> None:
        limits = self._limits
        if reason == limits.closed_for:
            return
        if reason:
            log.error("{reason}: nothing is relayed (--monthly-quota); STUN goes on", reason=reason)
        else:
            log.info("--monthly-quota: there is volume again: relaying")
        limits.close(reason)
        self._relay.health.report("quota", reason)
        self.when_changed(bool(reason))
        self._save()

    def _save(self) -> None:
        self._saved_at = self._clock.seconds()
        path = self._path
        if path is None or not self.quota.limit:
            return
        try:
            self._share(path)
        except OSError as error:
            self.save_failures += 1
            if self.save_failures == 1:
                log.error(
                    "--quota-state: {path} cannot be written ({reason}): a restart would forget "
                    "what passed since",
                    path=quoted(str(path)),
                    reason=(error.strerror or "").lower(),
                )
        else:
            self.save_failures = 0

    def _share(self, path: Path) -> None:
        """Take up what another process wrote meanwhile, and write what there is now."""
        try:
            there = read_months(path)
        except ConfigError:
            there = {}  # it was fine when we started: what we know is better
        self.quota.join(self._there, there)
        months = dict(self.quota.months)
        if there != months or not path.exists():
            write_file(path, json.dumps({"months": months}, indent=1).encode())
        self._there = months
