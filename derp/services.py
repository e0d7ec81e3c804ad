"""
The relay as a service: the only place that joins the layers' parts.

:func:`build` checks what it can without touching the network; :class:`RelayService` opens the
ports when it is started, so that twistd may still be root then and drop it afterwards.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from derp import __version__
from derp.config import Config
from derp.errors import ConfigError
from derp.net.inherited_sockets import first_environ
from derp.net.open_files import raise_open_file_limit
from derp.net.port import TCPOptions
from derp.net.socket_address import host_port
from derp.relay_parts import RelayParts
from derp.relay_sites import RelaySites
from derp.start_block import start_block
from derp.volumes import check_volumes
from derp.wire.node_json import RelayNode

log = Logger(namespace="derp")


class RelayService(RelayParts):
    """
    A relay that runs: it opens its ports, serves, closes them.

    :ivar sources: what is shown of it.
    """

    def __init__(
        self, config: Config, reactor: Any, wall_time: Callable[[], float] = time.time
    ) -> None:
        super().__init__(config, reactor, wall_time)
        self.sources = RelaySites(self, reactor).sources
        self._open = False

    def privilegedStartService(self) -> None:
        """Open every port, or none: what cannot be had stops the start with one sentence."""
        raise_open_file_limit()
        options = TCPOptions(self.config.tcp_keepalive_time, self.config.tcp_user_timeout)
        try:
            self.life.inherit(first_environ())
            for listener in self.listeners:
                listener.open(self.hub, options).when_exhausted = self.judge_load
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
            where = host_port(self.stun_host or "*", self.stun.port)
            flag = "--stun-port" if config.stun_host is None else "--stun-addr"
            listening.append(f"{where:<21} STUN ({flag})")
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


def build(config: Config, reactor: Any) -> RelayService:
    """
    Make a relay of its configuration, and the files of a first start once all else is right.

    :raises ConfigError: if a file or value is unusable.
    """
    relay = check_config(config, reactor)
    relay.first_files.write()
    return relay


def check_config(config: Config, reactor: Any) -> RelayService:
    """
    Do what a start does up to listening, but for the files a first start makes.

    :raises ConfigError: if a file or value is unusable.
    """
    relay = RelayService(config, reactor)
    check_volumes(config, os.environ, acme=False)
    return relay
