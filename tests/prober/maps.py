"""DERP maps for tests."""

from __future__ import annotations

import json
from typing import Any


def node(name: str, **fields: Any) -> dict[str, Any]:
    """A node with both addresses."""
    number = sum(name.encode()) % 250 + 1
    return {
        "Name": name,
        "HostName": f"derp{name}.example.com",
        "IPv4": f"192.0.2.{number}",
        "IPv6": f"2001:db8::{number:x}",
        **fields,
    }


def region(code: str, *nodes: dict[str, Any]) -> dict[str, Any]:
    """A region; it has its number from the map."""
    return {"RegionCode": code, "RegionName": code.title(), "Nodes": list(nodes)}


def map_json(*regions: dict[str, Any], **fields: Any) -> bytes:
    """A map; regions are numbered from 0."""
    numbered = {str(number): {"RegionID": number, **each} for number, each in enumerate(regions)}
    return json.dumps({"Regions": numbered, **fields}).encode()
