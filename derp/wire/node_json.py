"""
How this relay is written into a DERP map: what an operator pastes so that clients find it.

Field names, order and omission of zero values are those of Go ``tailcfg.DERPNode``; Headscale
reads the same structure from YAML with all names in lower case. ``InsecureForTests`` is never
written: a relay with a certificate of its own making is pinned by ``CertName`` instead.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address, ip_address
from typing import Any, Final

DEFAULT_DERP_PORT: Final = 443
DEFAULT_STUN_PORT: Final = 3478
FIRST_OWN_REGION: Final = 900
"""900 to 999 are the region numbers left to self-run relays (``tailcfg.DERPRegion``)."""

PIN_PREFIX: Final = "sha256-raw:"
_NO_STUN: Final = -1
_Fields = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayNode:
    """One relay as clients should dial it."""

    hostname: str
    """DNS name or IP literal; also the TLS server name."""
    cert_name: str = ""
    """A pin made by :func:`pin_of` if the certificate is self-signed, else empty."""
    derp_port: int = DEFAULT_DERP_PORT
    stun_port: int | None = DEFAULT_STUN_PORT
    """``None`` if the relay answers no STUN."""
    can_port80: bool = False
    """Whether plain HTTP is open on port 80; clients look for captive portals there."""
    name: str = "custom"
    """Unique in the whole map; not a host name."""
    region_id: int = FIRST_OWN_REGION
    region_code: str = "custom"
    region_name: str = "Custom"


def pin_of(leaf_der: bytes) -> str:
    """Return the ``CertName`` that makes clients accept exactly this certificate."""
    return PIN_PREFIX + sha256(leaf_der).hexdigest()


def format_node_line(hostname: str, cert_name: str = "") -> str:
    """
    Write the short DERPNode that derper logs for an IP hostname.

    Only what identifies the relay is in it; ports are left to the reader, as in the reference.
    """
    fields: _Fields = {"Name": "custom", "RegionID": FIRST_OWN_REGION, "HostName": hostname}
    if cert_name:
        fields["CertName"] = cert_name
    return json.dumps(fields, separators=(",", ":"))


def node_fields(node: RelayNode) -> _Fields:
    """Return the DERPNode fields that differ from their defaults, in Go's order."""
    fields: _Fields = {"Name": node.name, "RegionID": node.region_id, "HostName": node.hostname}
    if node.cert_name:
        fields["CertName"] = node.cert_name
    try:
        address = ip_address(node.hostname)
    except ValueError:
        pass
    else:
        fields["IPv4" if isinstance(address, IPv4Address) else "IPv6"] = str(address)
    if node.stun_port is None:
        fields["STUNPort"] = _NO_STUN
    elif node.stun_port != DEFAULT_STUN_PORT:
        fields["STUNPort"] = node.stun_port
    if node.derp_port != DEFAULT_DERP_PORT:
        fields["DERPPort"] = node.derp_port
    if node.can_port80:
        fields["CanPort80"] = True
    return fields


def derp_map(node: RelayNode) -> _Fields:
    """Return a DERPMap of this one relay, ready for :mod:`json`."""
    region = {
        "RegionID": node.region_id,
        "RegionCode": node.region_code,
        "RegionName": node.region_name,
        "Nodes": [node_fields(node)],
    }
    return {"Regions": {str(node.region_id): region}}


def format_derp_map(node: RelayNode) -> str:
    """Write a whole DERPMap: for ``derpprobe`` and for Headscale's map URLs."""
    return json.dumps(derp_map(node), indent=2)


def format_policy_block(node: RelayNode) -> str:
    """Write the member ``"derpMap"`` to paste into a tailnet policy file."""
    lines = json.dumps({"derpMap": derp_map(node)}, indent="\t").splitlines()
    return "\n".join(line.removeprefix("\t") for line in lines[1:-1]) + ","


def format_headscale_yaml(node: RelayNode) -> str:
    """Write a map file for Headscale's ``derp.paths``."""
    lines = [
        "regions:",
        f"  {node.region_id}:",
        f"    regionid: {node.region_id}",
        f"    regioncode: {_yaml(node.region_code)}",
        f"    regionname: {_yaml(node.region_name)}",
        "    nodes:",
    ]
    for position, (field, value) in enumerate(node_fields(node).items()):
        lines.append(f"      {' ' if position else '-'} {field.lower()}: {_yaml(value)}")
    return "\n".join(lines) + "\n"


def _yaml(value: str | int | bool) -> str:
    # JSON scalars are YAML scalars; quoted, an IPv6 address stays one string.
    return json.dumps(value)
