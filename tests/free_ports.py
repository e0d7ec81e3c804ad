"""Ports for programs that cannot be handed a socket."""

from __future__ import annotations

import random
import socket

HOST = "127.0.0.1"
_BELOW_EPHEMERAL = range(12000, 32000)
"""The kernel gives ports away by itself from 32768 upwards, and none of these."""

_kept: list[socket.socket] = []
"""Bound, so that nobody is given such a port twice; not listening, and with SO_REUSEADDR, so that
whoever sets that as well, as every server does, may listen there."""


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has, and that nobody else is given while this process lives."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(_BELOW_EPHEMERAL)
        if _keep(port):
            found.append(port)
    return found


def _keep(port: int) -> bool:
    tcp = socket.socket()
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        try:
            udp.bind((HOST, port))
            tcp.bind((HOST, port))
        except OSError:
            tcp.close()
            return False
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _kept.append(tcp)
    return True
