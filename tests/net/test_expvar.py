"""Tests of :mod:`derp.net.expvar`: variables as JSON."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from derp.core.stats import Histogram
from derp.net.expvar import (
    Computed,
    LabelMap,
    MemoryStats,
    MultiLabelMap,
    format_number,
    variables_json,
)


class VariablesJSONTests(SynchronousTestCase):
    """What each kind of variable becomes."""

    def test_kinds(self) -> None:
        """Maps and histograms are objects in order; a multi-label map is only its kind."""
        histogram = Histogram(1, 2.5)
        histogram.observe(2)
        text = variables_json(
            {
                "b_set": {"y": 1, "gauge_x": Computed(2.0)},
                "a_list": ["derper", "-c"],
                "labels": LabelMap("version", {"1.3": 2, "1.2": 1}),
                "counter_h": histogram,
                "lost": MultiLabelMap("counter", "Lost.", ("reason",), {("a",): 1}),
                "memstats": MemoryStats(1, 2, 3),
                "version": Computed("1.2"),
            }
        )
        parsed = json.loads(text)
        self.assertEqual(list(parsed), sorted(parsed))
        self.assertEqual(list(parsed["b_set"].items()), [("gauge_x", 2), ("y", 1)])
        self.assertEqual(parsed["a_list"], ["derper", "-c"])
        self.assertEqual(list(parsed["labels"].items()), [("1.2", 1), ("1.3", 2)])
        self.assertEqual(
            list(parsed["counter_h"].items()),
            [("1", 0), ("2.5", 1), ("+Inf", 1), ("sum", 2), ("count", 1)],
        )
        self.assertEqual(parsed["lost"], "MultiLabelMap")
        self.assertEqual(parsed["memstats"], {"HeapAlloc": 1, "Sys": 2, "NumGC": 3})
        self.assertEqual(parsed["version"], "1.2")

    def test_lines(self) -> None:
        """Every variable has a line of its own, for readers with ``grep``."""
        self.assertEqual(variables_json({"b": 1, "a": 0.5}), '{\n"a": 0.5,\n"b": 1\n}\n')

    def test_numbers(self) -> None:
        """Whole numbers have no point, large or small."""
        for number, text in ((0, "0"), (-3.0, "-3"), (0.1, "0.1"), (1e20, "1" + "0" * 20)):
            self.assertEqual(format_number(number), text)
