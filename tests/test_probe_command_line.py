"""Tests for :mod:`derp.probe_command_line`: what the prober's flags mean, and which are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ConfigError
from derp.goflag import parse_flags
from derp.probe_command_line import probe_config_from_flags
from derp.probe_config import ProbeConfig
from derp.probe_flags import FLAGS, GROUPS
from derp.prober.map_checks import Intervals
from derp.prober.tolerance import Tolerance

KEY = "0123456789abcdef" * 4

REFERENCE = {
    "dev": False,
    "derp-map": "https://login.tailscale.com/derpmap/default",
    "version": False,
    "listen": ":8030",
    "once": False,
    "spread": True,
    "interval": 15.0,
    "mesh-interval": 15.0,
    "stun-interval": 15.0,
    "tls-interval": 15.0,
    "bw-interval": 0.0,
    "bw-probe-size-bytes": 1_000_000,
    "bw-tun-ipv4-addr": "",
    "qd-packets-per-second": 0,
    "qd-packet-timeout": 5.0,
    "region-code": "",
    "mesh-psk-file": "",
    "secrets-url": "",
    "secrets-path-prefix": "prod/derp",
    "secrets-cache-dir": "",
}
"""The reference's flags and their defaults."""


class CommandLineTestCase(SynchronousTestCase):
    """Makes configurations of command lines."""

    def config(self, *argv: str, **environ: str) -> ProbeConfig:
        """What a command line and an environment mean."""

        def resolve(name: str) -> str:
            raise OSError(f"{name} is not looked up here")

        given = parse_flags(FLAGS, argv).given
        return probe_config_from_flags(given, environ, resolve=resolve)

    def refused(self, *argv: str, **environ: str) -> str:
        """The sentence that refuses a command line."""
        return str(self.assertRaises(ConfigError, self.config, *argv, **environ))


class FlagTests(CommandLineTestCase):
    """The table."""

    def test_reference(self) -> None:
        """Every flag of the reference, under its name and with its default."""
        defaults = {flag.name: flag.default for flag in FLAGS}
        self.assertEqual({name: defaults[name] for name in REFERENCE}, REFERENCE)

    def test_ours(self) -> None:
        """What is ours is about alerts and what is worth one; every flag is in one group."""
        ours = {flag.name for flag in FLAGS} - set(REFERENCE)
        self.assertEqual({name.split("-")[0] for name in ours}, {"alert", "max"})
        self.assertEqual(len(FLAGS), sum(len(flags) for _, flags in GROUPS))
        self.assertEqual(len({flag.name for flag in FLAGS}), len(FLAGS))


class ConfigTests(CommandLineTestCase):
    """Values."""

    def test_defaults(self) -> None:
        """Nothing given is what the dataclass says."""
        config = self.config()
        self.assertEqual(config.notices[1:], ())
        self.assertIn("no mesh key", config.notices[0])
        self.assertEqual(config, ProbeConfig(notices=config.notices))

    def test_values(self) -> None:
        """Each flag reaches its field."""
        config = self.config(
            "-derp-map=local",
            "-listen=127.0.0.1:9",
            "-spread=false",
            "-interval=1m",
            "-mesh-interval=1s",
            "-stun-interval=2s",
            "-tls-interval=3s",
            "-bw-interval=4s",
            "-bw-probe-size-bytes=5",
            "-qd-packets-per-second=6",
            "-qd-packet-timeout=7s",
            "-region-code=fra",
            "--max-latency=200ms",
            "--max-loss=2.5",
        )
        self.assertEqual(config.intervals, Intervals(mesh=1, stun=2, tls=3, bandwidth=4))
        found: dict[str, Any] = {
            "derp_map": "local",
            "host": "127.0.0.1",
            "port": 9,
            "spread": False,
            "interval": 60.0,
            "bandwidth_size": 5,
            "qd_rate": 6,
            "qd_timeout": 7.0,
            "region_code": "fra",
            "tolerance": Tolerance(latency=0.2, loss=0.025),
        }
        self.assertEqual({name: getattr(config, name) for name in found}, found)

    def test_alerts(self) -> None:
        """And those of alerts theirs."""
        config = self.config(
            "--alert-url=https://a.test/x",
            "--alert-format=alertmanager",
            "--alert-secret-file=s",
            "--alert-failures=3",
            "--alert-successes=4",
            "--alert-repeat=1h",
            "--alert-state-file=t",
            "--alert-page-url=https://p.test/",
        )
        alerts = config.alerts
        self.assertEqual((alerts.url, alerts.format), ("https://a.test/x", "alertmanager"))
        self.assertEqual((alerts.failures, alerts.successes, alerts.repeat_s), (3, 4, 3600.0))
        self.assertEqual((alerts.secret_file, alerts.state_file), ("s", "t"))
        self.assertEqual(alerts.page_url, "https://p.test/")

    def test_never(self) -> None:
        """Zero and less are never, whichever way it is said."""
        config = self.config("-mesh-interval=0", "-stun-interval=-1s", "-qd-packets-per-second=-1")
        self.assertEqual((config.intervals.mesh, config.intervals.stun), (0, 0))
        self.assertEqual((config.qd_rate, config.intervals.tls), (0, 15.0))

    def test_refused(self) -> None:
        """What cannot be is refused with a sentence that names the flag and the cure."""
        for line, words in (
            ("-bw-tun-ipv4-addr=10.0.0.1", "leave the flag out"),
            ("-interval=0", "give a duration"),
            ("-interval=-5s", "give a duration"),
            ("-interval=10000h", "no usable interval"),
            ("-mesh-interval=1ms", "no usable interval"),
            ("-bw-probe-size-bytes=9999999999", "too much"),
            ("-qd-packets-per-second=1000000", "too much"),
            ("-qd-packet-timeout=0", "give a duration"),
            ("-listen=nowhere", "invalid server address"),
            ("-listen=:70000", "no port"),
            ("-secrets-url=ftp://x", "no http:// or https:// URL"),
            ("--alert-repeat=10ms", "no usable time"),
            ("--max-latency=-1s", "give a duration"),
            ("--max-loss=100", "no percentage"),
            ("--max-loss=-1", "no percentage"),
        ):
            sentence = self.refused(line)
            flag = line.lstrip("-").partition("=")[0]
            self.assertTrue(sentence.startswith(f"--{flag}: "), sentence)
            self.assertIn(words, sentence)

    def test_no_effect(self) -> None:
        """What is given in vain is said."""
        self.assertIn(
            "--listen has no effect with --once", self.config("-once", "-listen=:1").notices
        )
        self.assertIn(
            "--alert-repeat has no effect without --alert-url",
            self.config("--alert-repeat=1h").notices,
        )

    def test_once_does_not_listen(self) -> None:
        """So that what --listen says does not matter."""
        self.assertTrue(self.config("-once", "-listen=nowhere").once)


class MeshKeyTests(CommandLineTestCase):
    """Where the mesh key comes from."""

    def setUp(self) -> None:
        self.place = Path(self.mktemp())
        (self.place / "keys").mkdir(parents=True)
        self.path = self.place / "keys" / "derp-mesh.key"
        self.path.write_text(KEY + "\n")

    def test_file(self) -> None:
        """From the file that is named, and from no other: derper's places are not searched."""
        config = self.config(f"-mesh-psk-file={self.path}")
        self.assertEqual(config.mesh_key, bytes.fromhex(KEY))
        self.assertEqual(config.notices, ())
        self.assertIsNone(self.config(HOME=str(self.place)).mesh_key)

    def test_dev(self) -> None:
        """With -dev from the environment, and from nowhere else."""
        line = ("-dev", f"-mesh-psk-file={self.path}", "-secrets-url=http://x")
        config = self.config(*line, TAILSCALE_DERPER_MESH_KEY="f" * 64)
        self.assertEqual((config.mesh_key, config.secrets_url), (b"\xff" * 32, ""))
        self.assertIsNone(self.config(*line).mesh_key)
        self.assertIsNone(self.config(TAILSCALE_DERPER_MESH_KEY="f" * 64).mesh_key)

    def test_setec(self) -> None:
        """With a setec server later, and it is not missed meanwhile."""
        config = self.config("-secrets-url=http://x/", HOME="/home/x")
        self.assertEqual((config.mesh_key, config.secrets_url), (None, "http://x"))
        self.assertEqual(config.secrets_cache_dir, "/home/x/.cache/derper-secrets")
        self.assertEqual(config.notices, ())

    def test_bad(self) -> None:
        """A file that is none, or holds none; the key itself is never shown."""
        self.path.write_text(KEY[:-1])
        for path in (self.path, self.place, self.place / "nothing"):
            sentence = self.refused(f"-mesh-psk-file={path}")
            self.assertIn("--mesh-psk-file", sentence)
            self.assertNotIn(KEY[:10], sentence)
        bad = self.refused("-dev", TAILSCALE_DERPER_MESH_KEY="x" * 64)
        self.assertIn("TAILSCALE_DERPER_MESH_KEY", bad)

    def test_not_shown(self) -> None:
        """Nor is it in what a debugger or a traceback would print."""
        config = self.config(f"-mesh-psk-file={self.path}")
        self.assertNotIn("mesh_key", repr(config))
