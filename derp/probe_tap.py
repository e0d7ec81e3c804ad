"""``twistd derpprobe``: the command line, and what twistd asks of a plugin."""

from __future__ import annotations

import os
from typing import Any

from twisted.logger import Logger

from derp.probe_command_line import probe_config_from_flags
from derp.probe_config import ProbeConfig
from derp.probe_flags import GROUPS
from derp.program import ProgramOptions, Start, process_reactor

log = Logger(namespace="derp")


class Options(ProgramOptions):
    """
    The flags of ``derpprobe``.

    :ivar config: what they mean; set once they are read.
    """

    program = "derpprobe"
    groups = GROUPS

    config: ProbeConfig

    def postOptions(self) -> None:
        """Make :attr:`config` of the flags."""
        self.config = probe_config_from_flags(self.given, os.environ)


def make_start(options: Options) -> Start:
    """
    Build the prober.

    :raises SystemExit: with 1 if it cannot be.
    """
    from derp.probe_services import build
    from derp.probe_supervision import supervise

    reactor = process_reactor()
    for notice in options.config.notices:
        log.warn("{notice}", notice=notice)
    with options.ending_the_start():
        probes = build(options.config, reactor, os.environ)
        return Start(supervise(probes, reactor, clean_up=options.remove_pid_file), options)


def makeService(options: Options) -> Start:
    """Build the prober; see :class:`twisted.application.service.IServiceMaker`."""
    from twisted.internet import reactor

    start = make_start(options)

    def leave() -> None:
        if start.exit_code:  # twistd itself would exit with 0
            options.remove_pid_file()
            os._exit(start.exit_code)

    some_reactor: Any = reactor
    some_reactor.addSystemEventTrigger("after", "shutdown", leave)
    return start
