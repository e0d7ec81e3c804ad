"""
Is the relay's certificate good, and will it be for another week?

The server is judged as a client judges it (:mod:`derp.net.server_check`): by the system's roots
(``SSL_CERT_FILE``), by ``CertName``, by a ``sha256-raw:`` pin. Then:

=======================  ==================================================================
of a public CA           each certificate with a subject key other than its authority's (the
                         meta certificate and roots have none, or the same) is valid now and
                         for the next 7 days; the first is not revoked (:mod:`.crl`)
pinned                   it is valid for the next 7 days; nobody lists or signs it
``InsecureForTests``     nothing
=======================  ==================================================================

A certificate that lives for ten days at most needs to be valid for the next quarter of its life
instead: it is renewed about its middle, and never has a week left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from derp.errors import ConfigError
from derp.prober.check import Check, ProbeFailed
from derp.prober.crl import SHORT_LIVED, check_revocation, key_ids, lifetime
from derp.prober.targets import Targets, node_labels, node_name, relay_address
from derp.prober.tls_peek import Presented, peek
from derp.wire.derp_map import Node, Region
from derp.wire.metacert import is_metacert
from derp.wire.node_json import PIN_PREFIX

DAYS_AHEAD: Final = timedelta(days=7)
"""How long a certificate must still be valid."""
_SHOWN_NAMES: Final = 5


def tls_check(targets: Targets, region: Region, node: Node) -> Check:
    """
    Make the check; the node's place stays as it is now, whatever the map says later.

    Findings: ``address``, ``tls_version``, ``names``, ``issuer``, ``days_left``,
    ``revocation``.
    """
    tls = _TLSCheck(targets, node)
    return Check(
        probe_class="tls",
        labels=node_labels(region, node),
        run=tls.run,
        findings=lambda: tls.findings,
    )


class _TLSCheck:
    """One node, and what its last check has found."""

    def __init__(self, targets: Targets, node: Node) -> None:
        self.findings: Mapping[str, str | int | float] = {}
        self._targets = targets
        self._node = node
        self._name = node_name(node)

    async def run(self) -> None:
        """Shake hands, then look at the certificates."""
        self.findings = {}
        try:
            relay = relay_address(self._node)
        except ConfigError as problem:
            raise ProbeFailed(f"the DERP map cannot be used: {problem}") from problem
        presented = await peek(self._targets.reactor, relay, self._targets.wall_time)
        certs = _load(presented.chain)
        self.findings = _found(presented, certs, self._targets.wall_time())
        problems = [presented.problem] if presented.problem else await self._look_at(certs)
        if problems:
            where = f"{self._name} at {presented.address}"
            raise ProbeFailed(f"{where}: {'; '.join(problems)}")

    async def _look_at(self, certs: Sequence[x509.Certificate]) -> list[str]:
        """Find what is wrong with certificates that a client takes."""
        if self._node.insecure_for_tests or not certs:
            return []
        now = datetime.fromtimestamp(self._targets.wall_time(), UTC)
        if self._node.cert_name.startswith(PIN_PREFIX):
            return date_problems(certs[:1], now)
        problems = date_problems(certs, now)
        try:
            revocation = await check_revocation(
                self._targets.reactor, certs[0], certs, self._targets.environ
            )
            self.findings = {**self.findings, "revocation": revocation}
        except ProbeFailed as problem:
            problems.append(str(problem))
        return problems


def date_problems(certs: Sequence[x509.Certificate], now: datetime) -> list[str]:
    """
    Find certificates that are not valid, or not for long.

    :param certs: the relay's own first; of the others roots are left out.
    """
    problems = []
    for number, cert in enumerate(certs):
        own, authority = key_ids(cert)
        if number and own == authority:
            continue
        what = "the certificate" if not number else f"the certificate above it ({_subject(cert)})"
        begins, ends = cert.not_valid_before_utc, cert.not_valid_after_utc
        ahead = lifetime(cert) / 4 if lifetime(cert) <= SHORT_LIVED else DAYS_AHEAD
        if now < begins:
            problems.append(
                f"{what} is not valid before {begins:%Y-%m-%d %H:%M} UTC: check the clocks"
            )
        if now > ends:
            problems.append(f"{what} has expired at {ends:%Y-%m-%d %H:%M} UTC: renew it now")
        elif now + ahead > ends:
            problems.append(
                f"{what} expires in {_days(ends - now):g} days, at {ends:%Y-%m-%d %H:%M} UTC,"
                f" and should be valid for {_days(ahead):g} at least: renew it"
            )
    return problems


def _load(chain: Sequence[bytes]) -> list[x509.Certificate]:
    """Read what was presented, without the meta certificate and what is none."""
    certs = []
    for der in chain:
        try:
            if not is_metacert(der):
                certs.append(x509.load_der_x509_certificate(der))
        except ValueError:
            continue
    return certs


def _found(presented: Presented, certs: Sequence[x509.Certificate], now: float) -> dict[str, Any]:
    found: dict[str, Any] = {"address": presented.address}
    if presented.tls_version:
        found["tls_version"] = presented.tls_version
    if certs:
        left = certs[0].not_valid_after_utc - datetime.fromtimestamp(now, UTC)
        found["days_left"] = _days(left)
        found["issuer"] = _issuer(certs[0])
        found["names"] = _names(certs[0])
    return found


def _days(span: timedelta) -> float:
    return round(span / timedelta(days=1), 1)


def _subject(cert: x509.Certificate) -> str:
    return cert.subject.rfc4514_string()


def _issuer(cert: x509.Certificate) -> str:
    """Organization and name, as people know a CA."""
    parts = [
        str(name.value)
        for oid in (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME)
        for name in cert.issuer.get_attributes_for_oid(oid)
    ]
    return " ".join(parts) or cert.issuer.rfc4514_string()


def _names(cert: x509.Certificate) -> str:
    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return _subject(cert)
    shown = [*names.get_values_for_type(x509.DNSName)]
    shown += [str(ip) for ip in names.get_values_for_type(x509.IPAddress)]
    return ", ".join(shown[:_SHOWN_NAMES])
