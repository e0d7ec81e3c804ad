"""DERP inside a WebSocket, as clients in browsers speak it."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, RejectConnection
from wsproto.events import Request as HandshakeRequest
from wsproto.utilities import ProtocolError as WebSocketError

from derp.doctor.conversation import Conversation, LenientTLS, Unreachable, open_conversation
from derp.doctor.finding import Finding, Verdict, ok, warn
from derp.doctor.http_answer import parse_answer
from derp.doctor.patient import Chart, Patient
from derp.doctor.upgrade_answer import judge_fast_greeting

_MATTERS = "only clients in browsers need this"
_LET_THROUGH = "have the proxy pass WebSockets on (Upgrade, Connection and Sec-WebSocket headers)"


async def examine_web_socket(patient: Patient, chart: Chart) -> Sequence[Finding]:
    """Open one, and be greeted in it."""
    tls = LenientTLS(patient.host) if patient.tls else None
    try:
        conversation = await open_conversation(
            patient.reactor, chart.best, patient.port, patient.timeout, tls
        )
    except Unreachable as problem:
        return [warn(f"no connection: {problem}", "try again; some connections fail here")]
    try:
        return [await _greeted(patient, conversation)]
    finally:
        conversation.end()


def _greeted(patient: Patient, conversation: Conversation) -> Deferred[Finding]:
    socket = WSConnection(ConnectionType.CLIENT)
    request = HandshakeRequest(
        host=patient.address().host_header, target="/derp", subprotocols=["derp"]
    )
    conversation.say(socket.send(request))
    heard = _Heard(socket)
    return Deferred.fromCoroutine(conversation.until(heard.judge, patient.reactor, patient.timeout))


class _Heard:
    """What comes over a WebSocket, judged as it comes."""

    def __init__(self, socket: WSConnection) -> None:
        self._socket = socket
        self._taken = 0
        self._greeting = b""
        self._accepted: AcceptConnection | None = None

    def judge(self, heard: bytes, over: str) -> Finding | None:
        """See :meth:`derp.doctor.conversation.Conversation.until`."""
        fresh, self._taken = heard[self._taken :], len(heard)
        try:
            if fresh:
                self._socket.receive_data(fresh)
            finding = self._judge_events(heard)
        except WebSocketError:
            return _refused(heard)
        if finding is not None or not over:
            return finding
        if self._accepted is None:
            return _refused(heard)
        how = "closes it" if over == "closed" else "says nothing"
        return warn(f"the WebSocket opens, and the relay {how}; {_MATTERS}", _LET_THROUGH)

    def _judge_events(self, heard: bytes) -> Finding | None:
        for event in self._socket.events():
            if isinstance(event, RejectConnection):
                return _refused(heard)
            if isinstance(event, AcceptConnection):
                self._accepted = event
                if event.subprotocol != "derp":
                    said = "the WebSocket is accepted, but without its subprotocol derp"
                    return warn(f"{said}; {_MATTERS}", _LET_THROUGH)
            if isinstance(event, BytesMessage):
                self._greeting += bytes(event.data)
            if isinstance(event, CloseConnection):
                said = f"the WebSocket is closed at once, with code {event.code}"
                return warn(f"{said}; {_MATTERS}", _LET_THROUGH)
        greeting = judge_fast_greeting(self._greeting)
        if greeting is None:
            return None
        if greeting.verdict is Verdict.OK:
            return ok("opened and greeted")
        return warn("what comes through the WebSocket is no DERP greeting", _LET_THROUGH)


def _refused(heard: bytes) -> Finding:
    try:
        answer = parse_answer(heard)
        how = answer.words if answer is not None else "no answer"
    except ValueError as error:
        how = str(error)
    return warn(f"no WebSocket ({how}); {_MATTERS}", _LET_THROUGH)
