"""Import every module of the relay, and so what each of its modes loads."""

from importlib import import_module
from pkgutil import walk_packages

import derp

for module in walk_packages(derp.__path__, "derp."):
    import_module(module.name)
