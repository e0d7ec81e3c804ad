"""Logging in as two clients, and a packet from one to the other through the relay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, TimeoutError

from derp.core.client_session import ClientEvent
from derp.doctor.finding import Finding, Verdict, fail, ok, skip
from derp.doctor.http_answer import printable
from derp.doctor.patient import Chart, Patient
from derp.net.relay_client import RelayClient
from derp.net.relay_connector import RelayConnector
from derp.net.relay_errors import LoginRefused, RelayError
from derp.wire.keys import generate_private
from derp.wire.messages import Health, PeerGone, ReceivedPacket

PACKET_LEN: Final = 1200
"""Bytes, as a full WireGuard packet has."""
LEAVE_S: Final = 0.3
"""How long a server may take to say goodbye."""

_STRANGERS: Final = (
    "to relay in a test, examine again with --mesh-psk-file (the key of the relay's mesh, which "
    "is admitted everywhere) or --key-file (the key of a client that is admitted)"
)


def _nobody_waits() -> None:
    """Stands where somebody waited for a message."""


@dataclass
class _Mailbox:
    """What a client was sent."""

    packets: list[bytes] = field(default_factory=list)
    gone: int = 0
    health: str = ""
    news: Callable[[], None] = _nobody_waits

    def __call__(self, message: ClientEvent) -> None:
        if isinstance(message, ReceivedPacket):
            self.packets.append(bytes(message.packet))
        elif isinstance(message, PeerGone):
            self.gone += 1
        elif isinstance(message, Health):
            self.health = message.problem
        self.news()


async def examine_login(patient: Patient, chart: Chart) -> Sequence[Finding]:
    """Log in, relay, and say what came of either."""
    secret = patient.mesh_key or patient.private_key
    if secret is not None and not chart.trusted and patient.tls:
        said = "a key is not shown to a relay whose certificate is not accepted"
        return [skip(f"{said}: examine with --pin, or with --insecure if you must")]
    clients: list[RelayClient] = []
    try:
        return await _relay(patient, chart, clients)
    finally:
        await DeferredList([Deferred.fromCoroutine(_leave(patient, each)) for each in clients])


async def _leave(patient: Patient, client: RelayClient) -> None:
    """Say goodbye; a server that does not say it, too, is left all the same."""
    try:
        await client.close().addTimeout(LEAVE_S, patient.reactor)
    except TimeoutError:
        transport: Any = client.transport
        transport.abortConnection()
        await client.when_closed()


async def _relay(patient: Patient, chart: Chart, clients: list[RelayClient]) -> list[Finding]:
    ours, theirs = _Mailbox(), _Mailbox()
    begun = patient.reactor.seconds()
    first = await _log_in(patient, chart, ours, clients)
    if isinstance(first, Finding):
        return [first]
    took = 1000 * (patient.reactor.seconds() - begun)
    version = first.server_info.version if first.server_info else 0
    findings = [ok(f"admitted in {took:.0f} ms, protocol {version}", ms=round(took, 2))]
    if patient.private_key is not None and patient.mesh_key is None:
        findings.append(await _send(patient, first, first.public_key, ours))
    else:
        second = await _log_in(patient, chart, theirs, clients)
        findings.append(await _exchange(patient, first, second, theirs, ours))
    if ours.health:
        said = f"the relay says it is not well: {printable(ours.health)}"
        findings.append(fail(said, "look into the relay's log"))
    return findings


async def _exchange(
    patient: Patient,
    first: RelayClient,
    second: RelayClient | Finding,
    theirs: _Mailbox,
    ours: _Mailbox,
) -> Finding:
    """Let the first client send to the second, if both are at the same relay."""
    if isinstance(second, Finding):
        return second
    if first.server_key != second.server_key:
        said = "two connections to this name lead to two relays that do not know each other"
        cure = (
            "two relays may share a name only in a mesh: give each its own, or have the balancer "
            "send all to one"
        )
        return fail(said, cure)
    return await _send(patient, first, second.public_key, theirs, ours)


async def _log_in(
    patient: Patient, chart: Chart, mailbox: _Mailbox, clients: list[RelayClient]
) -> RelayClient | Finding:
    """One client that is logged in, or why it is not."""
    connector = RelayConnector(
        reactor=patient.reactor,
        target=patient.address(chart.best),
        private_key=patient.private_key or generate_private(),
        mesh_key=patient.mesh_key,
        is_prober=True,
        ca_file=patient.ca_file,
        insecure_for_tests=patient.insecure or not chart.trusted,
        timeout=patient.timeout,
        wall_time=patient.wall_time,
    )
    try:
        client = await connector.connect(mailbox)
        clients.append(client)
        await client.when_logged_in().addTimeout(patient.timeout, patient.reactor)
    except LoginRefused:
        return _refused(patient)
    except TimeoutError:
        said = f"the relay does not answer the login within {patient.timeout:g} s"
        cure = "it may wait for tailscaled or an admission URL: look into its log"
        return fail(said, cure)
    except RelayError as problem:
        return fail(str(problem), "look into the relay's log")
    return client


def _refused(patient: Patient) -> Finding:
    """The relay closed instead of answering: it knows who may come."""
    if patient.mesh_key is not None:
        said = "the relay admits strangers with this mesh key no more than without it"
        return fail(said, "is it the key of the relay's --mesh-psk-file?")
    if patient.private_key is not None:
        said = "the relay does not admit the key of --key-file"
        return fail(said, "is its node in the tailnet that the relay asks about?")
    said = "the relay admits no strangers, and so cannot be seen to relay"
    return Finding(Verdict.OK, said, _STRANGERS, {"admits_strangers": False})


async def _send(
    patient: Patient,
    sender: RelayClient,
    destination: bytes,
    mailbox: _Mailbox,
    complaints: _Mailbox | None = None,
) -> Finding:
    """Send a packet and see it come, whole."""
    packet = token_bytes(PACKET_LEN)
    begun = patient.reactor.seconds()
    sender.send(destination, packet)
    there = await _arrived(patient, packet, mailbox, complaints, patient.timeout / 2)
    if not there:
        sender.send(destination, packet)
        there = await _arrived(patient, packet, mailbox, None, patient.timeout / 2)
    took = 1000 * (patient.reactor.seconds() - begun)
    if there:
        said = f"a packet of {PACKET_LEN} bytes came through in {took:.1f} ms"
        return ok(said, ms=round(took, 2))
    if mailbox.packets:
        said = "the relay delivers something else than was sent"
        return fail(said, "is a proxy changing the stream? Let it pass TCP through")
    if complaints is not None and complaints.gone:
        said = "the relay says that the other client is not there, though it has admitted both"
        cure = "two relays behind one name, or the other connection was cut: see the relay's log"
        return fail(said, cure)
    said = f"a packet from one client to another is lost ({patient.timeout:g} s, two attempts)"
    return fail(said, "is a quota used up (--monthly-quota), or a rate limit reached? See its log")


async def _arrived(
    patient: Patient,
    packet: bytes,
    mailbox: _Mailbox,
    complaints: _Mailbox | None,
    seconds: float,
) -> bool:
    """Wait for a packet; at once ``False`` if the relay complains."""
    news: Deferred[None] = Deferred()

    def look() -> None:
        if not news.called and (packet in mailbox.packets or (complaints and complaints.gone)):
            news.callback(None)

    mailbox.news = look
    if complaints is not None:
        complaints.news = look
    look()
    try:
        await news.addTimeout(seconds, patient.reactor)
    except TimeoutError:
        return False
    finally:
        mailbox.news = _nobody_waits
        if complaints is not None:
            complaints.news = _nobody_waits
    return packet in mailbox.packets


def cannot_log_in(chart: Chart) -> str:
    """Why there is nothing to log in to."""
    return "" if chart.greeted else "there is no relay to log in to"
