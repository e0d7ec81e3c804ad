"""DNS: which addresses the relay's name has."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, TimeoutError
from twisted.internet.threads import deferToThreadPool

from derp.doctor.finding import Finding, fail, ok, warn
from derp.doctor.patient import FAMILIES, Chart, Patient
from derp.net.host_lookup import look_up
from derp.net.server_check import is_ip_literal

MAX_ADDRESSES = 4
"""Of one family; clients try no more either."""
_RESOLVER = "check this machine's network and resolver (/etc/resolv.conf)"


async def examine_names(patient: Patient, chart: Chart) -> Sequence[Finding]:
    """Find the addresses; the later examinations go on with them."""
    name = patient.dial_host or patient.host
    chart.addresses.update({family: [ip] for family, ip in patient.fixed.items()})
    families = [family for family in patient.families if family not in patient.fixed]
    if is_ip_literal(name):
        family = ip_address(name).version
        if family not in patient.families:
            return [fail(f"{name} is no IPv{patient.families[0]} address", "leave -4 and -6 out")]
        chart.addresses.setdefault(family, [name])
        return [ok(f"{name} is an address, no name to look up")]
    if not families:
        return [ok(f"{name}: addresses as given: {', '.join(patient.fixed.values())}")]
    problem = await _look_up(patient, chart, name, families)
    if problem is None and not chart.addresses:
        problem = await _why_not(patient, name)
    return [problem or _judge(patient, chart, name)]


async def _look_up(
    patient: Patient, chart: Chart, name: str, families: Sequence[int]
) -> Finding | None:
    try:
        ascii_name = name.encode("idna").decode("ascii")
    except UnicodeError:
        return fail(f"{name!r} is no host name", "check its spelling")
    resolver = patient.reactor.nameResolver
    lookups: list[Deferred[list[str]]] = [
        look_up(resolver, ascii_name, [family]).addTimeout(patient.timeout, patient.reactor)
        for family in families
    ]
    results: Any = await DeferredList(lookups, consumeErrors=True)
    late = False
    for family, (found, result) in zip(families, results, strict=True):
        if not found:
            late = late or bool(result.check(TimeoutError))
        elif result:
            chart.addresses[family] = result[:MAX_ADDRESSES]
    if late and not chart.addresses:
        said = f"{name}: the DNS server does not answer within {patient.timeout:g} s"
        return fail(said, _RESOLVER)
    return None


async def _why_not(patient: Patient, name: str) -> Finding | None:
    """Tell a resolver that does not work from a name that does not exist."""
    reactor = patient.reactor
    asked = deferToThreadPool(reactor, reactor.getThreadPool(), patient.getaddrinfo, name, None)
    try:
        await asked.addTimeout(patient.timeout, reactor)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_AGAIN, socket.EAI_FAIL):
            said = f"{name}: no DNS server can be asked ({error.strerror})"
            return fail(said, _RESOLVER)
    except (TimeoutError, OSError):
        return fail(f"{name}: no DNS server answers", _RESOLVER)
    return None


def _judge(patient: Patient, chart: Chart, name: str) -> Finding:
    found = [ip for family in FAMILIES for ip in chart.addresses.get(family, ())]
    if not found:
        kinds = " or ".join({4: "A", 6: "AAAA"}[family] for family in patient.families)
        said = f"{name} has no {kinds} record"
        return fail(said, "make one that names the relay's address, or correct the name")
    facts = {"addresses": found}
    strange = [ip for ip in found if not ip_address(ip).is_global]
    if strange and len(strange) < len(found):
        said = f"{name}: {', '.join(found)}, of which {', '.join(strange)} is not public"
        return warn(said, "take the private address out of the public DNS", **facts)
    return ok(f"{name}: {', '.join(found)}", **facts)
