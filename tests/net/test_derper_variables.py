"""Tests of :mod:`derp.net.derper_variables` against what derper was seen to show."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import Mock

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.core.mesh import PacketForwarder
from derp.net.derper_variables import derper_variables
from derp.net.expvar import variables_json
from derp.net.metric_sources import Sources
from derp.net.varz import varz
from tests.exposition import Exposition
from tests.shown_relay import NOBODY, exchange, make_sources
from tests.vectors import load

WITHOUT_MEANING = (
    "memstats_total_alloc",
    "memstats_mallocs",
    "memstats_frees",
    "memstats_gc_cpu_fraction",
)
"""Python counts nothing like it."""

ONLY_GO = ("go_", *WITHOUT_MEANING)

OF_THE_MOMENT = (
    "derp_current_file_descriptors",
    "derp_memstats_sys0",
    "goroutines",
    "memstats_",
    "node_boot_time_seconds",
    "version",  # ours
)
"""Depends on when and where it is read."""


def ours(sources: Sources) -> Exposition:
    return Exposition.parse(varz(derper_variables(sources)))


def derpers(name: str) -> Exposition:
    return Exposition.parse(load(name)).without(*ONLY_GO, "process_")


def with_start(shown: Exposition) -> Exposition:
    """``process_start_unix_time`` is a variable, not one of the native ``process_…``."""
    shown.samples["process_start_unix_time", ()] = 0
    return shown


class VarzVectorTests(SynchronousTestCase):
    """The text form."""

    def test_names_types_and_labels(self) -> None:
        """Every metric of derper's is there, with its type and its labels, and no other."""
        for recorded in ("varz-idle.txt", "varz-traffic.txt"):
            sources = make_sources()
            sources.tls_requests.begin("1.3")
            shown, expected = ours(sources), with_start(derpers(recorded))
            self.assertEqual(shown.types, expected.types)
            self.assertEqual(set(shown.described), set(expected.described))
            self.assertEqual(
                set(shown.without("version").samples), set(expected.without("version").samples)
            )

    def test_order(self) -> None:
        """Metrics come in derper's order."""
        expected = derpers("varz-idle.txt")
        self.assertEqual(list(ours(make_sources()).types), list(expected.types))

    def test_version(self) -> None:
        """The version says whose it is."""
        self.assertEqual(ours(make_sources()).value("version", version="9.8.7", binary="derper"), 1)

    def test_idle(self) -> None:
        """Nothing has happened, and every counter says so."""
        self.compare("varz-idle.txt", make_sources(), "derper_tls_", "tls_listener_")

    def test_traffic(self) -> None:
        """The same traffic gives the same numbers, but for how many writes it took."""
        sources = make_sources()
        exchange(sources)
        self.compare("varz-traffic.txt", sources, "derp_buffered_write_frames")

    def compare(self, recorded: str, sources: Sources, *but: str) -> None:
        left_out = (*but, *OF_THE_MOMENT, "process_")
        shown = ours(sources).without(*left_out)
        self.assertEqual(shown.samples, derpers(recorded).without(*left_out).samples)

    def test_plain_port(self) -> None:
        """Without TLS there is no TLS listener."""
        names = [name for name, _ in ours(make_sources(tls=False)).samples]
        self.assertFalse([name for name in names if name.startswith("tls_listener")])

    def test_skipped(self) -> None:
        """The two texts are mentioned, not shown."""
        self.assertEqual(
            [comment.split('"')[1] for comment in ours(make_sources()).comments],
            ["cmdline", "derp_version"],
        )

    def test_uptime(self) -> None:
        """Uptime runs with the clock, and not below zero."""
        sources = make_sources()
        assert isinstance(sources.clock, Clock)
        sources.clock.advance(61.4)
        self.assertEqual(ours(sources).value("uptime_sec"), 61)
        sources.started += 100
        self.assertEqual(ours(sources).value("uptime_sec"), 0)

    def test_dropped(self) -> None:
        """A loss appears under its reason and kind, in packets and in bytes."""
        sources = make_sources()
        exchange(sources)
        for name, value in (("derp_packets_dropped", 1), ("derp_bytes_dropped", 62)):
            self.assertEqual(ours(sources).value(name, reason="unknown_dest", kind="disco"), value)

    def test_remote_clients(self) -> None:
        """Who is only at another relay of the mesh counts as remote, who is at both does not."""
        sources = make_sources()
        alice, _ = exchange(sources)
        link = Mock(spec=PacketForwarder)
        for key in (alice.conn.key, NOBODY):
            sources.relay.add_forwarder(key, link)
        shown = ours(sources)
        self.assertEqual(shown.value("derp_clients_local"), 2)
        self.assertEqual(shown.value("derp_clients_remote"), 1)
        self.assertEqual(shown.value("derp_clients_total"), 3)

    def test_websockets_and_bootstrap_dns(self) -> None:
        """Counters that other parts of the server keep are read, too."""
        sources = make_sources()
        sources.websocket_accepts = lambda: 3
        sources.bootstrap_dns.requests = 5
        sources.bootstrap_dns.queried = {"a", "b"}
        shown = ours(sources)
        self.assertEqual(shown.value("derp_websocket_accepts"), 3)
        self.assertEqual(shown.value("bootstrap_dns_requests"), 5)
        self.assertEqual(shown.value("bootstrap_dns_queried_domains"), 2)


class VarsVectorTests(SynchronousTestCase):
    """The JSON form."""

    def shown(self) -> dict[str, Any]:
        sources = make_sources()
        exchange(sources)
        parsed: dict[str, Any] = json.loads(variables_json(derper_variables(sources)))
        return parsed

    def test_keys(self) -> None:
        """Names, nesting and order are derper's, but for what only Go has."""
        expected = load("vars-traffic.json")
        expected = {key: value for key, value in expected.items() if not key.startswith("go_")}
        shown = self.shown()
        self.assertEqual(list(shown), list(expected))
        self.assertEqual(list(shown["derp"]), list(expected["derp"]))
        for key, value in expected["derp"].items():
            if isinstance(value, dict):
                self.assertEqual(list(shown["derp"][key]), list(value), key)
        self.assertEqual(shown["stun"], expected["stun"])
        self.assertEqual(list(shown["tls_listener"]), list(expected["tls_listener"]))
        self.assertLessEqual(set(shown["memstats"]), set(expected["memstats"]))

    def test_kinds(self) -> None:
        """A number is a number, a text a text, and lost packets only the name of their kind."""
        shown, expected = self.shown(), load("vars-traffic.json")
        for key, value in shown.items():
            self.assertIs(type(value), type(expected[key]), key)
        self.assertEqual(shown["derp_packets_dropped"], expected["derp_packets_dropped"])
        self.assertEqual(shown["cmdline"], ["derper", "-c", "derper.key"])

    def test_values(self) -> None:
        """The relay's counters have derper's values."""
        shown, expected = self.shown()["derp"], load("vars-traffic.json")["derp"]
        for key in (
            "counter_buffered_write_frames",
            "gauge_current_file_descriptors",
            "gauge_memstats_sys0",
            "version",
        ):
            del shown[key], expected[key]
        self.assertEqual(shown, expected)
