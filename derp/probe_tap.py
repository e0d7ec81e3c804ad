"""
``twistd derpprobe``: the command line, and what twistd asks of a plugin.

As :mod:`derp.tap`: flags are read by :mod:`derp.goflag`, and an operator's error is one sentence
on stderr and exit code 1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from twisted.application.service import MultiService
from twisted.logger import Logger
from twisted.python import usage

from derp import __version__
from derp.failed_start import ending_the_start, remove_pid_file
from derp.goflag import Kind, Value, format_groups, parse_flags
from derp.probe_command_line import probe_config_from_flags
from derp.probe_config import ProbeConfig
from derp.probe_flags import FLAGS, GROUPS

log = Logger(namespace="derp")

PROGRAM = "derpprobe"


class Options(usage.Options):
    """
    The flags of ``twistd derpprobe`` by name, defaults included.

    :ivar config: what they mean; set once they are read.
    """

    synopsis = "[flags]"
    longdesc = ""
    # Not for parsing, which is ours; shell completion and the mapping of defaults read these.
    optFlags = [[flag.name, None, flag.help] for flag in FLAGS if flag.kind is Kind.BOOL]
    optParameters = [
        [flag.name, None, flag.default, flag.help] for flag in FLAGS if flag.kind is not Kind.BOOL
    ]

    config: ProbeConfig

    def __init__(self) -> None:
        super().__init__()
        self.update({flag.name: flag.default for flag in FLAGS})
        self.given: Mapping[str, Value] = {}

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Read a command line; see :class:`twisted.python.usage.Options`.

        :raises SystemExit: with 0 after ``--help`` and ``--version``, with 1 if the command line
            is unusable.
        """
        with ending_the_start(PROGRAM, self.parent):
            self.read(sys.argv[1:] if options is None else options)

    def read(self, argv: Sequence[str]) -> None:
        """
        Read a command line.

        :raises ConfigError: if it is unusable.
        :raises SystemExit: with 0 after ``--help`` and ``--version``.
        """
        parsed = parse_flags(FLAGS, argv)
        if parsed.help:
            self.opt_help()
        self.update(parsed.given)
        self.given = parsed.given
        if self["version"]:
            self.opt_version()
        self.postOptions()

    def postOptions(self) -> None:
        """Make :attr:`config` of the flags."""
        self.config = probe_config_from_flags(self.given, os.environ)

    def opt_version(self) -> None:
        """Print our version alone, instead of Twisted's."""
        print(__version__)
        raise SystemExit(0)

    def getUsage(self, width: int | None = None) -> str:
        """All flags by task."""
        return format_groups(GROUPS, width or int(os.environ.get("COLUMNS") or 80))


class ProbeStart(MultiService):
    """
    The prober while twistd starts it; and the end of its process, if that is no good one.

    :ivar exit_code: what the process should exit with, once the reactor has stopped.
    """

    def __init__(self, supervision: Any, options: Options) -> None:
        super().__init__()
        self._supervision = supervision
        self._options = options
        supervision.setServiceParent(self)

    @property
    def exit_code(self) -> int:
        code: int = self._supervision.exit_code
        return code

    def privilegedStartService(self) -> None:
        """Start what needs the privileges twistd gives up afterwards."""
        with _ending_the_start(self._options):
            super().privilegedStartService()

    def startService(self) -> None:
        """Start the rest."""
        with _ending_the_start(self._options):
            super().startService()


def make_start(options: Options) -> ProbeStart:
    """
    Build the prober.

    :raises SystemExit: with 1 if it cannot be.
    """
    from twisted.internet import reactor

    from derp.probe_services import build, supervise

    def clean_up() -> None:
        remove_pid_file(options.parent)

    for notice in options.config.notices:
        log.warn("{notice}", notice=notice)
    with _ending_the_start(options):
        probes = build(options.config, reactor, os.environ)
        return ProbeStart(supervise(probes, reactor, clean_up=clean_up), options)


def makeService(options: Options) -> ProbeStart:
    """Build the prober; see :class:`twisted.application.service.IServiceMaker`."""
    from twisted.internet import reactor

    start = make_start(options)

    def leave() -> None:
        if start.exit_code:  # twistd itself would exit with 0
            remove_pid_file(options.parent)
            os._exit(start.exit_code)

    some_reactor: Any = reactor
    some_reactor.addSystemEventTrigger("after", "shutdown", leave)
    return start


def _ending_the_start(options: Options) -> AbstractContextManager[None]:
    return ending_the_start(PROGRAM, options.parent)
