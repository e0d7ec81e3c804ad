"""How long do packets wait on their way from one node to another?"""

from __future__ import annotations

from derp.prober.check import Check
from derp.prober.targets import Targets, pair_labels
from derp.wire.derp_map import Node, Region


def queue_delay_check(targets: Targets, region: Region, source: Node, destination: Node) -> Check:
    """Make the check."""

    async def run() -> None:
        raise NotImplementedError

    return Check(probe_class="derp_qd", labels=pair_labels(region, source, destination), run=run)
