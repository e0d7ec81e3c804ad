"""
Relay packets between two clients through a relay, for the rehearsal.

usage: relay_packets.py HOST PORT CERTNAME
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults

from derp.net.relay_connector import connect
from derp.net.relay_dialer import RelayAddress
from derp.wire.keys import generate_private
from derp.wire.messages import ReceivedPacket

PACKETS = 1000
SIZE = 1200


async def main(reactor: Any, host: str, port: str, cert_name: str) -> None:
    """Send from one client to another, and count what arrives."""
    all_here: Deferred[None] = Deferred()
    here: list[bytes] = []

    def received(message: object) -> None:
        if isinstance(message, ReceivedPacket):
            here.append(message.packet)
            if len(here) == PACKETS:
                all_here.callback(None)

    address = RelayAddress(label="the relay", host=host, port=int(port), cert_name=cert_name)
    sender = await connect(reactor, address, generate_private())
    receiver = await connect(reactor, address, generate_private(), on_message=received)
    await gatherResults([sender.when_logged_in(), receiver.when_logged_in()])
    for number in range(PACKETS):
        sender.send(receiver.public_key, number.to_bytes(SIZE, "big"))
        if number % 16 == 15:  # half of what waits for a slow client, which none of these is
            await sender.ping()
    all_here.addTimeout(10, reactor)
    await all_here
    assert here == [number.to_bytes(SIZE, "big") for number in range(PACKETS)]
    print(f"{len(here)} packets of {SIZE} bytes relayed")
    await gatherResults([sender.close(), receiver.close()])


task.react(main, sys.argv[1:])
