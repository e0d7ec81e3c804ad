"""The mesh of one relay, put together from what the operator gave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService

from derp.errors import ConfigError
from derp.net.mesh_links import MeshLinks
from derp.net.mesh_peers import join_peers, read_peers
from derp.net.reload import ReloadableFile, Reloader

if TYPE_CHECKING:
    from derp.config import Config
    from derp.core.relay import Relay

FILE_FLAG = "--mesh-with-file"


class MeshService(MultiService):
    """
    Meshes a relay with others, from its start to its end.

    :ivar links: to every relay that was named.
    :raises ConfigError: if a file is unusable, or the mesh key is missing.
    """

    def __init__(self, reactor: Any, relay: Relay, config: Config, reloader: Reloader) -> None:
        super().__init__()
        self._config = config
        wanted = "--mesh-with" if config.mesh_with else FILE_FLAG if config.mesh_with_file else ""
        if wanted and config.mesh_key is None and not config.secrets_url:
            where = "TAILSCALE_DERPER_MESH_KEY" if config.dev else "--mesh-psk-file"
            raise ConfigError(f"{wanted} needs the key that the relays share: give it in {where}")
        self.links = MeshLinks(reactor, relay, ca_file=config.mesh_ca_file)
        self.links.setServiceParent(self)
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

    def _load_peers(self) -> None:
        config = self._config
        path = config.mesh_with_file
        read = read_peers(FILE_FLAG, path) if path else ()
        self.links.set_peers(join_peers(FILE_FLAG, config.mesh_with, read))
