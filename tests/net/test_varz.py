"""Tests of :mod:`derp.net.varz`: the rules of derper's text form."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.stats import Histogram
from derp.net.expvar import Computed, LabelMap, MemoryStats, MultiLabelMap, Variable
from derp.net.varz import parse_name, varz
from tests.exposition import Exposition


class VarzTests(SynchronousTestCase):
    """What each kind of variable becomes."""

    def shown(self, key: str, value: Variable) -> list[str]:
        return varz({key: value}).splitlines()

    def test_counter(self) -> None:
        """A declared type is taken off the name; what is not allowed becomes ``_``."""
        self.assertEqual(self.shown("counter_foo-bar", 0), ["# TYPE foo_bar counter", "foo_bar 0"])

    def test_integer(self) -> None:
        """An integer without a type is a counter."""
        self.assertEqual(self.shown("foo", 42), ["# TYPE foo counter", "foo 42"])
        self.assertEqual(self.shown("gauge_foo", 42), ["# TYPE foo gauge", "foo 42"])

    def test_leading_digit(self) -> None:
        """A name that begins with a digit, or is nothing, gets an underscore in front."""
        self.assertEqual(self.shown("0abc", 1)[1], "_0abc 1")
        self.assertEqual(parse_name("", "").full, "_")
        self.assertEqual(parse_name("", "gauge_").full, "_")
        self.assertEqual(parse_name("s_", "0abc").full, "s_0abc")

    def test_strange_characters(self) -> None:
        """Printable ones become ``_``, the rest is dropped."""
        self.assertEqual(parse_name("", "a b{c}:\n\u00e9\x7fd").full, "a_b_c_:d")

    def test_float(self) -> None:
        """A float without a type is a gauge."""
        self.assertEqual(self.shown("foo", 1.5), ["# TYPE foo gauge", "foo 1.5"])
        self.assertEqual(self.shown("counter_foo", 2.0), ["# TYPE foo counter", "foo 2"])

    def test_set(self) -> None:
        """A set's members are sorted by raw key and carry its name in front."""
        self.assertEqual(
            self.shown("s", {"foo": 1, "bar": 2}),
            ["# TYPE s_bar counter", "s_bar 2", "# TYPE s_foo counter", "s_foo 1"],
        )

    def test_typed_set(self) -> None:
        """A set's type is not its members'; a member's own is."""
        self.assertEqual(
            self.shown("gauge_s", {"foo": 1, "gauge_bar": 2}),
            ["# TYPE s_foo counter", "s_foo 1", "# TYPE s_bar gauge", "s_bar 2"],
        )

    def test_function(self) -> None:
        """A number that is computed has a TYPE line only if its name declares one."""
        self.assertEqual(self.shown("num_goroutines", Computed(123)), ["num_goroutines 123"])
        self.assertEqual(self.shown("x", Computed(0.25)), ["x 0.25"])
        self.assertEqual(self.shown("gauge_x", Computed(7)), ["# TYPE x gauge", "x 7"])

    def test_typed_function_without_number(self) -> None:
        """What declares a type and has no number is left out with a comment."""
        (line,) = self.shown("gauge_x", Computed("seven"))
        self.assertTrue(line.startswith("# skipping expvar func"), line)

    def test_versions(self) -> None:
        """A text whose name ends in ``version`` becomes a label."""
        self.assertEqual(
            self.shown("foo_version", Computed('1.2"3')), ['foo_version{version="1.2\\"3"} 1']
        )
        self.assertEqual(
            self.shown("version", Computed("1.2")), ['version{version="1.2",binary="derper"} 1']
        )
        (line,) = self.shown("name", Computed("derper"))
        self.assertTrue(line.startswith("# skipping expvar"), line)

    def test_label_map(self) -> None:
        """Labels are sorted; the TYPE line needs a declared type."""
        values = {"foo": 1, "bar": 2}
        self.assertEqual(
            self.shown("counter_m", LabelMap("label", values)),
            ["# TYPE m counter", 'm{label="bar"} 2', 'm{label="foo"} 1'],
        )
        self.assertEqual(
            self.shown("m", LabelMap("", values)), ['m{label="bar"} 2', 'm{label="foo"} 1']
        )
        self.assertEqual(self.shown("gauge_m", LabelMap("version", {})), ["# TYPE m gauge"])

    def test_label_in_name(self) -> None:
        """``labelmap_L_`` names the label of a map that does not know it."""
        self.assertEqual(
            self.shown("counter_labelmap_keyname_m", LabelMap("", {"a": 1})),
            ["# TYPE m counter", 'm{keyname="a"} 1'],
        )
        self.assertEqual(parse_name("", "labelmap_x").full, "labelmap_x")

    def test_multi_label_map(self) -> None:
        """TYPE comes before HELP, and samples are sorted by their labels."""
        value = MultiLabelMap(
            "counter", "Lost.", ("reason", "kind"), {("b", "x"): 1, ("a", "y"): 2, ("a", "x"): 3}
        )
        self.assertEqual(
            self.shown("m", value),
            [
                "# TYPE m counter",
                "# HELP m Lost.",
                'm{reason="a",kind="x"} 3',
                'm{reason="a",kind="y"} 2',
                'm{reason="b",kind="x"} 1',
            ],
        )

    def test_histogram(self) -> None:
        """Buckets are cumulative; bounds are printed as short as they can be."""
        histogram = Histogram(1, 2.5)
        for value in (0.5, 1, 1.5, 3):
            histogram.observe(value)
        self.assertEqual(
            self.shown("counter_h", histogram),
            [
                "# TYPE h histogram",
                'h_bucket{le="1"} 2',
                'h_bucket{le="2.5"} 3',
                'h_bucket{le="+Inf"} 4',
                "h_sum 6",
                "h_count 4",
            ],
        )

    def test_memory_stats(self) -> None:
        """Each number has HELP and TYPE of its own."""
        lines = self.shown("memstats", MemoryStats(heap_alloc=1, sys=2, num_gc=3))
        parsed = Exposition.parse("\n".join(lines))
        self.assertEqual(
            parsed.types,
            {
                "memstats_heap_alloc": "gauge",
                "memstats_sys": "gauge",
                "memstats_num_gc": "counter",
            },
        )
        self.assertEqual(parsed.described, list(parsed.types))
        self.assertEqual(list(parsed.samples.values()), [1, 2, 3])

    def test_text(self) -> None:
        """A text, or a list of them, is left out with a comment."""
        for value in ("1.2", ["derper", "-c"], True):
            (line,) = self.shown("x", value)
            self.assertTrue(line.startswith('# skipping expvar "x" '), line)

    def test_order(self) -> None:
        """Variables are sorted by name without the prefix that says the type."""
        text = varz({"gauge_b": 1, "c": 1, "counter_a": 1, "labelmap_d": 1})
        self.assertEqual(list(Exposition.parse(text).types), ["a", "b", "c", "labelmap_d"])

    def test_nothing(self) -> None:
        """Without variables there is no text."""
        self.assertEqual(varz({}), "")

    @given(st.text(), st.text())
    def test_any_name(self, parent: str, key: str) -> None:
        """Whatever a variable is called, what comes out is a metric name."""
        self.assertRegex(parse_name(parent, key).full, r"\A[a-zA-Z_:][a-zA-Z0-9_:]*\Z")

    @given(st.dictionaries(st.text(), st.integers()))
    def test_any_label(self, values: dict[str, int]) -> None:
        """Whatever a label's value is, it stays on its line and between its quotes."""
        text = varz({"m": LabelMap("l", values)})
        self.assertEqual(text.count("\n"), len(values))
        if values:
            self.assertEqual(len(Exposition.parse(text).samples), len(values))
