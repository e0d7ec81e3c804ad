"""Tests for :mod:`derp.core.limits`."""

import contextlib
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.core.limits import Limits, accept_limits, parse_limits, strange_members
from derp.errors import ProtocolError
from tests.vectors import load

FLAGS = Limits(max_clients=7, monthly_quota=99)


class ParseTests(SynchronousTestCase):
    def fault(self, text: str) -> str:
        return str(self.assertRaises(ProtocolError, parse_limits, text.encode(), Limits()))

    def test_reference(self) -> None:
        """Every file the reference was given is taken or refused as there, and means the same."""
        cases: list[dict[str, Any]] = load("config.json")["rate_config_at_start"]
        taken = 0
        for case in cases:
            if case["file"].startswith("("):
                continue  # no file at all
            if case["result"] == "exits":
                self.fault(case["file"])
                continue
            limits = parse_limits(case["file"].encode(), Limits())
            varz = case["varz"]
            rate = varz["derp_rate_limit_per_client_bytes_per_second"]
            self.assertEqual(str(limits.client_rate), rate, case["file"])
            burst = varz["derp_rate_limit_per_client_burst_bytes"]
            self.assertEqual(str(limits.client_depth), burst, case["file"])
            taken += 1
        self.assertEqual(taken, 4)

    def test_where(self) -> None:
        """A slip of the pen is shown where it is, as far as a reader of JSON can tell."""
        self.assertIn(", at line 2 column ", self.fault('{"MaxClients": 5,\n "MaxHandshakes" 7}'))
        self.assertEqual(self.fault('{"MaxClients": NaN}'), "the file holds no JSON")
        self.assertEqual(self.fault("[]"), "the file holds no JSON object")

    def test_strange_members(self) -> None:
        """What is ignored can be told, with what was meant; comments are left alone."""
        text = b'{"MaxClient": 5, "maxclients": 6, "Cheese": {}, "_why": "", "": 0}'
        self.assertEqual(strange_members(text), {"MaxClient": "MaxClients", "Cheese": ""})
        self.assertEqual(strange_members(b"null"), {})

    def test_described(self) -> None:
        """All limits that hold are in the line, and no other."""
        self.assertEqual(Limits(client_rate=5).describe_others(), "")
        limits = Limits(server_rate=9, accept_rate=0.5, max_clients=3, monthly_quota=2 << 40)
        self.assertEqual(
            limits.describe_others(),
            "server-rate=9 bytes/sec, accept-connection-limit=0.5/sec, max-clients=3, "
            "monthly-quota=2 TiB",
        )

    def test_all_members(self) -> None:
        """One file can hold all limits, spelled in any case; what it does not know it ignores."""
        text = b"""{"perclientratelimitbytespersec": 1, "PERCLIENTRATEBURSTBYTES": 2,
            "ServerRateLimitBytesPerSec": 3, "ServerRateBurstBytes": 4,
            "AcceptConnectionLimit": 5.5, "AcceptConnectionBurst": 6, "MaxHandshakes": 7,
            "MaxClients": 8, "MaxClientsPerIP": 9, "MonthlyQuota": "2TiB", "Other": []}"""
        wanted = Limits(
            client_rate=1,
            client_burst=2,
            server_rate=3,
            server_burst=4,
            accept_rate=5.5,
            accept_burst=6,
            max_handshakes=7,
            max_clients=8,
            max_clients_per_ip=9,
            monthly_quota=2 << 40,
        )
        self.assertEqual(parse_limits(text, FLAGS), wanted)

    def test_flags_stay(self) -> None:
        """What the file does not name, or has as null, is as the flags say; 0 removes it."""
        self.assertEqual(parse_limits(b"{}", FLAGS), FLAGS)
        self.assertEqual(parse_limits(b'{"MaxClients": null}', FLAGS), FLAGS)
        without = parse_limits(b'{"MaxClients": 0, "MonthlyQuota": 0}', FLAGS)
        self.assertEqual(without, Limits())

    def test_faults_name_the_member(self) -> None:
        """A value that does not fit is shown with its member."""
        self.assertIn("MaxClients is -1", self.fault('{"maxclients": -1}'))
        self.assertIn("MaxClients is 2.0", self.fault('{"MaxClients": 2.0}'))
        self.assertIn("MaxClients is true", self.fault('{"MaxClients": true}'))
        self.assertIn("AcceptConnectionLimit is -0.5", self.fault('{"AcceptConnectionLimit":-0.5}'))
        self.assertIn("AcceptConnectionLimit is inf", self.fault('{"AcceptConnectionLimit":1e999}'))
        self.assertIn('MonthlyQuota: "5 pears"', self.fault('{"MonthlyQuota": "5 pears"}'))
        self.assertIn("MonthlyQuota is []", self.fault('{"MonthlyQuota": []}'))
        long = self.fault('{"MaxClients": "' + "x" * 500 + '"}')
        self.assertLess(len(long), 150)

    def test_burst_of_accepts(self) -> None:
        """A rate of connections without a burst lets in one second's worth at once."""
        self.assertEqual(parse_limits(b'{"AcceptConnectionLimit": 20.5}', FLAGS).accept_burst, 20)
        self.assertEqual(parse_limits(b'{"AcceptConnectionLimit": 0.1}', FLAGS).accept_burst, 1)

    def test_flags_of_derper(self) -> None:
        """An infinite rate is no limit; any other is one."""
        self.assertEqual(accept_limits(float("inf"), 5), (0.0, 0))
        self.assertEqual(accept_limits(2.5, 5), (2.5, 5))

    @given(st.binary(max_size=60))
    def test_garbage(self, data: bytes) -> None:
        """Any bytes are limits or a ProtocolError."""
        with contextlib.suppress(ProtocolError):
            parse_limits(data, FLAGS)


class DepthTests(SynchronousTestCase):
    def test_client(self) -> None:
        """A bucket holds the largest frame, if there is a bucket."""
        self.assertEqual(Limits(client_burst=9).client_depth, 0)
        self.assertEqual(Limits(client_rate=1, client_burst=9).client_depth, 65568)
        self.assertEqual(Limits(client_rate=1, client_burst=70_000).client_depth, 70_000)

    def test_server(self) -> None:
        """The common bucket holds a tenth of a second, or what was asked for, or one frame."""
        limits = Limits(server_rate=10**7)
        self.assertEqual(limits.server_depth, 10**6)
        self.assertEqual(replace(limits, server_burst=5).server_depth, 65568)
        self.assertEqual(Limits(server_burst=5).server_depth, 0)

    def test_meters(self) -> None:
        """Only rates of bytes need metering."""
        self.assertFalse(Limits(max_clients=1, accept_rate=1, client_burst=5).meters)
        self.assertTrue(Limits(client_rate=1).meters)
        self.assertTrue(Limits(server_rate=1).meters)
