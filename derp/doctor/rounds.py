"""Which examinations a relay goes through, and in what order."""

from __future__ import annotations

from derp.doctor.captive_portal import examine_main_port, examine_plain_port
from derp.doctor.certificate import examine_certificate
from derp.doctor.clocks import examine_clocks
from derp.doctor.examination import Examination
from derp.doctor.login import cannot_log_in, examine_login
from derp.doctor.names import examine_names
from derp.doctor.patient import Chart, Patient
from derp.doctor.ports import examine_ports
from derp.doctor.server_name import examine_server_name
from derp.doctor.stun import examine_home, examine_stun
from derp.doctor.upgrade import examine_fast_start, examine_upgrade, no_fast_start
from derp.doctor.web_socket import examine_web_socket
from derp.wire.node_json import RelayNode


def _no_address(chart: Chart) -> str:
    return "" if any(chart.addresses.values()) else "there is no address to examine"


def _not_reached(chart: Chart) -> str:
    return "" if chart.best else "the relay's port is not reached"


def _no_tls(chart: Chart) -> str:
    return _not_reached(chart) or ("" if chart.tls_version else "there is no TLS")


def rounds(patient: Patient) -> list[Examination]:
    """List what this relay goes through, seen over the network."""
    mute = _no_tls if patient.tls else _not_reached
    tls = [
        Examination("TLS", examine_certificate, ("TCP",), _not_reached),
        Examination("SNI", examine_server_name, ("TLS",), _no_tls),
    ]
    fast = Examination(
        "fast start",
        examine_fast_start,
        ("TLS",),
        lambda chart: _no_tls(chart) or no_fast_start(chart),
    )
    listed = [
        Examination("DNS", examine_names),
        Examination("TCP", examine_ports, ("DNS",), _no_address),
        *(tls if patient.tls else []),
        Examination("upgrade", examine_upgrade, ("TCP", "TLS"), mute),
        *([fast] if patient.tls else []),
        Examination("login", examine_login, ("upgrade",), cannot_log_in),
        Examination("WebSocket", examine_web_socket, ("TCP", "TLS"), mute),
        Examination("generate_204", examine_main_port, ("TCP", "TLS"), mute),
    ]
    if patient.http_port is not None and patient.http_port != patient.port:
        listed.append(Examination("plain HTTP", examine_plain_port, ("TCP",), _not_reached))
    listed.append(
        Examination("clock", examine_clocks, ("upgrade", "generate_204"), _not_reached),
    )
    if patient.stun_port is not None:
        listed.append(Examination("STUN", examine_stun, ("DNS",), _no_address))
        after = ("STUN", "TLS", "upgrade")
        listed.append(Examination("home", examine_home, after))
    return listed


def node_of(patient: Patient, chart: Chart) -> RelayNode | None:
    """
    This relay as a DERP map should have it, by what was found.

    Nobody is told of one that is not reached, nor of one without TLS, which clients cannot use.
    """
    if not chart.best or not patient.tls:
        return None
    return RelayNode(
        hostname=patient.host,
        cert_name=patient.cert_name or chart.suggested_pin,
        derp_port=patient.port,
        stun_port=patient.stun_port,
        can_port80=patient.http_port == 80 and chart.plain_port_well,
    )
