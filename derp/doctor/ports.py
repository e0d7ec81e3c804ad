"""TCP: is the relay's main port open, on every address of its name?"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, DeferredList

from derp.doctor.conversation import Unreachable, open_conversation
from derp.doctor.finding import Finding, fail, ok, warn
from derp.doctor.patient import FAMILIES, Chart, Patient
from derp.net.socket_address import host_port

_REFUSED = (
    "start the relay, and look whether it listens there: docker run -p {port}:{port}, the "
    "port of -a"
)
_SILENT = "open TCP {port} in the firewall, the cloud's security group and the router's forwarding"


async def examine_ports(patient: Patient, chart: Chart) -> Sequence[Finding]:
    """Connect to all addresses at once."""
    addresses = [ip for family in FAMILIES for ip in chart.addresses.get(family, ())]
    attempts = [Deferred.fromCoroutine(_knock(patient, ip)) for ip in addresses]
    results = [result for _, result in await DeferredList(attempts)]
    findings = []
    reached = False
    for ip, result in zip(addresses, results, strict=True):
        if isinstance(result, float):
            chart.reached.setdefault(6 if ":" in ip else 4, ip)
            reached = True
            said = f"{host_port(ip, patient.port)} is open, {1000 * result:.1f} ms"
            findings.append(ok(said, address=ip, ms=round(1000 * result, 2)))
    for ip, result in zip(addresses, results, strict=True):
        if isinstance(result, Unreachable):
            findings.append(_closed(patient, ip, result, reached=reached))
    return findings


async def _knock(patient: Patient, ip: str) -> float | Unreachable:
    """How long it takes to connect, or why one cannot."""
    begun = patient.reactor.seconds()
    try:
        conversation = await open_conversation(patient.reactor, ip, patient.port, patient.timeout)
    except Unreachable as problem:
        return problem
    took: float = patient.reactor.seconds() - begun
    conversation.end()
    return took


def _closed(patient: Patient, ip: str, problem: Unreachable, *, reached: bool) -> Finding:
    said = f"{host_port(ip, patient.port)}: {problem}"
    cure = (_REFUSED if problem.refused else _SILENT).format(port=patient.port)
    if reached and not problem.refused and ":" in ip and "route" in str(problem).lower():
        return warn(f"{said}: has this machine IPv6?", "try from a machine that has", address=ip)
    if reached:
        said += ": clients that dial this address wait in vain"
        cure += "; or take the address out of the DNS"
    return fail(said, cure, address=ip)
