"""
Where certificates come from, by ``--certmode``.

=============================  ==========================================================
``manual``                     two files, swapped when they change
``letsencrypt``, ``gcp``       by ACME, in autocert's directory, renewed by txacme's loop
``--acme-ip-certs``            by ACME for addresses, beside or instead of a name's
=============================  ==========================================================

What another mode needs is not imported: ACME and its libraries are an eighth of a relay.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from derp.certificate_service import CertificateService
from derp.config import CertMode, Config
from derp.core.relay import Relay
from derp.net.first_files import FirstFiles
from derp.net.reload import Reloader


def certificate_service(
    config: Config,
    reactor: Any,
    relay: Relay,
    reloader: Reloader,
    first_files: FirstFiles,
    *,
    wall_time: Callable[[], float],
    look_s: float = 15.0,
    luck: Callable[[], float] = random.random,
) -> CertificateService | None:
    """
    Make what serves certificates; ``None`` without TLS.

    :param first_files: is given what a first start has to write.
    :param wall_time: Unix seconds, for everything about validity.
    :param look_s: how often due dates are looked at.
    :raises ConfigError: if a file or value is unusable.
    """
    if not config.tls:
        return None
    if config.certmode is CertMode.MANUAL:
        from derp.manual_service import ManualService

        return ManualService(config, reactor, wall_time, relay, reloader, first_files, look_s)
    from derp.acme_service import ACMEService

    service = ACMEService(config, reactor, wall_time, relay, look_s, luck)
    reloader.when_reloaded(service.retry)
    if config.acme_ca_file:
        reloader.add(service.ca_file())
    return service
