"""The mesh of one relay, put together from what the operator gave."""

from __future__ import annotations

from posixpath import join, normpath
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService

from derp.errors import ConfigError
from derp.net.http_url import check_setec_url
from derp.net.mesh_links import MeshLinks
from derp.net.mesh_peers import join_peers, read_peers
from derp.net.mesh_secret import MeshSecret
from derp.net.reload import ReloadableFile, Reloader
from derp.net.secrets_cache import SecretsCache
from derp.net.setec import Setec

if TYPE_CHECKING:
    from derp.config import Config
    from derp.core.relay import Relay

FILE_FLAG = "--mesh-with-file"
NO_KEY = "this relay has no mesh key yet, so clients of the other relays cannot be reached"
"""What clients are told meanwhile."""


class MeshService(MultiService):
    """
    Meshes a relay with others, from its start to its end.

    :ivar links: to every relay that was named.
    :ivar secret: gets the mesh key, if it is in setec.
    :raises ConfigError: if a file is unusable, or the mesh key is missing.
    """

    def __init__(self, reactor: Any, relay: Relay, config: Config, reloader: Reloader) -> None:
        super().__init__()
        self._config = config
        self._relay = relay
        wanted = "--mesh-with" if config.mesh_with else FILE_FLAG if config.mesh_with_file else ""
        if wanted and config.mesh_key is None and not config.secrets_url:
            where = "TAILSCALE_DERPER_MESH_KEY" if config.dev else "--mesh-psk-file"
            raise ConfigError(f"{wanted} needs the key that the relays share: give it in {where}")
        self.links = MeshLinks(reactor, relay, ca_file=config.mesh_ca_file)
        self.links.setServiceParent(self)
        self.secret: MeshSecret | None = None
        if config.secrets_url:
            self.secret = self._ask_setec(reactor)
        self._load_peers()
        if config.mesh_with_file:
            reloader.add(
                ReloadableFile(
                    name="mesh_with",
                    flag=FILE_FLAG,
                    paths=(config.mesh_with_file,),
                    load=self._load_peers,
                )
            )

    def _ask_setec(self, reactor: Any) -> MeshSecret:
        config = self._config
        path = config.secrets_cache_dir
        secret = MeshSecret(
            reactor,
            Setec(reactor, check_setec_url(config.secrets_url)),
            normpath(join(config.secrets_path_prefix, "meshkey")),
            SecretsCache(path) if path else None,
            self._key_came,
        )
        secret.setServiceParent(self)
        return secret

    def _key_came(self, key: bytes) -> None:
        self._relay.mesh_key = key
        self.links.begin()
        self._tell_health()

    def _tell_health(self) -> None:
        missing = self._relay.mesh_key is None and bool(len(self.links))
        self._relay.health.report("mesh", NO_KEY if missing else "")

    def _load_peers(self) -> None:
        config = self._config
        path = config.mesh_with_file
        read = read_peers(FILE_FLAG, path) if path else ()
        self.links.set_peers(join_peers(FILE_FLAG, config.mesh_with, read))
        self._tell_health()
