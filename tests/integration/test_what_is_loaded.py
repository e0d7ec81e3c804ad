"""What a relay loads at its start: memory that small machines pay for, and time."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from twisted.trial.unittest import TestCase

from tests.integration.child import run_python

COMPOSE: Final = """
import sys
from derp.derper_script import ScriptOptions, makeService
options = ScriptOptions()
options.read(sys.argv[1:])
makeService(options)
print("LOADED", *sys.modules)
"""
"""All that a start does before it opens ports."""

WITH_A_FLAG: Final = {
    "--certmode letsencrypt": ("txacme", "acme", "josepy", "requests", "derp.net.acme_client"),
    "--verify-client-url": ("treq", "twisted.web.client", "derp.net.admission_url"),
    "--mesh-with": ("derp.net.mesh_link", "derp.net.relay_connector", "derp.wire.derp_map"),
    "--metrics-addr": ("prometheus_client", "derp.net.relay_metrics"),
    "--trusted-proxies": ("twisted.protocols.haproxy",),
    "--config": ("tomllib",),
}
"""What is loaded for one flag, and for nothing else."""
WHEN_ASKED_FOR: Final = (
    "derp.net.variable_pages",
    "derp.prober.prober",
    "derp.doctor.examination",
    "difflib",
)
"""What no start loads."""


class LoadedTests(TestCase):
    """Composed in a process of its own, as a start does it."""

    def loaded(self, *flags: str) -> set[str]:
        """Compose a relay; gives the names of all modules."""
        home = Path(self.mktemp())
        home.mkdir()
        common = ("-c", str(home / "key"), "--certdir", str(home), "-a", "127.0.0.1:443")
        ended = run_python("-c", COMPOSE, *common, *flags)
        self.assertIn("LOADED", ended.stdout, ended.stderr)
        return set(ended.stdout.partition("LOADED")[2].split())

    def test_plain(self) -> None:
        """A relay with its own certificate has nothing of what other modes need."""
        loaded = self.loaded("--certmode", "manual", "--hostname", "127.0.0.1")
        self.assertIn("derp.net.tls_transport", loaded)
        others = [name for names in WITH_A_FLAG.values() for name in names]
        self.assertEqual([name for name in (*others, *WHEN_ASKED_FOR) if name in loaded], [])

    def test_everything(self) -> None:
        """The same names are there where they are needed: nobody waits for them later."""
        config = Path(self.mktemp())
        config.write_text("stun = false\n")
        flags = [
            *("--certmode", "letsencrypt", "--hostname", "relay.example.com"),
            *("--verify-client-url", "https://127.0.0.1/verify"),
            *("--mesh-psk-file", self.mesh_key(), "--mesh-with", "other.example.com"),
            *("--metrics-addr", "127.0.0.1:9100"),
            *("--trusted-proxies", "127.0.0.1/32", "--config", os.fspath(config)),
        ]
        loaded = self.loaded(*flags)
        for flag, names in WITH_A_FLAG.items():
            self.assertIn(flag.split()[0], flags)
            self.assertEqual([name for name in names if name not in loaded], [], flag)

    def mesh_key(self) -> str:
        """A file with a mesh key in it."""
        path = Path(self.mktemp())
        path.write_text("ab" * 32)
        path.chmod(0o600)
        return os.fspath(path)

    def test_names(self) -> None:
        """What no start loads is there: none of those names is misspelt."""
        self.assertEqual([name for name in WHEN_ASKED_FOR if find_spec(name) is None], [])
