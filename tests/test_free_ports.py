"""Tests of :mod:`tests.free_ports`, which tests of other people's programs depend on."""

from __future__ import annotations

import random
import socket

from twisted.trial.unittest import SynchronousTestCase

from tests.free_ports import HOST, free_ports


class FreePortsTests(SynchronousTestCase):
    """Nobody is given what somebody has."""

    def draw(self, *ports: int) -> None:
        """Have these drawn, in this order."""
        drawn = iter(ports)
        self.patch(random, "choice", lambda _: next(drawn))

    def test_twice(self) -> None:
        """Whoever asks again gets others, though nobody uses the first yet."""
        first, second = free_ports(2)
        self.assertNotEqual(first, second)
        (third,) = free_ports(1)
        self.draw(first, second, third, 12_000, *range(31_000, 32_000))
        self.assertNotIn(free_ports(1)[0], (first, second, third))

    def test_taken(self) -> None:
        """One that is taken for either protocol is passed over."""
        (free,) = free_ports(1)
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(type=kind) as other:
                other.bind((HOST, 0))
                taken = other.getsockname()[1]
                self.draw(taken, free, *range(31_000, 32_000))
                self.assertNotIn(free_ports(1)[0], (taken, free))

    def test_usable(self) -> None:
        """A server may listen there, and until then nobody does."""
        (port,) = free_ports(1)
        with socket.socket() as client:
            self.assertRaises(ConnectionRefusedError, client.connect, (HOST, port))
        with socket.create_server((HOST, port)), socket.create_connection((HOST, port)):
            pass
