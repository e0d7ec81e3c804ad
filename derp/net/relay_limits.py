"""
The limits in force, and everything that must know when they change.

Changes hold at once and for everybody who is connected, with full buckets. While no byte is
metered nothing of this stands in a packet's way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from derp.core.fair_share import FairShare, ShareMember
from derp.core.intake import MeteredIntake, RefusingIntake
from derp.core.limits import Limits
from derp.core.occupancy import Door, Occupancy
from derp.core.ratelimit import TokenBucket
from derp.net.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from derp.core.connection import Connection
    from derp.core.relay import Relay
    from derp.core.session import LoginRequest

SHARE_TICK_S = 0.002
"""Those who wait for the common rate are served this often at most, several at a time."""


class RelayLimits:
    """
    All limits of a relay at work.

    :param limits: what holds at the start.
    """

    log = Logger(namespace="derp")

    def __init__(self, relay: Relay, clock: IReactorTime, limits: Limits) -> None:
        self.limits = limits
        self.door = Door(limits, clock.seconds())
        self.occupancy = Occupancy(limits, self._connections_of)
        self.when_occupancy_changed: Callable[[], None] = lambda: None
        """Called when clients or the limits on them have changed."""
        self.own_waits = 0
        """Times a connection had to wait for its own rate."""
        self.share_waits = 0
        """Times one had to wait for the rate that all share."""
        self.closed_for = ""
        """Why nothing is relayed at present; empty if it is."""
        self.logins_refused = 0
        """Logins refused because of that."""
        self.packets_refused = 0
        self.bytes_refused = 0
        self._relay = relay
        self._clock = clock
        self._protocols: dict[Any, Throttle | None] = {}
        self._by_member: dict[ShareMember, Throttle] = {}
        self._share = self._new_share()
        self._serving: IDelayedCall | None = None

    def _connections_of(self, key: bytes) -> int:
        found: Iterable[Connection] = self._relay.registry.connections_of(key)
        return sum(1 for _ in found)

    def _new_share(self) -> FairShare | None:
        limits = self.limits
        if not limits.server_rate:
            return None
        return FairShare(limits.server_rate, limits.server_depth, self._clock.seconds())

    # -- changing --------------------------------------------------------------------------

    def apply(self, limits: Limits) -> None:
        """Let new limits hold."""
        self.limits = self.occupancy.limits = limits
        self.door.apply(limits, self._clock.seconds())
        self._share = self._new_share()
        self._refit()
        self.when_occupancy_changed()
        others = limits.describe_others()
        self.log.info(
            "rate config applied: client-rate={rate} bytes/sec, client-burst={burst} bytes{others}",
            rate=limits.client_rate,
            burst=limits.client_depth,
            others=others and f", {others}",
        )

    def close(self, reason: str) -> None:
        """Relay nothing from now on, or (with an empty reason) again."""
        if reason != self.closed_for:
            self.closed_for = reason
            self._refit()

    def _refit(self) -> None:
        self._stop_serving()
        for protocol in list(self._protocols):
            self._fit(protocol)

    # -- connections -----------------------------------------------------------------------

    def met(self, protocol: Any) -> None:
        """A connection was handed to DERP."""
        self._protocols[protocol] = None
        if self.limits.meters or self.closed_for:
            self._fit(protocol)

    def judge(self, request: LoginRequest) -> str | None:
        """Say why a login is refused, if it is."""
        if self.closed_for:
            self.logins_refused += 1
            return self.closed_for
        return self.occupancy.judge(request)

    def entered(self, conn: Connection) -> None:
        """A client has logged in."""
        if not conn.is_mesh:
            self.occupancy.enter(conn.remote.ip)
            self.when_occupancy_changed()

    def left(self, protocol: Any, conn: Connection | None) -> None:
        """A connection is lost; ``conn`` is the client, if it had logged in."""
        throttle = self._protocols.pop(protocol, None)
        if throttle is not None:
            self._drop(throttle)
        if conn is not None and not conn.is_mesh:
            self.occupancy.leave(conn.remote.ip)
            self.when_occupancy_changed()

    def _drop(self, throttle: Throttle) -> bool:
        intake = throttle.intake
        if isinstance(intake, MeteredIntake):
            self._by_member.pop(intake.member, None)
        return throttle.stop()

    def _fit(self, protocol: Any) -> None:
        """Give a connection the intake that the limits ask for."""
        old = self._protocols[protocol]
        held = old is not None and self._drop(old)
        throttle: Throttle | None = None
        if self.closed_for or self.limits.meters:
            throttle = Throttle(protocol, self._clock, self._note_wait)
            if self.closed_for:
                throttle.intake = RefusingIntake(protocol.session, self._note_refused)
            else:
                throttle.intake = self._meter(throttle)
        self._protocols[protocol] = throttle
        protocol.set_intake(None if throttle is None else throttle.intake)
        if held:
            protocol.read_on()

    def _meter(self, throttle: Throttle) -> MeteredIntake:
        limits = self.limits
        bucket = None
        if limits.client_rate:
            bucket = TokenBucket(limits.client_rate, limits.client_depth, self._clock.seconds())
        intake = MeteredIntake(throttle.protocol.session, bucket, self._share, throttle.hold)
        if self._share is not None:
            self._by_member[intake.member] = throttle
        return intake

    def _note_wait(self, for_share: bool) -> None:
        if for_share:
            self.share_waits += 1
            self._serve_later()
        else:
            self.own_waits += 1

    def _note_refused(self, size: int) -> None:
        self.packets_refused += 1
        self.bytes_refused += size

    # -- the share -------------------------------------------------------------------------

    def _serve_later(self) -> None:
        share = self._share
        wait = None if share is None else share.wait(self._clock.seconds())
        if wait is not None and self._serving is None:
            self._serving = self._clock.callLater(max(wait, SHARE_TICK_S), self._serve)

    def _serve(self) -> None:
        self._serving = None
        if self._share is not None:
            for member in self._share.serve(self._clock.seconds()):
                self._by_member[member].open()
            self._serve_later()

    def _stop_serving(self) -> None:
        if self._serving is not None:
            self._serving.cancel()
            self._serving = None

    def stop(self) -> None:
        """The relay ends: no timer is left."""
        self._stop_serving()
        for throttle in self._protocols.values():
            if throttle is not None:
                self._drop(throttle)
        self._protocols.clear()
