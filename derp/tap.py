"""
``twistd derper``: the command line, and what twistd asks of a plugin.

What twistd does itself and is not changed here: it writes ``twistd.pid`` in the working
directory (``--pidfile=`` turns that off). It would die of the signals that stop it, and of
SIGHUP: those are ours (:mod:`derp.net.process_end`, :mod:`derp.net.reload`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from zope.interface import provider

from derp.command_line import config_from_flags
from derp.config import Config
from derp.flags import GROUPS
from derp.program import ProgramOptions, Start, process_reactor

log = Logger()


class Options(ProgramOptions):
    """
    The flags of ``twistd derper``.

    :ivar config: what they mean; set once they are read.
    """

    program = "derper"
    groups = GROUPS

    config: Config

    def read(self, argv: Sequence[str]) -> None:
        """
        Read a command line; see :class:`derp.program.ProgramOptions`.

        :raises SystemExit: with 0 after a good ``--check-config`` as well.
        """
        super().read(argv)
        if self["check-config"]:
            self.check_config()

    def postOptions(self) -> None:
        """Make :attr:`config` of the flags."""
        self.config = config_from_flags(self.given, os.environ)

    def check_config(self) -> None:
        """
        Do what a start does up to listening, and end.

        Here and not in :func:`makeService`: before that twistd looks for a relay that runs
        already, which does not matter.

        :raises ConfigError: if a start would end with it.
        """
        from twisted.internet import reactor

        from derp.services import check_config

        for notice in self.config.notices:
            print(f"derper: {notice}")
        globalLogPublisher.addObserver(_print_warning)
        try:
            check_config(self.config, reactor)
        finally:
            globalLogPublisher.removeObserver(_print_warning)
        print("derper: flags and files are in order")
        raise SystemExit(0)


@provider(ILogObserver)
def _print_warning(event: LogEvent) -> None:
    """Show what a start would write into its log."""
    if event.get("log_level", LogLevel.info) >= LogLevel.warn:
        print(f"derper: {formatEvent(event)}")


def makeService(options: Options) -> Start:
    """Build the relay; see :class:`twisted.application.service.IServiceMaker`."""
    from derp.services import build
    from derp.supervision import supervise

    reactor = process_reactor()
    for notice in options.config.notices:
        log.warn("{notice}", notice=notice)
    with options.ending_the_start():
        relay = build(options.config, reactor)
        return Start(supervise(relay, reactor, clean_up=options.remove_pid_file), options)
