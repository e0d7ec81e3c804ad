"""
``derper``: the relay as a program of its own, started as Go's derper is.

Settings come from the command line, beneath that from the environment
(:mod:`derp.environment_flags`), beneath that from ``--config``, and last from the defaults of the
variables' family.

Exit codes: those of :mod:`derp.program`; 0 after SIGTERM and SIGINT. A relay that did not end in
order has the codes of :mod:`derp.net.process_end`.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from os.path import exists
from typing import NoReturn

from derp.command_line import config_from_flags
from derp.config import Config
from derp.derper_settings import Settings, read_settings
from derp.environment_flags import PLACEHOLDER, variable_of
from derp.errors import ConfigError
from derp.flags import FLAGS
from derp.goflag import Value
from derp.net.tailscaled_socket import default_socket
from derp.program import run_script
from derp.quoting import quoted
from derp.tap import Options, makeService
from derp.volumes import CONTAINER, check_volumes, has_root_key_path, ownership_advice


def make_config(settings: Settings, environ: Mapping[str, str]) -> Config:
    """
    Make the configuration of a relay; see :func:`derp.command_line.config_from_flags`.

    :raises ConfigError: if it is unusable.
    """
    config = config_from_flags(settings.given, environ, is_root=has_root_key_path())
    if config.tls and not config.dev and config.hostname.lower().rstrip(".") == PLACEHOLDER:
        raise ConfigError(
            f"the relay has no name: {PLACEHOLDER} stands for yours; set DERP_DOMAIN (or "
            "--hostname) to the name that clients dial and a certificate is made for"
        )
    defaults = settings.environment.defaults
    defaulted = [f"--{name} has no effect" for name in defaults if _is_default(settings, name)]
    told = [each for each in config.notices if not each.startswith(tuple(defaulted))]
    return replace(config, notices=(*settings.environment.warnings, *told))


def _is_default(settings: Settings, name: str) -> bool:
    """Whether a flag has its family's default, or at least the same."""
    defaults = settings.environment.defaults
    return name in defaults and settings.given[name] == defaults[name]


def check_socket(config: Config, settings: Settings) -> None:
    """
    Find a socket that was not mounted.

    Who writes variables has a container, where it will not appear later. On a machine it may, so
    that a relay that has only flags waits for it.

    :raises ConfigError: if clients are to be verified and no tailscaled could be asked.
    """
    paths = config.socket or (default_socket(),)
    if not (config.verify_clients and settings.environment.given) or any(map(exists, paths)):
        return
    names = settings.names
    by_default = "VERIFY_CLIENTS" if _is_default(settings, "verify-clients") else "--verify-clients"
    switch = names.get("verify-clients", by_default)
    where = names.get("socket", switch)
    raise ConfigError(
        f"{where}: there is no socket {' or '.join(map(quoted, paths))} to verify clients with: "
        f"mount the directory of tailscaled's socket there, or set {switch} to false"
    )


class ScriptOptions(Options):
    """
    The flags of ``derper``, with environment and file beneath them.

    :ivar settings: all of them; set once they are read.
    """

    synopsis = """\
Usage: derper [flags]
       derper doctor HOST   examine a relay: say what is wrong, and what helps
       derper health        check the relay of this machine, in one line

What no flag says, the environment may: variables of derper's Docker images, and
DERP_<FLAG>.
"""

    settings: Settings

    def with_beneath(self, given: dict[str, Value]) -> Mapping[str, Value]:
        """
        Put environment and file beneath the command line.

        :raises ConfigError: if something in them is wrong, or nothing is given at all.
        """
        self.settings = read_settings(given, os.environ, socket.gethostname())
        return self.settings.given

    def postOptions(self) -> None:
        """Make :attr:`config` of the settings, and see what a container may lack."""
        self.config = make_config(self.settings, os.environ)
        check_socket(self.config, self.settings)
        contained = bool(self.settings.environment.given or os.environ.get(CONTAINER))
        check_volumes(self.config, os.environ, acme=contained)

    def remarks(self, error: BaseException) -> str:
        """
        Add to an error's sentence what has set the flags in it, and whose file it is about.

        Empty if the command line has set them, and the file is not somebody else's.
        """
        settings = getattr(self, "settings", None)
        said = [*_set_by(settings, str(error))] if settings else []
        advice = ownership_advice(error, os.environ)
        said += [advice] if advice else []
        return f" ({'; '.join(said)})" if said else ""


def _set_by(settings: Settings, sentence: str) -> Iterator[str]:
    """Say which variable or file is behind each flag that a sentence names."""
    words = {word.strip("():,.;").partition("=")[0] for word in sentence.split()}
    for flag in FLAGS:
        if flag.spelling not in words:
            continue
        if flag.name in settings.names:
            yield f"{flag.spelling} is set by {settings.names[flag.name]}"
        elif _is_default(settings, flag.name):
            variable = variable_of(flag.name, settings.environment.defaults)
            yield f"{flag.spelling} has the default of {variable}"


def run(argv: Sequence[str]) -> int:
    """Run a relay to its end; returns the exit code if that is known."""
    return run_script(ScriptOptions(), argv, makeService)


def main() -> NoReturn:
    """Entry point of the script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
