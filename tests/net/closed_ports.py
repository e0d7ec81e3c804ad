"""
Ports where nobody listens, and nobody else can begin to.

A port that was merely free a moment ago is the kernel's to give to the next who asks for any:
to another server of the test, or to the very client that is to be refused.
"""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase


def closed_tcp_port(case: SynchronousTestCase, host: str = "127.0.0.1") -> int:
    """A port that refuses connections until the test is over: taken, and not listened on."""
    taken = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    case.addCleanup(taken.close)
    taken.bind((host, 0))
    return int(taken.getsockname()[1])


def closed_udp_port(case: SynchronousTestCase, host: str = "127.0.0.1") -> int:
    """The same for UDP: taken by one who hears nobody but himself, so others are refused."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_DGRAM)
    case.addCleanup(taken.close)
    taken.bind((host, 0))
    taken.connect(taken.getsockname())
    return int(taken.getsockname()[1])
