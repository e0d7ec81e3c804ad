"""
The prober, put together.

:func:`build` checks what it can without touching the network; the port is opened when the
service is started, so that twistd may still be root then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from posixpath import join, normpath
from typing import Any, Final

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger

from derp import __version__
from derp.net.mesh_secret import MeshSecret
from derp.net.open_files import raise_open_file_limit
from derp.net.secrets_cache import SecretsCache
from derp.net.setec import Setec
from derp.net.tailscaled_socket import default_socket
from derp.net.timer_wheel import TimerWheel
from derp.probe_config import ProbeConfig
from derp.prober.alerts import make_alerts
from derp.prober.map_checks import MAP_PROBE, MapProbe
from derp.prober.map_source import MapKeeper, map_source
from derp.prober.once import OnceReport
from derp.prober.prober import Prober
from derp.prober.site import ProberPort, prober_site
from derp.prober.start_lines import start_block
from derp.prober.targets import Targets

log = Logger(namespace="derp")

MAP_SHARE: Final = 0.7
"""Of the map's interval, for one reading: less than its probe has."""
SECRET_S: Final = 60.0
"""How long ``--once`` waits for the mesh key."""


class ProbeService(MultiService):
    """
    A prober: its probes, its page, its alerts.

    :param wall_time: Unix seconds; the reactor's own may count from anywhere.
    :ivar prober: the probes, for tests and tools.
    :ivar port: where it listens; ``None`` with ``--once``.
    :ivar once: fires with the exit code; ``None`` without ``--once``.
    :raises ConfigError: if a file or value is unusable.
    """

    def __init__(
        self,
        config: ProbeConfig,
        reactor: Any,
        environ: Mapping[str, str],
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.config = config
        self.prober = Prober(reactor, spread=config.spread, once=config.once, wall_time=wall_time)
        self._reactor = reactor
        self._wall_time = wall_time
        self._source = map_source(reactor, config.derp_map, environ, default_socket())
        self._keeper = MapKeeper(reactor, self._source, config.interval * MAP_SHARE)
        self._mesh_key = config.mesh_key
        self._secret: MeshSecret | None = None
        self._impatience: Any = None
        self.port: ProberPort | None = None
        self.once: Deferred[int] | None = None
        if config.once:
            self.once = OnceReport(self.prober).done
        else:
            self._wheel = TimerWheel(reactor)
            site = prober_site(
                reactor, wall_time, self.prober, config.knobs, self._wheel, self._longest()
            )
            self.port = ProberPort(reactor, config.host, config.port, site)
            self._add_alerts(environ)
        if config.secrets_url:
            self._secret = self._ask_setec()

    def _longest(self) -> float:
        kinds = self.config.intervals
        return max(self.config.interval, kinds.mesh, kinds.stun, kinds.tls, kinds.bandwidth)

    def _add_alerts(self, environ: Mapping[str, str]) -> None:
        if self.config.alerts.url:
            alerts: IService = make_alerts(
                self._reactor,
                self.prober,
                self.config.alerts,
                environ=environ,
                wall_time=self._wall_time,
            )
            alerts.setServiceParent(self)

    def _ask_setec(self) -> MeshSecret:
        config = self.config
        path = config.secrets_cache_dir
        secret = MeshSecret(
            self._reactor,
            Setec(self._reactor, config.secrets_url),
            normpath(join(config.secrets_path_prefix, "meshkey")),
            SecretsCache(path) if path else None,
            self._key_came,
            meanwhile="probing nothing",
        )
        secret.setServiceParent(self)
        return secret

    # -- running ---------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        """Open the port; if it cannot be had, the start ends with one sentence."""
        raise_open_file_limit()
        if self.port is not None:
            self.port.open()
        super().privilegedStartService()

    def startService(self) -> None:
        """Serve, and begin to probe: at once, or when the mesh key has come."""
        if self.port is not None:
            self.port.start()
            log.info("{block}", block=start_block(self.config, __version__, self.port.where()))
        else:
            log.info("probing every relay once, please wait")
        super().startService()
        if self._secret is None or not self._secret.waiting:
            self._begin()
        elif self.once is not None:
            self._impatience = self._reactor.callLater(SECRET_S, self._no_key)

    def _key_came(self, key: bytes) -> None:
        self._mesh_key = key
        if self.running:
            self._begin()

    def _no_key(self) -> None:
        self._impatience = None
        log.error(
            "--secrets-url: it gave no mesh key within {seconds:g} s: see above, and start again",
            seconds=SECRET_S,
        )
        assert self.once is not None
        self.once.callback(1)

    def _begin(self) -> None:
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None
        config = self.config
        targets = Targets(
            reactor=self._reactor,
            current_map=lambda: self._keeper.current,
            mesh_key=self._mesh_key,
            wall_time=self._wall_time,
            bandwidth_size=config.bandwidth_size,
            qd_rate=config.qd_rate,
            qd_timeout=config.qd_timeout,
        )
        map_probe = MapProbe(
            self.prober,
            self._keeper,
            targets,
            config.intervals,
            config.region_code,
            config.tolerance,
        )
        self.prober.add(MAP_PROBE, config.interval, map_probe.check)

    def refresh(self) -> None:
        """Read the map again now."""
        if MAP_PROBE in self.prober.probes:
            log.info("SIGHUP: reading the DERP map again")
            self.prober.run_now(MAP_PROBE).addErrback(lambda _: None)

    def status(self) -> str:
        """How things are, in a line."""
        probes = self.prober.probes.values()
        failing = sum(bool(probe.history.error) for probe in probes)
        return f"{len(probes)} probes, {failing} failing"

    # -- ending ----------------------------------------------------------------------------

    def drain(self) -> Deferred[bool]:
        """Stop to probe; see :class:`derp.net.process_end.Drainable`."""
        stopped = self.prober.stop()
        return stopped.addCallback(lambda _: True)

    def stopService(self) -> Deferred[Any]:
        """Stop to probe, close the port, leave nothing in the reactor."""
        if self._impatience is not None:
            self._impatience.cancel()
            self._impatience = None
        waiting = [maybeDeferred(super().stopService), self.prober.stop()]
        if self.port is not None:
            waiting.append(maybeDeferred(self.port.stop))
        waiting.append(maybeDeferred(self._source.close))
        done: Deferred[Any] = DeferredList(waiting, consumeErrors=True)
        return done.addCallback(self._stopped)

    def _stopped(self, result: Any) -> None:
        if self.port is not None:
            self._wheel.stop()


def build(config: ProbeConfig, reactor: Any, environ: Mapping[str, str]) -> ProbeService:
    """
    Make a prober of its configuration.

    :raises ConfigError: if a file or value is unusable.
    """
    return ProbeService(config, reactor, environ)
