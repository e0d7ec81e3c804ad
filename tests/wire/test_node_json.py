"""Tests of :mod:`derp.wire.node_json`: the recorded line, and the blocks operators paste."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from derp.wire.node_json import (
    RelayNode,
    derp_map,
    format_derp_map,
    format_headscale_yaml,
    format_node_line,
    format_policy_block,
    node_fields,
    pin_of,
)
from tests.vectors import load

GROUP = load("tls.json")["groups"][0]
PIN = "sha256-raw:" + "ab" * 32


class NodeLineTests(SynchronousTestCase):
    """The line derper logs."""

    def test_recorded(self) -> None:
        """Pin and line are the recorded ones to the letter."""
        pin = pin_of(bytes.fromhex(GROUP["leaf_der_hex"]))
        self.assertEqual(pin, "sha256-raw:" + GROUP["leaf_sha256"])
        line = format_node_line(GROUP["hostname_flag"], pin)
        self.assertEqual(line, GROUP["start_log"][2].strip())

    def test_without_pin(self) -> None:
        """A certificate of a CA needs no CertName."""
        self.assertEqual(
            format_node_line("203.0.113.7"),
            '{"Name":"custom","RegionID":900,"HostName":"203.0.113.7"}',
        )


class NodeFieldsTests(SynchronousTestCase):
    """Which fields are written."""

    def test_defaults_are_left_out(self) -> None:
        """A relay on the usual ports under a name needs three fields."""
        self.assertEqual(
            node_fields(RelayNode(hostname="relay.example.test")),
            {"Name": "custom", "RegionID": 900, "HostName": "relay.example.test"},
        )

    def test_everything(self) -> None:
        """All fields stand in the order of the Go structure."""
        node = RelayNode(
            hostname="203.0.113.7", cert_name=PIN, derp_port=8443, stun_port=3479, can_port80=True
        )
        self.assertEqual(
            list(node_fields(node).items()),
            [
                ("Name", "custom"),
                ("RegionID", 900),
                ("HostName", "203.0.113.7"),
                ("CertName", PIN),
                ("IPv4", "203.0.113.7"),
                ("STUNPort", 3479),
                ("DERPPort", 8443),
                ("CanPort80", True),
            ],
        )

    def test_ipv6(self) -> None:
        """An IPv6 hostname is dialed as IPv6."""
        fields = node_fields(RelayNode(hostname="2001:db8::7"))
        self.assertEqual(fields["IPv6"], "2001:db8::7")
        self.assertNotIn("IPv4", fields)

    def test_no_stun(self) -> None:
        """Clients are told not to try STUN where there is none."""
        self.assertEqual(node_fields(RelayNode(hostname="a.b", stun_port=None))["STUNPort"], -1)


class BlockTests(SynchronousTestCase):
    """What operators paste."""

    node = RelayNode(hostname="2001:db8::7", cert_name=PIN, derp_port=8443)

    def test_map(self) -> None:
        """The map has one region under its own decimal number."""
        document = json.loads(format_derp_map(self.node))
        self.assertEqual(document, derp_map(self.node))
        region = document["Regions"]["900"]
        self.assertEqual((region["RegionID"], region["RegionCode"]), (900, "custom"))
        self.assertEqual(region["Nodes"], [node_fields(self.node)])

    def test_policy(self) -> None:
        """The block becomes valid JSON between braces and ends ready for the next member."""
        block = format_policy_block(self.node)
        self.assertTrue(block.startswith('"derpMap": {\n\t"Regions": {'), block)
        self.assertEqual(json.loads(f'{{{block}"x": 1}}')["derpMap"], derp_map(self.node))

    def test_headscale(self) -> None:
        """The YAML form has lower-case names and quoted strings."""
        self.assertEqual(
            format_headscale_yaml(self.node),
            f"""\
regions:
  900:
    regionid: 900
    regioncode: "custom"
    regionname: "Custom"
    nodes:
      - name: "custom"
        regionid: 900
        hostname: "2001:db8::7"
        certname: "{PIN}"
        ipv6: "2001:db8::7"
        derpport: 8443
""",
        )

    def test_never_insecure(self) -> None:
        """No form tells clients to skip verification."""
        for text in (
            format_derp_map(self.node),
            format_policy_block(self.node),
            format_headscale_yaml(self.node),
            format_node_line(self.node.hostname, PIN),
        ):
            self.assertNotIn("insecure", text.lower())
