"""
The programs that the documentation names, without their claims on this machine.

Nothing of a command line is changed. But whatever port is bound becomes one that is free, and
where root would keep its key is below the directory of the test, for every user.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent.parent

LIFETIME_S: Final = 180
"""After so long the kernel ends one, even if whoever started it is gone by then."""

_SCRIPT: Final = """#!{python}
import sys
sys.path.insert(0, {root!r})
from tests.docs.stand_in import run
run({module!r}, {function!r})
"""


def programs() -> dict[str, tuple[str, str]]:
    """Every script that an installation has, with module and function; and twistd."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    found = {"twistd": ("twisted.scripts.twistd", "run")}
    for line in config["options.entry_points"]["console_scripts"].strip().split("\n"):
        name, target = line.split(" = ")
        module, function = target.split(":")
        found[name] = module, function
    return found


def install(directory: Path) -> None:
    """Put a stand-in for each of them there."""
    directory.mkdir(parents=True)
    for name, (module, function) in programs().items():
        script = directory / name
        text = _SCRIPT.format(
            python=sys.executable, root=str(ROOT), module=module, function=function
        )
        script.write_text(text)
        script.chmod(0o755)


def run(module: str, function: str) -> None:
    """Be one of them."""
    signal.alarm(LIFETIME_S)
    import derp.net.key_file as key_file

    root_key_path = f"{os.environ['HOME']}{key_file.ROOT_KEY_PATH}"
    key_file.key_path = lambda flag, *, is_root: flag or root_key_path
    bind = socket.socket.bind

    def bind_anywhere(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            address = (address[0], 0, *address[2:])
        bind(self, address)

    socket.socket.bind = bind_anywhere  # type: ignore
    sys.path.insert(0, str(ROOT))  # twistd looks for plugins there
    getattr(import_module(module), function)()
