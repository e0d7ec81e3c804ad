"""The rules in ``contrib/prometheus`` are about metrics that there are."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.exposition import generate_latest
from twisted.trial.unittest import SynchronousTestCase

from derp.prober.probe_metrics import ProbeMetrics
from derp.prober.queue_delay_check import queue_delay_check
from derp.prober.targets import Targets
from derp.wire.derp_map import DERPMap, Node, Region
from tests.prober.shown_prober import INTERVAL, ShownProber

RULES = Path(__file__).parents[2] / "contrib" / "prometheus" / "derpprobe-alerts.yml"


class RuleTests(SynchronousTestCase):
    """Names of metrics and labels."""

    def setUp(self) -> None:
        """Expose what a prober with every kind of probe exposes."""
        shown = ShownProber()
        shown.add_node("nyc", 1, "1a", "derp1.example.com")
        shown.pass_time(1)
        shown.checks["derp/nyc/1a/tls"].error = "it has expired"
        shown.pass_time(INTERVAL)
        node = Node(name="1a", region_id=1, host_name="derp1.example.com")
        region = Region(region_id=1, code="nyc", nodes=(node,))
        targets = Targets(reactor=shown.clock, current_map=DERPMap)
        delays = queue_delay_check(targets, region, node, node)
        exposed = generate_latest(ProbeMetrics(shown.prober)).decode()
        self.names = set(re.findall(r"^(derpprobe_\w+)", exposed, re.MULTILINE))
        self.names |= {sample.name for metric in delays.metrics() for sample in metric.samples}
        self.labels = set(re.findall(r'[{,](\w+)="', exposed)) | {"instance", "job", "le"}
        self.rules = RULES.read_text("utf-8")

    def test_metrics(self) -> None:
        """Every metric of a rule is exposed under exactly this name."""
        named = set(re.findall(r"\bderpprobe_\w+", self.rules))
        self.assertGreater(len(named), 5)
        self.assertEqual(named - self.names, set())

    def test_labels(self) -> None:
        """Every label that a rule looks at or tells is one."""
        named = set(re.findall(r"\$labels\.(\w+)", self.rules))
        named |= set(re.findall(r'[{,](\w+)!?=~?"', self.rules))
        self.assertGreater(len(named), 3)
        self.assertEqual(named - self.labels, set())
