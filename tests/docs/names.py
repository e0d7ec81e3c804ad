"""Every name that documentation may use: flags, variables and metrics, from the code itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from derp import environment
from derp.environment_flags import VARIABLES
from derp.flags import FLAGS
from derp.goflag import Flag

_FLAG_MODULES: Final = {
    "derper": "derp.flags",
    "derper doctor": "derp.doctor_flags",
    "derpprobe": "derp.probe_flags",
    "stunc": "derp.stunc_script",
}

TAKE_WORDS: Final = frozenset({"derper doctor", "stunc"})
"""Programs that take words behind their flags."""


def _program_flags() -> Iterator[tuple[str, tuple[Flag, ...]]]:
    for program, module in _FLAG_MODULES.items():
        if find_spec(module):
            yield program, tuple(import_module(module).FLAGS)


PROGRAM_FLAGS: Final[dict[str, tuple[Flag, ...]]] = dict(_program_flags())
"""What each program that takes flags as Go does can be given."""

KNOBS: Final[frozenset[str]] = frozenset(
    text
    for name, text in vars(environment).items()
    if name.isupper() and isinstance(text, str) and re.fullmatch("[A-Z_]+", text)
)
"""derper's own debug variables."""

SETTINGS: Final[frozenset[str]] = frozenset(
    {*VARIABLES, *KNOBS, "TAILSCALE_DERPER_MESH_KEY", "XDG_CACHE_HOME", "HOME"}
)
"""Every variable of the environment that says something to a relay."""

FLAG_NAMES: Final[frozenset[str]] = frozenset(
    {flag.name for flags in (FLAGS, *PROGRAM_FLAGS.values()) for flag in flags} | {"h", "help"}
)
