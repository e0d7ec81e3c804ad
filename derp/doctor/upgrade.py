"""The upgrade from HTTP to DERP, through whatever stands in front, over each IP version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from twisted.internet.defer import Deferred, DeferredList

from derp.doctor.conversation import LenientTLS, Unreachable, open_conversation
from derp.doctor.finding import Finding, Verdict, fail
from derp.doctor.http_answer import parse_answer, proxy_words
from derp.doctor.patient import FAMILIES, Chart, Patient
from derp.doctor.upgrade_answer import judge_fast_greeting, judge_upgrade
from derp.wire.upgrade import encode_upgrade_request


async def examine_upgrade(patient: Patient, chart: Chart) -> Sequence[Finding]:
    """Ask for it as clients do."""
    attempts = [
        Deferred.fromCoroutine(_ask(patient, chart, chart.reached[family]))
        for family in FAMILIES
        if family in chart.reached
    ]
    findings = [finding for _, finding in await DeferredList(attempts, fireOnOneErrback=True)]
    chart.greeted = any("server_key" in finding.facts for finding in findings)
    keys = chart.server_keys = {
        finding.facts["server_key"] for finding in findings if "server_key" in finding.facts
    }
    if len(keys) > 1:
        said = "IPv4 and IPv6 lead to different relays"
        cure = "let both addresses of a name lead to one relay, or mesh them and keep them apart"
        findings.append(fail(said, cure))
    certified = chart.certificate_key.hex() if chart.certificate_key else None
    if certified is not None and keys and certified not in keys:
        said = "the relay that greets is not the one that its meta certificate names"
        cure = "two relays behind one name: send each client's connections to the same one"
        findings.append(fail(said, cure))
    return findings


async def _ask(patient: Patient, chart: Chart, ip: str) -> Finding:
    tls = LenientTLS(patient.host) if patient.tls else None
    begun = patient.reactor.seconds()
    try:
        conversation = await open_conversation(
            patient.reactor, ip, patient.port, patient.timeout, tls
        )
    except Unreachable as problem:
        return fail(f"{ip}: {problem}", "try again; some connections fail here")
    request = encode_upgrade_request("/derp", patient.address().host_header)
    conversation.say(request)
    finding = await conversation.until(
        lambda heard, over: judge_upgrade(heard, over=over), patient.reactor, patient.timeout
    )
    took = 1000 * (patient.reactor.seconds() - begun)
    conversation.end()
    return _with_who(chart, finding, conversation.heard, ip, took)


def _with_who(chart: Chart, finding: Finding, heard: bytes, ip: str, took: float) -> Finding:
    """Add who was asked, how long it took, and who was between."""
    try:
        answer = parse_answer(heard)
    except ValueError:
        answer = None
    if answer is not None:
        chart.answers.append(answer)
    said = f"{finding.said}, {took:.0f} ms" if finding.verdict is Verdict.OK else finding.said
    who = proxy_words([answer]) if answer is not None else ""
    between = f"; through {who}" if who else ""
    facts = {**finding.facts, "address": ip, "ms": round(took, 2), "through": who}
    return replace(finding, said=f"{said}{between} ({ip})", facts=facts)


async def examine_fast_start(patient: Patient, chart: Chart) -> Sequence[Finding]:
    """Log in without waiting for an HTTP answer: does what is in front let that pass?"""
    tls = LenientTLS(patient.host)
    try:
        conversation = await open_conversation(
            patient.reactor, chart.best, patient.port, patient.timeout, tls
        )
    except Unreachable as problem:
        return [fail(str(problem), "try again; some connections fail here")]
    host = patient.address().host_header
    conversation.say(encode_upgrade_request("/derp", host, fast_start=True))
    finding = await conversation.until(
        lambda heard, over: judge_fast_greeting(heard, over=over), patient.reactor, patient.timeout
    )
    conversation.end()
    return [finding]


def no_fast_start(chart: Chart) -> str:
    """Why clients do not start fast here, which is no fault."""
    if chart.certificate_key is None:
        return "not possible without a meta certificate"
    if chart.tls_version != "TLSv1.3":
        return f"not possible with {chart.tls_version}"
    return ""
