"""
DERP maps: which regions there are, and which relays serve each.

Source: Go ``tailcfg/derpmap.go``. Tailscale's own is
``https://login.tailscale.com/derpmap/default``. This module reads maps;
:mod:`derp.wire.node_json` writes the entry of one's own relay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import Any, Final

from derp.errors import ProtocolError
from derp.wire.go_json import Fields, field, fields_of, parse_object
from derp.wire.node_json import DEFAULT_DERP_PORT, DEFAULT_STUN_PORT

_MAP: Final = "the DERP map"
_NO_STUN: Final = -1
_MAX_PORT: Final = 65535
_REGION_NUMBER: Final = re.compile(r"-?[0-9]{1,19}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One relay (DERPNode)."""

    name: str = ""
    """Unique in the whole map, for instance ``1a``; no host name."""
    region_id: int = 0
    host_name: str
    """TLS server name, and what is dialed unless :attr:`ipv4` or :attr:`ipv6` say otherwise."""
    cert_name: str = ""
    """Name in the certificate if it is another, or ``sha256-raw:`` and the certificate's hash."""
    ipv4: str = ""
    """Address to dial; anything that is none (``none``) turns the family off."""
    ipv6: str = ""
    stun_port: int | None = DEFAULT_STUN_PORT
    """``None`` if the node answers no STUN (-1 in JSON)."""
    stun_only: bool = False
    """No DERP here."""
    derp_port: int = DEFAULT_DERP_PORT
    insecure_for_tests: bool = False
    """No certificate is checked."""
    stun_test_ip: str = ""
    can_port80: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Relays that form one mesh (DERPRegion)."""

    region_id: int
    code: str = ""
    name: str = ""
    latitude: float = 0.0
    longitude: float = 0.0
    avoid: bool = False
    no_measure_no_home: bool = False
    nodes: tuple[Node, ...] = ()
    """In the order in which clients try them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DERPMap:
    """All regions by number."""

    regions: dict[int, Region] = attribute(default_factory=dict)
    region_scores: dict[int, float] = attribute(default_factory=dict)
    """``HomeParams.RegionScore``: below 1 makes a region preferred."""
    omit_default_regions: bool = False

    def region(self, code_or_id: str) -> Region | None:
        """Find a region by its code or its decimal number; case matters."""
        for region in self.regions.values():
            if code_or_id in (region.code, str(region.region_id)):
                return region
        return None

    def node(self, name: str) -> Node | None:
        """Find a node by its name."""
        nodes = (node for region in self.regions.values() for node in region.nodes)
        return next((node for node in nodes if node.name == name), None)


def parse_derp_map(data: bytes | str) -> DERPMap:
    """
    Read a DERP map's JSON: names in any case, unknown ones ignored.

    :raises ProtocolError: if it is none; the text names the region or node.
    """
    values = parse_object(data, _MAP)
    regions = fields_of(values.get("regions"), f"'Regions' of {_MAP}")
    home = fields_of(values.get("homeparams"), f"'HomeParams' of {_MAP}")
    scores = fields_of(home.get("regionscore"), f"'RegionScore' of {_MAP}")
    read = [_region(_number(key), item) for key, item in regions.items() if item is not None]
    return DERPMap(
        regions={region.region_id: region for region in read},
        region_scores={_number(key): field(scores, key, 0.0, _MAP) for key in scores},
        omit_default_regions=field(values, "omitdefaultregions", False, _MAP),
    )


def parse_region(value: Any) -> Region:
    """
    Read one region, already decoded from JSON; its number is its own ``RegionID``.

    :raises ProtocolError: if it is none.
    """
    fields = fields_of(value, "the DERP region")
    return _region(field(fields, "regionid", 0, "the DERP region"), value)


def _number(key: str) -> int:
    if not _REGION_NUMBER.fullmatch(key):
        raise ProtocolError(f"{key[:40]!r} in {_MAP} is no region number")
    return int(key)


def _region(region_id: int, value: Any) -> Region:
    what = f"region {region_id} of {_MAP}"
    fields = fields_of(value, what)
    nodes = fields.get("nodes")
    nodes = [] if nodes is None else nodes
    if not isinstance(nodes, list):
        raise ProtocolError(f"'Nodes' of {what} is no array")
    return Region(
        region_id=region_id,
        code=field(fields, "regioncode", "", what),
        name=field(fields, "regionname", "", what),
        latitude=field(fields, "latitude", 0.0, what),
        longitude=field(fields, "longitude", 0.0, what),
        avoid=field(fields, "avoid", False, what),
        no_measure_no_home=field(fields, "nomeasurenohome", False, what),
        nodes=tuple(_node(region_id, fields_of(node, what)) for node in nodes if node is not None),
    )


def _node(region_id: int, fields: Fields) -> Node:
    name = field(fields, "name", "", f"a node of region {region_id}")
    what = f"node {name!r} of region {region_id}"
    host_name = field(fields, "hostname", "", what)
    if not host_name:
        raise ProtocolError(f"{what} has no HostName")
    stun_port = _port(fields, "stunport", _NO_STUN, what)
    return Node(
        name=name,
        region_id=field(fields, "regionid", 0, what) or region_id,
        host_name=host_name,
        cert_name=field(fields, "certname", "", what),
        ipv4=field(fields, "ipv4", "", what),
        ipv6=field(fields, "ipv6", "", what),
        stun_port=None if stun_port < 0 else stun_port or DEFAULT_STUN_PORT,
        stun_only=field(fields, "stunonly", False, what),
        derp_port=_port(fields, "derpport", 0, what) or DEFAULT_DERP_PORT,
        insecure_for_tests=field(fields, "insecurefortests", False, what),
        stun_test_ip=field(fields, "stuntestip", "", what),
        can_port80=field(fields, "canport80", False, what),
    )


def _port(fields: Fields, name: str, least: int, what: str) -> int:
    port = int(field(fields, name, 0, what))
    if not least <= port <= _MAX_PORT:
        raise ProtocolError(f"{name!r} of {what} is no port: {port}")
    return port
