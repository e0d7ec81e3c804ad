"""
An ACME account and what it may ask for (RFC 8555, RFC 8738 for addresses, RFC 9773 for ARI).

One :class:`ACMEClient` stands for one account key at one directory. Directory and account are
looked up when they are first needed, so that an authority that is down keeps nobody from
starting; both are looked up anew if the authority forgot the account.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Any, Final

from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from derp.net.acme_http import Answer, SignedRequests
from derp.net.acme_problem import ACMEError, describe_problem
from derp.quoting import quoted
from derp.wire.jose import AccountKey, b64url

LETSENCRYPT: Final = "https://acme-v02.api.letsencrypt.org/directory"
GOOGLE: Final = "https://dv.acme-v02.api.pki.goog/directory"

_FIRST_POLL_S: Final = 0.25
_MOST_POLL_S: Final = 10.0
_MAX_POLLS: Final = 200


@dataclass(frozen=True)
class ExternalAccount:
    """``--acme-eab-kid`` and ``--acme-eab-key``: an account the authority knows already."""

    kid: str
    hmac_key: bytes

    def __repr__(self) -> str:
        return f"ExternalAccount({self.kid!r})"


@dataclass(frozen=True)
class Profile:
    """Kind of certificate an authority is asked for (draft-ietf-acme-profiles)."""

    name: str
    flag: str = ""
    """Who insists on it; without one it is left out where it is not offered."""


@dataclass
class Resource:
    """Something at the authority that has a URL and a state: an order or an authorization."""

    url: str
    document: dict[str, Any]

    @property
    def status(self) -> str:
        """For instance ``pending``, ``ready``, ``valid`` or ``invalid``."""
        return str(self.document.get("status", ""))


@dataclass(frozen=True)
class RenewalWindow:
    """When the authority would like a certificate renewed; Unix seconds."""

    start: float
    end: float
    retry_after: float
    """Seconds until it is worth asking again; 0 if not said."""


class ACMEClient:
    """
    One account.

    :param requests: the authority's HTTP.
    :param directory_url: where everything begins.
    :param email: contact; empty gives none.
    :param external: needed by authorities that sell certificates.
    """

    def __init__(
        self,
        requests: SignedRequests,
        clock: IReactorTime,
        directory_url: str,
        key: AccountKey,
        *,
        email: str = "",
        external: ExternalAccount | None = None,
    ) -> None:
        self.key = key
        self.directory_url = directory_url
        self._requests = requests
        self._clock = clock
        self._contact = [f"mailto:{email}"] if email else []
        self._external = external
        self._directory: dict[str, Any] | None = None
        self.account_url: str | None = None

    # -- directory and account -------------------------------------------------------------

    async def directory(self) -> dict[str, Any]:
        """The authority's URLs by their names."""
        if self._directory is None:
            directory = (await self._requests.get(self.directory_url)).json()
            for name in ("newNonce", "newAccount", "newOrder"):
                if not isinstance(directory.get(name), str):
                    raise ACMEError(
                        f"{self.directory_url} is no ACME directory (it names no {name}); "
                        "check --acme-directory"
                    )
            self._requests.new_nonce_url = directory["newNonce"]
            self._directory = directory
        return self._directory

    async def profiles(self) -> frozenset[str]:
        """Names of the profiles the authority offers; empty if it has none."""
        meta = (await self.directory()).get("meta")
        names = meta.get("profiles") if isinstance(meta, dict) else None
        return frozenset(names) if isinstance(names, dict) else frozenset()

    async def register(self) -> str:
        """
        Find the account of the key, or make it; terms are agreed to.

        :returns: its URL.
        """
        if self.account_url is not None:
            return self.account_url
        url = (await self.directory())["newAccount"]
        request: dict[str, Any] = {"termsOfServiceAgreed": True}
        if self._contact:
            request["contact"] = self._contact
        if self._external is not None:
            request["externalAccountBinding"] = self.key.external_account_binding(
                self._external.kid, self._external.hmac_key, url
            )
        answer = await self._requests.post(url, request, self.key, None)
        location = answer.headers.get("location")
        if not location:
            raise ACMEError(f"{url} makes an account and does not say where (no Location)")
        self.account_url = location
        if answer.status == 200 and self._contact:
            await self._update_contact(answer.json(), location)
        return location

    async def _update_contact(self, account: dict[str, Any], url: str) -> None:
        # An existing account is answered as it is: its contact may be last year's.
        if "contact" in account and account["contact"] != self._contact:
            await self._requests.post(url, {"contact": self._contact}, self.key, url)

    async def post(self, url: str, payload: Any = None) -> Answer:
        """
        Send a request as this account; once anew if the authority forgot the account.

        :param payload: ``None`` is a POST-as-GET.
        """
        account_url = await self.register()
        try:
            return await self._requests.post(url, payload, self.key, account_url)
        except ACMEError as error:
            if error.kind != "accountDoesNotExist":
                raise
        self.account_url = self._directory = None
        return await self._requests.post(url, payload, self.key, await self.register())

    # -- orders ----------------------------------------------------------------------------

    async def new_order(
        self, name: str, *, profile: Profile | None = None, replaces: str | None = None
    ) -> Resource:
        """
        Order a certificate for one DNS name or IP address.

        :raises ACMEError: if a profile that a flag asks for is not offered.
        :param replaces: id (:func:`certificate_id`) of the certificate this one follows.
        """
        directory = await self.directory()
        request: dict[str, Any] = {"identifiers": [identifier(name)]}
        if profile is not None and await self._offers(profile):
            request["profile"] = profile.name
        if replaces is not None and "renewalInfo" in directory:
            request["replaces"] = replaces
        try:
            answer = await self.post(directory["newOrder"], request)
        except ACMEError as error:
            # The other certificate was followed by another already, or is not theirs.
            if "replaces" not in request or error.kind in ("rateLimited", ""):
                raise
            del request["replaces"]
            answer = await self.post(directory["newOrder"], request)
        url = answer.headers.get("location")
        if not url:
            raise ACMEError(f"{answer.url} takes an order and does not say where (no Location)")
        return Resource(url, answer.json())

    async def _offers(self, profile: Profile) -> bool:
        offered = await self.profiles()
        if profile.name in offered or not profile.flag:
            return profile.name in offered
        cure = f"choose one of {', '.join(sorted(offered))}, or " if offered else ""
        raise ACMEError(
            f"{profile.flag}: {self.directory_url} offers no profile {quoted(profile.name)}; "
            f"{cure}leave the flag out"
        )

    async def fetch(self, url: str) -> Resource:
        """Look at an order or an authorization."""
        return Resource(url, (await self.post(url)).json())

    async def settle(self, resource: Resource, *unsettled: str) -> Resource:
        """
        Look again until the state is none of these; as often as the authority likes.

        :raises ACMEError: if it takes for ever.
        """
        pause = _FIRST_POLL_S
        for _ in range(_MAX_POLLS):
            answer = await self.post(resource.url)
            resource.document = answer.json()
            if resource.status not in unsettled:
                return resource
            await self._wait(min(answer.retry_after, 60.0) or pause)
            pause = min(pause * 1.5, _MOST_POLL_S)
        raise ACMEError(f"{resource.url} stays {resource.status}")

    async def deactivate(self, authorization_url: str) -> None:
        """Give up an authorization: pending ones count against limits of the authority."""
        await self.post(authorization_url, {"status": "deactivated"})

    async def finalize(self, order: Resource, csr_der: bytes) -> bytes:
        """
        Have a ready order's certificate made.

        :returns: the chain in PEM, leaf first.
        """
        url = order.document.get("finalize")
        if not isinstance(url, str):
            raise ACMEError(f"the order {order.url} has no finalize URL")
        answer = await self.post(url, {"csr": b64url(csr_der)})
        order.document = answer.json()
        if order.status == "processing" or not order.document.get("certificate"):
            order = await self.settle(order, "processing", "ready", "pending")
        certificate = order.document.get("certificate")
        if order.status != "valid" or not isinstance(certificate, str):
            reason = describe_problem(order.document.get("error"))
            raise ACMEError(f"the order {order.url} ended {order.status}: {reason}")
        return (await self.post(certificate)).body

    async def renewal_window(self, certificate: x509.Certificate) -> RenewalWindow | None:
        """
        Ask when a certificate should be renewed (ARI).

        :returns: ``None`` if the authority does not say such things.
        """
        base = (await self.directory()).get("renewalInfo")
        name = certificate_id(certificate)
        if not isinstance(base, str) or name is None:
            return None
        answer = await self._requests.get(f"{base.rstrip('/')}/{name}")
        window: Any = answer.json().get("suggestedWindow")
        try:
            start, end = (_timestamp(window[each]) for each in ("start", "end"))
        except (TypeError, KeyError, ValueError, OverflowError):
            raise ACMEError(f"{answer.url} suggests no window that can be read") from None
        return RenewalWindow(start, end, answer.retry_after)

    async def _wait(self, seconds: float) -> None:
        pause: Deferred[None] = deferLater(self._clock, seconds)
        await pause


def identifier(name: str) -> dict[str, str]:
    """What is ordered: an address (RFC 8738) or a DNS name."""
    try:
        return {"type": "ip", "value": str(ip_address(name))}
    except ValueError:
        return {"type": "dns", "value": name}


def certificate_id(certificate: x509.Certificate) -> str | None:
    """
    The name of a certificate for its authority: key identifier, dot, serial number.

    :returns: ``None`` if the certificate does not name its issuer's key.
    """
    try:
        issuer = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        return None
    key_identifier = issuer.value.key_identifier
    if key_identifier is None:
        return None
    serial = certificate.serial_number
    length = serial.bit_length() // 8 + 1  # as DER writes it: room for the sign
    return f"{b64url(key_identifier)}.{b64url(serial.to_bytes(length, 'big'))}"


def _timestamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
