"""Tests of :mod:`derp.core.verdict_cache`."""

from twisted.trial.unittest import SynchronousTestCase

from derp.core.admission import ALLOWED, Answer, Question, Verdict
from derp.core.verdict_cache import FRESH_S, STALE_S, VerdictCache

WHO = Question(bytes(32), "192.0.2.1")
NO = Answer(Verdict.DENIED, "no")


class VerdictCacheTests(SynchronousTestCase):
    """How long what was said counts."""

    def test_lives(self) -> None:
        """Fresh, then good enough in need, then forgotten; a no is shorter fresh than a yes."""
        for answer in (ALLOWED, NO):
            life = FRESH_S[answer.verdict]
            cache = VerdictCache()
            cache.remember(WHO, answer, 100.0)
            self.assertIs(cache.fresh(WHO, 100.0 + life - 0.1), answer)
            self.assertIsNone(cache.fresh(WHO, 100.0 + life))
            self.assertIs(cache.stale(WHO, 100.0 + STALE_S - 0.1), answer)
            self.assertIsNone(cache.stale(WHO, 100.0 + STALE_S))
        self.assertLess(FRESH_S[Verdict.DENIED], FRESH_S[Verdict.ALLOWED])

    def test_expire(self) -> None:
        """What was said before a change is not fresh, but still better than nothing."""
        cache = VerdictCache()
        cache.remember(WHO, ALLOWED, 1.0)
        cache.expire(1.0)
        self.assertIsNone(cache.fresh(WHO, 1.0))
        self.assertIs(cache.stale(WHO, 1.0), ALLOWED)
        cache.remember(WHO, NO, 1.5)
        self.assertIs(cache.fresh(WHO, 2.0), NO)

    def test_latest_counts(self) -> None:
        """A no takes a yes's place, and the other way round."""
        cache = VerdictCache()
        for answer in (ALLOWED, NO, ALLOWED):
            cache.remember(WHO, answer, 0.0)
            self.assertIs(cache.fresh(WHO, 1.0), answer)
            self.assertEqual(len(cache), 1)

    def test_no_verdict(self) -> None:
        """An error says nothing about a key, and takes nothing back."""
        cache = VerdictCache()
        cache.remember(WHO, ALLOWED, 0.0)
        for verdict in (Verdict.FAULT, Verdict.UNREACHABLE):
            cache.remember(WHO, Answer(verdict, "x"), 1.0)
        self.assertIs(cache.fresh(WHO, 1.0), ALLOWED)

    def test_places_differ(self) -> None:
        """A verdict may depend on where a client comes from."""
        cache = VerdictCache()
        cache.remember(WHO, ALLOWED, 0.0)
        self.assertIsNone(cache.stale(Question(WHO.key, "192.0.2.2"), 0.0))

    def test_bounded(self) -> None:
        """Made-up keys displace each other, not those that are allowed."""
        cache = VerdictCache(capacity=10)
        cache.remember(WHO, ALLOWED, 0.0)
        made_up = [Question(number.to_bytes(32, "big"), "") for number in range(1, 100)]
        for question in made_up:
            cache.remember(question, NO, 0.0)
        self.assertEqual(len(cache), 11)
        self.assertIs(cache.fresh(WHO, 1.0), ALLOWED)
        self.assertIsNone(cache.fresh(made_up[0], 1.0))
        self.assertIs(cache.fresh(made_up[-1], 1.0), NO)

    def test_clock_set_back(self) -> None:
        """An entry from the future is not believed."""
        cache = VerdictCache()
        cache.remember(WHO, ALLOWED, 1000.0)
        self.assertIsNone(cache.fresh(WHO, 1.0))
