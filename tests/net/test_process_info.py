"""Tests of :mod:`derp.net.process_info` on a made-up ``/proc`` and on the real one."""

from __future__ import annotations

import gc
import resource
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from derp.net.process_info import (
    boot_time,
    collections,
    heap_bytes,
    network_bytes,
    open_file_count,
    resident_bytes,
    shown_command_line,
)

NETSTAT = (
    "TcpExt: SyncookiesSent OutOctets\nTcpExt: 1 2\n"
    "IpExt: InNoRoutes InOctets OutOctets\nIpExt: 7 1000 2000\n"
)


class ProcTests(SynchronousTestCase):
    """Reading ``/proc``."""

    def setUp(self) -> None:
        self.proc = Path(self.mktemp())
        (self.proc / "self/net").mkdir(parents=True)

    def test_boot_time(self) -> None:
        """The line ``btime`` says it."""
        (self.proc / "stat").write_text("cpu 1 2\nctxt 5\nbtime 1795172913\nbtimes 3\n")
        self.assertEqual(boot_time(self.proc), 1795172913)

    def test_network_bytes(self) -> None:
        """Names and values are two lines; other groups' numbers are not IP's."""
        (self.proc / "self/net/netstat").write_text(NETSTAT)
        self.assertEqual(network_bytes(self.proc), (1000, 2000))

    def test_memory(self) -> None:
        """Pages become bytes; what is shared with files is no heap."""
        (self.proc / "self/statm").write_text("1000 100 30 5 0 200 0\n")
        page = resource.getpagesize()
        self.assertEqual(resident_bytes(self.proc), 100 * page)
        self.assertEqual(heap_bytes(self.proc), 70 * page)

    def test_open_files(self) -> None:
        """Every entry counts."""
        (self.proc / "self/fd").mkdir()
        for number in range(3):
            (self.proc / "self/fd" / str(number)).touch()
        self.assertEqual(open_file_count(self.proc), 3)

    def test_no_proc(self) -> None:
        """Where there is no ``/proc`` nothing is known, and nothing fails."""
        empty = self.proc / "nothing"
        self.assertIsNone(boot_time(empty))
        self.assertIsNone(network_bytes(empty))
        self.assertEqual(resident_bytes(empty), 0)
        self.assertEqual(heap_bytes(empty), 0)
        self.assertEqual(open_file_count(empty), 0)

    def test_this_process(self) -> None:
        """The real numbers are in the right place and unit."""
        with open("/proc/self/stat"):
            self.assertGreaterEqual(open_file_count(), 4)
        self.assertGreater(resident_bytes(), 1 << 20)
        self.assertLess(heap_bytes(), resident_bytes())
        before = collections()
        gc.collect()
        self.assertGreater(collections(), before)


class CommandLineTests(SynchronousTestCase):
    """What of the command line may be seen."""

    def test_secrets_are_hidden(self) -> None:
        """The value of a secret flag is not shown, however it is written."""
        for given, shown in (
            (["-acme-eab-key", "s3cret", "-c", "f"], ["-acme-eab-key", "<hidden>", "-c", "f"]),
            (["--acme-eab-key=s3cret", "x"], ["--acme-eab-key=<hidden>", "x"]),
            (["--acme-eab-key=", "x"], ["--acme-eab-key=<hidden>", "x"]),
            (["--acme-eab-key", "--acme-eab-key", "x"], ["--acme-eab-key", "<hidden>", "x"]),
            (["--acme-eab-key"], ["--acme-eab-key"]),
        ):
            self.assertEqual(shown_command_line(given), shown)

    def test_the_rest_is_shown(self) -> None:
        """Everything else stays as it is."""
        given = ["derper", "-a", ":443", "--hostname=h", "acme-eab-key", "x", ""]
        self.assertEqual(shown_command_line(given), given)

    def test_password_in_url(self) -> None:
        """A URL is shown without the password that may be in it."""
        given = ["--verify-client-url=https://me:secret@a.test/x@y", "http://a.test/x@y"]
        shown = ["--verify-client-url=https://<hidden>@a.test/x@y", "http://a.test/x@y"]
        self.assertEqual(shown_command_line(given), shown)
