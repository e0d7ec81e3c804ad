"""What a starting relay tells its operator: one block that answers the first questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from derp.wire.keys import format_node_public
from derp.wire.node_json import RelayNode, format_headscale_yaml, format_policy_block

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
    return "\n".join(lines)


def protections(config: Config) -> list[str]:
    """Say which clients and how much of them this relay takes; honest about what is off."""
    lines = ["admission: none, whoever finds this relay may use it"]
    if config.mesh_key is not None:
        lines.append("mesh key: set, its holders may watch, forward and close clients")
    timeout = config.tcp_write_timeout
    if timeout > 0:
        lines.append(f"a client that takes no byte for {timeout:g} s is cut (--tcp-write-timeout)")
    else:
        lines.append("clients that take no bytes are never cut (--tcp-write-timeout=0)")
    return lines
