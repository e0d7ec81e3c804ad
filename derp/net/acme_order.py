"""
From a name to a certificate: one order, from the challenge to the chain.

The ways to prove that a name is ours are tried in the order given. A failed attempt spoils its
order, so each further way gets a new one; authorizations that a failure leaves pending are
given up, since authorities limit their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from derp.errors import ConfigError
from derp.net.acme_client import ACMEClient, Profile, Resource
from derp.net.acme_problem import ACMEError, describe_problem, printable
from derp.net.cert_files import KeyedChain, covers, parse_ip, parse_keyed_chain

LeafKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_MAX_AUTHORIZATIONS: Final = 10

log = Logger()


class Solver(Protocol):
    """One way to prove that a name is ours."""

    @property
    def challenge_type(self) -> str:
        """For instance ``http-01``."""

    def present(self, name: str, token: str, key_authorization: str) -> Deferred[None] | None:
        """Make the proof visible; when that has happened, the authority looks."""

    def withdraw(self, name: str, token: str, key_authorization: str) -> Deferred[None] | None:
        """The authority has looked, or never will."""


def new_leaf_key() -> ec.EllipticCurvePrivateKey:
    """Make a key for a certificate: P-256, as the reference."""
    return ec.generate_private_key(ec.SECP256R1())


def leaf_key_pem(key: LeafKey) -> bytes:
    """Write a certificate's key as Go does: SEC1, or PKCS#1 for RSA."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def make_csr(name: str, key: LeafKey) -> bytes:
    """Make a request for one name or address: no subject, one alternative name; DER."""
    address = parse_ip(name)
    entry = x509.DNSName(name) if address is None else x509.IPAddress(address)
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([entry]), critical=False)
        .sign(key, SHA256())
        .public_bytes(Encoding.DER)
    )


async def prove(
    client: ACMEClient,
    name: str,
    solvers: Sequence[Solver],
    *,
    profile: Profile | None = None,
    replaces: str | None = None,
) -> Resource:
    """
    Order a certificate and prove that its name is ours.

    :param solvers: ways to prove it, the best first.
    :returns: an order that is ready to be finalized.
    :raises ACMEError: with what went wrong on each way.
    """
    failures: list[ACMEError] = []
    order: Resource | None = None
    for solver in solvers:
        try:
            if order is None:
                order = await client.new_order(name, profile=profile, replaces=replaces)
            if await _authorize(client, name, order, solver):
                return await client.settle(order, "pending", "processing")
            failures.append(ACMEError(f"{solver.challenge_type} is not offered"))
        except CancelledError:
            raise
        except Exception as error:
            failed = _as_failure(error)
            failures.append(failed)
            if order is None:
                break  # without an order there is nothing to try another way
            await _give_up(client, order)
            order = None
            if failed.kind == "rateLimited":
                break
    if order is not None:
        await _give_up(client, order)
    reasons = "; ".join(dict.fromkeys(map(str, failures))) or "no way to prove it is configured"
    wait = max((each.retry_after for each in failures), default=0.0)
    raise ACMEError(reasons, kind=failures[-1].kind if failures else "", retry_after=wait)


async def obtain(client: ACMEClient, name: str, order: Resource, key: LeafKey) -> KeyedChain:
    """
    Have a ready order's certificate made, and check it.

    :raises ACMEError: if it is not for this name and key.
    """
    chain_pem = await client.finalize(order, make_csr(name, key))
    try:
        chain = parse_keyed_chain(chain_pem, leaf_key_pem(key), "what the authority sent", "ours")
    except ConfigError as error:
        raise ACMEError(f"the authority sent no usable chain: {error}") from None
    if not covers(chain.leaf, name):
        raise ACMEError(f"the authority sent a certificate that is not for {name}")
    return chain


async def _authorize(client: ACMEClient, name: str, order: Resource, solver: Solver) -> bool:
    """
    Prove every identifier of an order on one way.

    :returns: whether the authority offers that way.
    """
    for url in _authorizations(order):
        authorization = await client.fetch(url)
        if authorization.status == "valid":
            continue  # proven before, and remembered by the authority
        if authorization.status != "pending":
            raise ACMEError(f"the authorization {url} is {authorization.status}")
        challenge = _challenge(authorization, solver.challenge_type)
        if challenge is None:
            return False
        await _answer(client, name, authorization, challenge, solver)
    return True


async def _answer(
    client: ACMEClient,
    name: str,
    authorization: Resource,
    challenge: dict[str, Any],
    solver: Solver,
) -> None:
    token = str(challenge.get("token", ""))
    if not token.isascii() or not token.replace("-", "").replace("_", "").isalnum():
        raise ACMEError(f"the challenge {challenge.get('url')} has an unusable token")
    proof = client.key.key_authorization(token)
    try:
        shown = solver.present(name, token, proof)
        if shown is not None:
            await shown
        if challenge.get("status") == "pending":
            await client.post(str(challenge["url"]), {})
        await client.settle(authorization, "pending")
    except CancelledError:
        _withdraw(solver, name, token, proof)  # nobody has the time to wait for it
        raise
    except Exception:
        await _withdraw(solver, name, token, proof)
        raise
    await _withdraw(solver, name, token, proof)
    if authorization.status != "valid":
        answered = _challenge(authorization, solver.challenge_type) or {}
        reason = describe_problem(answered.get("error"))
        raise ACMEError(f"{solver.challenge_type} for {name} failed: {reason}", kind="unauthorized")


async def _give_up(client: ACMEClient, order: Resource) -> None:
    """Deactivate what is still pending; nothing depends on success."""
    for url in _authorizations(order):
        try:
            if (await client.fetch(url)).status == "pending":
                await client.deactivate(url)
        except ACMEError as error:
            log.debug("cannot give up {url}: {error}", url=url, error=error)
            return


def _as_failure(error: Exception) -> ACMEError:
    if isinstance(error, ACMEError):
        return error
    log.failure("an attempt to prove a name failed in an unforeseen way")
    return ACMEError(printable(f"{type(error).__name__}: {error}"))


def _authorizations(order: Resource) -> list[str]:
    urls = order.document.get("authorizations")
    return [str(url) for url in (urls if isinstance(urls, list) else [])[:_MAX_AUTHORIZATIONS]]


def _challenge(authorization: Resource, challenge_type: str) -> dict[str, Any] | None:
    challenges = authorization.document.get("challenges")
    for each in challenges if isinstance(challenges, list) else []:
        if isinstance(each, dict) and each.get("type") == challenge_type and "url" in each:
            return each
    return None


def _withdraw(solver: Solver, name: str, token: str, proof: str) -> Deferred[Any]:
    """Take the proof back; a failure is logged and changes nothing."""

    def failed(failure: Failure) -> None:
        log.warn(
            "cannot take back the {type} answer for {name}: {error}",
            type=solver.challenge_type,
            name=name,
            error=failure.getErrorMessage(),
        )

    withdrawn: Deferred[Any] = maybeDeferred(solver.withdraw, name, token, proof)
    return withdrawn.addErrback(failed)
