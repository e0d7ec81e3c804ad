"""STUN over each IP version, and whether the address it reports can be true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import Deferred, DeferredList

from derp.doctor.finding import Finding, fail, ok, skip, warn
from derp.doctor.patient import FAMILIES, Chart, Patient
from derp.doctor.plausible_address import doubts
from derp.net.stun_client import Binding, BindingFailed, Cause, Family, binding

SENDS: Final = 3
"""Requests: at once, after 0.5 s and after 1.5 s."""
WAIT_S: Final = 3.0

_FAMILY_NAMES: Final[dict[int, Family]] = {4: "ipv4", 6: "ipv6"}


async def examine_stun(patient: Patient, chart: Chart) -> Sequence[Finding]:
    """Ask at the first address of each family, whether TCP reaches it or not."""
    addresses = [chart.addresses[family][0] for family in FAMILIES if chart.addresses.get(family)]
    asked = [Deferred.fromCoroutine(_ask(patient, chart, ip)) for ip in addresses]
    return [finding for _, finding in await DeferredList(asked, fireOnOneErrback=True)]


async def _ask(patient: Patient, chart: Chart, ip: str) -> Finding:
    assert patient.stun_port is not None
    family = _FAMILY_NAMES[6 if ":" in ip else 4]
    try:
        found = await binding(
            patient.reactor,
            ip,
            patient.stun_port,
            family=family,
            timeout=min(patient.timeout, WAIT_S),
            sends=SENDS,
        )
    except BindingFailed as problem:
        return _silent(patient, problem)
    chart.stun_answers = True
    return _judge(found)


def _silent(patient: Patient, problem: BindingFailed) -> Finding:
    port = patient.stun_port
    if problem.cause is Cause.UNREACHABLE:
        return skip(str(problem))
    if problem.cause is Cause.REFUSED:
        cure = f"start the relay with STUN, and with Docker publish -p {port}:{port}/udp"
        return fail(str(problem), cure)
    if problem.cause is Cause.TIMEOUT:
        cure = (
            f"open UDP {port} in the firewall and the cloud's security group, and with Docker "
            f"publish -p {port}:{port}/udp (TCP alone is not enough); --no-stun if there is none"
        )
        return fail(str(problem), cure)
    return fail(str(problem), f"what else answers on UDP {port} there?")


def _judge(found: Binding) -> Finding:
    mapped, server = found.mapped, found.server
    ms = round(1000 * found.rtt, 2)
    facts = {"mapped": str(mapped), "server": str(server), "ms": ms, "requests": found.sent}
    problem = doubts(server.ip, found.local.ip, mapped.ip)
    if problem is not None:
        said = f"{server} says we are {mapped}: {problem.said}"
        judge = fail if problem.certain else warn
        return judge(said, problem.cure, **facts)
    how = "our own address" if mapped.ip == found.local.ip else "seen through NAT"
    said = f"{server} says we are {mapped} ({how}), {ms:.1f} ms"
    if found.sent > 1:
        lost = "one request" if found.sent == 2 else f"{found.sent - 1} requests"
        return warn(f"{said} and more: {lost} got lost", "look for packet loss on the way", **facts)
    return ok(said, **facts)


async def examine_home(patient: Patient, chart: Chart) -> Sequence[Finding]:
    """Clients choose their home by STUN alone; woe to them if that is all there is."""
    if not chart.stun_answers or (chart.greeted and chart.acceptable) or not patient.tls:
        return []
    what = "there is no relay behind it" if not chart.greeted else "clients refuse its certificate"
    said = f"STUN answers, so clients choose this relay for their home, but {what}"
    cure = "until the above is mended, switch STUN off (-stun=false), or take it out of the map"
    return [fail(f"{said}: nobody will reach them", cure)]
