"""
The health check: does the relay on this machine relay? One finding, in the time of one deadline.

The same judgements as the doctor's, on blocking sockets: this runs every half a minute, and to
load Twisted would cost more than to check. Nothing is verified but that the certificate is valid
today: on loopback there is nobody between, and the relay's name leads elsewhere.

A relay that admits everybody is logged in to, as a prober with a key that was just made; at any
other the check ends with the greeting, so that no refusal is counted or logged.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from derp.doctor.finding import Finding, Verdict, fail, ok
from derp.doctor.upgrade_answer import judge_upgrade
from derp.errors import ProtocolError
from derp.wire.der import read_validity
from derp.wire.stun import TRANSACTION_ID_LEN, encode_binding_request, parse_binding_response
from derp.wire.upgrade import encode_upgrade_request

if TYPE_CHECKING:
    from derp.doctor.doors import Doors

TIMEOUT: Final = 3.0
"""Seconds for all of it."""
STUN_RETRY: Final = 0.5
_READ: Final = 4096
_DAY: Final = 86400.0


@dataclass(frozen=True, slots=True)
class Unhealthy(Exception):
    """Something that makes the relay useless."""

    finding: Finding


class Deadline:
    """When all must be over."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """
        Seconds left.

        :raises TimeoutError: if there are none.
        """
        left = self._end - self._clock()
        if left <= 0:
            raise TimeoutError
        return left


def check(
    doors: Doors, timeout: float = TIMEOUT, wall_time: Callable[[], float] = time.time
) -> Finding:
    """
    Check a relay.

    :param wall_time: Unix seconds.
    """
    deadline = Deadline(timeout)
    started = time.monotonic()
    said = []
    try:
        said.append(_check_port(doors, deadline, wall_time()))
        said += [_check_unix(doors, path, deadline) for path in doors.unix if doors.derp]
        if doors.stun is not None:
            said.append(_check_stun(*doors.stun, deadline, silent_is_well=doors.stun_may_be_silent))
    except Unhealthy as problem:
        return problem.finding
    took = time.monotonic() - started
    return ok(f"{', '.join(filter(None, said))}, {1000 * took:.0f} ms")


# -- over TCP and unix sockets ---------------------------------------------------------------


def _check_port(doors: Doors, deadline: Deadline, now: float) -> str:
    where = f"port {doors.port}"
    sock = _connect((doors.host, doors.port), where, deadline)
    with sock:
        if not doors.tls:
            return _check_relaying(doors, sock, where, deadline)
        with _over_tls(sock, doors.hostname, deadline) as secure:
            left = _check_dates(secure, now)
            said = _check_relaying(doors, secure, where, deadline)
            return f"{said}, certificate for {left:.0f} more days"


def _check_unix(doors: Doors, path: str, deadline: Deadline) -> str:
    with _connect(path, f"unix socket {path}", deadline) as sock:
        return _check_relaying(doors, sock, f"unix socket {path}", deadline)


def _connect(address: tuple[str, int] | str, where: str, deadline: Deadline) -> socket.socket:
    sock = None
    try:
        if isinstance(address, tuple):
            return socket.create_connection(address, deadline.left())
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(deadline.left())
        sock.connect(address)
    except OSError as error:
        if sock is not None:
            sock.close()
        said = f"{where}: no connection ({_reason(error)})"
        raise Unhealthy(fail(said, "is the relay running, with these flags?")) from error
    return sock


def _over_tls(sock: socket.socket, hostname: str, deadline: Deadline) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        sock.settimeout(deadline.left())
        name = hostname.rstrip(".").encode("idna").decode("ascii")
        return context.wrap_socket(sock, server_hostname=name)
    except (OSError, ValueError) as error:
        said = f"the TLS handshake for {hostname} fails ({_reason(error)})"
        cure = "look for the certificate in the relay's log"
        if isinstance(error, TimeoutError):
            cure = "the relay hangs, or waits for a certificate: look into its log"
        raise Unhealthy(fail(said, cure)) from error


def _check_dates(secure: ssl.SSLSocket, now: float) -> float:
    """Days left."""
    der = secure.getpeercert(binary_form=True)
    try:
        begins, ends = read_validity(der or b"")
    except ValueError as error:
        raise Unhealthy(fail(f"the certificate cannot be read: {error}", "")) from error
    if now > ends:
        said = f"the certificate has expired {(now - ends) / _DAY:.1f} days ago"
        raise Unhealthy(fail(said, "renew it"))
    if now < begins:
        said = "the certificate is not valid yet"
        raise Unhealthy(fail(said, "check the clock of this machine"))
    return (ends - now) / _DAY


def _check_relaying(doors: Doors, sock: socket.socket, where: str, deadline: Deadline) -> str:
    if not doors.derp:
        return f"{where} is open (-derp=false)"
    try:
        sock.settimeout(deadline.left())
        sock.sendall(encode_upgrade_request("/derp", doors.hostname))
        received, finding = _read_greeting(sock, deadline)
        if finding.verdict is Verdict.FAIL:
            raise Unhealthy(fail(f"{where}: {finding.said}", finding.cure))
        if not doors.admits_strangers:
            return f"{where} greets"
        _log_in(sock, received, where, deadline)
    except OSError as error:
        said = f"{where}: the relay is not to be talked to ({_reason(error)})"
        raise Unhealthy(fail(said, "look into its log")) from error
    return f"{where} admits"


def _read_greeting(sock: socket.socket, deadline: Deadline) -> tuple[bytes, Finding]:
    received = b""
    over = ""
    while True:
        finding = judge_upgrade(received, over=over)
        if finding is not None:
            return received, finding
        try:
            sock.settimeout(deadline.left())
            data = sock.recv(_READ)
        except TimeoutError:
            over = "silent"
            continue
        received += data
        over = "" if data else "closed"


def _log_in(sock: socket.socket, received: bytes, where: str, deadline: Deadline) -> None:
    """Log in as somebody new, and be answered."""
    # Loaded for those only who need it: NaCl costs as much as all else here.
    from derp.core.client_session import ClientSession
    from derp.wire.frames import NONCE_LEN
    from derp.wire.handshake import ClientInfo
    from derp.wire.keys import generate_private

    info = ClientInfo(version=2, is_prober=True)
    session = ClientSession(generate_private(), info, os.urandom(NONCE_LEN))
    session.start(b"")
    while session.server_info is None:
        session.receive(received)
        sock.sendall(session.data_to_send())
        if session.fault is not None:
            said = f"{where}: {session.fault}"
            raise Unhealthy(fail(said, "look into the relay's log"))
        if session.server_info is None:
            sock.settimeout(deadline.left())
            received = sock.recv(_READ)
            if not received:
                said = f"{where}: the relay closes instead of answering a login"
                raise Unhealthy(fail(said, "look into its log; is it stopping?"))


# -- STUN ------------------------------------------------------------------------------------


def _check_stun(host: str, port: int, deadline: Deadline, *, silent_is_well: bool) -> str:
    transaction = os.urandom(TRANSACTION_ID_LEN)
    request = encode_binding_request(transaction)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((host, port))
            while True:
                sock.settimeout(min(STUN_RETRY, deadline.left()))
                sock.send(request)
                if _answered(sock, transaction):
                    return "STUN answers"
    except TimeoutError:
        reason = "no answer"
    except OSError as error:
        reason = _reason(error)
    if silent_is_well:
        return "STUN is silent (--stun-follows-readiness)"
    said = f"STUN on UDP port {port} is dead ({reason})"
    raise Unhealthy(fail(said, "is the relay running with these flags? -stun=false turns it off"))


def _answered(sock: socket.socket, transaction: bytes) -> bool:
    """Whether the next datagram that comes in time is the answer."""
    try:
        packet = sock.recv(_READ)
    except TimeoutError:
        return False
    try:
        return parse_binding_response(packet).transaction_id == transaction
    except ProtocolError:
        return False


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error)
