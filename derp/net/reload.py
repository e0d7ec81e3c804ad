"""
Files that may change while the relay runs, and when they are read again.

Each file is a unit: it is read and checked as a whole, and only then takes the place of what
was loaded before. A file that turns out unusable is logged and counted, and changes nothing.

================  ======================================================================
SIGHUP            every file is read again, changed or not
every 2 s         those that changed are, once they have not changed any more for 1 s (who
                  writes in place does not have half of it loaded)
================  ======================================================================
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from derp.errors import ConfigError
from derp.net.hangup import HangUp
from derp.quoting import quoted

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IDelayedCall

log = Logger(namespace="derp")

LOOK_S: Final = 2.0
"""Seconds between two looks at the files."""
SETTLE_S: Final = 1.0
"""How long a changed file must stay as it is before it is read."""

Trace = tuple[tuple[int, ...] | None, ...]
"""What shows that files changed: of each its device, inode, time and size, if it is there."""


@dataclass(kw_only=True, eq=False)
class ReloadableFile:
    """
    A file, or files that belong together, such as a certificate and its key.

    What :attr:`paths` name has been loaded once when this is made, or is written then from what
    is in use, and :meth:`written` is called.
    """

    name: str
    """For metrics: few, short, ``[a-z_]``."""
    flag: str
    """The flag it was given with, for the log."""
    paths: tuple[str, ...]
    load: Callable[[], None]
    """Reads, checks, then swaps. Raises :exc:`ConfigError`, and then has changed nothing."""
    loads: int = 0
    """How often it was read again with success."""
    failures: int = 0
    wall_time: Callable[[], float] = time.time
    loaded_at: float = field(init=False)
    """Unix time of the last success."""

    def __post_init__(self) -> None:
        self.loaded_at = self.wall_time()
        self._loaded = self._seen = self._trace()

    def written(self) -> None:
        """What is there now is what is in use."""
        self._loaded = self._seen = self._trace()

    def look(self) -> bool:
        """
        Look whether the file has changed.

        :return: whether it is ready to be read: it changed, but no more since the last look.
        """
        seen, self._seen = self._seen, self._trace()
        return self._seen != self._loaded and self._seen == seen

    @property
    def unsettled(self) -> bool:
        """Whether the last look found something new."""
        return self._seen != self._loaded

    def reload(self) -> str | None:
        """Read the file again; say why it could not be used, if so."""
        self.written()
        try:
            self.load()
        except ConfigError as error:
            self.failures += 1
            return str(error)
        except Exception:
            # Whatever it is, the other files are to be read again in future, too.
            log.failure("reading the file of {flag} again failed", flag=self.flag)
            self.failures += 1
            return f"{self.flag}: what went wrong stands above; restore the file as it was"
        self.loads += 1
        self.loaded_at = self.wall_time()
        return None

    def _trace(self) -> Trace:
        return tuple(_trace(path) for path in self.paths)


def _trace(path: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


class Reloader(Service):
    """
    Reads files again while it runs, as the module says.

    :param reactor: clock, and way out of a signal's interruption.
    """

    def __init__(self, reactor: Any) -> None:
        self.files: list[ReloadableFile] = []
        self._before: list[Callable[[], object]] = []
        self._listeners: list[Callable[[], object]] = []
        self._clock = reactor
        self._looking = LoopingCall(self.look)
        self._looking.clock = reactor
        self._settling: IDelayedCall | None = None
        self._hang_up = HangUp(reactor, self.reload_all)

    def add(self, file: ReloadableFile) -> ReloadableFile:
        """Take care of a file from now on."""
        self.files.append(file)
        return file

    def when_reloading(self, listener: Callable[[], object]) -> None:
        """Call this before every :meth:`reload_all`."""
        self._before.append(listener)

    def when_reloaded(self, listener: Callable[[], object]) -> None:
        """Call this after every :meth:`reload_all`, whatever came of it."""
        self._listeners.append(listener)

    def startService(self) -> None:
        """Look at the files, and take SIGHUP over (a bare twistd dies of it)."""
        super().startService()
        self._hang_up.install()
        self._looking.start(LOOK_S, now=False)

    def stopService(self) -> Deferred[None] | None:
        """Give SIGHUP back."""
        super().stopService()
        self._hang_up.restore()
        if self._looking.running:
            self._looking.stop()
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        return None

    def reload_all(self) -> None:
        """Read every file again."""
        log.info("reload: reading {count} files again", count=len(self.files))
        for listener in self._before:
            listener()
        self._reload(self.files)
        for listener in self._listeners:
            listener()

    def look(self) -> None:
        """Read again what has changed."""
        ready = [file for file in self.files if file.look()]
        self._reload(ready)
        if self._settling is None and any(file.unsettled for file in self.files):
            self._settling = self._clock.callLater(SETTLE_S, self._look_again)

    def _look_again(self) -> None:
        self._settling = None
        self.look()

    def _reload(self, files: list[ReloadableFile]) -> None:
        for file in files:
            names = " and ".join(map(quoted, file.paths))
            problem = file.reload()
            if problem is None:
                log.info("reload: {flag} {names} is in use now", flag=file.flag, names=names)
            else:
                log.error(
                    "reload: {problem} (what {flag} held before stays in use)",
                    problem=problem,
                    flag=file.flag,
                )
