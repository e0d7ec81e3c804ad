"""The bootstrap DNS page, and its refresh."""

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from derp.config import Config
from derp.core.bootstrap_dns import BootstrapDNS, ResolvedNames
from derp.net.bootstrap_dns import MAX_LOOKUPS, REFRESH_S, TIMEOUT_S, BootstrapDNSRefresh
from derp.net.web import build_main_site
from tests.net.sites import Visit, get, site_parts


class FakeResolver:
    """Answers when told to."""

    def __init__(self) -> None:
        self.receivers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.known: dict[str, list[str]] = {}

    def resolveHostName(
        self, receiver: Any, name: str, port: int = 0, types: Any = None, semantics: str = "TCP"
    ) -> None:
        self.asked.append(name)
        receiver.resolutionBegan(self)
        self.receivers[name] = receiver
        if name in self.known:
            self.answer(name, *self.known[name])

    def answer(self, name: str, *addresses: str) -> None:
        receiver = self.receivers.pop(name)
        for address in addresses:
            kind = IPv6Address if ":" in address else IPv4Address
            receiver.addressResolved(kind("TCP", address, 0))
        receiver.resolutionComplete()


class BootstrapDNSRefreshTests(SynchronousTestCase):
    """``BootstrapDNSRefresh``."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.resolver = FakeResolver()
        self.bootstrap = BootstrapDNS(coin=lambda: 0.0, shuffle=lambda found: None)
        self.txt: dict[str, Callable[[], Deferred[list[str]]]] = {}
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self._observe)
        self.addCleanup(globalLogPublisher.removeObserver, self._observe)

    def _observe(self, event: Any) -> None:
        if event.get("log_namespace", "").endswith("BootstrapDNSRefresh"):
            self.lines.append(event["log_format"].format(**event))

    def start(self, *published: str, unpublished: tuple[str, ...] = ()) -> BootstrapDNSRefresh:
        service = BootstrapDNSRefresh(
            self.clock,
            self.bootstrap,
            published=published,
            unpublished=unpublished,
            resolver=self.resolver,
            look_up_txt=lambda name: self.txt[name](),
        )
        service.startService()
        return service

    def published(self) -> bytes:
        return self.bootstrap.answer("", "1.2.3.4")

    def test_nothing_to_do(self) -> None:
        """Without lists nothing happens, ever."""
        self.start().stopService()
        self.assertEqual((self.clock.getDelayedCalls(), self.resolver.asked), ([], []))

    def test_refresh(self) -> None:
        """Addresses of both kinds, each once, in the resolver's order; again after ten minutes."""
        service = self.start("a", "b")
        self.resolver.answer("b", "2.2.2.2")
        self.assertEqual(self.published(), b"")
        self.clock.advance(5)
        self.resolver.answer("a", "::1", "1.1.1.1", "::1")
        self.assertEqual(
            self.published().split(), b'{ "a": [ "::1", "1.1.1.1" ], "b": [ "2.2.2.2" ] }'.split()
        )
        self.clock.advance(REFRESH_S - 1)
        self.assertEqual(len(self.resolver.asked), 2)
        self.clock.advance(1)
        self.assertEqual(self.resolver.asked[2:], ["a", "b"])
        self.resolver.answer("a", "3.3.3.3")
        self.resolver.answer("b")
        self.assertEqual(self.published().split(), b'{ "a": [ "3.3.3.3" ] }'.split())
        self.assertEqual(self.lines, ['bootstrap DNS lookup "b": no addresses found'])
        service.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_timeout(self) -> None:
        """A list has a minute; what is missing then is logged, and absent."""
        names = [f"n{i}" for i in range(MAX_LOOKUPS + 1)]
        service = self.start(*names)
        self.assertEqual(self.resolver.asked, names[:MAX_LOOKUPS])
        self.resolver.answer("n1", "1.1.1.1")
        self.assertEqual(self.resolver.asked, names)
        self.clock.advance(TIMEOUT_S)
        self.assertEqual(self.published().split(), b'{ "n1": [ "1.1.1.1" ] }'.split())
        late = [f'bootstrap DNS lookup "{name}": no answer within 60 s' for name in names]
        self.assertEqual(self.lines, [line for line in late if '"n1"' not in line])
        self.resolver.answer("n2", "2.2.2.2")
        service.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_percent(self) -> None:
        """The percentage of an unpublished name stands in a TXT record; failing is 0."""
        self.txt = {
            "t.all": lambda: succeed(["x", "100"]),
            "t.bad": lambda: fail(OSError("refused")),
        }
        service = self.start(unpublished=("all/t.all", "bad/t.bad", "plain"))
        for name in ("all", "bad", "plain"):
            self.resolver.answer(name, "9.9.9.9")
        for name in ("all", "plain"):
            self.assertIn(b"9.9.9.9", self.bootstrap.answer(name, "1.2.3.4"))
        self.assertEqual(self.bootstrap.answer("bad", "1.2.3.4"), b"")
        self.assertEqual(self.bootstrap.stats.unpublished_percent_misses, 1)
        self.assertEqual(self.lines, ['bootstrap DNS lookup "t.bad": refused'])
        service.stopService()

    def test_published_first(self) -> None:
        """The lists are resolved one after the other."""
        service = self.start("a", unpublished=("b",))
        self.assertEqual(self.resolver.asked, ["a"])
        self.resolver.answer("a", "1.1.1.1")
        self.assertEqual(self.resolver.asked, ["a", "b"])
        service.stopService()

    def test_stop_meanwhile(self) -> None:
        """Stopping ends a refresh without a word, and late answers change nothing."""
        service = self.start("a", unpublished=("b",))
        service.stopService()
        self.resolver.answer("a", "1.1.1.1")
        self.assertEqual(self.published(), b"")
        self.assertEqual((self.resolver.asked, self.lines), (["a"], []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failing_refresh(self) -> None:
        """A refresh that fails leaves the old answers, and is tried again."""
        self.resolver.known = {"a": ["1.1.1.1"]}

        def fails(found: object) -> None:
            raise ZeroDivisionError

        service = self.start("a")
        self.patch(self.bootstrap, "publish", fails)
        self.clock.advance(REFRESH_S)
        self.assertIn(b"1.1.1.1", self.published())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        service.stopService()


class BootstrapDNSResourceTests(SynchronousTestCase):
    """``/bootstrap-dns``."""

    def setUp(self) -> None:
        self.bootstrap = BootstrapDNS(coin=lambda: 0.0, shuffle=lambda found: None)
        parts = site_parts(Clock(), Config(tls=False), bootstrap=self.bootstrap)
        self.site = build_main_site(parts)

    def ask(self, path: str, *headers: str) -> bytes:
        return Visit(self.site).send(get(path, *headers))

    def test_empty(self) -> None:
        """Before the first refresh the body is empty, but it is JSON."""
        answer = self.ask("/bootstrap-dns")
        self.assertIn(b"Content-Type: application/json\r\n", answer)
        self.assertTrue(answer.endswith(b"Content-Length: 0\r\n\r\n"))

    def test_query(self) -> None:
        """The first ``q`` counts, unescaped; the caller's address decides."""
        self.bootstrap.set_unpublished(ResolvedNames({"a b": ["1.1.1.1"]}, {"a b": 50}))
        self.assertIn(b"1.1.1.1", self.ask("/bootstrap-dns?q=a%20b&q=c"))
        self.assertNotIn(b"1.1.1.1", self.ask("/bootstrap-dns?q=c&q=a%20b"))
        self.assertIn(b"200 OK", self.ask("/bootstrap-dns?q=%ff%fe"))

    def test_connection_ends(self) -> None:
        """The answer is the connection's last."""
        visit = Visit(self.site)
        answers = visit.send(get("/bootstrap-dns") + get("/"))
        self.assertEqual(answers.count(b"HTTP/1.1"), 1)
        self.assertTrue(visit.closing)
