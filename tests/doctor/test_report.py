"""Tests for :mod:`derp.doctor.report` and :mod:`derp.doctor.examination`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from derp.doctor import finding
from derp.doctor.examination import STEPS, Examination, Examined, examine, worst
from derp.doctor.finding import Finding, Verdict, fail, ok, warn
from derp.doctor.patient import Chart, Patient
from derp.doctor.report import as_json, as_text
from derp.wire.node_json import RelayNode

RESULTS = [
    Examined("DNS", [ok("a.test: 192.0.2.7", addresses=["192.0.2.7"])]),
    Examined("TCP", [ok("open"), warn("slow " * 30, "hurry " * 30)]),
    Examined("fast start", [finding.skip("not possible")]),
]
BAD = [*RESULTS, Examined("STUN", [fail("silent\x1b[2J", "open the port")])]
NODE = RelayNode(hostname="a.test")


class TextTests(SynchronousTestCase):
    """For people."""

    def lines(self, results: Sequence[Examined] = RESULTS, **options: Any) -> list[str]:
        """The report's lines."""
        known: dict[str, Any] = {"seconds": 1.25, "colour": False, "width": 72}
        return as_text("a.test", results, NODE, **(known | options)).splitlines()

    def test_aligned(self) -> None:
        """Verdict, name, sentence: each in its column, also where a sentence goes on."""
        lines = self.lines()
        self.assertEqual(lines[2], "  ok    DNS         a.test: 192.0.2.7")
        self.assertEqual(lines[3], "  ok    TCP         open")
        self.assertEqual(lines[4][:26], "  warn              slow s")
        self.assertTrue(lines[5].startswith(" " * 20 + "slow"))
        cure = next(number for number, line in enumerate(lines) if "->" in line)
        self.assertTrue(lines[cure].startswith(" " * 20 + "-> hurry"))
        self.assertTrue(lines[cure + 1].startswith(" " * 23 + "hurry"))
        for line in lines[: cure + 5]:
            self.assertLessEqual(len(line), 72, line)

    def test_summary_and_entry(self) -> None:
        """How many, how long, and what to paste in both forms."""
        text = "\n".join(self.lines())
        self.assertIn("2 ok, 1 to look at, 0 wrong, 1 not examined (1.2 s)", text)
        self.assertIn("To use it, add this to the tailnet policy file:", text)
        self.assertIn('"HostName": "a.test"', text)
        self.assertIn('hostname: "a.test"', text)
        self.assertIn("once the above is cured", "\n".join(self.lines(BAD)))

    def test_colour(self) -> None:
        """Only where it is asked for; what others sent never reaches the terminal raw."""
        self.assertNotIn("\x1b", "\n".join(self.lines(BAD)))
        coloured = self.lines(BAD, colour=True)
        self.assertIn("\x1b[32mok    \x1b[0m", coloured[2])
        self.assertNotIn("\x1b[2J", "\n".join(coloured))


class JSONTests(SynchronousTestCase):
    """For programs."""

    def test_document(self) -> None:
        """Verdicts, facts, and the map entry as the policy file has it."""
        document = json.loads(as_json("a.test", BAD, NODE, seconds=0.5))
        self.assertEqual((document["verdict"], document["seconds"]), ("fail", 0.5))
        self.assertEqual(document["counts"], {"ok": 2, "warn": 1, "fail": 1, "skip": 1})
        first, *_, last = document["findings"]
        self.assertEqual(first["facts"], {"addresses": ["192.0.2.7"]})
        self.assertEqual((last["examination"], last["cure"]), ("STUN", "open the port"))
        node = document["derpMap"]["Regions"]["900"]["Nodes"][0]
        self.assertEqual(node["HostName"], "a.test")
        self.assertNotIn("derpMap", json.loads(as_json("x", [], None, seconds=0)))

    def test_worst(self) -> None:
        """A failure, else a warning, else all is well."""
        self.assertEqual(
            (worst(BAD), worst(RESULTS), worst(RESULTS[:1]), worst([])),
            (Verdict.FAIL, Verdict.WARN, Verdict.OK, Verdict.OK),
        )


class OrderTests(SynchronousTestCase):
    """When examinations run, and how they end."""

    def setUp(self) -> None:
        """A clock that stands still."""
        self.clock = Clock()
        self.patient = Patient(reactor=self.clock, host="a.test", timeout=1.0)
        self.ran: list[str] = []

    def one(
        self, name: str, *after: str, wait: Deferred[None] | None = None, **options: Any
    ) -> Examination:
        """An examination that notes when it runs."""

        async def run(patient: Patient, chart: Chart) -> Sequence[Finding]:
            self.ran.append(name)
            if wait is not None:
                await wait
            return [ok(name)]

        return Examination(name, run, after, **options)

    def start(self, *examinations: Examination) -> Deferred[list[Examined]]:
        """Run them."""
        return Deferred.fromCoroutine(examine(examinations, self.patient, Chart()))

    def test_side_by_side(self) -> None:
        """Who waits for nobody runs at once; who follows, afterwards; results keep their order."""
        wait: Deferred[None] = Deferred()
        done = self.start(
            self.one("late", "first"), self.one("first", wait=wait), self.one("other")
        )
        self.assertEqual(self.ran, ["first", "other"])
        wait.callback(None)
        results = self.successResultOf(done)
        self.assertEqual([each.name for each in results], ["late", "first", "other"])

    def test_absent(self) -> None:
        """To follow one that is not made is to follow nobody."""
        self.successResultOf(self.start(self.one("upgrade", "TLS")))
        self.assertEqual(self.ran, ["upgrade"])

    def test_needs(self) -> None:
        """What makes no sense is said to, and not run."""
        [result] = self.successResultOf(self.start(self.one("a", needs=lambda chart: "no port")))
        self.assertEqual(list(result.findings), [finding.skip("no port")])
        self.assertEqual(self.ran, [])

    def test_hangs(self) -> None:
        """One that hangs is ended; who follows it runs."""
        done = self.start(self.one("a", wait=Deferred()), self.one("b", "a"))
        self.clock.advance(STEPS * 1.0 - 0.1)
        self.assertNoResult(done)
        self.clock.advance(0.2)
        hung, after = self.successResultOf(done)
        self.assertEqual(hung.findings[0].verdict, Verdict.FAIL)
        self.assertIn("not done within 3 s", hung.findings[0].said)
        self.assertEqual(after.findings[0].verdict, Verdict.OK)

    def test_crash(self) -> None:
        """A fault of the doctor's own is a finding, and no end of the others."""

        async def crash(patient: Patient, chart: Chart) -> Sequence[Finding]:
            raise KeyError("spleen")

        broken, well = self.successResultOf(self.start(Examination("a", crash), self.one("b", "a")))
        self.assertIn("KeyError: 'spleen'", broken.findings[0].said)
        self.assertEqual(well.findings[0].verdict, Verdict.OK)
