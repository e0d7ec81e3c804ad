"""What a starting relay tells its operator: one block that answers the first questions."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from derp.durations import format_duration
from derp.net.http_url import shown
from derp.net.tailscaled_socket import default_socket
from derp.sizes import format_size
from derp.wire.keys import format_node_public
from derp.wire.node_json import (
    DEFAULT_DERP_PORT,
    RelayNode,
    format_headscale_yaml,
    format_policy_block,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from derp.config import Config


def start_block(
    config: Config,
    *,
    version: str,
    public: bytes,
    listening: Sequence[str],
    tls: str,
    node: RelayNode,
) -> str:
    """
    Compose the block.

    :param listening: one line per open port, with what it serves.
    :param tls: which certificate is served, or why there is none.
    :param node: this relay as clients should dial it.
    """
    lines = [
        f"derper {version} is ready",
        *(f"  listening    {line}" for line in listening),
        f"  public key   {format_node_public(public)}",
        f"  TLS          {tls}",
        *(f"  protection   {line}" for line in protections(config)),
    ]
    if config.derp:
        lines += ["", "To use it, add this to the tailnet policy file:", ""]
        lines += ["  " + line for line in format_policy_block(node).splitlines()]
        lines += ["", "or, for Headscale, to a file named in derp.paths:", ""]
        lines += ["  " + line for line in format_headscale_yaml(node).splitlines()]
        lines += _behind_proxy(config, node)
    return "\n".join(lines)


def _behind_proxy(config: Config, node: RelayNode) -> list[str]:
    """Say that clients dial a proxy's port, where there seems to be one."""
    direct = config.dev or (config.tls and not config.trusted_proxies)
    if direct or node.derp_port == DEFAULT_DERP_PORT:
        return []
    cure = (
        f"Behind a proxy DERPPort is the proxy's port, not {node.derp_port}: leave it out for 443."
    )
    return ["", cure]


def protections(config: Config) -> list[str]:
    """Say which clients and how much of them this relay takes; honest about what is off."""
    lines = _admission(config)
    if config.secrets_url:
        lines.append("mesh key: from setec, its holders may watch, forward and close clients")
    elif config.mesh_key is not None:
        lines.append("mesh key: set, its holders may watch, forward and close clients")
    lines += _limits(config)
    timeout = config.tcp_write_timeout
    if timeout > 0:
        lines.append(f"a client that takes no byte for {timeout:g} s is cut (--tcp-write-timeout)")
    else:
        lines.append("clients that take no bytes are never cut (--tcp-write-timeout=0)")
    return lines


def _limits(config: Config) -> list[str]:
    """Say how much of this relay there is."""
    given = {
        "--accept-connection-limit": config.accept_connection_limit < inf
        and f"{config.accept_connection_limit:g} new connections per second",
        "--max-handshakes": config.max_handshakes
        and f"{config.max_handshakes} connections on their way in",
        "--max-clients": config.max_clients and f"{config.max_clients} clients",
        "--max-clients-per-ip": config.max_clients_per_ip
        and f"{config.max_clients_per_ip} clients per address",
        "--server-rate-limit": config.server_rate_limit
        and f"{format_size(config.server_rate_limit)} per second in all",
        "--monthly-quota": config.monthly_quota
        and f"{format_size(config.monthly_quota)} per month",
    }
    limits = [f"{text} ({flag})" for flag, text in given.items() if text]
    if config.rate_config:
        limits.append(f"as {config.rate_config} says (--rate-config)")
    if not limits:
        return ["limits: none, clients may send as much as they can"]
    first, *others = limits
    return [f"limits: {first}", *(f"        {other}" for other in others)]


def _admission(config: Config) -> list[str]:
    """Say who may use this relay."""
    tests = []
    if config.allow_clients:
        tests.append(f"in {config.allow_clients} (--allow-clients)")
    if config.verify_clients:
        sockets = " or ".join(config.socket or (default_socket(),))
        tests.append(f"known to tailscaled at {sockets} (--verify-clients)")
    if config.verify_client_url:
        urls = " or ".join(map(shown, config.verify_client_url))
        unreachable = "admits all" if config.verify_client_url_fail_open else "refuses"
        tests.append(f"agreed to by {urls}, which {unreachable} while unreachable")
    if not tests:
        return ["admission: none, whoever finds this relay may use it"]
    word = {"all": " and", "any": " or"}[config.verify_policy]
    first, *others = tests
    lines = [f"admission: clients {first}", *(f"          {word} {test}" for test in others)]
    if config.reverify_interval:
        interval = format_duration(config.reverify_interval)
        lines.append(f"clients no longer admitted are closed within {interval}")
    else:
        lines.append("connected clients are not asked about again but on SIGHUP")
    return lines
