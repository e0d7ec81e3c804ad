"""Where everything that is shown of a running relay comes from."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from derp import __version__
from derp.core.admission import AdmissionStats
from derp.core.bootstrap_dns import BootstrapDNSStats
from derp.core.lifecycle import Lifecycle, always_ready
from derp.core.listener_stats import ListenerStats
from derp.core.relay import Relay
from derp.core.stun_stats import STUNStats
from derp.core.tls_request_stats import TLSRequestStats
from derp.net.certificate_status import CertificateStatus
from derp.net.process_info import resident_bytes, shown_command_line
from derp.net.relay_limits import RelayLimits
from derp.net.reload import ReloadableFile
from derp.net.trusted_proxies import ProxyStats
from derp.net.volume_quota import VolumeQuota

if TYPE_CHECKING:
    from derp.net.mesh_link import MeshLink


def _none() -> int:
    return 0


def _no_problem() -> Deferred[list[str]]:
    return succeed([])


def _command_line() -> Sequence[str]:
    return shown_command_line(sys.argv)


@dataclass(kw_only=True)
class Sources:
    """
    The counters of one relay and a few facts about it; made once, at its start.

    What a relay does not do it counts as zero, as derper does: a source that is not given
    stands for a feature that is off.
    """

    relay: Relay
    clock: IReactorTime
    wall_time: Callable[[], float] = time.time
    hostname: str = ""
    """``--hostname``."""
    tls: bool = False
    """Whether the main port speaks TLS; only then ``tls_listener`` exists."""
    listener: ListenerStats = field(default_factory=ListenerStats)
    """The main port's."""
    tls_requests: TLSRequestStats = field(default_factory=TLSRequestStats)
    stun: STUNStats = field(default_factory=STUNStats)
    bootstrap_dns: BootstrapDNSStats = field(default_factory=BootstrapDNSStats)
    websocket_accepts: Callable[[], int] = _none
    """Says how many WebSockets became DERP connections."""
    certificates: Callable[[], Sequence[CertificateStatus]] = tuple
    """What TLS is served with, or should be."""
    reloadable_files: Sequence[ReloadableFile] = ()
    mesh_links: Iterable[MeshLink] = ()
    """Links to the other relays of the mesh; asked anew each time."""
    admission: AdmissionStats = field(default_factory=AdmissionStats)
    check_self: Callable[[], Deferred[list[str]]] = _no_problem
    """Looks whether admission works; gives what does not."""
    limits: RelayLimits | None = None
    limits_file: bool = False
    """Whether ``--rate-config`` was given; only then derper has variables of it."""
    quota: VolumeQuota | None = None
    proxies: ProxyStats | None = None
    lifecycle: Lifecycle = field(default_factory=always_ready)
    version: str = __version__
    machine: str = field(default_factory=socket.gethostname)
    command_line: Sequence[str] = field(default_factory=_command_line)
    """Without the values of secret flags."""
    memory_at_start: int = field(default_factory=resident_bytes)
    start_unix_time: int = field(init=False)
    started: float = field(init=False)
    """The start on :attr:`clock`."""

    def __post_init__(self) -> None:
        self.started = self.clock.seconds()
        self.start_unix_time = int(self.wall_time())

    @property
    def uptime(self) -> int:
        """Whole seconds since the start."""
        return max(0, round(self.clock.seconds() - self.started))
