"""Is the relay's certificate good?"""

from __future__ import annotations

from derp.prober.check import Check
from derp.prober.targets import Targets, node_labels
from derp.wire.derp_map import Node, Region


def tls_check(targets: Targets, region: Region, node: Node) -> Check:
    """Make the check."""

    async def run() -> None:
        raise NotImplementedError

    return Check(probe_class="tls", labels=node_labels(region, node), run=run)
