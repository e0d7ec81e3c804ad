"""The parts of the benchmark suite that need no server: arithmetic, tables, files, pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from bench import compare, generator, harness, overload, page, plot, relay, report, servers, svg

SVG = "{http://www.w3.org/2000/svg}"


def run(**values: Any) -> dict[str, Any]:
    """What the generator prints of a relay load, with some values changed."""
    percentiles = {"50": 40.0, "99": 90.0, "99.9": 120.0}
    return {
        "seconds": 2.0,
        "window": 16,
        "offered": 1000,
        "sent": 1000,
        "delivered": 1000,
        "sent_in_all": 1200,
        "lost": 0,
        "corrupt": 0,
        "reordered": 0,
        "failed": 0,
        "late": 0,
        "server_cpu_ns": 2_000_000_000,
        "server_user_ns": 1_500_000_000,
        "server_system_ns": 500_000_000,
        "generator_busy": 0.5,
        "one_way": {"count": 1000, "us": percentiles},
        "load_one_way": {"count": 0, "us": percentiles},
        **values,
    }


def result(
    benchmark: str, metrics: list[harness.Metric], cases: dict[str, tuple[list[str], Any]]
) -> dict[str, Any]:
    """A result of two servers; ``cases`` maps a name to its load and the runs by server."""
    return {
        "format": report.FORMAT,
        "benchmark": benchmark,
        "taken": "2026-01-31T12:00:00+00:00",
        "machine": {
            "cpu": "a CPU",
            "cpus": 2,
            "kernel": "6",
            "python": "3.11.0",
            "openssl": "OpenSSL 3",
            "commit": "abc",
        },
        "options": {"rounds": 3},
        "reference": "derper",
        "servers": {"derper": "derper -a …", "ours": "twistd …"},
        "metrics": [metric.described() for metric in metrics],
        "problems": [],
        "cases": [
            {
                "name": name,
                "load": load,
                "runs": runs,
                "figures": harness.figures(metrics, runs),
            }
            for name, (load, runs) in cases.items()
        ],
    }


class SummaryTests(SynchronousTestCase):
    """Medians and spreads."""

    def test_median_and_spread(self) -> None:
        """Order does not matter and outliers move only the spread."""
        summary = report.Summary.of([9.0, 1.0, 2.0])
        self.assertEqual(summary, report.Summary(2.0, 1.0, 9.0, 3))
        self.assertEqual(summary.text(1), "2.0 [1.0..9.0]")

    def test_nothing_measured(self) -> None:
        """No runs have no median, and one run has no spread to show."""
        self.assertIsNone(report.Summary.of([]))
        self.assertEqual(report.Summary.of([1234.5]).text(1), "1,234.5")

    def test_ratio_needs_a_reference(self) -> None:
        """A ratio to nothing or to zero is not shown as a number."""
        two, zero = report.Summary.of([2.0]), report.Summary.of([0.0])
        self.assertEqual(report.ratio(two, report.Summary.of([4.0])), 0.5)
        self.assertIsNone(report.ratio(two, zero))
        self.assertIsNone(report.ratio(two, None))
        self.assertIsNone(report.ratio(None, two))

    def test_touching_spreads_overlap(self) -> None:
        """A difference counts only if no run of one reaches the other's."""
        one = report.Summary.of([1.0, 2.0])
        self.assertTrue(one.overlaps(report.Summary.of([2.0, 3.0])))
        self.assertFalse(one.overlaps(report.Summary.of([2.1, 3.0])))


class TableTests(SynchronousTestCase):
    """Results as text."""

    def test_columns_line_up(self) -> None:
        """The first column is flush left, the others flush right."""
        lines = report.table([["case", "a"], ["x", "1.25"], ["longer", "10"]]).splitlines()
        self.assertEqual(lines, ["case       a", "------  ----", "x       1.25", "longer    10"])

    def test_ratio_column_of_all_but_the_reference(self) -> None:
        """Each server but the reference has its ratio to it beside the median."""
        runs = {
            "derper": [run(server_cpu_ns=4_000_000)],
            "ours": [run(server_cpu_ns=n * 1_000_000) for n in (1, 2, 9)],
        }
        made = result("relay", [relay.CPU], {"one": (["pairs"], runs)})
        text = report.metric_table(made, made["metrics"][0])
        self.assertIn("÷ derper", text)
        self.assertEqual(
            text.splitlines()[-1].split(), ["one", "4.00", "2.00", "[1.00..9.00]", "0.50x"]
        )

    def test_metric_without_figures_has_no_table(self) -> None:
        """A metric that no case has leaves no empty table."""
        made = result("relay", [relay.CPU], {"one": (["pairs"], {"derper": [], "ours": []})})
        self.assertIsNone(report.metric_table(made, made["metrics"][0]))


class MetricTests(SynchronousTestCase):
    """Figures taken from what the generator prints."""

    def test_cpu_per_packet(self) -> None:
        """ns of the server over packets delivered, in µs; of it the kernel's share."""
        self.assertEqual(relay.cpu_per_packet(run()), 2000.0)
        self.assertEqual(relay.system_per_packet(run()), 500.0)

    def test_nothing_delivered(self) -> None:
        """A server that delivered nothing has no cost per packet, and is no crash."""
        self.assertIsNone(relay.cpu_per_packet(run(delivered=0)))
        self.assertIsNone(relay.system_per_packet(run(delivered=0)))
        self.assertEqual(relay.packets_per_second(run(delivered=0)), 0.0)

    def test_figures_leave_out_what_a_run_lacks(self) -> None:
        """Runs without a figure are passed over, metrics without any are left out."""
        metrics = [relay.CPU, overload.METRICS[-2]]
        runs = {"derper": [run(), run(delivered=0)]}
        self.assertEqual(harness.figures(metrics, runs), {"cpu_us": {"derper": [2000.0]}})

    def test_drops_in_nobodys_books(self) -> None:
        """Lost packets less the server's own count; unknown when it cannot be asked."""
        varz = (
            'derp_packets_dropped{reason="queue_head",kind="disco"} 3\n'
            'derp_packets_dropped{reason="queue_head",kind="other"} 4\n'
            'derp_bytes_dropped{reason="queue_head",kind="other"} 400\n'
        )
        self.assertEqual(overload.dropped(varz), 7)
        self.assertIsNone(overload.dropped("<html>"))
        self.assertEqual(overload.uncounted(run(lost=10, counted_drops=7)), 3.0)
        self.assertEqual(overload.uncounted(run(lost=5, counted_drops=7)), 0.0)
        self.assertIsNone(overload.uncounted(run(lost=5)))


class DoubtTests(SynchronousTestCase):
    """Runs that should not be trusted say so."""

    def test_clean_run(self) -> None:
        """Nothing wrong, nothing said."""
        self.assertEqual(harness.doubts(run(), lossless=True), [])

    def test_each_doubt(self) -> None:
        """Damage, loss in a lossless load, lost connections and a slow generator."""
        self.assertIn("altered", harness.doubts(run(corrupt=1), lossless=False)[0])
        self.assertIn("3 of 1200", harness.doubts(run(lost=3), lossless=True)[0])
        self.assertEqual(harness.doubts(run(lost=3), lossless=False), [])
        self.assertIn("reset", harness.doubts(run(failed=1, last_failure="reset"), False)[0])
        self.assertIn("too slow", harness.doubts(run(late=50), lossless=False)[0])
        self.assertEqual(harness.doubts(run(late=5), lossless=False), [])

    def test_busy_generator_is_named(self) -> None:
        """Rates that are the generator's own limit are listed."""
        runs = {"derper": [run(generator_busy=0.99)], "ours": [run()]}
        made = result("relay", [relay.CPU], {"one": (["pairs"], runs)})
        self.assertEqual(harness.generator_bound(made), ["one (derper)"])

    def test_shared_cpu_is_noticed(self) -> None:
        """A closed loop in which neither side was busy was not alone on the machine."""
        idle = run(server_cpu_ns=1_000_000_000)
        runs = {"derper": [idle, run(), {**idle, "window": 0}], "ours": []}
        made = result("relay", [relay.CPU], {"one": (["pairs"], runs)})
        self.assertEqual(harness.shared_cpu(made), 1)


class ServerChoiceTests(SynchronousTestCase):
    """Which servers are compared, and their command lines."""

    def test_reference_is_the_first_other(self) -> None:
        """With no other server the baseline is what we are measured against."""
        names = [spec.name for spec in servers.choose(["derper=/d -a :{port}"], None)]
        self.assertEqual(names, ["derper", servers.OURS, servers.PLAIN_TWISTED])
        names = [spec.name for spec in servers.choose([], None)]
        self.assertEqual(names, [servers.PLAIN_TWISTED, servers.OURS])
        names = [spec.name for spec in servers.choose(["d=/d {port}"], "ours,d")]
        self.assertEqual(names, ["d", servers.OURS])
        names = [spec.name for spec in servers.choose(["d=/d {port}"], "derper,d", "/derper")]
        self.assertEqual(names, ["derper", "d"])

    def test_placeholders(self) -> None:
        """Port and directory are filled in, other braces are left alone."""
        spec = servers.parse_other("d='/my dir/d' -a 127.0.0.1:{port} -c {dir}/key {x}")
        self.assertEqual(
            spec.words(99, Path("/tmp/a")),
            ["/my dir/d", "-a", "127.0.0.1:99", "-c", "/tmp/a/key", "{x}"],
        )

    def test_bad_choices_say_why(self) -> None:
        """Each unusable --other or --only is refused by a sentence that names it."""
        for others, only, said in (
            (["derper"], None, "--other 'derper'"),
            (["=x {port}"], None, "--other"),
            (["d=/d"], None, "{port}"),
            ([], "nobody", "nobody"),
            (["ours=/d {port}"], None, "same name"),
        ):
            error = self.assertRaises(servers.BenchmarkError, servers.choose, others, only)
            self.assertIn(said, str(error))


class CommandTests(SynchronousTestCase):
    """Command lines and loads."""

    FREE = ("--server-cpu", "-1", "--generator-cpu", "-1")

    def test_every_load_of_the_goals(self) -> None:
        """Trains and single writes for small packets, the largest single only, one paced."""
        names = [case.name for case in relay.cases([1200, 65535], [1, 10], 20000)]
        self.assertEqual(
            names,
            [
                "1200 B, trains, 1 pair",
                "1200 B, trains, 10 pairs",
                "1200 B, single, 1 pair",
                "1200 B, single, 10 pairs",
                "65535 B, single, 1 pair",
                "65535 B, single, 10 pairs",
                "1200 B, paced 20000/s, 20 pairs",
            ],
        )

    def test_overload_ends_with_all_there_is(self) -> None:
        """The closed loop first, then the rates, then no limit."""
        modes = [case.load[0] for case in overload.cases(1200, [10], [1000, 2000])]
        self.assertEqual(modes, ["pairs", "overload", "overload", "open"])

    def test_nothing_matches(self) -> None:
        """A --match without a case ends with a sentence before anything is started."""
        error = self.assertRaises(SystemExit, relay.main, ["--match", "nothing", *self.FREE])
        self.assertIn("--match nothing", str(error))

    def test_cpu_that_is_not_there(self) -> None:
        """A CPU we may not use is named with the ones we may."""
        error = self.assertRaises(SystemExit, relay.main, ["--server-cpu", "9999"])
        self.assertIn("--server-cpu 9999", str(error))

    def test_missing_library_is_named(self) -> None:
        """What the compiler says becomes the package to install."""
        for said, package in (
            ("loadgen.c:10:10: fatal error: sodium.h: No such file or directory", "libsodium-dev"),
            ("/usr/bin/ld: cannot find -lsodium: No such file", "libsodium-dev"),
            ("fatal error: openssl/ssl.h: No such file or directory", "libssl-dev"),
            ("/usr/bin/ld: cannot find -lcrypto", "libssl-dev"),
        ):
            self.assertIn(package, generator.build_failure(said))
        self.assertIn("internal error", generator.build_failure("internal error"))

    def test_result_holds_plain_values(self) -> None:
        """Options with paths become text, so that a result can be written."""
        options = argparse.Namespace(rounds=1, json=Path("/x"), other=[])
        session = harness.Session(
            harness.Benchmark("relay", [], [relay.CPU]), options, Path("g"), [], []
        )
        path = Path(self.mktemp())
        report.write_json(path, session.result("derper"))
        self.assertEqual(report.read_json(path)["options"]["json"], "/x")


class FileTests(SynchronousTestCase):
    """Result files."""

    def test_round_trip(self) -> None:
        """What is written is read back, and the directory is made."""
        path = Path(self.mktemp()) / "deep" / "relay.json"
        made = result("relay", [relay.CPU], {"one": (["pairs"], {"derper": [run()], "ours": []})})
        report.write_json(path, made)
        self.assertEqual(report.read_json(path), made)

    def test_what_is_no_result(self) -> None:
        """A missing file, no JSON and foreign JSON each say so."""
        path = Path(self.mktemp())
        self.assertIn("cannot read", str(self.assertRaises(ValueError, report.read_json, path)))
        path.write_text("{")
        self.assertIn("no JSON", str(self.assertRaises(ValueError, report.read_json, path)))
        path.write_text("[1]")
        self.assertIn("no result", str(self.assertRaises(ValueError, report.read_json, path)))


class CompareTests(SynchronousTestCase):
    """Two results side by side."""

    def make(self, *cpu_ms: int) -> dict[str, Any]:
        """A result whose second server cost so much in its runs."""
        runs = {
            "derper": [run()],
            "ours": [run(server_cpu_ns=ms * 1_000_000) for ms in cpu_ms],
        }
        return result("relay", [relay.CPU], {"one": (["pairs"], runs)})

    def test_change_and_noise(self) -> None:
        """B over A, marked when the spreads touch."""
        clear = compare.compare(self.make(4, 5, 6), self.make(1, 2, 3)).splitlines()[-1]
        self.assertEqual(clear.split()[-3:], ["5.00", "2.00", "0.40x"])
        noisy = compare.compare(self.make(4, 5, 6), self.make(3, 4, 5)).splitlines()[-1]
        self.assertEqual(noisy.split()[-1], "0.80x~")

    def test_other_benchmark(self) -> None:
        """Results of different benchmarks have nothing to compare."""
        other = {**self.make(1), "benchmark": "latency"}
        self.assertRaises(ValueError, compare.compare, self.make(1), other)


class OverloadTests(SynchronousTestCase):
    """Goodput tables and pictures."""

    def make(self) -> dict[str, Any]:
        """One server that collapses and one that holds."""

        def runs(offered: int, derper: int, ours: int) -> dict[str, list[dict[str, Any]]]:
            return {
                "derper": [run(offered=offered, delivered=derper)],
                "ours": [run(offered=min(offered, ours), delivered=ours)],
            }

        return result(
            "overload",
            overload.METRICS,
            {
                "10 pairs, closed loop": (["pairs"], runs(400, 400, 400)),
                "10 pairs, 200/s": (["overload"], runs(400, 400, 400)),
                "10 pairs, all the senders can": (["open"], runs(900, 4, 500)),
            },
        )

    def test_share_of_own_peak(self) -> None:
        """Each server is measured by the best it did itself."""
        lines = overload.goodput_table(self.make()).splitlines()
        self.assertEqual(lines[-1].split()[-2:], ["1%", "100%"])
        self.assertEqual(lines[-2].split()[-2:], ["100%", "80%"])

    def test_picture(self) -> None:
        """Well-formed, one line per server and the ideal, all offered the same at the end."""
        made = self.make()
        picture = ElementTree.fromstring(plot.draw(made))
        self.assertEqual(len(picture.findall(f"{SVG}polyline")), 3)
        (panel,) = plot.overload_panels(made)
        self.assertEqual([line.points[-1][0] for line in panel.lines[:2]], [0.45, 0.45])


class PlotTests(SynchronousTestCase):
    """Latency pictures and axes."""

    def test_latency_picture(self) -> None:
        """A panel per case, a line per server that has runs."""
        runs = {"derper": [run()], "ours": [run(), run()]}
        made = result("latency", [relay.CPU], {"idle <1>": (["latency"], runs)})
        picture = ElementTree.fromstring(plot.draw(made))
        self.assertEqual(len(picture.findall(f"{SVG}polyline")), 2)

    def test_no_picture(self) -> None:
        """A benchmark without a picture says which have one."""
        made = result("memory", [], {})
        self.assertIn("overload", str(self.assertRaises(ValueError, plot.draw, made)))

    def test_nines_are_equally_far(self) -> None:
        """90, 99 and 99.9 are one step apart each."""
        self.assertAlmostEqual(plot.nines("99") - plot.nines("90"), 1.0)
        self.assertAlmostEqual(plot.nines("99.9") - plot.nines("99"), 1.0)

    def test_ticks_are_round_and_cover(self) -> None:
        """Ticks enclose what is drawn, at 1, 2 or 5 times a power of ten."""
        self.assertEqual(svg.round_ticks(0, 430), [0, 100, 200, 300, 400, 500])
        self.assertEqual(svg.round_ticks(0, 9), [0, 2, 4, 6, 8, 10])
        self.assertEqual(svg.decade_ticks(40, 9000), [10, 100, 1000, 10000])
        self.assertEqual(svg.decade_ticks(3, 40), [2, 5, 10, 20, 50])


class PageTests(SynchronousTestCase):
    """The documentation's figures are those of the kept results."""

    def test_current(self) -> None:
        """Whoever keeps other results writes the page anew."""
        read = page.results()
        self.assertIn("relay", read)
        for name, text in page.files(read).items():
            written = (page.DOCS / name).read_text(encoding="utf-8")
            self.assertEqual(written, text, "run: python -m bench.page")

    def test_cells(self) -> None:
        """A cell is the median, its spread, and the part of the reference; none without runs."""
        runs = {"derper": [run(), run(server_cpu_ns=4_000_000_000)], "ours": [run()]}
        cases = {"trains": (["pairs"], runs), "paced": (["paced"], {"derper": [], "ours": [run()]})}
        text = page.page({"relay": result("relay", [relay.CPU], cases)})
        rows = text[text.index("   * - trains\n") :].splitlines()
        self.assertEqual(
            rows[1:3], ["     - 3,000.00 [2,000.00..4,000.00]", "     - 2,000.00 (**0.67**)"]
        )
        self.assertEqual(rows[3:6], ["   * - paced", "     -", "     - 2,000.00"])
