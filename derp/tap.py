"""
``twistd derper``: the command line, and what twistd asks of a plugin.

Flags are read by :mod:`derp.goflag`, not by Twisted's getopt, which knows neither
``--flag=false`` nor single dashes and accepts abbreviations. An operator's error is one
sentence on stderr and exit code 1, at whatever point of the start it is found; twistd alone
would print the whole help for a wrong flag, and a traceback for a port in use.

What twistd does itself and is not changed here: it writes ``twistd.pid`` in the working
directory (``--pidfile=`` turns that off). It would die of the signals that stop it, and of
SIGHUP: those are ours (:mod:`derp.net.process_end`, :mod:`derp.net.reload`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.logger import Logger
from twisted.python import usage

from derp import __version__
from derp.command_line import config_from_flags
from derp.config import Config
from derp.failed_start import ending_the_start, remove_pid_file
from derp.flags import FLAGS, GROUPS
from derp.goflag import Kind, format_groups, parse_flags

log = Logger()


class Options(usage.Options):
    """
    The flags of ``twistd derper`` by name, defaults included.

    :ivar config: what they mean; set once they are read.
    """

    synopsis = "[flags]"
    longdesc = ""
    # Not for parsing, which is ours; shell completion and the mapping of defaults read these.
    optFlags = [[flag.name, None, flag.help] for flag in FLAGS if flag.kind is Kind.BOOL]
    optParameters = [
        [flag.name, None, flag.default, flag.help] for flag in FLAGS if flag.kind is not Kind.BOOL
    ]

    config: Config

    def __init__(self) -> None:
        super().__init__()
        self.update({flag.name: flag.default for flag in FLAGS})
        self._given: dict[str, Any] = {}

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Read a command line; see :class:`twisted.python.usage.Options`.

        :raises SystemExit: with 0 after ``--help`` and ``--version``, with a sentence (which
            Python prints, and exits with 1) if the command line is unusable.
        """
        argv = sys.argv[1:] if options is None else options
        with _ending_the_start(self):
            parsed = parse_flags(FLAGS, argv)
            if parsed.help:
                self.opt_help()
            self.update(parsed.given)
            self._given = parsed.given
            if self["version"]:
                self.opt_version()
            self.postOptions()
            if self["check-config"]:
                self.check_config()

    def postOptions(self) -> None:
        """Make :attr:`config` of the flags."""
        self.config = config_from_flags(self._given, os.environ)

    def check_config(self) -> None:
        """
        Do what a start does up to listening, and end.

        Here and not in :func:`makeService`: before that twistd looks for a relay that runs
        already, which does not matter.

        :raises ConfigError: if a start would end with it.
        """
        from twisted.internet import reactor

        from derp.services import check_config

        check_config(self.config, reactor)
        for notice in self.config.notices:
            print(f"derper: {notice}")
        print("derper: flags and files are in order")
        raise SystemExit(0)

    def opt_version(self) -> None:
        """Print our version alone, as derper does, instead of Twisted's."""
        print(__version__)
        raise SystemExit(0)

    def getUsage(self, width: int | None = None) -> str:
        """All flags by task."""
        return format_groups(GROUPS, width or int(os.environ.get("COLUMNS") or 80))


class RelayStart(MultiService):
    """
    The relay while twistd starts it.

    Exists because twistd answers an exception of a starting service with a traceback.
    """

    def __init__(self, relay: IService, options: Options) -> None:
        super().__init__()
        self._options = options
        relay.setServiceParent(self)

    def privilegedStartService(self) -> None:
        """Start what needs the privileges twistd gives up afterwards."""
        with _ending_the_start(self._options):
            super().privilegedStartService()

    def startService(self) -> None:
        """Start the rest."""
        with _ending_the_start(self._options):
            super().startService()


def makeService(options: Options) -> IService:
    """Build the relay; see :class:`twisted.application.service.IServiceMaker`."""
    from twisted.internet import reactor

    from derp.services import build
    from derp.supervision import supervise

    def clean_up() -> None:
        remove_pid_file(options.parent)

    for notice in options.config.notices:
        log.warn("{notice}", notice=notice)
    with _ending_the_start(options):
        relay = supervise(build(options.config, reactor), reactor, clean_up=clean_up)
        return RelayStart(relay, options)


def _ending_the_start(options: Options) -> AbstractContextManager[None]:
    return ending_the_start("derper", options.parent)
