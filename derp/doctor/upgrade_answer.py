"""
What came of asking for the upgrade to DERP: judged here for the doctor and the health check.

The request goes out as stock clients send it; wanted are ``101 Switching Protocols`` and right
behind it the greeting, ``01 | length | magic 8 | server key 32``.
"""

from __future__ import annotations

from typing import Final

from derp.doctor.finding import Finding, fail, ok, warn
from derp.doctor.http_answer import HTTPAnswer, is_http2, is_tls, parse_answer, printable
from derp.wire.frames import HEADER, HEADER_LEN, KEY_LEN, MAGIC, FrameType

MAX_GREETING: Final = 1024
"""Longest greeting that clients read."""

_LET_UPGRADE: Final = (
    "have the proxy pass Upgrade and Connection on (nginx: proxy_http_version 1.1; "
    "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;), or let it "
    "pass TCP through"
)
_ROUTE: Final = "have the proxy send /derp to the relay, or let it pass TCP through"
_NO_BUFFERS: Final = (
    "have the proxy pass on at once what the relay says (nginx: proxy_buffering off), or let it "
    "pass TCP through"
)
_SPEAK_TLS: Final = (
    "TLS is spoken there: examine it without http://, and have a proxy in front speak TLS to the "
    "relay (https://), or pass TCP through"
)
_HTTP1: Final = (
    "have what stands in front speak HTTP/1.1 to clients that offer no ALPN: an upgrade to DERP "
    "is not possible in HTTP/2"
)


def judge_upgrade(received: bytes, *, over: str = "") -> Finding | None:
    """
    Judge what a relay has answered so far.

    :param over: why nothing more will come: ``closed`` (they did it) or ``silent`` (we have
        waited long enough); empty while it may.
    :return: ``None`` if more has to come. An ``ok`` has the fact ``server_key``.
    """
    if not received:
        return _nothing(over) if over else None
    try:
        answer = parse_answer(received)
    except ValueError as error:
        return _no_http(received, str(error))
    if answer is None:
        return _cut(over) if over else None
    if answer.status != 101:
        return refusal(answer)
    return _judge_greeting(answer, over)


def refusal(answer: HTTPAnswer) -> Finding:
    """Say what an answer other than 101 means, to whoever asked for DERP or a WebSocket."""
    status = answer.status
    facts = {"status": status}
    if status == 426:
        said = "the relay says it was not asked for an upgrade: a proxy has stripped it"
        return fail(f"{said} ({answer.words})", _LET_UPGRADE, **facts)
    if status in (502, 503, 504):
        said = f"a proxy answers that it has no relay behind it ({answer.words})"
        return fail(said, "start the relay, and check the proxy's address of it", **facts)
    if status in (301, 302, 303, 307, 308):
        said = f"the upgrade is redirected to {answer.header('location')} ({answer.words})"
        cure = f"clients follow no redirect: name that host and port, or {_ROUTE}"
        return fail(said, cure, **facts)
    if status in (401, 403, 407, 429):
        said = f"somebody in front refuses the upgrade ({answer.words})"
        cure = "take /derp out of what asks for passwords, blocks or limits there"
        return fail(said, cure, **facts)
    if status == 404:
        said = f"there is no DERP at this path ({answer.words})"
        cure = f"is the relay running with -derp=false? Else {_ROUTE}"
        return fail(said, cure, **facts)
    if status == 200:
        said = "a web page comes instead of the upgrade: another server, or a proxy that drops it"
        return fail(f"{said} ({answer.words})", _LET_UPGRADE, **facts)
    return fail(f"the upgrade is refused ({answer.words})", _LET_UPGRADE, **facts)


def _nothing(over: str) -> Finding:
    if over == "closed":
        said = "the connection is closed without an answer to the upgrade"
        cure = "look into the log of the relay, and of the proxy in front if there is one"
        return fail(said, cure)
    said = "no answer to the upgrade comes in time: something holds it back, or hangs"
    return fail(said, f"{_NO_BUFFERS}; without a proxy look into the relay's log")


def _cut(over: str) -> Finding:
    how = "is cut off" if over == "closed" else "does not end"
    return fail(f"the answer to the upgrade {how} inside its head", _NO_BUFFERS)


def _no_http(received: bytes, what: str) -> Finding:
    if is_http2(received):
        return fail("the server speaks HTTP/2 only", _HTTP1)
    said = f"the answer to the upgrade is {what}"
    if is_tls(received):
        return fail(said, _SPEAK_TLS)
    return fail(said, "check host and port: another service answers there")


def _judge_greeting(answer: HTTPAnswer, over: str) -> Finding | None:
    greeting = answer.rest
    problem = _greeting_problem(greeting)
    if problem is not None:
        return problem
    if len(greeting) < HEADER_LEN + len(MAGIC) + KEY_LEN:
        if not over:
            return None
        if greeting:
            return fail("the relay's greeting is cut off", _NO_BUFFERS)
        how = "the connection closed" if over == "closed" else "nothing"
        said = f"behind the 101 comes {how} where the relay's greeting should be: a proxy holds"
        return fail(f"{said} it back, or closes what it does not understand", _NO_BUFFERS)
    at = HEADER_LEN + len(MAGIC)
    key = greeting[at : at + KEY_LEN].hex()
    told = answer.header("derp-public-key")
    if told and told != key:
        said = "the header Derp-Public-Key and the greeting name different keys"
        cure = "a proxy mixes two relays: send each connection to one of them"
        return fail(said, cure, server_key=key)
    if answer.header("upgrade").lower() != "derp":
        said = "the upgrade passes, but its header Upgrade: DERP was changed on the way"
        return warn(said, _LET_UPGRADE, server_key=key)
    return ok(f"101, greeted by nodekey:{key[:16]}…", server_key=key)


def _greeting_problem(greeting: bytes) -> Finding | None:
    """Say what is wrong with the beginning of a greeting, however little of it there is."""
    if len(greeting) >= HEADER_LEN:
        kind, length = HEADER.unpack_from(greeting)
        wrong = kind != FrameType.SERVER_KEY or not len(MAGIC) + KEY_LEN <= length <= MAX_GREETING
        magic = greeting[HEADER_LEN : HEADER_LEN + len(MAGIC)]
        if not wrong and MAGIC.startswith(magic):
            return None
    elif not greeting or greeting[0] == FrameType.SERVER_KEY:
        return None
    said = f"what follows the 101 is no DERP greeting ({printable(greeting[:16].hex(' '))})"
    return fail(said, "check host and path: that is another protocol's server")


def judge_fast_greeting(received: bytes, *, over: str = "") -> Finding | None:
    """Judge what comes of fast start: the greeting, and no HTTP before it."""
    if received[:4] == b"HTTP":
        try:
            answer = parse_answer(received)
        except ValueError as error:
            said = str(error)
        else:
            if answer is None and not over:
                return None
            said = "an HTTP answer" if answer is None else answer.words
        cure = "clients that start fast fail here: pass TCP through, or end TLS with another name"
        return fail(f"fast start is answered with {said} where DERP should begin", cure)
    if not received and over:
        how = "the connection is closed" if over == "closed" else "nothing comes in time"
        return fail(f"fast start: {how}", _NO_BUFFERS)
    problem = _greeting_problem(received) if received else None
    if problem is not None:
        return problem
    if len(received) < HEADER_LEN + len(MAGIC) + KEY_LEN:
        return fail("fast start: the greeting is cut off", _NO_BUFFERS) if over else None
    at = HEADER_LEN + len(MAGIC)
    return ok("greeted without an HTTP answer", server_key=received[at : at + KEY_LEN].hex())
