"""What a relay serves and where: its sites, and the listeners that will open their ports."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from derp.config import ListeningPlace, PlaceKind
from derp.core.bootstrap_dns import BootstrapDNS
from derp.core.listener_stats import ListenerStats
from derp.net.ace import hostname_endpoints
from derp.net.bootstrap_dns import BootstrapDNSRefresh
from derp.net.certificate_status import CertificateStatus
from derp.net.certificates import CertificateChooser
from derp.net.debug import debug_resources
from derp.net.late_page import LatePage
from derp.net.listening import Listener
from derp.net.metric_sources import Sources
from derp.net.metrics_site import build_metrics_site
from derp.net.txt_lookup import TXTLookup
from derp.net.web import SiteParts, WebSite, build_main_site, build_plain_site
from derp.relay_parts import RelayParts

if TYPE_CHECKING:
    from derp.net.metrics import MetricsPage


class RelaySites:
    """
    The sites of a relay that is put together.

    :ivar sources: what is shown of the relay.
    """

    def __init__(self, parts: RelayParts, reactor: Any) -> None:
        self._parts = parts
        self._reactor = reactor
        self._main_stats = ListenerStats()
        bootstrap = self._bootstrap_dns()
        self.sources = self._make_sources(bootstrap)
        self._metrics = LatePage(lambda: _metrics_page(self.sources))
        self._site_parts = self._make_site_parts(bootstrap)
        self.sources.websocket_accepts = lambda: self._site_parts.websocket_stats.accepts
        self._add_main_listeners()
        self._add_side_listeners()

    def _bootstrap_dns(self) -> BootstrapDNS:
        config = self._parts.config
        bootstrap = BootstrapDNS(coin=random.random, shuffle=random.shuffle)
        BootstrapDNSRefresh(
            self._reactor,
            bootstrap,
            published=config.bootstrap_dns_names,
            unpublished=config.unpublished_bootstrap_dns_names,
            resolver=self._reactor.nameResolver,
            look_up_txt=TXTLookup(self._reactor),
        ).setServiceParent(self._parts)
        return bootstrap

    def _make_sources(self, bootstrap: BootstrapDNS) -> Sources:
        parts = self._parts
        config = parts.config
        return Sources(
            relay=parts.relay,
            clock=self._reactor,
            wall_time=parts.wall_time,
            hostname=config.hostname,
            tls=config.tls,
            listener=self._main_stats,
            stun=parts.stun_stats,
            bootstrap_dns=bootstrap.stats,
            reloadable_files=parts.reloader.files,
            certificates=parts.certificates.statuses if parts.certificates else _no_certificates,
            admission=parts.admission.stats,
            check_self=parts.admission.check_self,
            mesh_links=parts.mesh.links if parts.mesh else (),
            limits=parts.limits,
            limits_file=bool(config.rate_config),
            quota=parts.quota,
            proxies=parts.proxies.stats,
            lifecycle=parts.life.state,
        )

    def _make_site_parts(self, bootstrap: BootstrapDNS) -> SiteParts:
        parts = self._parts
        return SiteParts(
            config=parts.config,
            clock=self._reactor,
            wheel=parts.wheel,
            relay=parts.server,
            server_key=parts.relay.public,
            debug_pages={**debug_resources(self.sources), "/metrics": self._metrics},
            bootstrap=bootstrap,
            dial=hostname_endpoints(self._reactor) if parts.config.ace else None,
            tls_stats=self.sources.tls_requests,
            proxies=parts.proxies,
            lifecycle=parts.life.state,
        )

    def _add_main_listeners(self) -> None:
        """``-a`` and ``--listen``: the same site, with TLS or without."""
        config, certificates = self._parts.config, self._parts.certificates
        main = self._main = build_main_site(self._site_parts)
        chooser = certificates.chooser if certificates else None
        serves = "DERP over HTTPS" if config.tls else "DERP over plain HTTP"
        place = ListeningPlace(PlaceKind.TCP, config.host, config.port)
        flag = "--dev" if config.dev else "-a"  # --dev takes its own port, whatever -a says
        self._listen(flag, place, serves, main, self._main_stats, chooser, limited=True)
        for place in config.listen:
            serves = "DERP over HTTPS" if place.tls else "DERP over plain HTTP"
            used = chooser if place.tls else None
            self._listen("--listen", place, serves, main, self._main_stats, used, limited=True)

    def _add_side_listeners(self) -> None:
        """``--http-port`` beside TLS, and ``--metrics-addr``."""
        config, certificates = self._parts.config, self._parts.certificates
        if config.tls and config.http_port >= 0:
            challenges = certificates.challenges if certificates else None
            plain = build_plain_site(self._site_parts, self._main, challenges)
            place = ListeningPlace(PlaceKind.TCP, config.host, config.http_port)
            self._listen("--http-port", place, "plain HTTP", plain)
        if config.metrics_addr:
            self._metrics.load()
            host, _, port = config.metrics_addr.rpartition(":")
            site = build_metrics_site(self._site_parts, self._metrics)
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
        entrance = self._parts.entrance if limited else self._parts.side_entrance
        greet = entrance.greeter(site, stats, chooser)
        self._parts.listeners.append(Listener(flag, place, serves, greet, stats, entrance.opens))


def _metrics_page(sources: Sources) -> MetricsPage:
    from derp.net.metrics import MetricsPage, make_registry

    return MetricsPage(make_registry(sources))


def _no_certificates() -> list[CertificateStatus]:
    return []
