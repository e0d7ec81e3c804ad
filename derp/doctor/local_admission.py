"""Who is asked about clients: tailscaled's socket, admission URLs, the list of keys."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import maybeDeferred

from derp.config import Config
from derp.core.admission import AdmissionStats, Question, Verdict
from derp.doctor.finding import Finding, fail, ok, skip, warn
from derp.doctor.local_relay import LocalRelay
from derp.doctor.patient import Chart, Patient
from derp.errors import ConfigError
from derp.net.admission_url import AdmissionURL
from derp.net.allow_list import AllowList
from derp.net.bounded_http import BrokenAnswer, NoAnswer
from derp.net.http_url import shown
from derp.net.local_api import LocalAPI
from derp.net.tailscaled_socket import default_socket
from derp.wire.keys import generate_private, public_of

_OPEN = (
    "anybody who finds it may use it: --verify-clients, --verify-client-url or --allow-clients "
    "keep strangers out"
)


async def examine_admission(relay: LocalRelay, patient: Patient, chart: Chart) -> Sequence[Finding]:
    """Ask all of them, as the relay would, about a key that nobody knows."""
    config = relay.config
    if config is None:
        return [skip("the relay's settings are not known")]
    findings: list[Finding] = []
    if config.verify_clients:
        paths = config.socket or (default_socket(),)
        findings += [await _socket(patient.reactor, path) for path in paths]
    urls = config.verify_client_url
    findings += [await _url(patient.reactor, config, url, os.environ) for url in urls]
    if config.allow_clients:
        findings.append(_list(config.allow_clients))
    return findings or [warn("the relay admits everybody", _OPEN)]


async def _socket(reactor: Any, path: str) -> Finding:
    if not os.path.exists(path):
        cure = (
            "start tailscaled, or name its socket with --socket; in a container mount the "
            "directory of the socket, not the socket"
        )
        return fail(f"there is no socket {path} of tailscaled: nobody is admitted", cure)
    api = LocalAPI(reactor, path)
    try:
        status = await api.status()
    except NoAnswer as error:
        cure = "is tailscaled running? Its socket is there, and may be used by root alone"
        return fail(f"{path}: tailscaled does not answer ({error})", cure)
    except BrokenAnswer as error:
        return fail(f"{path}: {error}", "update tailscaled")
    finally:
        await maybeDeferred(api.close)
    version, state = str(status.get("Version", "?")), str(status.get("BackendState", "?"))
    facts = {"socket": path, "version": version, "state": state}
    if state != "Running":
        said = f"{path}: tailscaled {version} is {state}, and knows no clients"
        return fail(said, "log it in: tailscale up", **facts)
    return ok(f"{path}: tailscaled {version} is running", **facts)


async def _url(reactor: Any, config: Config, url: str, environ: Mapping[str, str]) -> Finding:
    name = shown(url)
    source = AdmissionURL(reactor, url, environ)
    try:
        answer = await source.ask(Question(public_of(generate_private()), "192.0.2.1"))
    finally:
        await maybeDeferred(source.close)
    facts = {"url": name, "verdict": answer.verdict.value}
    if answer.verdict is Verdict.DENIED:
        return ok(f"{name} answers, and refuses a stranger", **facts)
    if answer.verdict is Verdict.ALLOWED:
        said = f"{name} admits a key that was just made up"
        return warn(said, "is it meant to admit everybody?", **facts)
    if answer.verdict is Verdict.UNREACHABLE:
        then = "admitted" if config.verify_client_url_fail_open else "refused"
        said = f"{name} cannot be reached, and everybody is {then}: {answer.reason}"
        cure = "check the URL from this machine: curl -X POST"
        return fail(said, cure, **facts)
    return fail(f"{name}: {answer.reason}", "is this the admission URL? Its log knows", **facts)


def _list(path: str) -> Finding:
    try:
        number = len(AllowList(path, AdmissionStats()).keys)
    except ConfigError as error:
        said, _, cure = str(error).rpartition(": ")
        return fail(said, cure)
    if not number:
        return warn(f"{path} holds no key: nobody is admitted", "write nodekey:... lines into it")
    return ok(f"{path}: {number} keys are admitted", keys=number)
