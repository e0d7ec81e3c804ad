"""Tests of :mod:`derp.net.systemd_notify`: what systemd is sent."""

from __future__ import annotations

import os
import socket
import tempfile
import time

from twisted.trial.unittest import SynchronousTestCase

from derp.net.systemd_notify import SystemdNotify

PID = 4711


class NotifyTests(SynchronousTestCase):
    """Datagrams to a socket of ours."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = os.path.join(directory.name, "notify")
        self.systemd = self.listen(self.path)

    def listen(self, path: str) -> socket.socket:
        """Be systemd there."""
        systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(systemd.close)
        systemd.bind(path)
        systemd.setblocking(False)
        return systemd

    def test_messages(self) -> None:
        """Each in the form of sd_notify(3), as one datagram."""
        notify = SystemdNotify({"NOTIFY_SOCKET": self.path}, PID)
        self.assertTrue(notify)
        for send, message in (
            (notify.ready, b"READY=1"),
            (notify.stopping, b"STOPPING=1"),
            (notify.alive, b"WATCHDOG=1"),
            (lambda: notify.status("ready:\n3 clients"), b"STATUS=ready: 3 clients"),
        ):
            send()
            self.assertEqual(self.systemd.recv(4096), message)

    def test_reloading(self) -> None:
        """With the time at which it began, on systemd's clock."""
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        SystemdNotify({"NOTIFY_SOCKET": self.path}, PID).reloading()
        word, _, stamp = self.systemd.recv(4096).partition(b"\nMONOTONIC_USEC=")
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.assertEqual(word, b"RELOADING=1")
        self.assertTrue(before <= int(stamp) <= after)

    def test_abstract_socket(self) -> None:
        """A name that begins with @ is in no directory."""
        name = f"derp-test-{os.getpid()}-{id(self)}"
        systemd = self.listen("\0" + name)
        SystemdNotify({"NOTIFY_SOCKET": "@" + name}, PID).ready()
        self.assertEqual(systemd.recv(4096), b"READY=1")

    def test_nobody(self) -> None:
        """Without systemd, or with one that went away, nothing happens."""
        self.assertFalse(SystemdNotify({}, PID))
        SystemdNotify({}, PID).ready()
        SystemdNotify({"NOTIFY_SOCKET": self.path + ".gone"}, PID).ready()

    def test_full(self) -> None:
        """One that does not read is not waited for."""
        notify = SystemdNotify({"NOTIFY_SOCKET": self.path}, PID)
        for _ in range(2000):
            notify.alive()
        self.assertEqual(self.systemd.recv(4096), b"WATCHDOG=1")

    def test_watchdog(self) -> None:
        """Only if it is meant for this process, and is a time."""
        for environ, seconds in (
            ({"WATCHDOG_USEC": "2500000"}, 2.5),
            ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "4711"}, 2.5),
            ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "4712"}, 0.0),
            ({"WATCHDOG_USEC": "-5"}, 0.0),
            ({"WATCHDOG_USEC": "soon"}, 0.0),
            ({}, 0.0),
        ):
            notify = SystemdNotify({"NOTIFY_SOCKET": self.path, **environ}, PID)
            self.assertEqual(notify.watchdog_s, seconds, environ)
        self.assertEqual(SystemdNotify({"WATCHDOG_USEC": "1000000"}, PID).watchdog_s, 0.0)
