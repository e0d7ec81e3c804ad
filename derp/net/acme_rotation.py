"""
txacme's service as the loop that renews certificates of host names.

:class:`txacme.service.AcmeIssuingService` looks at the certificates of a store at intervals and
leads each that is due from request to ``store()``. It was made for ACME v1; its own protocol
client, challenges and stores are of no use today. What it asks of a client is answered here by
ours, duck-typed, so that nothing else of its packages is touched:

=======================  =================================================================
it calls                 we do
=======================  =================================================================
register, agree_to_tos   nothing: accounts are found when they are needed, so that an
                         authority that is down does not end its check
request_challenges       order, and prove the name (:func:`derp.net.acme_order.prove`)
answer_challenge, poll   nothing, all is proven
request_issuance         finalize, download; the leaf
fetch_chain              the rest
store                    hand the chain over
=======================  =================================================================

Its ``issue_cert`` goes through our flights, so that an attempt by its loop and one by a waiting
client are the same. Its "panic" branch, which would bypass that, is switched off: we have our
own watch. This module is imported in ACME modes only.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from derp.core.renewal import check_interval, renew_before
from derp.net.acme_client import Resource
from derp.net.acme_order import LeafKey, new_leaf_key
from derp.net.cert_files import KeyedChain, parse_keyed_chain

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports names that Twisted is about to remove
    from acme.messages import STATUS_VALID  # type: ignore[import-untyped]
    from pem import Certificate
    from txacme.service import AcmeIssuingService  # type: ignore[import-untyped]

_NEVER: Final = timedelta(days=-36500)
_MOST_KEYS: Final = 16
_CHALLENGE: Final = "proven"


class Subject(Protocol):
    """Whose certificates are rotated; see :class:`derp.net.acme_certificates.ACMECertificates`."""

    def current(self) -> Mapping[str, KeyedChain]:
        """What is served, by name."""

    def renew(self, name: str) -> Deferred[None]:
        """Get a new certificate, or wait for the attempt that is under way."""

    def prove(self, name: str) -> Coroutine[Any, Any, Resource]:
        """Order, and prove the name."""

    def obtain(self, name: str, order: Resource, key: LeafKey) -> Coroutine[Any, Any, KeyedChain]:
        """Finalize and download."""

    def store(self, name: str, chain: KeyedChain) -> None:
        """There is a new certificate."""


class TxacmeRotation:
    """
    A rotation (:class:`derp.net.acme_certificates.Rotation`) by txacme.

    :param wall_time: Unix seconds, by which certificates are due.
    :param luck: chance in ``[0, 1)``, spreads renewals.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wall_time: Callable[[], float],
        subject: Subject,
        luck: Callable[[], float],
    ) -> None:
        # It asks cryptography for dates in a way that is deprecated, at each of its checks.
        warnings.filterwarnings(
            "ignore", category=CryptographyDeprecationWarning, module=r"txacme\."
        )
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"txacme\.")
        self._clock = clock
        self._luck = luck
        self._keys: dict[bytes, LeafKey] = {}
        self._restart: Deferred[None] | None = None
        self._service = _Service(
            subject,
            wall_time,
            cert_store=_Store(subject),
            client_creator=lambda: succeed(_Client(subject, self._keys)),
            clock=clock,
            responders=[_Responder()],
            panic_interval=_NEVER,
            generate_key=self._new_key,
        )
        lives = [_life(chain) for chain in subject.current().values()]
        if lives:
            self._adjust(min(lives))

    def start(self) -> None:
        """See :class:`~derp.net.acme_certificates.Rotation`."""
        self._service.startService()

    def stop(self) -> None:
        """See :class:`~derp.net.acme_certificates.Rotation`."""
        if self._restart is not None:
            self._restart.cancel()
        if self._service.running:
            self._service.stopService()

    def issue(self, name: str) -> Deferred[None]:
        """See :class:`~derp.net.acme_certificates.Rotation`."""
        return self._service.issue_now(name)

    def stored(self, not_before: float, not_after: float) -> None:
        """Look as often as the new life demands; its interval is fixed while it runs."""
        old = self._service.check_interval
        self._adjust(not_after - not_before)
        if self._service.running and self._service.check_interval != old and not self._restart:
            self._restart = deferLater(self._clock, 0, self._start_again)
            self._restart.addErrback(lambda _: None)

    def _start_again(self) -> None:
        self._restart = None
        self._service.stopService()
        self._service.startService()

    def _adjust(self, life: float) -> None:
        before = renew_before(0.0, life)
        jitter = self._luck() * min(before / 10, 3600.0)
        self._service.check_interval = timedelta(seconds=check_interval(0.0, life))
        self._service.reissue_interval = timedelta(seconds=before + jitter)

    def _new_key(self) -> LeafKey:
        key = new_leaf_key()
        while len(self._keys) >= _MOST_KEYS:
            del self._keys[next(iter(self._keys))]
        self._keys[_public(key)] = key
        return key


class _Service(AcmeIssuingService):
    """The service, with our flights around each attempt, and our time of day."""

    def __init__(self, subject: Subject, wall_time: Callable[[], float], **options: Any) -> None:
        super().__init__(**options)
        self._subject = subject
        self._wall_time = wall_time

    def _now(self) -> datetime:
        """Called by its check, where it would take the clock's seconds for Unix time; naive UTC."""
        return datetime.fromtimestamp(self._wall_time(), UTC).replace(tzinfo=None)

    def issue_cert(self, server_name: str) -> Deferred[None]:
        """Called by its check; failures are logged by the flight, and not by it."""
        return self._subject.renew(server_name).addErrback(lambda _: None)

    def issue_now(self, server_name: str) -> Deferred[None]:
        """Lead one attempt; called by the flight."""
        issuing: Deferred[None] = self._with_client(self._issue_cert, server_name)
        return issuing


class _Store:
    """txacme's ``ICertificateStore``."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def as_dict(self) -> Deferred[dict[str, list[Certificate]]]:
        """Leaves only: it would look at the ends of intermediates, too."""
        certificates = {
            name: [Certificate(chain.leaf.public_bytes(Encoding.PEM))]
            for name, chain in self._subject.current().items()
        }
        return succeed(certificates)

    def store(self, server_name: str, pem_objects: list[Any]) -> Deferred[None]:
        """Take a new certificate: its key first, then the chain."""
        key, *certificates = (each.as_bytes() for each in pem_objects)
        chain = parse_keyed_chain(b"".join(certificates), key, "the chain", "the new key")
        self._subject.store(server_name, chain)
        return succeed(None)


class _Responder:
    """txacme's ``IResponder``; everything is proven when it is asked."""

    challenge_type = _CHALLENGE

    def start_responding(self, *_: Any) -> None:
        """Nothing to show."""

    def stop_responding(self, *_: Any) -> None:
        """Nothing to hide."""


class _Client:
    """What the service takes for its ACME client; it has one order."""

    key = None

    def __init__(self, subject: Subject, keys: dict[bytes, LeafKey]) -> None:
        self._subject = subject
        self._keys = keys
        self._name = ""
        self._order: Resource | None = None
        self._rest: list[SimpleNamespace] = []

    def register(self, registration: Any) -> Deferred[Any]:
        """Done later, when something is ordered."""
        return succeed(registration)

    agree_to_tos = register

    def request_challenges(self, identifier: Any) -> Deferred[SimpleNamespace]:
        """Do everything that comes before the certificate."""
        return Deferred.fromCoroutine(self._prove(str(identifier.value)))

    async def _prove(self, name: str) -> SimpleNamespace:
        self._name = name
        self._order = await self._subject.prove(name)
        challenge = SimpleNamespace(typ=_CHALLENGE, chall=None, response=lambda key: None)
        body = SimpleNamespace(
            status=STATUS_VALID,
            resolved_combinations=((challenge,),),
            identifier=SimpleNamespace(value=name),
        )
        return SimpleNamespace(body=body)

    def answer_challenge(self, challenge: Any, response: Any) -> Deferred[None]:
        """Answered already."""
        return succeed(None)

    def poll(self, authorization: Any) -> Deferred[tuple[Any, int]]:
        """Valid already."""
        return succeed((authorization, 0))

    def request_issuance(self, request: Any) -> Deferred[SimpleNamespace]:
        """Finalize; our own request is for the same key, without its common name."""
        return Deferred.fromCoroutine(self._obtain(_public(request.csr)))

    async def _obtain(self, public: bytes) -> SimpleNamespace:
        assert self._order is not None
        chain = await self._subject.obtain(self._name, self._order, self._keys.pop(public))
        leaf, *self._rest = (
            SimpleNamespace(body=each.public_bytes(Encoding.DER)) for each in chain.certificates
        )
        return leaf

    def fetch_chain(self, leaf: Any) -> Deferred[list[SimpleNamespace]]:
        """Came along with the leaf."""
        return succeed(self._rest)


def _life(chain: KeyedChain) -> float:
    leaf = chain.leaf
    return (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds()


def _public(holder: Any) -> bytes:
    """The public key of a key or request, as something to look up by."""
    return bytes(holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
