"""Does the relay answer STUN?"""

from __future__ import annotations

from derp.prober.check import Check
from derp.prober.targets import Targets, node_labels
from derp.wire.derp_map import Node, Region


def udp_check(targets: Targets, region: Region, node: Node, family: str) -> Check:
    """Make the check."""

    async def run() -> None:
        raise NotImplementedError

    return Check(
        probe_class="derp_udp",
        labels={**node_labels(region, node), "address_family": family},
        run=run,
    )
