"""Real UDP sockets of this machine, for the tests of STUN."""

from __future__ import annotations

import select
import socket

LIMIT_S = 60.0
"""How long a datagram may take through the loopback interface before a test fails."""


def why_no_ipv6() -> str:
    """Say why IPv6 cannot be tested here; empty if it can."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        return f"this machine has no IPv6 loopback: {error}"
    return ""


NO_IPV6 = why_no_ipv6()


def udp_socket(host: str = "127.0.0.1") -> socket.socket:
    """Bind a non-blocking socket to a free port; ``::`` makes it dual-stack."""
    udp = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    if ":" in host:
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # less is given, but enough
    udp.setblocking(False)
    udp.bind((host, 0))
    return udp


def port_of(udp: socket.socket) -> int:
    """The port a socket is bound to."""
    return int(udp.getsockname()[1])


def wait_readable(fd: int) -> None:
    """Wait until a socket has a datagram; loopback delivers at once unless the machine is busy."""
    if not select.select([fd], [], [], LIMIT_S)[0]:
        raise AssertionError(f"no datagram came within {LIMIT_S} s")


def all_arrived() -> None:
    """
    Wait until what was sent before can be read: loopback delivers in order, and on a machine
    with a lot of traffic not before ``send`` returns.
    """
    with udp_socket() as last:
        last.sendto(b"", last.getsockname())
        wait_readable(last.fileno())


def receive(udp: socket.socket, count: int) -> list[bytes]:
    """Take ``count`` datagrams."""
    found = []
    while len(found) < count:
        wait_readable(udp.fileno())
        found.append(udp.recv(4096))
    return found


def is_silent(udp: socket.socket) -> bool:
    """Whether nothing waits; only after something sent later has been seen to arrive."""
    try:
        udp.recv(4096)
    except BlockingIOError:
        return True
    return False
