"""
The relay, put together: the only place that joins the layers' parts.

:func:`build` checks what it can without touching the network; :class:`RelayService` opens the
ports when it is started, so that twistd may still be root then and drop it afterwards.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from derp import __version__
from derp.certificate_service import certificate_service
from derp.config import CertMode, Config, ListeningPlace, PlaceKind
from derp.core.bootstrap_dns import BootstrapDNS
from derp.core.lifecycle import Unfit
from derp.core.limits import Limits, accept_limits
from derp.core.listener_stats import ListenerStats
from derp.core.occupancy import Door
from derp.core.relay import Relay, RelayIdentity
from derp.core.stun_stats import STUNStats
from derp.errors import ConfigError
from derp.net.ace import hostname_endpoints
from derp.net.admission_service import AdmissionService
from derp.net.bootstrap_dns import BootstrapDNSRefresh
from derp.net.cert_files import file_base, parse_ip
from derp.net.certificate_status import CertificateStatus
from derp.net.certificates import CertificateChooser
from derp.net.debug import debug_resources
from derp.net.drop_log import DropLog
from derp.net.entrance import Entrance
from derp.net.frame_log import protocol_class
from derp.net.hub import Hub
from derp.net.hub_readers import HubReaders
from derp.net.inherited_sockets import first_environ
from derp.net.key_file import load_server_key
from derp.net.listening import Listener
from derp.net.mesh_key import read_mesh_key
from derp.net.mesh_service import MeshService
from derp.net.metric_sources import Sources
from derp.net.metrics import MetricsPage, make_registry
from derp.net.metrics_site import build_metrics_site
from derp.net.open_files import raise_open_file_limit
from derp.net.port import TCPOptions
from derp.net.rate_config import loader
from derp.net.relay_life import RelayLife
from derp.net.relay_limits import RelayLimits
from derp.net.relay_protocol import RelayServer
from derp.net.reload import ReloadableFile, Reloader
from derp.net.rtt_sampler import RTTSampler
from derp.net.socket_address import host_port
from derp.net.stun_udp import STUNServer
from derp.net.timer_wheel import TimerWheel
from derp.net.trusted_proxies import TrustedProxies
from derp.net.txt_lookup import TXTLookup
from derp.net.volume_quota import VolumeQuota
from derp.net.web import SiteParts, WebSite, build_main_site, build_plain_site
from derp.start_block import start_block
from derp.wire.keys import generate_private
from derp.wire.node_json import RelayNode

log = Logger(namespace="derp")

QUOTA_STATE: Final = "derper.quota"
"""Beside the key file: what ``--quota-state`` is if it is not given."""


class RelayService(MultiService):
    """
    A relay: its ports, its state, its timers.

    :ivar relay: the state, for tests and tools.
    :ivar listeners: main port first, then plain and metrics ports where asked for.
    :ivar sources: what is shown of it.
    :ivar life: its phase; drains it, and lets another process take its place.
    :ivar reloader: takes care of files that may change; whoever loads one adds it there.
    """

    def __init__(self, config: Config, reactor: Any) -> None:
        super().__init__()
        self.config = config
        self.hub = Hub(reactor)
        self.reloader = Reloader(reactor)
        self.reloader.setServiceParent(self)
        self.wheel = TimerWheel(reactor)
        private = generate_private() if config.dev else load_server_key(config.key_file)
        knobs = config.knobs
        self.relay = Relay(
            RelayIdentity(private, config.mesh_key), outbox_depth=knobs.send_queue_depth
        )
        self.hub.timed = self.relay
        if knobs.verbose_drops:
            self.relay.stats.drop_listener = DropLog(
                knobs.verbose_drops, reactor.seconds, unlimited=knobs.log_rate_all
            )
        self.admission = AdmissionService(reactor, self.relay, config, self.reloader, os.environ)
        self.admission.setServiceParent(self)
        if config.mesh_psk_file:
            self._watch_mesh_key(config.mesh_psk_file)
        self.mesh = MeshService(reactor, self.relay, config, self.reloader)
        self.mesh.setServiceParent(self)
        self.limits = self._load_limits(reactor)
        self.server = RelayServer(
            self.relay,
            reactor,
            self.wheel,
            admission=self.admission.admission,
            limits=self.limits,
            write_timeout_s=config.tcp_write_timeout,
            protocol_class=protocol_class(
                everybody=knobs.debug_logs, probers=knobs.prober_debug_logs
            ),
        )
        self.stun_stats = STUNStats()
        self.stun = (
            STUNServer(HubReaders(self.hub), self._stun_host, config.stun_port, self.stun_stats)
            if config.stun
            else None
        )
        self.proxies = TrustedProxies(config.trusted_proxies, unix=config.trust_unix_sockets)
        self.entrance = Entrance(self.hub, self.wheel, self.limits.door, self.proxies)
        no_limits = Door(Limits(), 0.0)
        self.side_entrance = Entrance(self.hub, self.wheel, no_limits, self.proxies)
        self.certificates = certificate_service(config, reactor, self.relay, self.reloader)
        if self.certificates is not None:
            self.certificates.setServiceParent(self)
        self.listeners: list[Listener] = []
        self.life = RelayLife(reactor, config, self.server, self.listeners, self.stun)
        self.quota.when_changed = partial(self.life.state.note, Unfit.QUOTA)
        self.limits.when_occupancy_changed = self._judge_load
        if self.certificates is not None:
            judged = partial(self.life.state.note, Unfit.CERTIFICATE)
            self.certificates.watchdog.when_judged = judged
        self._add_sites(reactor)
        if not knobs.disable_rtt_stats:
            _Sampling(RTTSampler(self.server, reactor)).setServiceParent(self)
        self._open = False

    def _judge_load(self) -> None:
        """Tell whether there is room for one more client."""
        ports = (listener.opened for listener in self.listeners)
        exhausted = any(port is not None and port.exhausted for port in ports)
        self.life.state.note(Unfit.OVERLOAD, exhausted or self.limits.occupancy.full)

    @property
    def _stun_host(self) -> str:
        config = self.config
        return config.host if config.stun_host is None else config.stun_host

    # -- putting together ------------------------------------------------------------------

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
        self.quota = VolumeQuota(reactor, self.relay, limits, state)
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

    def _add_sites(self, reactor: Any) -> None:
        config = self.config
        main_stats = ListenerStats()
        bootstrap = BootstrapDNS(coin=random.random, shuffle=random.shuffle)
        BootstrapDNSRefresh(
            reactor,
            bootstrap,
            published=config.bootstrap_dns_names,
            unpublished=config.unpublished_bootstrap_dns_names,
            resolver=reactor.nameResolver,
            look_up_txt=TXTLookup(reactor),
        ).setServiceParent(self)
        sources = Sources(
            relay=self.relay,
            clock=reactor,
            hostname=config.hostname,
            tls=config.tls,
            listener=main_stats,
            stun=self.stun_stats,
            bootstrap_dns=bootstrap.stats,
            reloadable_files=self.reloader.files,
            certificates=self.certificates.statuses if self.certificates else _no_certificates,
            admission=self.admission.stats,
            check_self=self.admission.check_self,
            mesh_links=self.mesh.links,
            limits=self.limits,
            limits_file=bool(config.rate_config),
            quota=self.quota,
            proxies=self.proxies.stats,
            lifecycle=self.life.state,
        )
        self.sources = sources
        metrics = MetricsPage(make_registry(sources))
        parts = SiteParts(
            config=config,
            clock=reactor,
            wheel=self.wheel,
            relay=self.server,
            server_key=self.relay.public,
            debug_pages={**debug_resources(sources), "/metrics": metrics},
            bootstrap=bootstrap,
            dial=hostname_endpoints(reactor),
            tls_stats=sources.tls_requests,
            proxies=self.proxies,
            lifecycle=self.life.state,
        )
        sources.websocket_accepts = lambda: parts.websocket_stats.accepts
        main = build_main_site(parts)
        chooser = self.certificates.chooser if self.certificates else None
        serves = "DERP over HTTPS" if config.tls else "DERP over plain HTTP"
        place = ListeningPlace(PlaceKind.TCP, config.host, config.port)
        self._listen("-a", place, serves, main, main_stats, chooser, limited=True)
        for place in config.listen:
            serves = "DERP over HTTPS" if place.tls else "DERP over plain HTTP"
            used = chooser if place.tls else None
            self._listen("--listen", place, serves, main, main_stats, used, limited=True)
        if config.tls and config.http_port >= 0:
            challenges = self.certificates.challenges if self.certificates else None
            plain = build_plain_site(parts, main, challenges)
            place = ListeningPlace(PlaceKind.TCP, config.host, config.http_port)
            self._listen("--http-port", place, "plain HTTP", plain)
        if config.metrics_addr:
            host, _, port = config.metrics_addr.rpartition(":")
            site = build_metrics_site(parts, metrics)
            place = ListeningPlace(PlaceKind.TCP, host.strip("[]"), int(port))
            self._listen("--metrics-addr", place, "metrics", site)

    def _listen(
        self,
        flag: str,
        place: ListeningPlace,
        serves: str,
        site: WebSite,
        stats: ListenerStats | None = None,
        chooser: CertificateChooser | None = None,
        *,
        limited: bool = False,
    ) -> None:
        stats = stats or ListenerStats()
        entrance = self.entrance if limited else self.side_entrance
        greet = entrance.greeter(site, stats, chooser)
        self.listeners.append(Listener(flag, place, serves, greet, stats, entrance.opens))

    # -- running ---------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        """Open every port, or none: what cannot be had stops the start with one sentence."""
        raise_open_file_limit()
        options = TCPOptions(self.config.tcp_keepalive_time, self.config.tcp_user_timeout)
        try:
            self.life.inherit(first_environ())
            for listener in self.listeners:
                listener.open(self.hub, options).when_exhausted = self._judge_load
            if self.stun is not None:
                self.stun.start()
        except ConfigError:
            self._close_ports()
            raise
        self._open = True
        super().privilegedStartService()

    def startService(self) -> None:
        """Serve, and say so."""
        if not self._open:
            self.privilegedStartService()
        super().startService()
        for listener in self.listeners:
            assert listener.opened is not None
            listener.opened.start()
        self.life.started()
        log.info("{block}", block=self._start_block())

    def _start_block(self) -> str:
        config = self.config
        listening = [f"{each.where():<21} {each.serves} ({each.flag})" for each in self.listeners]
        if self.stun is not None:
            listening.append(f"{host_port(self._stun_host or '*', self.stun.port)} STUN")
        return start_block(
            config,
            version=__version__,
            public=self.relay.public,
            listening=listening,
            tls=self._describe_tls(),
            node=self.node(),
        )

    def _describe_tls(self) -> str:
        if self.certificates is None:
            return "off: clients need it, so let a proxy in front of this port do it"
        return self.certificates.describe()

    def node(self) -> RelayNode:
        """This relay as a DERP map should describe it."""
        config = self.config
        main = self.listeners[0].opened
        address: Any = main.getHost() if main else None
        return RelayNode(
            hostname="localhost" if config.dev else config.hostname,
            cert_name=self.certificates.pin() if self.certificates else "",
            derp_port=address.port if address else config.port,
            stun_port=self.stun.port if self.stun else None,
            can_port80=config.tls and config.http_port == 80,
        )

    def stopService(self) -> Deferred[Any]:
        """Close the ports, cut the connections, leave nothing in the reactor."""
        stopped = super().stopService()
        self.life.stopped()
        self.server.close_all()
        self._close_ports()
        done: Deferred[Any] = DeferredList([stopped] if stopped else [])
        done.addCallback(lambda _: self._release())
        return done

    def _close_ports(self) -> None:
        for listener in self.listeners:
            listener.close()
        if self.stun is not None:
            self.stun.stop()
        self._open = False

    def _release(self) -> None:
        self.hub.close()
        self.limits.stop()
        self.wheel.stop()


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


def _no_certificates() -> list[CertificateStatus]:
    return []


def build(config: Config, reactor: Any) -> RelayService:
    """
    Make a relay of its configuration.

    :raises ConfigError: if a file or value is unusable.
    """
    return RelayService(config, reactor)


def check_config(config: Config, reactor: Any) -> None:
    """
    Do what a start does up to listening, without making the files a first start makes.

    :raises ConfigError: if a file or value is unusable.
    """
    with TemporaryDirectory() as spare:
        if not os.path.lexists(config.key_file):
            config = replace(config, key_file=os.path.join(spare, "derper.key"))
        if config.certmode is CertMode.MANUAL and parse_ip(config.hostname) is not None:
            base = os.path.join(config.certdir, file_base(config.hostname))
            if not (os.path.exists(f"{base}.crt") and os.path.exists(f"{base}.key")):
                config = replace(config, certdir=spare)
        build(config, reactor)
