"""Whom ``derper doctor`` is to examine: a host, a URL, or a node of a DERP map."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from derp.doctor.patient import FAMILIES
from derp.errors import ConfigError, ProtocolError
from derp.goflag import FlagError
from derp.net.relay_dialer import parse_relay_url
from derp.quoting import quoted
from derp.wire.derp_map import Node, parse_derp_map


def patient_fields(name: str, derp_map: str) -> dict[str, Any]:
    """
    Find out whom a word means.

    :param derp_map: file of the map it is looked up in, if any.
    :return: fields of :class:`derp.doctor.patient.Patient`.
    :raises FlagError: if it is nobody.
    :raises ConfigError: if the map is none.
    """
    if derp_map:
        return _node_fields(_find_node(derp_map, name))
    if "://" in name:
        return _url_fields(name)
    host, port = _split(name)
    return {"host": host, "port": port}


def _split(name: str) -> tuple[str, int]:
    """Divide ``host``, ``host:port``, ``[ipv6]:port`` or a bare IPv6 address."""
    try:
        ip = ip_address(name.strip("[]"))
    except ValueError:
        pass
    else:
        return str(ip), 443
    try:
        parts = urlsplit(f"//{name}")
        host, port = parts.hostname or "", 443 if parts.port is None else parts.port
        host = host.encode("idna").decode("ascii")
    except ValueError:
        host, port = "", 0
    if not host or not port or parts.path or parts.username or any(ch.isspace() for ch in host):
        raise FlagError(f"{quoted(name)} is no HOST or HOST:PORT")
    return host, port


def _url_fields(url: str) -> dict[str, Any]:
    try:
        relay = parse_relay_url(url)
    except ConfigError as error:
        raise FlagError(str(error)) from None
    if relay.path not in ("/", "/derp"):
        raise FlagError(f"{quoted(url)}: clients know no other path than /derp")
    fields = {"host": relay.host, "port": relay.port, "tls": relay.tls}
    return fields if relay.tls else {**fields, "http_port": None}


def _find_node(path: str, name: str) -> Node:
    try:
        derp_map = parse_derp_map(Path(path).read_bytes())
    except OSError as error:
        raise ConfigError(f"--derp-map {quoted(path)}: cannot be read ({error.strerror})") from None
    except ProtocolError as error:
        raise ConfigError(f"--derp-map {quoted(path)}: {error}") from None
    region_name, _, node_name = name.partition("/")
    region = derp_map.region(region_name)
    if region is None:
        codes = ", ".join(f"{each.region_id} ({each.code})" for each in derp_map.regions.values())
        raise FlagError(f"--derp-map: there is no region {quoted(region_name)}: {codes or 'none'}")
    for node in region.nodes:
        if node.name == node_name or (not node_name and not node.stun_only):
            return node
    names = ", ".join(node.name for node in region.nodes)
    raise FlagError(f"--derp-map: region {region_name} has no such node that relays: {names}")


def _node_fields(node: Node) -> dict[str, Any]:
    fixed, families = {}, []
    for family, given in ((4, node.ipv4), (6, node.ipv6)):
        try:
            if given and ip_address(given).version == family:
                fixed[family] = given
            elif given:
                continue
        except ValueError:
            continue  # "none" turns the family off
        families.append(family)
    try:
        host = node.host_name.encode("idna").decode("ascii")
    except UnicodeError:
        raise FlagError(f"--derp-map: {quoted(node.host_name)} is no host name") from None
    return {
        "host": host,
        "port": node.derp_port,
        "fixed": fixed,
        "families": tuple(families) or FAMILIES,
        "cert_name": node.cert_name,
        "insecure": node.insecure_for_tests,
        "stun_port": node.stun_port,
        "http_port": 80 if node.can_port80 else None,
    }
