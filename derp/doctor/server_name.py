"""SNI: what does a client get that sends no server name?"""

from __future__ import annotations

from collections.abc import Sequence

from derp.doctor.conversation import HandshakeFailed, LenientTLS, Unreachable, open_conversation
from derp.doctor.finding import Finding, fail, ok, warn
from derp.doctor.patient import Chart, Patient
from derp.wire.metacert import is_metacert


async def examine_server_name(patient: Patient, chart: Chart) -> Sequence[Finding]:
    """
    Shake hands without a name.

    Clients that know a relay by its address send none, so for it all examinations do. For a relay
    with a name this tells who answers in front of it; that it refuses is well.
    """
    if patient.by_address:
        return [ok("no name is sent to an address, and none is missed")]
    try:
        conversation = await open_conversation(
            patient.reactor, chart.best, patient.port, patient.timeout, LenientTLS("")
        )
    except HandshakeFailed:
        return [ok("a client that sends no name is refused, as it may be")]
    except Unreachable as problem:
        return [fail(f"no second connection: {problem}", "try again")]
    conversation.end()
    assert conversation.tls is not None
    presented = [der for der in conversation.tls.chain if not is_metacert(der)]
    if presented[:1] == chart.chain[:1]:
        return [ok("a client that sends no name gets the same certificate")]
    said = "a client that sends no name gets another certificate than by the relay's name"
    cure = (
        "that is a proxy's own, or another site's; clients of today send the name, so it matters "
        "only to who dials the address"
    )
    return [warn(said, cure)]
