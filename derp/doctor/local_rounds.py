"""Which examinations the relay of this machine goes through beside those over the network."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from derp.config import CertMode
from derp.doctor.examination import Examination
from derp.doctor.finding import Finding
from derp.doctor.local_admission import examine_admission
from derp.doctor.local_files import examine_certificates, examine_key_file
from derp.doctor.local_limits import examine_kernel, examine_open_files
from derp.doctor.local_ports import examine_listeners
from derp.doctor.local_relay import LocalRelay, examine_settings
from derp.doctor.patient import Patient
from derp.errors import ConfigError
from derp.net.cert_files import read_manual
from derp.net.server_check import is_ip_literal
from derp.wire.node_json import pin_of

_Local = Callable[..., Coroutine[Deferred[Any], Any, Sequence[Finding]]]


def local_rounds(relay: LocalRelay, *, over_network: bool) -> list[Examination]:
    """
    List them.

    :param over_network: whether the relay is examined over the network as well.
    """

    def of_relay(name: str, run: _Local, *after: str) -> Examination:
        return Examination(name, partial(run, relay), after)

    after_tls = ("TLS",) if over_network else ()
    return [
        of_relay("process", examine_settings),
        of_relay("listening", examine_listeners),
        of_relay("key file", examine_key_file),
        of_relay("cert files", examine_certificates, *after_tls),
        of_relay("admission", examine_admission),
        of_relay("open files", examine_open_files),
        of_relay("kernel", examine_kernel),
    ]


def local_patient(
    relay: LocalRelay, dial_host: str, reactor: Any, values: dict[str, Any]
) -> Patient | None:
    """
    This machine's relay as one to examine over loopback.

    :param dial_host: where it is reached.
    :param values: fields that were asked for, before what its settings say.
    """
    config = relay.config
    if config is None or not config.port:
        return None
    same_host = config.stun_host in (None, "", config.host)
    fields: dict[str, Any] = {
        "host": "localhost" if config.dev else config.hostname,
        "port": config.port,
        "tls": config.tls,
        "dial_host": dial_host,
        "http_port": config.http_port if config.tls and config.http_port > 0 else None,
        "stun_port": config.stun_port if config.stun and same_host else None,
        "mesh_key": config.mesh_key,
    }
    pin = own_pin(relay)
    if pin:
        fields["cert_name"] = pin
    return Patient(reactor=reactor, **{**fields, **values})


def own_pin(relay: LocalRelay) -> str:
    """The pin of the certificate that the relay has made itself, if it has; else nothing."""
    config = relay.config
    if config is None or config.certmode is not CertMode.MANUAL or not config.tls:
        return ""
    if not is_ip_literal(config.hostname):
        return ""
    try:
        chain = read_manual(config.certdir, config.hostname)
    except ConfigError:
        return ""
    leaf = chain.leaf
    return pin_of(chain.leaf_der) if leaf.issuer == leaf.subject else ""
