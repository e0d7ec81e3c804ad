"""
A program of ours: its command line and its start, under twistd and as a script of its own.

Flags are read by :mod:`derp.goflag`, not by Twisted's getopt, which knows neither
``--flag=false`` nor single dashes and accepts abbreviations. An operator's error is one
sentence on stderr, at whatever point of the start it is found; twistd alone would print the
whole help for a wrong flag, and a traceback for a port in use.

Exit codes of a script: 0 after ``-version`` and ``-h``; 2 for a wrong flag, with the usage on
stderr; 1 for whatever else stops the start. Under twistd it is 1 for a wrong flag, too.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.application.service import MultiService
from twisted.python import usage

from derp import __version__
from derp.errors import ConfigError
from derp.failed_start import ending_the_start, remove_pid_file
from derp.go_log import begin_logging
from derp.goflag import Flag, FlagError, Kind, Value, format_groups, parse_flags
from derp.net.steady_time import keep_steady_time

if TYPE_CHECKING:
    from derp.supervision import Supervision


class ProgramOptions(usage.Options):
    """
    The flags of a program by name, defaults included.

    :cvar program: its name, which is also what twistd calls it.
    :cvar groups: all its flags, by task.
    :ivar given: those that were given; set once they are read.
    """

    program: ClassVar[str]
    groups: ClassVar[Sequence[tuple[str, Sequence[Flag]]]] = ()
    synopsis = "[flags]"
    longdesc = ""
    # Not for parsing, which is ours; shell completion and the mapping of defaults read these.
    optFlags: ClassVar[list[list[Any]]]
    optParameters: ClassVar[list[list[Any]]]

    def __init_subclass__(cls) -> None:
        if "groups" in cls.__dict__:
            flags = cls._flags()
            cls.optFlags = [[each.name, None, each.help] for each in flags if _is_bool(each)]
            cls.optParameters = [
                [each.name, None, each.default, each.help] for each in flags if not _is_bool(each)
            ]

    def __init__(self) -> None:
        super().__init__()
        self.update({flag.name: flag.default for flag in self._flags()})
        self.given: Mapping[str, Value] = {}

    @classmethod
    def _flags(cls) -> list[Flag]:
        return [flag for _, flags in cls.groups for flag in flags]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Read a command line for twistd; see :class:`twisted.python.usage.Options`.

        :raises SystemExit: with 0 after ``--help`` and ``--version``, with 1 if the command line
            is unusable.
        """
        with self.ending_the_start():
            self.read(sys.argv[1:] if options is None else options)

    def read(self, argv: Sequence[str]) -> None:
        """
        Read a command line.

        :raises FlagError: if it is wrong.
        :raises ConfigError: if what it says is unusable.
        :raises SystemExit: with 0 after ``--help`` and ``--version``.
        """
        parsed = parse_flags(self._flags(), argv)
        if parsed.help:
            self.opt_help()
        if parsed.given.get("version"):
            self.opt_version()
        self.given = self.with_beneath(parsed.given)
        self.update(self.given)
        if self["version"]:
            self.opt_version()
        self.postOptions()

    def with_beneath(self, given: dict[str, Value]) -> Mapping[str, Value]:
        """Put what else sets flags beneath the command line: nothing, under twistd."""
        return given

    def opt_version(self) -> None:
        """Print our version alone, as derper does, instead of Twisted's."""
        print(__version__)
        raise SystemExit(0)

    def getUsage(self, width: int | None = None) -> str:
        """All flags by task."""
        return format_groups(self.groups, width or int(os.environ.get("COLUMNS") or 80))

    def remarks(self, error: BaseException) -> str:
        """What a script adds to an error's sentence; may be empty."""
        return ""

    def ending_the_start(self) -> AbstractContextManager[None]:
        """Turn an operator's error into a sentence, and exit."""
        return ending_the_start(self.program, self.parent)

    def remove_pid_file(self) -> None:
        """Remove the pid file that twistd leaves behind when it is not left to end by itself."""
        remove_pid_file(self.parent)


class Start(MultiService):
    """
    A program's service while it starts.

    Exists because twistd answers an exception of a starting service with a traceback.
    """

    def __init__(self, supervision: Supervision, options: ProgramOptions) -> None:
        super().__init__()
        self._supervision = supervision
        self._options = options
        supervision.setServiceParent(self)

    @property
    def exit_code(self) -> int:
        """What the process should exit with, once the reactor has stopped."""
        return self._supervision.exit_code

    def privilegedStartService(self) -> None:
        """Start what needs the privileges twistd gives up afterwards."""
        with self._options.ending_the_start():
            super().privilegedStartService()

    def startService(self) -> None:
        """
        Start the rest.

        What there is by then stays to the end. Without it to look through, a full collection of
        garbage holds the reactor up for a tenth of the time.
        """
        with self._options.ending_the_start():
            super().startService()
        gc.freeze()


def process_reactor() -> Any:
    """Give the reactor of this process, with timers that do not mind who sets the clock."""
    from twisted.internet import reactor

    keep_steady_time(reactor)
    return reactor


def run_script(
    options: ProgramOptions, argv: Sequence[str], make_start: Callable[[Any], Start]
) -> int:
    """
    Run a program to its end: in the foreground, without a pid file, with its log on stderr.

    :param make_start: makes its service of these options.
    :returns: the exit code.
    """
    try:
        options.read(argv)
    except FlagError as error:
        _say(f"{options}\n{options.program}: {error}")
        return 2
    except (ConfigError, OSError) as error:
        return _refuse(options, f"{error}{options.remarks(error)}")
    begin_logging(sys.stderr)
    from twisted.internet import reactor

    try:
        service = make_start(options)
        service.privilegedStartService()
        service.startService()
    except SystemExit as end:  # the sentence has been said
        said = options.remarks(end.__context__) if end.__context__ else ""
        if said:
            _say(said.strip())
        raise
    except OSError as error:
        return _refuse(options, str(error))
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    reactor.run()
    return service.exit_code


def _is_bool(flag: Flag) -> bool:
    return flag.kind is Kind.BOOL


def _refuse(options: ProgramOptions, sentence: str) -> int:
    _say(f"{options.program}: {sentence}")
    return 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
