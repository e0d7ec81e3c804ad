"""Tests of :mod:`derp.net.datagram_batch` on real sockets."""

import ctypes
import errno
import socket
import struct
import sys
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from derp.net import datagram_batch
from derp.net.datagram_batch import REPLY_LEN, SLOT_LEN, SLOTS, DatagramBatch, open_batch
from tests.net.udp_sockets import NO_IPV6, all_arrived, is_silent, port_of, receive, udp_socket

NOT_LINUX = "" if sys.platform.startswith("linux") else "recvmmsg is a call of Linux"


def failing(code: int) -> Callable[..., int]:
    """A C function that fails with an error number."""

    def call(*arguments: object) -> int:
        ctypes.set_errno(code)
        return -1

    return call


class BatchTestCase(SynchronousTestCase):
    """A server socket with its batch, and clients."""

    skip = NOT_LINUX or None

    def make(self, host: str = "127.0.0.1") -> DatagramBatch:
        """Bind the server and make its slots."""
        self.server = udp_socket(host)
        self.addCleanup(self.server.close)
        batch = open_batch(self.server)
        assert batch is not None
        return batch

    def client(self, host: str = "127.0.0.1") -> socket.socket:
        """Make a client whose ``send`` goes to the server."""
        client = udp_socket(host)
        self.addCleanup(client.close)
        client.connect((host, port_of(self.server)))
        return client

    def receive(self, batch: DatagramBatch, count: int) -> None:
        """Let the batch receive so many datagrams that were sent, in one call."""
        all_arrived()
        self.assertEqual(batch.receive(), count)

    def request(self, batch: DatagramBatch, slot: int) -> bytes:
        """Give what a request slot holds."""
        start = slot * SLOT_LEN
        return bytes(batch.requests[start : start + batch.lengths[slot]])

    def reply(self, batch: DatagramBatch, reply: int, text: bytes, peer: int) -> None:
        """Fill a reply slot."""
        batch.replies[reply * REPLY_LEN : reply * REPLY_LEN + len(text)] = text
        batch.address_reply(reply, len(text), peer)


class ReceiveTests(BatchTestCase):
    """Taking datagrams."""

    def test_nothing(self) -> None:
        """An empty socket is no error."""
        self.assertEqual(self.make().receive(), 0)

    def test_contents_and_senders(self) -> None:
        """Each slot holds one datagram and the socket address it came from."""
        batch = self.make()
        clients = [self.client() for _ in range(3)]
        texts = [b"first", b"", b"third" * 100]
        for client, text in zip(clients, texts, strict=True):
            client.send(text)
        self.receive(batch, 3)
        self.assertEqual(batch.lengths, (5, 0, 500))
        for slot, (client, text) in enumerate(zip(clients, texts, strict=True)):
            self.assertEqual(self.request(batch, slot), text)
            family, port, ip = struct.unpack_from("=H2s4s", batch.peers, slot * batch.peer_len)
            self.assertEqual(family, socket.AF_INET)
            self.assertEqual(int.from_bytes(port, "big"), port_of(client))
            self.assertEqual(socket.inet_ntoa(ip), "127.0.0.1")
            self.assertEqual(batch.peer(slot), client.getsockname())

    def test_ipv6_senders(self) -> None:
        """On an IPv6 socket a peer slot is a sockaddr_in6; IPv4 peers are mapped."""
        batch = self.make("::")
        self.client("::1").send(b"6")
        self.client().send(b"4")
        self.receive(batch, 2)
        ips = [bytes(batch.peers[28 * slot + 8 : 28 * slot + 24]) for slot in range(2)]
        self.assertEqual(
            [socket.inet_ntop(socket.AF_INET6, ip) for ip in ips], ["::1", "::ffff:127.0.0.1"]
        )
        batch.peers[4:8] = b"\0\1\2\3"
        batch.peers[24:28] = (7).to_bytes(4, sys.byteorder)
        port = int.from_bytes(batch.peers[2:4], "big")
        self.assertEqual(batch.peer(0), ("::1", port, 0x10203, 7))

    test_ipv6_senders.skip = NO_IPV6 or None  # type: ignore[attr-defined]

    def test_more_than_slots(self) -> None:
        """What does not fit waits for the next call, in order."""
        batch = self.make()
        client = self.client()
        for number in range(SLOTS + 10):
            client.send(b"%d" % number)
        self.receive(batch, SLOTS)
        self.assertEqual(self.request(batch, SLOTS - 1), b"%d" % (SLOTS - 1))
        self.receive(batch, 10)
        self.assertEqual(self.request(batch, 0), b"%d" % SLOTS)
        self.assertEqual(len(batch.lengths), 10)

    def test_longer_than_a_slot(self) -> None:
        """A datagram that was cut shows by its length, and leaves its neighbour alone."""
        batch = self.make()
        client = self.client()
        client.send(b"x" * (SLOT_LEN + 1))
        client.send(b"y" * SLOT_LEN)
        self.receive(batch, 2)
        self.assertEqual(batch.lengths, (SLOT_LEN + 1, SLOT_LEN))
        self.assertEqual(self.request(batch, 1), b"y" * SLOT_LEN)

    def test_errors(self) -> None:
        """An interrupted call found nothing; other errors are the caller's to judge."""
        batch = self.make()
        self.patch(batch, "_recvmmsg", failing(errno.EINTR))
        self.assertEqual(batch.receive(), 0)
        self.patch(batch, "_recvmmsg", failing(errno.ECONNREFUSED))
        self.assertRaises(ConnectionRefusedError, batch.receive)


class SendTests(BatchTestCase):
    """Sending replies."""

    def exchange(self, count: int, host: str = "127.0.0.1") -> DatagramBatch:
        """Have ``count`` clients ask."""
        batch = self.make(host)
        self.clients = [self.client() for _ in range(count)]
        for client in self.clients:
            client.send(b"?")
        self.receive(batch, count)
        return batch

    def test_each_to_its_peer(self) -> None:
        """Reply n goes to the sender of request n, with its own size."""
        batch = self.exchange(4)
        for slot in range(4):
            self.reply(batch, slot, b"!" * (slot + 1), slot)
        self.assertEqual(batch.send(4), 4)
        for slot, client in enumerate(self.clients):
            self.assertEqual(receive(client, 1), [b"!" * (slot + 1)])

    def test_some_get_none(self) -> None:
        """Leaving requests out moves the peers of the later ones down."""
        batch = self.exchange(5)
        for reply, peer in enumerate((1, 3, 4)):
            self.reply(batch, reply, b"for %d" % peer, peer)
        self.assertEqual(batch.send(3), 3)
        for peer in (4, 3, 1):
            self.assertEqual(receive(self.clients[peer], 1), [b"for %d" % peer])
        self.assertTrue(is_silent(self.clients[0]) and is_silent(self.clients[2]))

    def test_slots_are_used_again(self) -> None:
        """Moved peers and sizes of one batch do not show in the next."""
        batch = self.exchange(3)
        self.reply(batch, 0, b"long one", 2)
        self.assertEqual(batch.send(1), 1)
        receive(self.clients[2], 1)
        self.clients[0].send(b"?")
        self.receive(batch, 1)
        self.reply(batch, 0, b"short", 0)
        self.assertEqual(batch.send(1), 1)
        self.assertEqual(receive(self.clients[0], 1), [b"short"])

    def test_mapped_peer(self) -> None:
        """A reply to an IPv4 peer leaves a dual-stack socket as IPv4."""
        batch = self.exchange(1, "::")
        self.reply(batch, 0, b"!", 0)
        self.assertEqual(batch.send(1), 1)
        self.assertEqual(receive(self.clients[0], 1), [b"!"])

    test_mapped_peer.skip = NO_IPV6 or None  # type: ignore[attr-defined]

    def test_a_refused_reply_is_skipped(self) -> None:
        """The kernel sends nothing to port 0; replies before and after it go out."""
        batch = self.exchange(4)
        for slot in range(4):
            self.reply(batch, slot, b"!", slot)
        batch.peers[1 * batch.peer_len + 2 : 1 * batch.peer_len + 4] = bytes(2)
        self.assertEqual(batch.send(4), 3)
        for slot in (3, 2, 0):
            self.assertEqual(receive(self.clients[slot], 1), [b"!"])

    def test_a_full_socket_drops_the_rest(self) -> None:
        """There is no waiting for room, and no trying with each of the others."""
        batch = self.exchange(2)
        for code in (errno.EAGAIN, errno.ENOBUFS):
            calls = []
            fail = failing(code)

            def counted(*arguments: object) -> int:
                calls.append(arguments)  # noqa: B023 - of this round
                return fail()  # noqa: B023

            self.patch(batch, "_sendmmsg", counted)
            self.assertEqual((batch.send(2), len(calls)), (0, 1))


class OpenBatchTests(SynchronousTestCase):
    """Where there is no batch."""

    def setUp(self) -> None:
        """Bind a socket."""
        self.server = udp_socket()
        self.addCleanup(self.server.close)

    def test_other_systems(self) -> None:
        """The layouts are Linux's."""
        self.patch(datagram_batch.sys, "platform", "freebsd14")
        self.assertIsNone(open_batch(self.server))

    def test_library_without_the_calls(self) -> None:
        """A C library may lack them, or not be there to load."""

        def no_library(name: object, **options: object) -> object:
            raise OSError("no such library")

        for load in (lambda name, **options: object(), no_library):
            self.patch(ctypes, "PyDLL", load)
            self.assertIsNone(open_batch(self.server))

    def test_refused_by_the_kernel(self) -> None:
        """A seccomp filter that does not know the calls fails them."""
        make = DatagramBatch.__init__

        def filtered(batch: DatagramBatch, udp: socket.socket) -> None:
            make(batch, udp)
            self.patch(batch, "_sendmmsg", failing(errno.ENOSYS))

        self.patch(DatagramBatch, "__init__", filtered)
        self.assertIsNone(open_batch(self.server))

    test_refused_by_the_kernel.skip = NOT_LINUX or None  # type: ignore[attr-defined]
