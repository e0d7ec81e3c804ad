"""Bootstrap DNS answers, percentages and counters."""

import json
from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.bootstrap_dns import (
    MAX_QUERIED_DOMAINS,
    BootstrapDNS,
    BootstrapDNSStats,
    BootstrapName,
    ResolvedNames,
    falls_into,
    pcg_float,
    percent_of,
)

STRANGER = "1.2.3.4"


def never() -> float:
    """A coin nobody is to toss."""
    raise AssertionError("tossed")


class PercentTests(SynchronousTestCase):
    """Who takes part in a rollout."""

    def test_known_floats(self) -> None:
        """Go's generator, seeded with addresses."""
        known = {
            "1.2.3.4": 0.06865797708372512,
            "1.2.3.6": 0.8582550888355482,
            "1.2.3.10": 0.2941291998555906,
        }
        for ip, value in known.items():
            seed = bytes(10) + b"\xff\xff" + IPv4Address(ip).packed
            self.assertEqual(pcg_float(seed), value)

    @given(st.binary(min_size=16, max_size=16))
    def test_range(self, seed: bytes) -> None:
        """A float is at least 0 and below 1."""
        self.assertTrue(0 <= pcg_float(seed) < 1)

    def test_half(self) -> None:
        """The reference's own cases at 50 %."""
        cases = {4: True, 5: True, 6: False, 7: True, 8: False, 9: True, 10: True}
        for last, expected in cases.items():
            self.assertEqual(falls_into(50, f"1.2.3.{last}", never), expected, last)
            self.assertEqual(falls_into(50, f"::ffff:1.2.3.{last}", never), expected, last)

    def test_ends(self) -> None:
        """Nobody at 0, everybody at 100, whatever the address; else it must be one."""
        self.assertFalse(falls_into(0, STRANGER, never))
        self.assertTrue(falls_into(100, STRANGER, never))
        self.assertTrue(falls_into(100, "", never))
        self.assertFalse(falls_into(50, "", never))
        self.assertFalse(falls_into(99, "nonsense", never))

    def test_loopback(self) -> None:
        """Loopback tosses a coin."""
        for ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
            self.assertTrue(falls_into(50, ip, lambda: 0.49))
            self.assertFalse(falls_into(50, ip, lambda: 0.5))

    def test_share(self) -> None:
        """Of a whole range, half takes part at 50 %."""
        count = sum(falls_into(50, f"1.2.{x}.{y}", never) for x in range(256) for y in range(256))
        self.assertLessEqual(abs(count / 65536 - 0.5), 0.005)

    def test_texts(self) -> None:
        """The last usable string wins; others are passed over."""
        cases = {
            (): 0,
            ("50",): 50,
            ("50", "60"): 60,
            ("50", "101", "-1", "x", "", "1.5", " 7", "٣", "9" * 9999): 50,
            ("0",): 0,
            ("100", "+7"): 7,
            ("007",): 7,
        }
        for texts, percent in cases.items():
            self.assertEqual(percent_of(texts), percent, texts)

    @given(st.lists(st.text()))
    def test_any_text(self, texts: list[str]) -> None:
        """Whatever a TXT record says, it is a percentage."""
        self.assertIn(percent_of(texts), range(101))


class BootstrapNameTests(SynchronousTestCase):
    """Entries of the flags."""

    def test_entries(self) -> None:
        """A name, or a name and where its percentage stands."""
        self.assertEqual(BootstrapName.parse("a.b"), BootstrapName("a.b"))
        self.assertEqual(BootstrapName.parse("a.b/t.b"), BootstrapName("a.b", "t.b"))
        self.assertEqual(BootstrapName.parse("a/b/c"), BootstrapName("a", "b/c"))


class BootstrapDNSTests(SynchronousTestCase):
    """The answers."""

    def setUp(self) -> None:
        self.bootstrap = BootstrapDNS(coin=never, shuffle=list.reverse)
        self.stats = self.bootstrap.stats

    def counts(self) -> tuple[int, ...]:
        stats = self.stats
        return (
            stats.published_hits,
            stats.published_misses,
            stats.unpublished_hits,
            stats.unpublished_misses,
            stats.unpublished_percent_misses,
        )

    def test_nothing_yet(self) -> None:
        """Before the first refresh the answer is empty, not an empty object."""
        self.assertEqual(self.bootstrap.answer("", STRANGER), b"")
        self.assertEqual(self.bootstrap.answer("a", STRANGER), b"")
        self.assertEqual((self.stats.requests, *self.counts()), (2, 0, 0, 0, 1, 0))

    def test_nothing_resolved(self) -> None:
        """A list of which nothing resolved is ``null``."""
        self.bootstrap.publish(ResolvedNames())
        self.assertEqual(self.bootstrap.answer("", STRANGER), b"null")

    def test_published(self) -> None:
        """Names sorted, addresses shuffled, tabs, no line end."""
        found = {"b.x": ["1.1.1.1", "::1"], "a.x": ["2.2.2.2"]}
        self.bootstrap.publish(ResolvedNames(found))
        expected = (
            '{\n\t"a.x": [\n\t\t"2.2.2.2"\n\t],\n\t"b.x": [\n\t\t"::1",\n\t\t"1.1.1.1"\n\t]\n}'
        )
        self.assertEqual(self.bootstrap.answer("", STRANGER).decode(), expected)
        self.assertEqual(found["b.x"], ["1.1.1.1", "::1"])
        self.assertEqual(self.bootstrap.answer("a.x", STRANGER).decode(), expected)
        self.assertEqual(self.counts(), (1, 0, 0, 0, 0))

    def test_unpublished(self) -> None:
        """An unpublished name is answered alone, and only to who asks for it."""
        self.bootstrap.publish(ResolvedNames({"pub": ["1.1.1.1"]}))
        self.bootstrap.set_unpublished(
            ResolvedNames({"log": ["3.3.3.3", "4.4.4.4"], "empty": []}, {"log": 100, "empty": 100})
        )
        answer = json.loads(self.bootstrap.answer("log", STRANGER))
        self.assertEqual(answer, {"log": ["3.3.3.3", "4.4.4.4"]})
        self.assertEqual(self.counts(), (0, 0, 1, 0, 0))
        for query in ("pub", "random", "empty", ""):
            answer = json.loads(self.bootstrap.answer(query, STRANGER))
            self.assertEqual(answer, {"pub": ["1.1.1.1"]})
        self.assertEqual(self.counts(), (1, 0, 1, 2, 0))

    def test_percent_miss(self) -> None:
        """Who does not fall into the percentage is as ignorant as all others, and counted so."""
        self.bootstrap.set_unpublished(ResolvedNames({"log": ["3.3.3.3"]}, {"log": 5}))
        self.assertEqual(self.bootstrap.answer("log", STRANGER), b"")
        self.assertEqual(self.counts(), (0, 0, 1, 1, 1))
        self.bootstrap.set_unpublished(ResolvedNames({"log": ["3.3.3.3"]}))
        self.assertEqual(self.bootstrap.answer("log", STRANGER), b"")
        self.assertEqual(self.counts(), (0, 0, 2, 2, 2))

    def test_published_without_address(self) -> None:
        """A published name without addresses is a miss of its own."""
        self.bootstrap.publish(ResolvedNames({"pub": []}))
        self.bootstrap.answer("pub", STRANGER)
        self.assertEqual(self.counts(), (0, 1, 0, 0, 0))

    def test_markup(self) -> None:
        """As in Go, JSON can be put into a page."""
        self.bootstrap.publish(ResolvedNames({"<&>": ["1.1.1.1"]}))
        self.assertIn(b'"\\u003c\\u0026\\u003e"', self.bootstrap.answer("", STRANGER))


class BootstrapDNSStatsTests(SynchronousTestCase):
    """The set of queried names."""

    def test_distinct(self) -> None:
        """Eight queries over five names are five."""
        stats = BootstrapDNSStats()
        for name in "aabcaddec"[:8]:
            stats.remember(name)
        self.assertEqual(stats.queried_domains, 5)

    def test_bounded(self) -> None:
        """The set starts anew when it gets too large, and takes no overlong names."""
        stats = BootstrapDNSStats()
        for i in range(MAX_QUERIED_DOMAINS):
            stats.remember(f"n{i}")
        stats.remember("x" * 300)
        self.assertEqual(stats.queried_domains, MAX_QUERIED_DOMAINS)
        stats.remember("one more")
        self.assertEqual(stats.queried_domains, 0)
