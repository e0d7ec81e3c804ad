"""Admission of one relay, put together from what the operator gave."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, DeferredList, succeed
from twisted.logger import Logger

from derp.config import Config
from derp.core.admission import AdmissionStats, Policy, Question, Rules
from derp.errors import DERPError
from derp.net.admission import Admission
from derp.net.allow_list import FLAG as ALLOW_CLIENTS
from derp.net.allow_list import AllowList
from derp.net.reload import ReloadableFile, Reloader
from derp.net.reverify import Reverification
from derp.net.tailscaled_socket import default_socket
from derp.wire.keys import parse_node_public

if TYPE_CHECKING:
    from derp.core.relay import Relay
    from derp.net.asked_source import Source
    from derp.net.local_api import LocalAPI

log = Logger(namespace="derp")

SELF_CHECK_S: Final = 5.0
_LOCALHOST: Final = "::1"
"""Where a self-check says it comes from."""


class AdmissionService(MultiService):
    """
    Decides who may use a relay, from its start to its end.

    :ivar admission: for logins; ``None`` if everybody may use the relay.
    :param environ: says which proxies lead to URLs.
    :raises ConfigError: if a file or URL is unusable.
    """

    def __init__(
        self,
        reactor: Any,
        relay: Relay,
        config: Config,
        reloader: Reloader,
        environ: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.stats = AdmissionStats()
        self.admission: Admission | None = None
        self._reactor = reactor
        sources: list[Source] = []
        if config.allow_clients:
            sources.append(self._allow_list(config.allow_clients, reloader))
        self._sockets: list[LocalAPI] = []
        sources += self._asked_sources(config, environ)
        if not sources:
            return
        rules = Rules(Policy(config.verify_policy), fail_open=config.verify_client_url_fail_open)
        self.admission = Admission(rules, sources, self.stats)
        self._reverification = Reverification(
            reactor, relay, self.admission, config.reverify_interval
        )
        self._reverification.setServiceParent(self)
        reloader.when_reloaded(self._ask_anew)

    def _allow_list(self, path: str, reloader: Reloader) -> AllowList:
        allow_list = AllowList(path, self.stats)

        def load() -> None:
            allow_list.load()
            self._ask_anew()

        reloader.add(
            ReloadableFile(name="allow_clients", flag=ALLOW_CLIENTS, paths=(path,), load=load)
        )
        return allow_list

    def _asked_sources(self, config: Config, environ: Mapping[str, str]) -> list[Source]:
        """Make what asks others; an HTTP client is loaded only for these."""
        if not config.verify_clients and not config.verify_client_url:
            return []
        from derp.net.admission_url import AdmissionURL
        from derp.net.asked_source import AskedSource
        from derp.net.local_api import LocalAPI

        if config.verify_clients:
            paths = config.socket or (default_socket(),)
            self._sockets = [LocalAPI(self._reactor, path) for path in paths]
        urls = [AdmissionURL(self._reactor, url, environ) for url in config.verify_client_url]
        stats, clock = self.stats, self._reactor
        opens = config.verify_client_url_fail_open
        return [
            *(AskedSource(socket, stats, clock) for socket in self._sockets),
            *(AskedSource(url, stats, clock, fails_open=opens) for url in urls),
        ]

    def _ask_anew(self) -> None:
        """Ask about everybody, with no regard to what was said before."""
        assert self.admission is not None
        self.admission.expire()
        self._reverification.check_all()

    def check_self(self) -> Deferred[list[str]]:
        """
        Ask about each tailscaled's own node, as if it were about to log in.

        :return: what went wrong, if anything; within 5 s.
        """
        admission = self.admission
        if admission is None:
            return succeed([])
        checks = DeferredList(
            [
                Deferred.fromCoroutine(_check_self(local_api, admission))
                for local_api in self._sockets
            ]
        )
        checks.addTimeout(SELF_CHECK_S, self._reactor, onTimeoutCancel=lambda result, _: result)
        return checks.addCallback(_problems)

    def startService(self) -> None:
        """Say at once what would refuse everybody."""
        super().startService()
        for local_api in self._sockets:
            if not os.path.exists(local_api.path):
                log.warn(
                    "--verify-clients: there is no socket {path} (yet): nobody is admitted until "
                    "tailscaled makes it; if it is elsewhere, name it with --socket",
                    path=local_api.path,
                )

    def stopService(self) -> Deferred[Any]:
        """Ask nobody any more, and close what was kept open to ask."""
        stopped = super().stopService() or succeed(None)
        if self.admission is None:
            return stopped
        return DeferredList([stopped, self.admission.close()])


async def _check_self(local_api: LocalAPI, admission: Admission) -> str | None:
    try:
        key = parse_node_public(await local_api.self_key())
        login = await admission.judge_login(Question(key, _LOCALHOST))
    except DERPError as error:
        return f"{local_api.label}: {error}"
    except CancelledError:
        return f"{local_api.label}: no answer within {SELF_CHECK_S:g} s"
    return None if login.refusal is None else f"verifyClient for self nodekey: {login.refusal}"


def _problems(results: list[tuple[bool, str | None]]) -> list[str]:
    return [str(problem) for _, problem in results if problem]
