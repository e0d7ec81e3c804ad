"""
Tests of ``examples/compose``: files that YAML's parser takes, and settings that ours does.

Here among the integration tests only because they want PyYAML, which no unit test needs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import generate_latest
from twisted.trial.unittest import TestCase

from derp import environment
from derp.command_line import config_from_flags
from derp.config import Config
from derp.derper_script import make_config
from derp.derper_settings import read_settings
from derp.environment_flags import VARIABLES
from derp.net.metrics import make_registry
from derp.services import build
from derp.wire.node_json import RelayNode, format_headscale_yaml
from tests.exposition import Exposition

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "compose"
IMAGE_VOLUMES = ("/root",)
"""Those of the image that no example needs to name."""
MACHINE = "3f2a9c0d1e4b"
MESH_KEY = "ab" * 32
KNOBS = {value for name, value in vars(environment).items() if name.isupper()}

_COMMENTED = re.compile(r"^ +# ([A-Z][A-Z_]+): ", re.MULTILINE)
_METRIC = re.compile(r"\b((?:derp|process)_\w+)(?:\{([^}]*)\})?")
_SELECTOR = re.compile(r'(\w+)(=~|=)"([^"]*)"')


def examples() -> list[Path]:
    """The directories, each with a ``compose.yaml``."""
    return sorted(path.parent for path in EXAMPLES.glob("*/compose.yaml"))


def load(path: Path) -> Any:
    """What a YAML file holds."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def relays(compose: Any) -> Iterator[tuple[str, Any]]:
    """The services that are relays."""
    for name, service in compose["services"].items():
        if service["image"] == "derper":
            yield name, service


class ComposeTestCase(TestCase):
    """Makes configurations of examples."""

    def config(self, service: Any) -> Config:
        """What the relay in a service would start with."""
        variables = dict(service["environment"])
        if "MESH_PSKFILE" in variables:
            key = Path(self.mktemp())
            key.write_text(MESH_KEY)
            variables["MESH_PSKFILE"] = str(key)
        self.patch(os, "getuid", lambda: 0)
        settings = read_settings({}, {"HOME": "/root", **variables}, MACHINE)
        return make_config(settings, {"HOME": "/root", **variables})

    def relay(self, example: str) -> tuple[Any, Config]:
        """An example's only relay."""
        ((_, service),) = relays(load(EXAMPLES / example / "compose.yaml"))
        return service, self.config(service)


class EachExampleTests(ComposeTestCase):
    """What holds for every one of them."""

    def each_relay(self) -> Iterator[tuple[Path, Any, Any, Config]]:
        """Directory, whole file, service, configuration."""
        found = 0
        for place in examples():
            compose = load(place / "compose.yaml")
            for name, service in relays(compose):
                with self.subTest(f"{place.name}: {name}"):
                    found += 1
                    yield place, compose, service, self.config(service)
        self.assertGreaterEqual(found, 9)

    def test_every_yaml(self) -> None:
        """Each file beside them parses, too."""
        files = [*EXAMPLES.rglob("*.yaml")]
        self.assertGreaterEqual(len(files), len(examples()) + 6)
        for path in files:
            with self.subTest(path.name):
                self.assertIsInstance(load(path), dict)

    def test_variables(self) -> None:
        """All are known, also in comments, and are text: compose refuses YAML's booleans."""
        for place, _, service, config in self.each_relay():
            commented = _COMMENTED.findall((place / "compose.yaml").read_text())
            for name in (*service["environment"], *commented):
                self.assertIn(name, VARIABLES.keys() | KNOBS)
            for value in service["environment"].values():
                self.assertIsInstance(value, str)
            expected = ("no -c given: the key file is /var/lib/derper/derper.key",)
            self.assertEqual(config.notices, expected)

    def test_ports(self) -> None:
        """What is published is listened on, and the other way round unless a proxy is between."""
        for place, _, service, config in self.each_relay():
            published = {str(each).split(":")[-1] for each in service["ports"]}
            listening = {f"{config.port}", f"{config.stun_port}/udp"}
            listening |= {f"{config.http_port}"} if config.tls else set()
            behind_proxy = place.name.startswith("traefik")
            self.assertEqual(published, {"3478/udp"} if behind_proxy else listening)
            low = min(config.port, config.http_port if config.tls else config.port) < 1024
            self.assertEqual(service.get("cap_add"), ["NET_BIND_SERVICE"] if low else None)
            self.assertEqual((service["cap_drop"], service["read_only"]), (["ALL"], True))

    def test_volumes(self) -> None:
        """The key and what is got or made as a certificate are kept; what is mounted exists."""
        for place, compose, service, config in self.each_relay():
            mounts = dict(each.split(":")[:2] for each in service["volumes"])
            for source in mounts:
                if source.startswith("./"):
                    self.assertTrue((place / source).exists(), source)
                elif not source.startswith("/"):
                    self.assertIn(source, compose["volumes"])
            kept = (*mounts.values(), *IMAGE_VOLUMES)
            written = [config.key_file, *([f"{config.certdir}/x"] if config.tls else [])]
            for path in written:
                self.assertTrue(any(path.startswith(f"{each}/") for each in kept), path)

    def test_named_in_the_docs(self) -> None:
        """Container's page lists each of them, and no other."""
        page = (EXAMPLES.parent.parent / "docs" / "container.rst").read_text()
        table = page.split("``examples/compose/``")[1].split("What is started")[0]
        named = re.findall(r"^``([a-z-]+)``", table, re.MULTILINE)
        self.assertEqual(sorted(named), [place.name for place in examples()])

    def test_grace(self) -> None:
        """Compose waits longer than a drain takes."""
        for _, _, service, config in self.each_relay():
            grace = float(service["stop_grace_period"].removesuffix("s"))
            self.assertGreater(grace, config.drain_seconds + 2)

    def test_others_are_pinned(self) -> None:
        """Images of others have a version, and their files exist."""
        for place in examples():
            for name, service in load(place / "compose.yaml")["services"].items():
                with self.subTest(f"{place.name}: {name}"):
                    image = service["image"]
                    self.assertTrue(image == "derper" or re.search(r":v?\d", image), image)
                    for mount in service.get("volumes", ()):
                        source = mount.split(":")[0]
                        self.assertTrue(not source.startswith("./") or (place / source).is_file())


class ExampleTests(ComposeTestCase):
    """What single examples promise."""

    def test_mesh(self) -> None:
        """Each is told of both by the name in its certificate, and dials a service that exists."""
        compose = load(EXAMPLES / "mesh" / "compose.yaml")
        services = dict(relays(compose))
        configs = {name: self.config(service) for name, service in services.items()}
        names = {config.hostname for config in configs.values()}
        for config in configs.values():
            self.assertEqual(config.mesh_key, bytes.fromhex(MESH_KEY))
            self.assertEqual({peer.host for peer in config.mesh_with}, names)
            self.assertEqual({peer.dial_host for peer in config.mesh_with}, set(services))
        for service in services.values():
            (secret,) = service["secrets"]
            path = service["environment"]["MESH_PSKFILE"]
            self.assertEqual(path, f"/run/secrets/{secret}")
            self.assertIn(secret, compose["secrets"])

    def test_proxies(self) -> None:
        """Traefik is led to the relay's ports, and believed from its own network alone."""
        for name in ("traefik-passthrough", "traefik-http"):
            service, config = self.relay(name)
            compose = load(EXAMPLES / name / "compose.yaml")
            ((network, details),) = compose["networks"].items()
            subnet = details["ipam"]["config"][0]["subnet"]
            self.assertEqual([str(each) for each in config.trusted_proxies], [subnet])
            self.assertEqual(service["networks"], [network])
            text = (EXAMPLES / name / "dynamic.yaml").read_text()
            ports = set(map(int, re.findall(r"derper:(\d+)", text)))
            expected = {config.port, config.http_port} if config.tls else {config.port}
            self.assertEqual(ports, expected)
            self.assertIn(f"`{config.hostname}`", text)
        self.assertFalse(config.tls)

    def test_headscale(self) -> None:
        """The map is the one the relay prints, and it asks the Headscale beside it."""
        _, config = self.relay("headscale")
        node = RelayNode(
            hostname=config.hostname,
            derp_port=config.port,
            stun_port=config.stun_port,
            can_port80=config.http_port == 80,
        )
        printed = yaml.safe_load(format_headscale_yaml(node))
        self.assertEqual(load(EXAMPLES / "headscale" / "derp.yaml"), printed)
        listen = load(EXAMPLES / "headscale" / "config.yaml")["listen_addr"].split(":")[1]
        self.assertEqual(config.verify_client_url, (f"http://headscale:{listen}/verify",))
        self.assertFalse(config.verify_client_url_fail_open)

    def test_tailscaled(self) -> None:
        """The directory is mounted in which the socket is looked for."""
        from derp.net.tailscaled_socket import default_socket

        service, config = self.relay("tailscaled")
        self.assertTrue(config.verify_clients)
        (mount,) = (each for each in service["volumes"] if each.startswith("/"))
        self.assertEqual(mount.split(":")[1], str(Path(default_socket()).parent))


class MonitoringTests(ComposeTestCase):
    """Dashboard and alerts speak of metrics that exist."""

    def setUp(self) -> None:
        """All that a relay exposes."""
        from twisted.internet import reactor

        flags = {"dev": True, "stun-port": 0}
        relay = build(config_from_flags(flags, {}), reactor)
        self.addCleanup(relay.stopService)
        text = generate_latest(make_registry(relay.sources)).decode()
        self.exposed = Exposition.parse(text)
        self.names = set(self.exposed.types) | {name for name, _ in self.exposed.samples}
        self.place = EXAMPLES / "monitoring"

    def expressions(self) -> Iterator[str]:
        """All queries."""
        for group in load(self.place / "alerts.yaml")["groups"]:
            for rule in group["rules"]:
                yield rule["expr"]
        for panel in self.dashboard()["panels"]:
            for target in panel["targets"]:
                yield target["expr"]

    def dashboard(self) -> Any:
        return json.loads((self.place / "grafana" / "derper.json").read_text())

    def test_metrics(self) -> None:
        """Every name is exposed, and every value that is asked of a label occurs."""
        seen = 0
        for expression in self.expressions():
            for name, selectors in _METRIC.findall(expression):
                with self.subTest(expression):
                    seen += 1
                    self.assertIn(name, self.names)
                    self.check_labels(name, selectors)
        self.assertGreater(seen, 40)

    def check_labels(self, name: str, selectors: str) -> None:
        """Labels of metrics that have samples in a relay without certificates or peers."""
        samples = [dict(labels) for each, labels in self.exposed.samples if each == name]
        for label, operator, value in _SELECTOR.findall(selectors):
            if label in ("instance", "job") or not samples:
                continue
            wanted = value.split("|") if operator == "=~" else [value]
            for each in wanted:
                self.assertIn(each, {sample.get(label) for sample in samples}, name)

    def test_panels(self) -> None:
        """Panels have numbers of their own, lie in the grid and do not overlap."""
        cells: set[tuple[int, int]] = set()
        panels = self.dashboard()["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        for panel in panels:
            at = panel["gridPos"]
            for x in range(at["x"], at["x"] + at["w"]):
                for y in range(at["y"], at["y"] + at["h"]):
                    self.assertLess(x, 24)
                    self.assertNotIn((x, y), cells, panel["title"])
                    cells.add((x, y))

    def test_wiring(self) -> None:
        """Prometheus scrapes the relay's port, Grafana asks Prometheus and finds the dashboard."""
        _, config = self.relay("monitoring")
        compose = load(self.place / "compose.yaml")
        prometheus = load(self.place / "prometheus.yaml")
        (scrape,) = prometheus["scrape_configs"]
        self.assertEqual(scrape["job_name"], "derper")
        port = config.metrics_addr.rpartition(":")[2]
        self.assertEqual(scrape["static_configs"][0]["targets"], [f"derper:{port}"])
        mounts = {
            mount.split(":")[1]: mount.split(":")[0]
            for service in compose["services"].values()
            for mount in service["volumes"]
        }
        for path in prometheus["rule_files"]:
            self.assertIn(path, mounts)
        (source,) = load(self.place / "grafana" / "datasource.yaml")["datasources"]
        self.assertEqual(source["url"], "http://prometheus:9090")
        used = {panel["datasource"]["uid"] for panel in self.dashboard()["panels"]}
        self.assertEqual(used, {source["uid"]})
        (provider,) = load(self.place / "grafana" / "dashboards.yaml")["providers"]
        folder = provider["options"]["path"]
        self.assertTrue(any(path.startswith(f"{folder}/") for path in mounts))
