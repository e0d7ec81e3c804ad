"""
The parts of a relay, put together: state, limits, admission, mesh, certificates, STUN.

Nothing listens yet and nothing is written: files are read, and what a first start makes is
noted in :attr:`RelayParts.first_files`. So a configuration is checked by making the parts of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import MultiService, Service

from derp.certificate_modes import certificate_service
from derp.config import Config
from derp.core.generic_stun import GenericSTUN
from derp.core.lifecycle import Phase, Unfit
from derp.core.limits import Limits, accept_limits
from derp.core.occupancy import Door
from derp.core.relay import Relay, RelayIdentity
from derp.core.source_limit import SourceLimit
from derp.core.stun_stats import STUNStats
from derp.errors import ConfigError
from derp.net.admission_service import AdmissionService
from derp.net.drop_log import drop_listener
from derp.net.entrance import Entrance
from derp.net.first_files import FirstFiles
from derp.net.frame_log import protocol_class
from derp.net.generic_stun import GenericAnswers
from derp.net.hub import MESHED_LINGER_S, Hub
from derp.net.hub_readers import HubReaders
from derp.net.key_file import load_server_key
from derp.net.listening import Listener
from derp.net.mesh_key import read_mesh_key
from derp.net.rate_config import loader
from derp.net.relay_life import RelayLife
from derp.net.relay_limits import RelayLimits
from derp.net.relay_protocol import RelayServer
from derp.net.reload import ReloadableFile, Reloader
from derp.net.rtt_sampler import RTTSampler
from derp.net.stun_udp import STUNServer
from derp.net.timer_wheel import TimerWheel
from derp.net.trusted_proxies import TrustedProxies
from derp.net.volume_quota import VolumeQuota
from derp.wire.keys import generate_private

if TYPE_CHECKING:
    from derp.net.mesh_service import MeshService

QUOTA_STATE: Final = "derper.quota"
"""Beside the key file: what ``--quota-state`` is if it is not given."""


class RelayParts(MultiService):
    """
    What a relay consists of, but for its sites and ports.

    :ivar relay: the state, for tests and tools.
    :ivar first_files: what is still to be written when all has been checked.
    :ivar listeners: main port first, then plain and metrics ports where asked for.
    :ivar wall_time: Unix seconds; the reactor's own may count from anywhere.
    :ivar life: its phase; drains it, and lets another process take its place.
    :ivar reloader: takes care of files that may change; whoever loads one adds it there.

    :raises ConfigError: if a file or value is unusable.
    """

    def __init__(
        self, config: Config, reactor: Any, wall_time: Callable[[], float] = time.time
    ) -> None:
        super().__init__()
        self.config = config
        self.wall_time = wall_time
        self.first_files = FirstFiles()
        self.hub = Hub(reactor)
        self.reloader = Reloader(reactor)
        self.reloader.setServiceParent(self)
        self.wheel = TimerWheel(reactor)
        self.relay = self._make_relay(reactor)
        self.hub.timed = self.relay
        self.admission = AdmissionService(reactor, self.relay, config, self.reloader, os.environ)
        self.admission.setServiceParent(self)
        if config.mesh_psk_file:
            self._watch_mesh_key(config.mesh_psk_file)
        self.mesh = self._make_mesh(reactor)
        self.limits = self._load_limits(reactor)
        self.server = self._make_server(reactor)
        self.stun_stats = STUNStats()
        self.stun = self._make_stun(reactor) if config.stun else None
        self.proxies = TrustedProxies(config.trusted_proxies, unix=config.trust_unix_sockets)
        self.entrance = Entrance(self.hub, self.wheel, self.limits.door, self.proxies)
        no_limits = Door(Limits(), 0.0)
        self.side_entrance = Entrance(self.hub, self.wheel, no_limits, self.proxies)
        self.certificates = certificate_service(
            config, reactor, self.relay, self.reloader, self.first_files, wall_time=wall_time
        )
        if self.certificates is not None:
            self.certificates.setServiceParent(self)
        self.listeners: list[Listener] = []
        self.life = RelayLife(reactor, config, self.server, self.listeners, self.stun)
        self._tell_life()
        if not config.knobs.disable_rtt_stats:
            _Sampling(RTTSampler(self.server, reactor)).setServiceParent(self)

    def _tell_life(self) -> None:
        """Let those who know when the relay is unfit say so."""
        note = self.life.state.note
        self.quota.when_changed = partial(note, Unfit.QUOTA)
        self.limits.when_occupancy_changed = self.judge_load
        if self.certificates is not None:
            self.certificates.watchdog.when_judged = partial(note, Unfit.CERTIFICATE)
        self.life.state.when_changed(self._save_volume)
        self.life.arriving = lambda: self.entrance.arriving + self.side_entrance.arriving

    def _save_volume(self) -> None:
        """A drain that takes too long ends the process on the spot."""
        if self.life.state.phase is Phase.DRAINING:
            self.quota.save()

    def judge_load(self) -> None:
        """Tell whether there is room for one more client."""
        ports = (listener.opened for listener in self.listeners)
        exhausted = any(port is not None and port.exhausted for port in ports)
        self.life.state.note(Unfit.OVERLOAD, exhausted or self.limits.occupancy.full)

    @property
    def stun_host(self) -> str:
        """The address STUN is answered on; empty is every one."""
        config = self.config
        return config.host if config.stun_host is None else config.stun_host

    def _make_relay(self, reactor: Any) -> Relay:
        """Make the state, with the key that is the relay's identity."""
        config, knobs = self.config, self.config.knobs
        private = (
            generate_private() if config.dev else load_server_key(config.key_file, self.first_files)
        )
        relay = Relay(RelayIdentity(private, config.mesh_key), outbox_depth=knobs.send_queue_depth)
        relay.stats.drop_listener = drop_listener(knobs, reactor.seconds)
        return relay

    def _make_mesh(self, reactor: Any) -> MeshService | None:
        """Make what meshes this relay with others, if a flag is about that."""
        config = self.config
        peers = config.mesh_with or config.mesh_with_file
        if not (peers or config.mesh_ca_file or config.secrets_url):
            return None
        from derp.net.mesh_service import MeshService

        mesh = MeshService(reactor, self.relay, config, self.reloader)
        mesh.setServiceParent(self)
        if peers:
            self.hub.max_linger_s = MESHED_LINGER_S
        return mesh

    def _make_server(self, reactor: Any) -> RelayServer:
        """Make what accepts connections, and knows them."""
        knobs = self.config.knobs
        return RelayServer(
            self.relay,
            reactor,
            self.wheel,
            admission=self.admission.admission,
            limits=self.limits,
            write_timeout_s=self.config.tcp_write_timeout,
            protocol_class=protocol_class(
                everybody=knobs.debug_logs, probers=knobs.prober_debug_logs
            ),
        )

    def _make_stun(self, reactor: Any) -> STUNServer:
        stats, generic = self.stun_stats, None
        if self.config.stun_generic:
            decides = GenericSTUN(stats, SourceLimit(reactor.seconds()))
            generic = GenericAnswers(decides, stats, reactor.seconds)
        readers = HubReaders(self.hub)
        return STUNServer(readers, self.stun_host, self.config.stun_port, stats, generic)

    def _load_limits(self, reactor: Any) -> RelayLimits:
        """Set the limits as flags and file have them, and begin to count the month's volume."""
        config = self.config
        flags = flag_limits(config)
        limits = RelayLimits(self.relay, reactor, flags)
        path = config.rate_config
        if path:
            load = loader(path, flags, limits)
            load()
            self.reloader.add(
                ReloadableFile(name="rate_config", flag="--rate-config", paths=(path,), load=load)
            )
        state = Path(config.quota_state) if config.quota_state else None
        if state is None and config.key_file:
            state = Path(config.key_file).with_name(QUOTA_STATE)
        self.quota = VolumeQuota(reactor, self.relay, limits, state, self.wall_time)
        self.quota.setServiceParent(self)
        return limits

    def _watch_mesh_key(self, path: str) -> None:
        """Take a changed mesh key for logins from then on; who is connected stays."""

        def load() -> None:
            key = read_mesh_key(path)
            if key is None:
                raise ConfigError(
                    f"--mesh-psk-file: {path} holds no key any more: put one there, or leave "
                    "the flag out and start anew"
                )
            self.relay.mesh_key = key

        self.reloader.add(
            ReloadableFile(name="mesh_key", flag="--mesh-psk-file", paths=(path,), load=load)
        )


class _Sampling(Service):
    """Runs the round-trip sampler while the relay runs."""

    def __init__(self, sampler: RTTSampler) -> None:
        self._sampler = sampler

    def startService(self) -> None:
        super().startService()
        self._sampler.start()

    def stopService(self) -> None:
        super().stopService()
        self._sampler.stop()


def flag_limits(config: Config) -> Limits:
    """The limits that flags set."""
    rate, burst = accept_limits(config.accept_connection_limit, config.accept_connection_burst)
    return Limits(
        server_rate=config.server_rate_limit,
        accept_rate=rate,
        accept_burst=burst,
        max_handshakes=config.max_handshakes,
        max_clients=config.max_clients,
        max_clients_per_ip=config.max_clients_per_ip,
        monthly_quota=config.monthly_quota,
    )
