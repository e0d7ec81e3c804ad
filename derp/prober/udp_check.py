"""
Does the relay answer STUN, and which address does it see us at?

A request that is not answered within two seconds is lost; another one follows until the run's
time is over. Every other failure is final.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, Literal

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater

from derp.net.socket_address import host_port
from derp.net.stun_client import Binding, BindingFailed, Cause, binding
from derp.prober.check import Check, ProbeFailed
from derp.prober.targets import Targets, node_labels, node_name
from derp.wire.derp_map import Node, Region

ANSWER_S: Final = 2.0
"""How long an answer may take."""
AGAIN_S: Final = 0.1
"""Between a lost request and the next one."""
REMEMBERED: Final = 100
"""Requests of which the loss is told."""


def udp_check(
    targets: Targets, region: Region, node: Node, family: Literal["ipv4", "ipv6"]
) -> Check:
    """
    Make the check for one of a node's addresses.

    Findings: ``mapped_address``, ``rtt_ms``, ``sent``, ``lost``, ``loss``.
    """
    udp = _UDPCheck(targets, node, family)
    return Check(
        probe_class="derp_udp",
        labels={**node_labels(region, node), "address_family": family},
        run=udp.run,
        findings=udp.findings,
    )


class _UDPCheck:
    def __init__(self, targets: Targets, node: Node, family: Literal["ipv4", "ipv6"]) -> None:
        self._reactor = targets.reactor
        self._name = node_name(node)
        self._family = family
        self._ip = node.ipv4 if family == "ipv4" else node.ipv6
        self._port = node.stun_port
        self._answered: deque[bool] = deque(maxlen=REMEMBERED)
        self._last: Binding | None = None

    async def run(self) -> None:
        """Ask until there is an answer."""
        self._last = None
        if self._port is None:
            raise ProbeFailed(f"{self._name} has no STUN port in the DERP map")
        began = self._reactor.seconds()
        requests = 0
        problem: BindingFailed | None = None
        try:
            while self._last is None:
                requests += 1
                try:
                    self._last = await self._ask(self._port)
                except BindingFailed as failed:
                    if failed.cause is not Cause.TIMEOUT:
                        raise ProbeFailed(f"{self._name}: {failed}") from failed
                    problem = failed
                    await deferLater(self._reactor, AGAIN_S)
        except CancelledError:
            seconds = self._reactor.seconds() - began
            where = host_port(self._ip, self._port)
            count = f"{requests} requests" if requests > 1 else "a request"
            last = "" if problem is None else f" (the last: {problem})"
            raise ProbeFailed(
                f"{self._name}: no STUN answer from {where} in {seconds:.1f} s to {count}"
                f"{last}: is STUN on there (--stun), and UDP port {self._port} open in"
                " its firewall and ours?"
            ) from None

    def findings(self) -> Mapping[str, str | int | float]:
        """What the last run has found, and the loss of the last requests."""
        found: dict[str, str | int | float] = {}
        if self._last is not None:
            found["mapped_address"] = str(self._last.mapped)
            found["rtt_ms"] = round(self._last.rtt * 1000, 3)
        if self._answered:
            sent, lost = len(self._answered), self._answered.count(False)
            found |= {"sent": sent, "lost": lost, "loss": round(lost / sent, 4)}
        return found

    async def _ask(self, port: int) -> Binding:
        """Send one request; one that was given up counts as lost too, if it was sent."""
        try:
            found = await binding(
                self._reactor, self._ip, port, family=self._family, timeout=ANSWER_S, sends=1
            )
        except BindingFailed as failed:
            if failed.sent:
                self._answered.append(False)
            raise
        self._answered.append(True)
        return found
