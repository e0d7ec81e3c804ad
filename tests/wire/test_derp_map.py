"""Tests of :mod:`derp.wire.derp_map`."""

import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from derp.errors import ProtocolError
from derp.wire.derp_map import DERPMap, Node, Region, parse_derp_map, parse_region
from derp.wire.node_json import RelayNode, derp_map, format_derp_map

FULL_NODE = {
    "Name": "900a",
    "RegionID": 900,
    "HostName": "derp.example.com",
    "CertName": "sha256-raw:00",
    "IPv4": "192.0.2.1",
    "IPv6": "none",
    "STUNPort": -1,
    "STUNOnly": True,
    "DERPPort": 8443,
    "InsecureForTests": True,
    "STUNTestIP": "192.0.2.9",
    "CanPort80": True,
}
FULL_REGION = {
    "RegionID": 900,
    "RegionCode": "own",
    "RegionName": "Our own",
    "Latitude": 47,
    "Longitude": 8.5,
    "Avoid": True,
    "NoMeasureNoHome": True,
    "Nodes": [FULL_NODE, {"Name": "900b", "HostName": "192.0.2.2"}],
}
FULL_MAP = {
    "HomeParams": {"RegionScore": {"1": 0.5, "2": 2}},
    "Regions": {"900": FULL_REGION, "1": {"RegionID": 1, "RegionCode": "nyc"}, "7": None},
    "omitDefaultRegions": True,
}
PARSED_REGION = Region(
    region_id=900,
    code="own",
    name="Our own",
    latitude=47.0,
    longitude=8.5,
    avoid=True,
    no_measure_no_home=True,
    nodes=(
        Node(
            name="900a",
            region_id=900,
            host_name="derp.example.com",
            cert_name="sha256-raw:00",
            ipv4="192.0.2.1",
            ipv6="none",
            stun_port=None,
            stun_only=True,
            derp_port=8443,
            insecure_for_tests=True,
            stun_test_ip="192.0.2.9",
            can_port80=True,
        ),
        Node(name="900b", region_id=900, host_name="192.0.2.2"),
    ),
)


def _recased(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {change(name): _recased(item, change) for name, item in value.items()}
    return [_recased(item, change) for item in value] if isinstance(value, list) else value


def with_node(**fields: Any) -> str:
    node = {"Name": "x", "HostName": "h", **fields}
    return json.dumps({"Regions": {"900": {"Nodes": [node]}}})


class DERPMapTests(SynchronousTestCase):
    """From JSON to values."""

    def test_every_field(self) -> None:
        """Each field arrives; absent ones have the protocol's defaults."""
        parsed = parse_derp_map(json.dumps(FULL_MAP))
        self.assertEqual(
            parsed,
            DERPMap(
                regions={900: PARSED_REGION, 1: Region(region_id=1, code="nyc")},
                region_scores={1: 0.5, 2: 2.0},
                omit_default_regions=True,
            ),
        )
        self.assertEqual(parsed.regions[900].nodes[1].derp_port, 443)
        self.assertEqual(parsed.regions[900].nodes[1].stun_port, 3478)

    def test_any_case(self) -> None:
        """Names match in any case, as Go and Headscale write them."""
        wanted = parse_derp_map(json.dumps(FULL_MAP))
        for change in (str.lower, str.upper):
            self.assertEqual(parse_derp_map(json.dumps(_recased(FULL_MAP, change))), wanted)

    def test_region_alone(self) -> None:
        """A single region can be read too."""
        self.assertEqual(parse_region(FULL_REGION), PARSED_REGION)

    def test_lookups(self) -> None:
        """Regions are found by code or number, nodes by name; case matters."""
        parsed = parse_derp_map(json.dumps(FULL_MAP))
        self.assertEqual(parsed.region("own"), PARSED_REGION)
        self.assertEqual(parsed.region("900"), PARSED_REGION)
        self.assertIsNone(parsed.region("OWN"))
        self.assertEqual(parsed.node("900b"), PARSED_REGION.nodes[1])
        self.assertIsNone(parsed.node("derp.example.com"))

    def test_our_own_writing(self) -> None:
        """What we tell operators to paste is what we read."""
        ours = RelayNode(hostname="2001:db8::1", derp_port=8443, stun_port=None, cert_name="pin")
        parsed = parse_derp_map(format_derp_map(ours))
        (node,) = parsed.regions[900].nodes
        self.assertEqual(node.host_name, "2001:db8::1")
        self.assertEqual((node.derp_port, node.stun_port), (8443, None))
        self.assertEqual((node.cert_name, node.ipv6), ("pin", "2001:db8::1"))
        self.assertEqual(parse_derp_map(json.dumps(derp_map(ours))), parsed)

    def test_empty(self) -> None:
        """A map may have no regions, and a region no nodes."""
        self.assertEqual(parse_derp_map("{}"), DERPMap())
        self.assertEqual(parse_derp_map('{"Regions":{"1":{"Nodes":null}}}').regions[1].nodes, ())

    def test_broken(self) -> None:
        """What is no map is refused, and the error says where it broke."""
        for text, where in (
            ("[]", "DERP map"),
            ('{"Regions":[]}', "Regions"),
            ('{"Regions":{"x":{}}}', "'x'"),
            ('{"Regions":{"1_0":{}}}', "'1_0'"),
            ('{"Regions":{"900":[]}}', "region 900"),
            ('{"Regions":{"900":{"Nodes":{}}}}', "Nodes"),
            ('{"Regions":{"900":{"Nodes":[{"Name":"900a"}]}}}', "'900a'"),
            ('{"HomeParams":{"RegionScore":{"1":"x"}}}', "'1'"),
            (with_node(DERPPort=65536), "'derpport'"),
            (with_node(DERPPort=-1), "'derpport'"),
            (with_node(STUNPort=-2), "'stunport'"),
            (with_node(IPv4=4), "'ipv4'"),
        ):
            error = self.assertRaises(ProtocolError, parse_derp_map, text)
            self.assertIn(where, str(error), text)

    @given(st.binary(max_size=80))
    def test_garbage(self, data: bytes) -> None:
        """Any bytes are a map or a ProtocolError."""
        with contextlib.suppress(ProtocolError):
            parse_derp_map(data)

    @given(st.sampled_from([*FULL_NODE]), st.none() | st.booleans() | st.integers() | st.text())
    def test_any_node_value(self, name: str, value: Any) -> None:
        """Any value in any field of a node is a map or a ProtocolError."""
        with contextlib.suppress(ProtocolError):
            parse_derp_map(with_node(**{name: value}))
