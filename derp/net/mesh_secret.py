"""
The mesh key of a relay that has it from setec.

If the cache holds it, that one is used and nobody is asked, as by derper. Otherwise the server
is asked until it answers, with the pauses of setec's own client: 1 ms doubling to 4.1 s.

**Unlike derper the relay serves meanwhile.** derper waits with its ports closed, for ever if
need be, so that an outage of setec, at a first start or after a lost cache, is one of the relay;
but clients need no mesh key, and on a network with one relay they would be cut off for the
want of something nobody there uses. What is missing until then is said: clients of a relay that
has peers are told (Health), ``derp_mesh_peer_up`` is 0, and the log has the reason. Other
relays that come early are refused (``WatchConns`` without a mesh key is), and come again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from derp.errors import ConfigError, ProtocolError
from derp.net.mesh_key import parse_mesh_key_text
from derp.net.secrets_cache import FLAG, Secret, SecretsCache
from derp.net.setec import Setec, SetecError
from derp.quoting import quoted

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

FIRST_PAUSE_S: Final = 0.001
MAX_PAUSE_S: Final = 4.096
REPEAT_LOG_S: Final = 600.0
"""How soon the same trouble is worth another line."""


class MeshSecret(Service):
    """
    Gets the key while it runs, unless the cache had it.

    :param setec: where to ask.
    :param name: what the secret is called there.
    :param cache: where it is kept, if anywhere.
    :param on_key: called with the 32 raw bytes once they are known; at once, in the
        constructor, if the cache has them.
    :param wall_time: Unix seconds, for the cache.
    :param meanwhile: what is done without a key, for the log.
    :raises ConfigError: if what the cache has is no key.
    """

    log = Logger(namespace="derp")

    def __init__(
        self,
        reactor: Any,
        setec: Setec,
        name: str,
        cache: SecretsCache | None,
        on_key: Callable[[bytes], object],
        wall_time: Callable[[], float] = time.time,
        meanwhile: str = "serving without",
    ) -> None:
        self._reactor = reactor
        self._setec = setec
        self._secret_name = name
        self._cache = cache
        self._on_key = on_key
        self._wall_time = wall_time
        self._meanwhile = meanwhile
        self._secret: Secret | None = None
        self._asking: Deferred[None] | None = None
        self._pause: IDelayedCall | None = None
        self._pause_s = FIRST_PAUSE_S
        self._logged: tuple[str, float] = ("", 0.0)
        self._use_cache()

    @property
    def waiting(self) -> bool:
        """Whether the key is still to come."""
        return self._secret is None

    def startService(self) -> None:
        """Ask, or note in the cache that it was used."""
        super().startService()
        if self._secret is None:
            self._ask()
        else:
            self._keep(self._secret)

    def stopService(self) -> None:
        """Ask no more."""
        super().stopService()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._asking is not None:
            self._asking.cancel()

    def _use_cache(self) -> None:
        if self._cache is None:
            return
        try:
            secret = self._cache.read(self._secret_name)
        except ProtocolError as error:
            self.log.warn("{flag}: {error}: taken as empty", flag=FLAG, error=str(error))
            return
        if secret is not None:
            self._use(f"{FLAG}: {self._cache}", secret)

    def _use(self, source: str, secret: Secret) -> None:
        key = parse_mesh_key_text(source, secret.value.decode("ascii", "replace"))
        if key is None:
            raise ConfigError(f"{source} holds an empty mesh key: put one there")
        self._secret = secret
        self._on_key(key)

    def _ask(self) -> None:
        self._pause = None
        asking = self._setec.get(self._secret_name)
        self._asking = asking.addCallback(self._answered).addErrback(self._failed)

    def _answered(self, secret: Secret) -> None:
        self._asking = None
        source = f"setec: {quoted(self._secret_name)}"
        try:
            self._use(source, secret)
        except ConfigError as error:
            self._pause_s = MAX_PAUSE_S
            raise SetecError(str(error)) from None
        self.log.info("{source}: the mesh key has come", source=source)
        self._keep(secret)

    def _failed(self, failure: Any) -> None:
        self._asking = None
        if not self.running or failure.check(CancelledError):
            return
        text = failure.getErrorMessage()
        if not failure.check(SetecError):
            self.log.failure("setec: asking failed", failure)
        now = self._reactor.seconds()
        if text != self._logged[0] or now - self._logged[1] >= REPEAT_LOG_S:
            self._logged = (text, now)
            self.log.warn(
                "--secrets-url {url}: no mesh key yet: {text}; trying again, and {meanwhile}",
                url=quoted(self._setec.url),
                text=text,
                meanwhile=self._meanwhile,
            )
        self._pause = self._reactor.callLater(self._pause_s, self._ask)
        self._pause_s = min(self._pause_s * 2, MAX_PAUSE_S)

    def _keep(self, secret: Secret) -> None:
        if self._cache is None:
            return
        try:
            self._cache.write(self._secret_name, secret, self._wall_time())
        except OSError as error:
            self.log.warn(
                "{flag}: cannot write {cache} ({error}): the next start will have to ask setec",
                flag=FLAG,
                cache=str(self._cache),
                error=error.strerror,
            )
