"""Tests of :mod:`derp.net.relay_metrics`: conventional names with the right numbers."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from twisted.trial.unittest import SynchronousTestCase

from derp.core.stats import DropReason, PacketKind
from derp.core.stun_stats import STUNStats
from derp.errors import ConfigError
from derp.net.metric_sources import Sources
from derp.net.relay_metrics import RelayMetrics
from derp.net.reload import ReloadableFile
from tests.shown_relay import NOBODY, exchange, make_sources


class RelayMetricsTests(SynchronousTestCase):
    """What a scrape reads."""

    def setUp(self) -> None:
        self.sources: Sources = make_sources()
        self.registry = CollectorRegistry(auto_describe=True)
        self.registry.register(RelayMetrics(self.sources))

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def test_traffic(self) -> None:
        """Packets and bytes are counted where they belong."""
        exchange(self.sources)
        for name, labels, value in (
            ("derp_accepts_total", {}, 2),
            ("derp_packets_received_total", {"kind": "disco"}, 2),
            ("derp_packets_received_total", {"kind": "other"}, 4),
            ("derp_received_bytes_total", {}, 442),
            ("derp_packets_sent_total", {}, 4),
            ("derp_sent_bytes_total", {}, 370),
            ("derp_pings_received_total", {}, 1),
            ("derp_pongs_sent_total", {}, 1),
            ("derp_packets_dropped_total", {"reason": "unknown_dest", "kind": "disco"}, 1),
            ("derp_dropped_bytes_total", {"reason": "unknown_dest", "kind": "other"}, 10),
            ("derp_peer_gone_frames_total", {"reason": "not_here"}, 1),
            ("derp_clients", {"location": "local"}, 2),
            ("derp_connections", {}, 2),
            ("derp_home_connections", {}, 1),
            ("derp_write_frames_count", {}, 4),
            ("derp_write_frames_bucket", {"le": "1.0"}, 4),
            ("derp_stun_requests_total", {"disposition": "success"}, 1),
            ("derp_stun_address_family_total", {"family": "ipv4"}, 1),
            ("derp_tls_requests_total", {"version": "1.3"}, 3),
            ("derp_tls_active_requests", {"version": "1.3"}, 3),
            ("derp_listener_accepted_connections_total", {}, 4),
        ):
            self.assertEqual(self.value(name, **labels), value, (name, labels))

    def test_drop_reasons(self) -> None:
        """Every reason is there from the start, for both kinds, and finds its own counter."""
        for reason in DropReason:
            for kind in PacketKind:
                labels = {"reason": reason.name.lower(), "kind": kind.name.lower()}
                self.assertEqual(self.value("derp_packets_dropped_total", **labels), 0)
                self.sources.relay.stats.drop(reason, kind, 10 + reason, NOBODY, NOBODY)
                self.assertEqual(self.value("derp_packets_dropped_total", **labels), 1)
                self.assertEqual(self.value("derp_dropped_bytes_total", **labels), 10 + reason)

    def test_generic_stun(self) -> None:
        """Every outcome is there from the start, and finds its own counter."""
        outcomes = [name for name in STUNStats.__slots__ if name.startswith("generic_")]
        self.assertEqual(len(outcomes), 5)
        for count, outcome in enumerate(outcomes, 1):
            labels = {"disposition": outcome.removeprefix("generic_")}
            name = "derp_stun_generic_requests_total"
            self.assertEqual(self.value(name, **labels), 0)
            setattr(self.sources.stun, outcome, count)
            self.assertEqual(self.value(name, **labels), count)

    def test_other_parts(self) -> None:
        """Counters of the listener, of bootstrap DNS and of WebSockets are read, too."""
        self.sources.listener.accept_paused = 1
        self.sources.listener.handshake_timeouts = 2
        self.sources.bootstrap_dns.unpublished_percent_misses = 3
        self.sources.bootstrap_dns.queried = {"a"}
        self.sources.websocket_accepts = lambda: 4
        for name, labels, value in (
            ("derp_listener_accept_pauses_total", {}, 1),
            ("derp_listener_handshake_timeouts_total", {}, 2),
            (
                "derp_bootstrap_dns_lookups_total",
                {"list": "unpublished", "result": "percent_miss"},
                3,
            ),
            ("derp_bootstrap_dns_queried_domains", {}, 1),
            ("derp_websocket_accepts_total", {}, 4),
        ):
            self.assertEqual(self.value(name, **labels), value, name)

    def test_reloads(self) -> None:
        """Each file says how often it was read again, and when with success."""

        def load() -> None:
            if file.loads:
                raise ConfigError("no")

        file = ReloadableFile(name="words", flag="--words", paths=(), load=load)
        self.sources.reloadable_files = [file]
        file.reload()
        file.reload()
        file.reload()
        for result, count in (("success", 1), ("failure", 2)):
            labels = {"file": "words", "result": result}
            self.assertEqual(self.value("derp_reloads_total", **labels), count)
        at = self.value("derp_reload_last_success_timestamp_seconds", file="words")
        self.assertEqual(at, file.loaded_at)

    def test_seconds(self) -> None:
        """Durations are in seconds."""
        self.sources.relay.stats.note_queued_for(0.5)
        self.assertAlmostEqual(self.value("derp_queue_wait_average_seconds") or 0, 0.05)

    def test_round_trip_times(self) -> None:
        """Each bound that was seen has a counter."""
        self.sources.relay.stats.tcp_rtt["10ms"] = 7
        self.assertEqual(self.value("derp_tcp_rtt_samples_total", bound="10ms"), 7)

    def test_info(self) -> None:
        """The version is a label."""
        (family,) = [family for family in self.registry.collect() if family.type == "info"]
        (sample,) = family.samples
        self.assertEqual((sample.name, sample.labels["version"]), ("derp_info", "9.8.7"))

    def test_every_counter_is_exported(self) -> None:
        """A number in the relay's books that no metric shows is forgotten."""
        stats = self.sources.relay.stats
        before = self.everything()
        for name, value in vars(stats).items():
            if type(value) is not int or name.startswith("_") or name == "unknown_frames":
                continue
            setattr(stats, name, value + 1000)
            self.assertNotEqual(self.everything(), before, name)
            setattr(stats, name, value)

    def test_every_outcome_of_admission_is_exported(self) -> None:
        """So is each number of admission, under its own labels."""
        stats = self.sources.admission
        before = self.everything()
        for table in (stats.answers, stats.logins, stats.rechecks):
            for key in table:
                table[key] += 1000  # type: ignore[index]
                after = self.everything()
                changed = [new for old, new in zip(before, after, strict=True) if old != new]
                self.assertEqual(len(changed), 1, key)
                before = after
        for name in ("cached", "stale", "joined", "revoked"):
            setattr(stats, name, 1000)
            self.assertNotEqual(self.everything(), before, name)
            before = self.everything()

    def test_conventions(self) -> None:
        """Names begin with ``derp_``, are described, and have no unit but base units."""
        for family in self.registry.collect():
            self.assertTrue(family.name.startswith("derp"), family.name)
            self.assertTrue(family.documentation.endswith("."), family.name)
            self.assertNotRegex(family.name, r"_(ms|milliseconds|kb|mb|total)(_|$)")

    def everything(self) -> list[object]:
        return [sample for family in self.registry.collect() for sample in family.samples]
