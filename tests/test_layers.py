"""The walls of the house: which module may import which (see CONTRIBUTING.rst)."""

import ast
import configparser
from collections.abc import Iterator, Mapping
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent

LAYERS = {
    "derp.wire": 0,
    "derp.core": 1,
    "derp.net": 2,
    "derp.prober": 3,
    "derp.doctor": 3,
    "derp.acme_service": 3,
    "derp.certificate_modes": 3,
    "derp.certificate_service": 3,
    "derp.manual_service": 3,
    "derp.relay_parts": 3,
    "derp.relay_sites": 3,
    "derp.probe_config": 3,
    "derp.probe_services": 3,
    "derp.probe_supervision": 3,
    "derp.services": 3,
    "derp.start_block": 3,
    "derp.supervision": 3,
    "derp.tools": 3,
    "derp.volumes": 3,
    "derp.acme_flags": 4,
    "derp.addresses": 4,
    "derp.command_line": 4,
    "derp.config_file": 4,
    "derp.derper_command": 4,
    "derp.derper_script": 4,
    "derp.derpprobe_script": 4,
    "derp.derper_settings": 4,
    "derp.doctor_flags": 4,
    "derp.doctor_script": 4,
    "derp.doctor_target": 4,
    "derp.environment": 4,
    "derp.environment_flags": 4,
    "derp.failed_start": 4,
    "derp.flags": 4,
    "derp.go_log": 4,
    "derp.goflag": 4,
    "derp.health_script": 4,
    "derp.limit_flags": 4,
    "derp.limit_table": 4,
    "derp.mesh_key_file": 4,
    "derp.stunc_script": 4,
    "derp.probe_command_line": 4,
    "derp.probe_flags": 4,
    "derp.probe_tap": 4,
    "derp.program": 4,
    "derp.running_relay": 4,
    "derp.setec_flags": 4,
    "derp.tap": 4,
    "twisted.plugins": 5,
}
"""Every package, and every module that is in none: nothing imports what has a larger number."""
SHARED = {
    "derp": set(),
    "derp.errors": set(),
    "derp.config": {"derp.errors"},
    "derp.durations": {"derp.errors", "derp.quoting"},
    "derp.quoting": set(),
    "derp.sizes": {"derp.errors", "derp.quoting"},
}
"""What any module may import, and what of ours these import themselves."""

IMPURE = frozenset(
    {
        "twisted",
        "zope",
        "treq",
        "OpenSSL",
        "time",
        "random",
        "secrets",
        "logging",
        "socket",
        "select",
        "selectors",
        "ssl",
        "os",
        "io",
        "pathlib",
        "tempfile",
        "shutil",
        "subprocess",
        "signal",
        "asyncio",
        "threading",
        "multiprocessing",
        "concurrent",
    }
)
"""No clock, chance, log, system or framework in :data:`PURE`: values in, values out."""
PURE = ("derp.wire", "derp.core")

VAGUE = frozenset({"common", "handler", "handlers", "helper", "helpers", "manager", "misc", "util"})
VAGUE |= {"utils"}
"""File names that say nothing about a duty."""

Sources = Mapping[str, str]
"""Module name to source text."""


def our_sources() -> dict[str, str]:
    """The package and the plugin as they are."""
    paths = [*ROOT.glob("derp/**/*.py"), *ROOT.glob("twisted/**/*.py")]
    return {module_name(path): path.read_text(encoding="utf-8") for path in paths}


def module_name(path: Path) -> str:
    """Dotted name of a file of the checkout."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(module: str) -> int | None:
    """Where a module of ours lives; ``None`` if nobody has said."""
    parts = module.split(".")
    names = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((LAYERS[name] for name in names if name in LAYERS), None)


def imports(module: str, tree: ast.AST) -> Iterator[str]:
    """Every name a tree imports, at any depth; of ``from a import b`` both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*module.split(".")[: -node.level], *filter(None, [base])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def our_imports(sources: Sources) -> dict[str, set[str]]:
    """Of each module the modules of ours it imports."""
    return {
        module: {name for name in imports(module, ast.parse(text)) if name in sources} - {module}
        for module, text in sources.items()
    }


def upward(sources: Sources) -> list[str]:
    """Imports that point from a lower layer to a higher one, and modules without a layer."""
    problems = []
    for module, targets in our_imports(sources).items():
        own = layer(module)
        if module in SHARED:
            wrong = sorted(targets - SHARED[module] - {"derp"})
            problems += [f"{module} is for everybody and imports {target}" for target in wrong]
        elif own is None:
            problems.append(f"{module} has no layer: add it to LAYERS")
        else:
            problems += [
                f"{module} imports {target}, which is above it"
                for target in sorted(targets - SHARED.keys())
                if (layer(target) or 0) > own
            ]
    return problems


def impure(sources: Sources) -> list[str]:
    """What wire and core import of the outside world."""
    return [
        f"{module} imports {name}"
        for module, text in sources.items()
        if module.startswith(PURE)
        for name in sorted(set(imports(module, ast.parse(text))))
        if name.split(".")[0] in IMPURE
    ]


def cycles(sources: Sources) -> list[str]:
    """Modules that cannot be told apart by order: what remains when leaves are taken away."""
    rest = our_imports(sources)
    while leaves := [module for module, targets in rest.items() if not targets & rest.keys()]:
        for module in leaves:
            del rest[module]
    return [f"{module} is in a circle or above one" for module in sorted(rest)]


def global_reactors(sources: Sources) -> list[str]:
    """Modules that install a reactor by being imported; inside a function it is the caller's."""
    return [
        f"{module} imports the reactor at its top"
        for module, text in sources.items()
        for node in _at_import(ast.parse(text))
        if "twisted.internet.reactor" in imports(module, node)
    ]


def _at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield node
            yield from _at_import(node)


def vague_names(sources: Sources) -> list[str]:
    """Files whose name tells no duty."""
    return [
        f"{module}: call it by what it does"
        for module in sources
        if VAGUE & set(module.rpartition(".")[2].split("_"))
    ]


class LayerTests(SynchronousTestCase):
    """Our sources keep the rules."""

    def setUp(self) -> None:
        """Read them once per test."""
        self.sources = our_sources()

    def test_found(self) -> None:
        """The rules are applied to something."""
        self.assertLess({"derp", "derp.wire.keys", "derp.tap"}, set(self.sources))
        self.assertIn("twisted.plugins.derper_plugin", self.sources)
        self.assertIn("derp.wire.keys", our_imports(self.sources)["derp.environment"])

    def test_no_upward_import(self) -> None:
        """Imports point down: wire, core, net, services, tap."""
        self.assertEqual(upward(self.sources), [])

    def test_pure(self) -> None:
        """Wire and core know neither Twisted nor the system."""
        self.assertEqual(impure(self.sources), [])

    def test_no_cycle(self) -> None:
        """There is an order to read the modules in."""
        self.assertEqual(cycles(self.sources), [])

    def test_no_global_reactor(self) -> None:
        """The reactor is handed down."""
        self.assertEqual(global_reactors(self.sources), [])

    def test_names(self) -> None:
        """No file is a drawer for the rest."""
        self.assertEqual(vague_names(self.sources), [])

    def test_plugin_folders_are_no_packages(self) -> None:
        """An ``__init__.py`` there would hide Twisted itself."""
        self.assertEqual([path.name for path in (ROOT / "twisted").glob("**/__init__.py")], [])

    def test_packages_are_listed(self) -> None:
        """``setup.cfg`` names packages by hand; one that is missing would not be installed."""
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg")
        listed = set(setup["options"]["packages"].split())
        found = {module_name(path) for path in ROOT.glob("derp/**/__init__.py")}
        self.assertEqual(listed, found | {"twisted.plugins"})


BAD: dict[str, Sources] = {
    "upward": {
        "derp.wire.frames": "def f():\n    from derp.core import router",
        "derp.core.router": "import derp.net.web",
        "derp.core": "",
        "derp.net.web": "from .. import services",
        "derp.net.files": "from ..durations import x\nfrom derp.errors import ConfigError",
        "derp.services": "import derp.tap",
        "derp.tap": "from derp.services import build",
        "derp.durations": "import derp.wire.frames",
        "derp.errors": "",
        "derp.new": "",
    },
    "impure": {
        "derp.wire.a": "import os.path",
        "derp.core.b": "from twisted.python import log",
        "derp.core.c": "def f():\n    import time as clock",
        "derp.core.d": "import struct, timeit, oslo",
        "derp.net.e": "import socket",
    },
    "cycles": {
        "derp.net.a": "from derp.net import b",
        "derp.net.b": "from .c import x",
        "derp.net.c": "import derp.net.a",
        "derp.net.d": "import derp.net.e",
        "derp.net.e": "",
        "derp.net": "",
    },
    "reactors": {
        "derp.net.a": "from twisted.internet import reactor",
        "derp.net.b": "if True:\n    import twisted.internet.reactor",
        "derp.net.c": "class C:\n    from twisted.internet import defer, reactor as r",
        "derp.net.d": "def f():\n    from twisted.internet import reactor",
    },
    "names": {"derp.net.utils": "", "derp.net.frame_handler": "", "derp.core.handlebars": ""},
}
"""Sources that break each rule, beside ones that do not."""


class RuleTests(SynchronousTestCase):
    """The rules themselves can be broken: each is shown what it is there to find."""

    def test_upward(self) -> None:
        """Also inside a function, by a relative import, and out of a shared module."""
        self.assertEqual(
            sorted(upward(BAD["upward"])),
            [
                "derp.core.router imports derp.net.web, which is above it",
                "derp.durations is for everybody and imports derp.wire.frames",
                "derp.net.web imports derp.services, which is above it",
                "derp.new has no layer: add it to LAYERS",
                "derp.services imports derp.tap, which is above it",
                "derp.wire.frames imports derp.core, which is above it",
                "derp.wire.frames imports derp.core.router, which is above it",
            ],
        )

    def test_impure(self) -> None:
        """By first name of the module, whatever it is renamed to."""
        self.assertEqual(
            impure(BAD["impure"]),
            [
                "derp.wire.a imports os.path",
                "derp.core.b imports twisted.python",
                "derp.core.b imports twisted.python.log",
                "derp.core.c imports time",
            ],
        )

    def test_cycle(self) -> None:
        """A circle of three; what is beside it is not blamed."""
        blamed = [line.split()[0] for line in cycles(BAD["cycles"])]
        self.assertEqual(blamed, ["derp.net.a", "derp.net.b", "derp.net.c"])

    def test_reactor(self) -> None:
        """In blocks and class bodies as well, but not inside a function."""
        blamed = [line.split()[0] for line in global_reactors(BAD["reactors"])]
        self.assertEqual(blamed, ["derp.net.a", "derp.net.b", "derp.net.c"])

    def test_names(self) -> None:
        """Whole words only."""
        blamed = [line.split(":")[0] for line in vague_names(BAD["names"])]
        self.assertEqual(blamed, ["derp.net.utils", "derp.net.frame_handler"])
