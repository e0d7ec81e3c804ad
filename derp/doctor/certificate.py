"""TLS: do clients accept the relay's certificate, and for how long?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509

from derp.doctor.conversation import LenientTLS, TLSSeen, Unreachable, open_conversation
from derp.doctor.finding import Finding, Verdict, fail, ok, warn
from derp.doctor.http_answer import printable
from derp.doctor.patient import Chart, Patient
from derp.net.server_check import CertificateRefused, ServerCheck, check_name
from derp.wire.metacert import find_server_key, is_metacert
from derp.wire.node_json import pin_of

SOON: Final = timedelta(days=14)
"""Certificates that are renewed by ACME have twice as long left when that is due."""
SHARE: Final = 4
"""Of a short life, the last so-manieth part is soon."""
MAX_NAMES: Final = 5
"""Of a certificate, shown."""

_RENEW: Final = (
    "renew it, and have the relay or the proxy in front load it; with letsencrypt, ports 443 or "
    "80 must be reachable from everywhere"
)
_UNKNOWN_NAME: Final = "does the relay know this name (-hostname)? Its log says why it refuses"
_NO_HANDSHAKE: Final = (
    "is it getting its first certificate just now (-certmode letsencrypt)? Then try again in a "
    "minute; else see the relay's log, and whether this is its port"
)
_NAMELESS: Final = (
    "start the relay with the address as -hostname (-certmode manual, or --acme-ip-certs), and let "
    "no proxy route it by name"
)


async def examine_certificate(patient: Patient, chart: Chart) -> Sequence[Finding]:
    """Look at the certificate, then judge it as a client does."""
    try:
        seen = await _look(patient, chart.best)
    except Unreachable as problem:
        if patient.by_address:
            said = f"no TLS for clients that send no server name, as to an address: {problem}"
            return [fail(said, _NAMELESS)]
        cure = _UNKNOWN_NAME if problem.refused else _NO_HANDSHAKE
        return [fail(f"no TLS with the name {patient.host}: {problem}", cure)]
    _note(chart, seen)
    findings = [ok(f"{seen.version}, {seen.cipher}", version=seen.version, cipher=seen.cipher)]
    if chart.leaf is None:
        cure = "get another certificate"
        return [*findings, fail("the relay's certificate cannot be read", cure)]
    findings += await _judge(patient, chart, chart.leaf)
    findings.append(_meta_certificate(chart))
    return findings


async def _look(patient: Patient, ip: str) -> TLSSeen:
    conversation = await open_conversation(
        patient.reactor, ip, patient.port, patient.timeout, LenientTLS(patient.host)
    )
    conversation.end()
    assert conversation.tls is not None
    return conversation.tls


def _note(chart: Chart, seen: TLSSeen) -> None:
    chart.tls_version = seen.version
    found = find_server_key(seen.chain)
    chart.certificate_key = found[0] if found is not None else None
    chart.chain = [der for der in seen.chain if not is_metacert(der)]
    try:
        chart.leaf = x509.load_der_x509_certificate(chart.chain[0])
    except (ValueError, IndexError):
        chart.leaf = None


async def _judge(patient: Patient, chart: Chart, leaf: x509.Certificate) -> list[Finding]:
    """What clients think of it, and until when."""
    now = datetime.fromtimestamp(patient.wall_time(), UTC)
    dates = _dates(leaf, now)
    if patient.insecure:
        chart.trusted = chart.acceptable = True
        chart.suggested_pin = _pin(chart, leaf)
        lenient = warn(dates.said, dates.cure) if dates.verdict is Verdict.FAIL else dates
        return [ok("not asked whether clients accept it (--insecure)"), lenient]
    problem = await _refusal(patient, chart.best)
    chart.trusted = chart.acceptable = problem is None
    if problem is None:
        how = "as pinned" if patient.pin else f"issued by {_issuer(leaf)}"
        names = _names(leaf)
        return [ok(f"valid for {patient.host}, {how}", names=names), dates]
    if patient.pin:
        reasons = [_pin_problem(patient, chart)]
    else:
        misnamed = _name_problem(patient, leaf)
        reasons = [misnamed, _trust_problem(patient, chart, leaf)]
        pinnable = bool(chart.suggested_pin) and misnamed is None
        chart.acceptable = pinnable and dates.verdict is not Verdict.FAIL
    findings = [finding for finding in reasons if finding is not None]
    if not findings and dates.verdict is not Verdict.FAIL:
        said, _, cure = problem.rpartition(": ")
        findings.append(fail(said, cure))
    return [*findings, dates]


async def _refusal(patient: Patient, ip: str) -> str | None:
    """Why clients refuse the certificate, if they do."""
    check = ServerCheck(
        patient.host,
        cert_name=patient.cert_name,
        ca_file=patient.ca_file,
        wall_time=patient.wall_time,
    )
    try:
        conversation = await open_conversation(
            patient.reactor, ip, patient.port, patient.timeout, check
        )
    except CertificateRefused as problem:
        return str(problem)
    except Unreachable as problem:
        return f"of two TLS connections in a row the second fails, {problem}: try again"
    conversation.end()
    return None


def _pin_problem(patient: Patient, chart: Chart) -> Finding | None:
    if len(chart.chain) > 1:
        said = f"a pin fits a single certificate, and the relay presents {len(chart.chain)}"
        return fail(said, "leave CertName out of the DERP map, or serve the first one alone")
    presented = pin_of(chart.chain[0])
    if presented == patient.pin:
        assert chart.leaf is not None
        return _name_problem(patient, chart.leaf)
    said = f"pinned is {patient.pin}, presented {presented}"
    cure = f"if the relay has a new certificate of its own, put CertName {presented} into the map"
    return fail(said, f"{cure}; else somebody is between", pin=presented)


def _name_problem(patient: Patient, leaf: x509.Certificate) -> Finding | None:
    wanted = patient.host if patient.pin else patient.cert_name or patient.host
    try:
        check_name(leaf, wanted.removesuffix("."))
    except CertificateRefused:
        names = ", ".join(_names(leaf)) or "no name at all"
        said = f"the certificate is for {names}, not for {wanted}"
        cure = "get one for this name, or use the name it is for"
        return fail(said, cure, names=_names(leaf))
    return None


def _trust_problem(patient: Patient, chart: Chart, leaf: x509.Certificate) -> Finding | None:
    """Whether nobody that clients know stands behind it."""
    now = datetime.fromtimestamp(patient.wall_time(), UTC)
    if leaf.issuer == leaf.subject:
        pin = chart.suggested_pin = _pin(chart, leaf)
        said = "the certificate is self-signed: clients accept it only by its pin"
        cure = "put the CertName below into the DERP map, and examine with it: --pin CertName"
        if not pin:
            cure = "serve it alone, without others behind it: then it can be pinned"
        if patient.by_address and pin:
            return warn(said, cure, pin=pin)
        return fail(said, f"get one from a CA (-certmode letsencrypt), or {cure}", pin=pin)
    if _dates(leaf, now).verdict is Verdict.FAIL:
        return None
    if len(chart.chain) == 1 and _name_problem(patient, leaf) is None:
        said = f"nobody vouches for {_issuer(leaf)}, who has issued the certificate"
        cure = (
            "serve the whole chain (fullchain.pem, not cert.pem); if the CA is your own, clients "
            "need its root: here --ca-file or SSL_CERT_FILE"
        )
        return fail(said, cure)
    return None


def _pin(chart: Chart, leaf: x509.Certificate) -> str:
    """The pin of a certificate that can be pinned; else nothing."""
    return pin_of(chart.chain[0]) if len(chart.chain) == 1 and leaf.issuer == leaf.subject else ""


def _dates(leaf: x509.Certificate, now: datetime) -> Finding:
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    left = (ends - now) / timedelta(days=1)
    facts = {"days_left": round(left, 2), "not_after": ends.isoformat()}
    if now > ends:
        said = f"the certificate has expired on {ends:%Y-%m-%d}, {_days(-left)} ago"
        return fail(said, _RENEW, **facts)
    if now < begins:
        said = f"the certificate is valid only from {begins:%Y-%m-%d %H:%M} UTC on"
        cure = "check the clocks of this machine and of the one that has issued it"
        return fail(said, cure, **facts)
    said = f"valid for {_days(left)} more, until {ends:%Y-%m-%d %H:%M} UTC"
    if ends - now < min(SOON, (ends - begins) / SHARE):
        return warn(f"the certificate is {said}: its renewal is overdue", _RENEW, **facts)
    return ok(said, **facts)


def _days(number: float) -> str:
    if number < 2:
        return f"{24 * number:.0f} hours"
    return f"{number:.0f} days"


def _meta_certificate(chart: Chart) -> Finding:
    if chart.certificate_key is not None:
        key = chart.certificate_key.hex()
        return ok(f"meta certificate names nodekey:{key[:16]}…", meta_certificate=key)
    said = "no meta certificate: clients connect with one round trip more"
    cure = "pass TCP through to the relay, if a proxy ends TLS; otherwise this does not matter"
    return warn(said, cure)


def _issuer(leaf: x509.Certificate) -> str:
    try:
        return printable(leaf.issuer.rfc4514_string())
    except ValueError:
        return "somebody unreadable"


def _names(leaf: x509.Certificate) -> list[str]:
    try:
        san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    names = [*san.get_values_for_type(x509.DNSName)]
    names += [str(ip) for ip in san.get_values_for_type(x509.IPAddress)]
    return [printable(name) for name in names[:MAX_NAMES]]
