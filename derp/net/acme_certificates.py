"""
Certificates by ACME: which are served, which are got, when they are renewed.

One :class:`ACMECertificates` has the certificates of one account: those of host names, or those
of addresses. A name's life::

    asked for → (disk) → served → due → served while a flight is under way → replaced

A certificate in memory that is valid is served whatever else goes on. One that is missing is
looked for on disk and then ordered while its first client waits. Everything that replaces a
certificate comes through :meth:`ACMECertificates.store`.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from derp.core.renewal import renew_before, renewal_time, rest_after_renewal
from derp.net.acme_advice import RenewalAdvice
from derp.net.acme_client import ACMEClient, Profile, Resource, certificate_id
from derp.net.acme_order import LeafKey, Solver, new_leaf_key, obtain, prove
from derp.net.acme_problem import ACMEError
from derp.net.cert_files import KeyedChain
from derp.net.certificate_cache import CertificateStore
from derp.net.certificate_flights import Flights
from derp.net.certificate_status import CertificateStatus, moment
from derp.net.certificates import ServedCertificate, serve
from derp.net.private_files import cure_of
from derp.wire.jose import AccountKey

SAVE_AGAIN_S: Final = 60.0

log = Logger()


class Rotation(Protocol):
    """Who looks which certificates are due, and leads an attempt to its ``store()``."""

    def start(self) -> None:
        """Begin to look."""

    def stop(self) -> None:
        """Stop looking; attempts under way are not ours to end."""

    def issue(self, name: str) -> Deferred[None]:
        """Get one certificate, now."""

    def stored(self, not_before: float, not_after: float) -> None:
        """There is a new certificate with this life."""


class ACMECertificates:
    """
    The certificates of one account.

    :param clock: for pauses and deadlines.
    :param wall_time: Unix seconds, for everything about validity.
    :param make_client: makes the account's client when it is first needed.
    :param solvers: ways to prove a name, the best first.
    :param profile: of certificate to ask for.
    :param limit_s: how long one attempt may take.
    :param luck: chance in ``[0, 1)``.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wall_time: Callable[[], float],
        store: CertificateStore,
        make_client: Callable[[AccountKey], ACMEClient],
        server_public: bytes,
        *,
        solvers: Sequence[Solver],
        limit_s: float,
        luck: Callable[[], float],
        profile: Profile | None = None,
    ) -> None:
        self._clock = clock
        self._wall_time = wall_time
        self._files = store
        self._make_client = make_client
        self._server_public = server_public
        self._solvers = solvers
        self._profile = profile
        self._luck = luck
        self._client: ACMEClient | None = None
        self._chains: dict[str, KeyedChain] = {}
        self._served: dict[str, ServedCertificate] = {}
        self._due: dict[str, float] = {}
        self._advice = RenewalAdvice(clock, self._account, luck)
        self._obtained: dict[str, float] = {}
        self._unsaved: dict[str, str] = {}
        self._save_at = 0.0
        self.statuses: dict[str, CertificateStatus] = {}
        self.rotation: Rotation | None = None
        """Set before :meth:`start`; without one we look for due certificates alone."""
        self.changed: Callable[[], None] = lambda: None
        """Called when another certificate is served, or an attempt failed."""
        self.flights = Flights(
            clock, wall_time, self._fly, limit_s=limit_s, luck=luck, ended=self._flight_ended
        )

    # -- serving ---------------------------------------------------------------------------

    def load(self, names: Iterable[str]) -> None:
        """Take up what is on disk for these names, without asking anybody."""
        for name in names:
            self._status(name)
            self._load(name)

    def context_for(self, name: str) -> ssl.SSLContext | Deferred[ssl.SSLContext]:
        """
        Give the certificate of a name that a policy has let pass.

        :returns: a Deferred if it has to be got; that fails with :exc:`ACMEError`.
        """
        now = self._wall_time()
        served = self._served.get(name)
        # One that is still to come is served, too: whoever signed it has the better clock.
        if served is not None and now < served.not_after:
            return served.context
        # Failures in a row are answered without a look at the disk each time.
        if self.flights.may_begin(name) and self._load(name):
            return self._served[name].context
        flight = self.flights.board(name)
        return flight.addCallback(lambda _: self._served[name].context)

    def want(self, names: Iterable[str]) -> None:
        """Get what is not served yet, unless that is under way or failed just now."""
        for name in names:
            if name in self._served or not self.flights.may_begin(name):
                continue
            if not self._load(name):  # what was not valid at the start may be by now
                self.renew(name).addErrback(lambda _: None)  # logged where it happened

    def current(self) -> dict[str, KeyedChain]:
        """What is served, by name."""
        return dict(self._chains)

    def served(self, name: str) -> ServedCertificate | None:
        """What is served for a name, whether still valid or not."""
        return self._served.get(name)

    def _load(self, name: str) -> bool:
        chain = self._files.load(name, self._wall_time())
        if chain is None:
            return False
        try:
            self._adopt(name, chain)
        except ssl.SSLError as error:
            log.warn("the cached certificate of {name} is not used: {e}", name=name, e=error)
            return False
        self._log_served(name, "from --certdir")
        return True

    def _adopt(self, name: str, chain: KeyedChain) -> None:
        """Serve a certificate from the next connection on."""
        now = self._wall_time()
        served = self._serve(chain, self._files.load_rsa(name, now), now)
        self._chains[name] = chain
        self._served[name] = served
        self._due[name] = renewal_time(served.not_before, served.not_after, self._luck())
        self._advice.forget(name)
        status = self._status(name)
        status.not_before, status.not_after = served.not_before, served.not_after
        if self.rotation is not None:
            self.rotation.stored(served.not_before, served.not_after)
        self.changed()

    def _serve(self, chain: KeyedChain, rsa: KeyedChain | None, now: float) -> ServedCertificate:
        if rsa is not None:
            try:
                return serve(chain, self._server_public, now, rsa=rsa)
            except ssl.SSLError:
                pass  # of the two the other one is needed, and may be sound
        return serve(chain, self._server_public, now)

    def _status(self, name: str) -> CertificateStatus:
        return self.statuses.setdefault(name, CertificateStatus(name, "acme"))

    def _log_served(self, name: str, origin: str) -> None:
        log.info(
            "certificate for {name} {origin}, valid until {end}",
            name=name,
            origin=origin,
            end=moment(self._served[name].not_after),
        )

    # -- getting ---------------------------------------------------------------------------

    def renew(self, name: str) -> Deferred[None]:
        """Get a new certificate, or wait for the attempt that is under way."""
        if self._rests(name):
            return fail(ACMEError(f"the certificate of {name} was renewed a moment ago"))
        return self.flights.board(name)

    def _rests(self, name: str) -> bool:
        """Whether a certificate is too new to be renewed, whatever the dates say."""
        served, obtained = self._served.get(name), self._obtained.get(name)
        if served is None or obtained is None:
            return False
        rest = rest_after_renewal(served.not_before, served.not_after)
        return 0.0 <= self._wall_time() - obtained < rest

    async def prove(self, name: str) -> Resource:
        """Order a certificate and prove the name; see :func:`derp.net.acme_order.prove`."""
        chain = self._chains.get(name)
        replaces = certificate_id(chain.leaf) if chain is not None else None
        return await prove(
            self._account(), name, self._solvers, profile=self._profile, replaces=replaces
        )

    async def obtain(self, name: str, order: Resource, key: LeafKey) -> KeyedChain:
        """Have a proven order's certificate made."""
        return await obtain(self._account(), name, order, key)

    def store(self, name: str, chain: KeyedChain) -> None:
        """
        There is a new certificate: serve it, then write it.

        :raises ACMEError: if OpenSSL does not take it, or it has ended by our clock; the old one
            stays.
        """
        now, end = self._wall_time(), chain.leaf.not_valid_after_utc.timestamp()
        if end <= now:
            raise ACMEError(
                f"the authority's certificate ends on {moment(end)}, and by the clock of this "
                f"machine it is {moment(now)}: set the clock"
            )
        try:
            self._adopt(name, chain)
        except ssl.SSLError as error:
            raise ACMEError(f"OpenSSL refuses the certificate: {error.reason or error}") from None
        self._log_served(name, "obtained")
        self._obtained[name] = now
        if now >= self._due[name]:
            log.warn(
                "the new certificate of {name} is due for renewal already, by the clock of this "
                "machine ({now}): check the clock",
                name=name,
                now=moment(now),
            )
        self._unsaved[name] = ""
        self._save()

    def _save(self) -> None:
        for name in sorted(self._unsaved):
            try:
                self._files.save(name, self._chains[name])
            except OSError as error:
                reason = f"not written to --certdir: {error.strerror}"
                self._status(name).last_error = self._unsaved[name] = reason
                log.error(
                    "--certdir: cannot write the certificate of {name} ({error}); it is served "
                    "from memory and written when that is possible: {cure}",
                    name=name,
                    error=error.strerror,
                    cure=cure_of(error),
                )
                self._save_at = self._clock.seconds() + SAVE_AGAIN_S
                return
            status, reason = self._status(name), self._unsaved.pop(name)
            if status.last_error == reason:
                status.last_error = ""

    def _account(self) -> ACMEClient:
        if self._client is None:
            self._client = self._make_client(self._files.account_key())
        return self._client

    def _fly(self, name: str) -> Deferred[None]:
        if self.rotation is not None:
            return self.rotation.issue(name)
        return Deferred.fromCoroutine(self._issue(name))

    async def _issue(self, name: str) -> None:
        order = await self.prove(name)
        self.store(name, await self.obtain(name, order, new_leaf_key()))

    def _flight_ended(self, name: str, error: str) -> None:
        now, status = self._wall_time(), self._status(name)
        if error:
            status.failed(now, error)
        else:
            status.succeeded(now)
            status.last_error = self._unsaved.get(name, "")
        self.changed()

    # -- renewing --------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look for due certificates."""
        if self.rotation is not None:
            self.rotation.start()

    def forgive(self) -> None:
        """Let what failed be tried again at once: the operator says that something has changed."""
        self.flights.forgive()
        self._save_at = 0.0

    def stop(self) -> None:
        """End everything that is under way; nothing is waited for."""
        self._save()
        if self.rotation is not None:
            self.rotation.stop()
        self.flights.stop()
        self._advice.stop()

    def tick(self) -> None:
        """
        Look at every certificate: renew what is due, write what could not be written.

        Where a rotation does the looking, this is what catches its failing: attempts are
        repeated here, and one is made when half of the margin has passed unused.
        """
        now = self._wall_time()
        for name, served in list(self._served.items()):
            if self.flights.may_begin(name):
                if now >= self._renew_at(name, served):
                    self.renew(name).addErrback(lambda _: None)  # logged where it happened
                else:
                    self._advice.refresh(name, self._chains[name].leaf)
        if self._unsaved and self._clock.seconds() >= self._save_at:
            self._save()

    def _renew_at(self, name: str, served: ServedCertificate) -> float:
        due = self._due[name]
        if self.rotation is not None and not self.flights.failures(name):
            due += renew_before(served.not_before, served.not_after) / 2
        advised = self._advice.time_for(name)
        return due if advised is None else min(due, advised)
