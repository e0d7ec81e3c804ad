"""
When the authority would like certificates renewed (ARI, RFC 9773).

An authority that must revoke certificates, or wants to spread its load, suggests a window. It
is asked now and then, at the pace it gives; a moment of the window is drawn once per window.
Without an answer our own dates hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography import x509
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from derp.core.renewal import time_in_window
from derp.net.acme_client import ACMEClient, RenewalWindow
from derp.net.acme_problem import ACMEError
from derp.net.certificate_status import moment

ASK_S: Final = 6 * 3600.0
LEAST_ASK_S: Final = 60.0
MOST_ASK_S: Final = 86400.0

log = Logger()


class RenewalAdvice:
    """
    Suggested renewal times by name.

    :param client: gives the account's client.
    :param luck: chance in ``[0, 1)``.
    """

    def __init__(
        self, clock: IReactorTime, client: Callable[[], ACMEClient], luck: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._client = client
        self._luck = luck
        self._windows: dict[str, tuple[RenewalWindow, float]] = {}
        self._ask_at: dict[str, float] = {}
        self._asking: dict[str, Deferred[None]] = {}

    def time_for(self, name: str) -> float | None:
        """When to renew; ``None`` without advice."""
        found = self._windows.get(name)
        return None if found is None else found[1]

    def forget(self, name: str) -> None:
        """The certificate is another one now."""
        self._windows.pop(name, None)
        self._ask_at.pop(name, None)
        if name in self._asking:
            self._asking[name].cancel()

    def refresh(self, name: str, certificate: x509.Certificate) -> None:
        """Ask, if it is time."""
        if name in self._asking or self._clock.seconds() < self._ask_at.get(name, 0.0):
            return
        asking: Deferred[None] = Deferred.fromCoroutine(self._ask(name, certificate))
        if not asking.called:
            self._asking[name] = asking
            asking.addBoth(lambda _: self._asking.pop(name, None))

    def stop(self) -> None:
        """Stop asking."""
        for each in list(self._asking.values()):
            each.cancel()

    async def _ask(self, name: str, certificate: x509.Certificate) -> None:
        again = ASK_S
        try:
            window = await self._client().renewal_window(certificate)
            if window is not None:
                again = min(max(window.retry_after or ASK_S, LEAST_ASK_S), MOST_ASK_S)
                self._note(name, window)
        except CancelledError:
            return
        except ACMEError as error:
            log.debug("no advice on renewing {name}: {error}", name=name, error=error)
        self._ask_at[name] = self._clock.seconds() + again

    def _note(self, name: str, window: RenewalWindow) -> None:
        known = self._windows.get(name)
        if known is not None and (known[0].start, known[0].end) == (window.start, window.end):
            return
        chosen = time_in_window(window.start, window.end, self._luck())
        self._windows[name] = window, chosen
        log.info(
            "the authority suggests to renew the certificate of {name}; chosen: {chosen}",
            name=name,
            chosen=moment(chosen),
        )
