"""
STUN servers to measure, each alone on a reactor: the project's, and one as Twisted suggests.

No servers to run; both use the project's codec, so that what differs is the way datagrams are
moved. A TCP port of the same number tells that the UDP port is open::

    python -m bench.stun_server alone PORT
    python -m bench.stun_server single PORT          # the same where batches are not available
    python -m bench.stun_server plain-twisted PORT
"""

from __future__ import annotations

import socket
import sys
from typing import Any

from twisted.internet.protocol import DatagramProtocol, Factory

from derp.core.stun_stats import STUNStats
from derp.net import stun_udp
from derp.wire import stun

HOST = "127.0.0.1"


class PlainSTUN(DatagramProtocol):
    """The baseline: Twisted's own UDP port."""

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Answer what deserves it."""
        answer = stun.answer(datagram, socket.inet_aton(addr[0]), addr[1])
        if answer is not None and self.transport is not None:
            self.transport.write(answer, addr)


def main(kind: str, port: int) -> None:
    """Serve until a signal comes."""
    from twisted.internet import reactor

    running: Any = reactor
    if kind == "plain-twisted":
        running.listenUDP(port, PlainSTUN(), interface=HOST)
    else:
        if kind == "single":
            stun_udp.open_batch = lambda udp: None
        server = stun_udp.STUNServer(running, HOST, port, STUNStats())
        server.start()
        running.addSystemEventTrigger("before", "shutdown", server.stop)
    running.listenTCP(port, Factory(), interface=HOST)
    running.run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
