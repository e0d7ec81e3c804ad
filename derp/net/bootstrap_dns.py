"""``/bootstrap-dns`` and the refresh behind it; see :mod:`derp.core.bootstrap_dns`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall, IHostnameResolver, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource

from derp.core.bootstrap_dns import BootstrapDNS, BootstrapName, ResolvedNames, percent_of
from derp.net.browser_headers import add_browser_headers
from derp.net.debug_access import peer_ip
from derp.net.host_lookup import look_up

if TYPE_CHECKING:
    from derp.net.web_request import WebRequest

REFRESH_S: Final = 600.0
"""From the end of one refresh to the start of the next."""
TIMEOUT_S: Final = 60.0
"""For one list; what has not resolved by then is absent."""
MAX_LOOKUPS: Final = 4
"""At a time: lookups hold threads of the reactor's pool."""

LookUpTXT = Callable[[str], Deferred[list[str]]]
"""Name to the strings of its TXT records."""


class BootstrapDNSResource(Resource):
    """The page."""

    isLeaf = True

    def __init__(self, bootstrap: BootstrapDNS) -> None:
        super().__init__()
        self._bootstrap = bootstrap

    def render(self, request: WebRequest) -> bytes:
        add_browser_headers(request)
        request.setHeader(b"Content-Type", b"application/json")
        # Clients come once, from other regions: a kept connection is a wasted one.
        request.close_after_answer()
        query = request.args.get(b"q", [b""])[0].decode("utf-8", "replace")
        return self._bootstrap.answer(query, peer_ip(request))


class LookupFailed(Exception):
    """A name has no addresses."""


class BootstrapDNSRefresh(Service):
    """
    Resolves both lists at start and ten minutes after each time it is done.

    :param reactor: the clock.
    :param resolver: the system's resolver (``reactor.nameResolver``).
    :param look_up_txt: asked only for names with a percentage.
    """

    log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        bootstrap: BootstrapDNS,
        *,
        published: Sequence[str],
        unpublished: Sequence[str],
        resolver: IHostnameResolver,
        look_up_txt: LookUpTXT,
    ) -> None:
        self._reactor = reactor
        self._bootstrap = bootstrap
        self._published = [BootstrapName.parse(entry) for entry in published]
        self._unpublished = [BootstrapName.parse(entry) for entry in unpublished]
        self._resolver = resolver
        self._look_up_txt = look_up_txt
        self._next: IDelayedCall | None = None
        self._current: Deferred[None] | None = None

    def startService(self) -> None:
        super().startService()
        if self._published or self._unpublished:
            self._refresh()

    def stopService(self) -> None:
        super().stopService()
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._current is not None:
            self._current.cancel()

    def _refresh(self) -> None:
        self._next = None
        self._current = Deferred.fromCoroutine(self._resolve_lists())
        self._current.addErrback(self._failed)
        self._current.addCallback(self._rest)

    def _failed(self, failure: Failure) -> None:
        if self.running:
            self.log.failure("bootstrap DNS: a refresh failed, the old answers stay", failure)

    def _rest(self, _: None) -> None:
        self._current = None
        if self.running:
            self._next = self._reactor.callLater(REFRESH_S, self._refresh)

    async def _resolve_lists(self) -> None:
        if self._published:
            found = await self._resolve(self._published)
            if self.running:
                self._bootstrap.publish(found)
        if self._unpublished and self.running:
            found = await self._resolve(self._unpublished)
            if self.running:
                self._bootstrap.set_unpublished(found)

    async def _resolve(self, names: Sequence[BootstrapName]) -> ResolvedNames:
        addresses: dict[str, list[str]] = {}
        percent: dict[str, int] = {}
        places = DeferredSemaphore(MAX_LOOKUPS)

        def resolve(name: BootstrapName) -> Deferred[None]:
            return Deferred.fromCoroutine(self._resolve_one(name, addresses, percent))

        lookups = [places.run(resolve, name) for name in names]
        everything = DeferredList(lookups, consumeErrors=True)
        too_late = self._reactor.callLater(TIMEOUT_S, everything.cancel)
        results = await everything
        if too_late.active():
            too_late.cancel()
        for name, (in_time, _) in zip(names, results, strict=True):
            if not in_time:
                self._warn(name.name, f"no answer within {TIMEOUT_S:g} s")
        # In the order of the list, not in that of the answers.
        in_order = {name.name: addresses[name.name] for name in names if name.name in addresses}
        return ResolvedNames(in_order, percent)

    async def _resolve_one(
        self, name: BootstrapName, addresses: dict[str, list[str]], percent: dict[str, int]
    ) -> None:
        asked = name.name
        try:
            addresses[asked] = await self._look_up(asked)
            if name.txt_name:
                asked = name.txt_name
                percent[name.name] = percent_of(await self._look_up_txt(asked))
            else:
                percent[name.name] = 100
        except CancelledError:
            raise
        except Exception as fault:
            self._warn(asked, str(fault) or type(fault).__name__)

    async def _look_up(self, name: str) -> list[str]:
        found = await look_up(self._resolver, name)
        if not found:
            raise LookupFailed("no addresses found")
        return found

    def _warn(self, name: str, fault: str) -> None:
        if self.running:
            self.log.warn('bootstrap DNS lookup "{name}": {fault}', name=name, fault=fault)
