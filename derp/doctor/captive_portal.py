"""``/generate_204``, by which clients find out whether a portal stands between them and the net."""

from __future__ import annotations

from collections.abc import Sequence
from secrets import token_hex

from derp.doctor.conversation import LenientTLS, Unreachable, open_conversation
from derp.doctor.finding import Finding, ok, warn
from derp.doctor.http_answer import HTTPAnswer, parse_answer, proxy_words
from derp.doctor.patient import Chart, Patient

PATH = "/generate_204"
_PORTAL = "clients that look for captive portals here would find one"


async def examine_main_port(patient: Patient, chart: Chart) -> Sequence[Finding]:
    """On the port that relays."""
    tls = LenientTLS(patient.host) if patient.tls else None
    finding, answer = await _ask(patient, chart.best, patient.port, tls)
    if answer is not None:
        chart.answers.append(answer)
    return [finding]


async def examine_plain_port(patient: Patient, chart: Chart) -> Sequence[Finding]:
    """On the port for plain HTTP, where clients look."""
    assert patient.http_port is not None
    finding, answer = await _ask(patient, chart.best, patient.http_port, None)
    chart.plain_port_well = finding.cure == ""
    if answer is None:
        cure = (
            f"open TCP {patient.http_port} (letsencrypt may need it as well), or leave CanPort80 "
            "out of the DERP map, as below"
        )
        return [warn(f"port {patient.http_port}: {finding.said}", cure)]
    return [finding]


async def _ask(
    patient: Patient, ip: str, port: int, tls: LenientTLS | None
) -> tuple[Finding, HTTPAnswer | None]:
    try:
        conversation = await open_conversation(patient.reactor, ip, port, patient.timeout, tls)
    except Unreachable as problem:
        return warn(str(problem), "try again"), None
    challenge = token_hex(12)
    host = f"[{patient.host}]" if ":" in patient.host else patient.host
    lines = [
        f"GET {PATH} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: Go-http-client/1.1",
        f"X-Tailscale-Challenge: {challenge}",
        "Connection: close",
    ]
    conversation.say("\r\n".join([*lines, "", ""]).encode("ascii"))
    try:
        answer = await conversation.until(_head, patient.reactor, patient.timeout)
    except ValueError as error:
        return warn(f"port {port} answers {PATH} with {error}", "what else listens there?"), None
    finally:
        conversation.end()
    if not isinstance(answer, HTTPAnswer):
        return warn(f"port {port} does not answer {PATH} ({answer})", "what listens there?"), None
    return _judge(answer, challenge, port), answer


def _head(heard: bytes, over: str) -> HTTPAnswer | str | None:
    return parse_answer(heard) or over or None


def _judge(answer: HTTPAnswer, challenge: str, port: int) -> Finding:
    who = proxy_words([answer])
    between = f"; through {who}" if who else ""
    if answer.status != 204:
        said = f"port {port} answers {PATH} with {answer.words}, not 204: {_PORTAL}{between}"
        cure = (
            f"have the proxy send {PATH} to the relay, without a redirect to https, or leave "
            "CanPort80 out of the DERP map"
        )
        return warn(said, cure, port=port, status=answer.status)
    if answer.header("x-tailscale-response") != f"response {challenge}":
        said = f"port {port} answers 204 without the response to the challenge: {_PORTAL}{between}"
        cure = "let the relay itself answer there; a proxy or a portal does it in its place"
        return warn(said, cure, port=port, status=204)
    return ok(f"port {port} answers 204 and the challenge{between}", port=port, status=204)
