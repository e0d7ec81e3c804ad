"""
A small certificate authority in memory, for what Debian's Pebble lacks or cannot be made to do.

It is an HTTP *agent*: requests end here and go nowhere. It knows profiles and renewal
information, and takes faults by URL: an answer to give instead, or silence.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

BASE = "https://ca.test"
ACME = "urn:ietf:params:acme:error:"
Answer = tuple[int, dict[str, str], Any]
"""Status, headers, and JSON, PEM text or bytes."""


@implementer(IAgent)
class FakeCA:
    """
    The authority.

    :param clock: Unix time, for validity.
    :param offers: challenge types of each authorization.
    """

    def __init__(
        self, clock: IReactorTime, *, offers: tuple[str, ...] = ("http-01", "tls-alpn-01")
    ) -> None:
        self.clock = clock
        self.offers = offers
        self.lifetime = timedelta(days=90)
        self.window: tuple[str, str] | None = None
        self.faults: dict[str, list[Answer | None]] = {}
        """Path to what is answered in turn; ``None`` is silence."""
        self.refuses: set[str] = set()
        """Challenge types that fail."""
        self.requests: list[tuple[str, Any]] = []
        """Path and payload of each request."""
        self.orders: list[dict[str, Any]] = []
        self.deactivated: list[str] = []
        self.silent: list[Deferred[IResponse]] = []
        self._nonces = count(1)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificates: dict[str, str] = {}
        self._authorizations: dict[str, dict[str, Any]] = {}

    def asked(self, path: str) -> int:
        """How often a path was requested."""
        return sum(each == path for each, _ in self.requests)

    # -- the agent -------------------------------------------------------------------------

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """See ``IAgent``."""
        path = uri.decode().removeprefix(BASE)
        payload = None
        if bodyProducer is not None:
            producer: Any = bodyProducer  # treq's: it would take some turns of the reactor
            text = json.loads(producer._inputFile.read())["payload"]
            payload = json.loads(_unb64(text)) if text else None
        self.requests.append((path, payload))
        faults = self.faults.get(path)
        answer = faults.pop(0) if faults else self._answer(path, payload)
        if answer is None:
            silent: Deferred[IResponse] = Deferred(_as_agents_end)
            self.silent.append(silent)
            return silent
        return succeed(_Response(answer, f"nonce{next(self._nonces)}"))

    # -- the authority ---------------------------------------------------------------------

    def _answer(self, path: str, payload: Any) -> Answer:
        kind, _, name = path.strip("/").partition("/")
        if kind == "dir":
            return 200, {}, self._directory()
        if kind == "nonce":
            return 204, {}, b""
        if kind == "account":
            return 201, {"Location": f"{BASE}/acct/1"}, {"status": "valid"}
        if kind == "new-order":
            return self._new_order(payload)
        if kind == "order":
            return 200, {}, self.orders[int(name)]
        if kind == "authz":
            return self._authorization(name, payload)
        if kind == "chall":
            return self._challenge(*name.split("/"))
        if kind == "finalize":
            return self._finalize(int(name), payload)
        if kind == "ari" and self.window is not None:
            start, end = self.window
            window = {"suggestedWindow": {"start": start, "end": end}}
            return 200, {"Retry-After": "3600"}, window
        return 200, {}, self._certificates[path]

    def _directory(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "newNonce": f"{BASE}/nonce",
            "newAccount": f"{BASE}/account",
            "newOrder": f"{BASE}/new-order",
            "meta": {"profiles": {"classic": "90 days", "shortlived": "6 days"}},
        }
        if self.window is not None:
            found["renewalInfo"] = f"{BASE}/ari"
        return found

    def _new_order(self, payload: Any) -> Answer:
        number = str(len(self.orders))
        order = {
            **payload,
            "status": "pending",
            "authorizations": [f"{BASE}/authz/{number}"],
            "finalize": f"{BASE}/finalize/{number}",
        }
        self.orders.append(order)
        self._authorizations[number] = {
            "status": "pending",
            "identifier": payload["identifiers"][0],
            "challenges": [
                {
                    "type": each,
                    "url": f"{BASE}/chall/{number}/{each}",
                    "status": "pending",
                    "token": f"token{number}",
                }
                for each in self.offers
            ],
        }
        return 201, {"Location": f"{BASE}/order/{number}"}, order

    def _authorization(self, number: str, payload: Any) -> Answer:
        found = self._authorizations[number]
        if payload == {"status": "deactivated"}:
            found["status"] = "deactivated"
            self.deactivated.append(number)
        return 200, {}, found

    def _challenge(self, number: str, kind: str) -> Answer:
        found = self._authorizations[number]
        challenge = next(each for each in found["challenges"] if each["type"] == kind)
        if kind in self.refuses:
            found["status"] = "invalid"
            self.orders[int(number)]["status"] = "invalid"
            challenge["error"] = {"type": f"{ACME}connection", "detail": "cannot connect"}
        else:
            found["status"] = "valid"
            self.orders[int(number)]["status"] = "ready"
        return 200, {}, challenge

    def _finalize(self, number: int, payload: Any) -> Answer:
        csr = x509.load_der_x509_csr(_unb64(payload["csr"]))
        path = f"/cert/{number}"
        self._certificates[path] = self._issue(csr).public_bytes(Encoding.PEM).decode()
        order = self.orders[number]
        order["status"] = "valid"
        order["certificate"] = BASE + path
        return 200, {}, order

    def _issue(self, csr: x509.CertificateSigningRequest) -> x509.Certificate:
        now = datetime.fromtimestamp(self.clock.seconds(), UTC)
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .serial_number(x509.random_serial_number())
            .subject_name(x509.Name([]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Fake CA")]))
            .not_valid_before(now)
            .not_valid_after(now + self.lifetime)
            .public_key(csr.public_key())
            .add_extension(names, critical=True)
            .add_extension(issuer, critical=False)
            .sign(self._key, SHA256())
        )


def _as_agents_end(cancelled: Deferred[IResponse]) -> None:
    cancelled.errback(ResponseNeverReceived([Failure(CancelledError())]))


def problem(status: int, kind: str, detail: str, **headers: str) -> Answer:
    """A problem document."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    fields["Content-Type"] = "application/problem+json"
    return status, fields, {"type": f"{ACME}{kind}", "detail": detail}


@implementer(IResponse)
class _Response:
    """One answer, there at once."""

    version = (b"HTTP", 1, 1)
    phrase = b"Whatever"
    request = previousResponse = None

    def __init__(self, answer: Answer, nonce: str) -> None:
        self.code, fields, body = answer
        self._body = (
            body
            if isinstance(body, bytes)
            else (body.encode() if isinstance(body, str) else json.dumps(body).encode())
        )
        self.length = len(self._body)
        raw = {"Content-Type": ["application/json"], "Replay-Nonce": [nonce]}
        raw |= {name: [value] for name, value in fields.items()}
        self.headers = Headers(raw)  # type: ignore[arg-type]

    def deliverBody(self, protocol: Protocol) -> None:
        """See ``IResponse``."""
        protocol.dataReceived(self._body)
        protocol.connectionLost(Failure(ResponseDone()))

    def setPreviousResponse(self, response: Any) -> None:
        """See ``IResponse``."""


def _unb64(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
