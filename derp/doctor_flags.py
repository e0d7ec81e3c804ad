"""Command line of ``derper doctor``: flags in Go's syntax, and one word for whom to examine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from derp.addresses import check_port
from derp.doctor.patient import TIMEOUT, Patient
from derp.doctor_target import patient_fields
from derp.errors import ConfigError, ProtocolError
from derp.flags import FLAGS as RELAY_FLAGS
from derp.goflag import Flag, FlagError, FlagValues, Kind, format_flag, parse_flags
from derp.net.key_file import parse_key_file
from derp.net.mesh_key import read_mesh_key
from derp.quoting import quoted
from derp.wire.keys import parse_node_private
from derp.wire.node_json import PIN_PREFIX

FLAGS: Final = (
    Flag("local", Kind.BOOL, False, "Examine this machine, too: files, sockets, limits."),
    Flag("json", Kind.BOOL, False, "Report in JSON, and nothing else on stdout."),
    Flag(
        "derp-map",
        Kind.STRING,
        "",
        "File with a DERP map; what to examine is then REGION or REGION/NODE of it.",
    ),
    Flag(
        "pin",
        Kind.STRING,
        "",
        "The CertName that clients have: sha256-raw:<hex>, or another name in the certificate.",
    ),
    Flag("ca-file", Kind.STRING, "", "PEM file of roots to trust besides the system's."),
    Flag("insecure", Kind.BOOL, False, "Take any certificate."),
    Flag("4", Kind.BOOL, False, "Only IPv4."),
    Flag("6", Kind.BOOL, False, "Only IPv6."),
    Flag("stun-port", Kind.INT, 3478, "UDP port of STUN."),
    Flag("no-stun", Kind.BOOL, False, "There is no STUN, and none is missed."),
    Flag("http-port", Kind.INT, 80, "Port of plain HTTP; -1 if there is none."),
    Flag(
        "mesh-psk-file",
        Kind.STRING,
        "",
        "The key of the relay's mesh, to be admitted where strangers are not.",
    ),
    Flag(
        "key-file",
        Kind.STRING,
        "",
        "File with the private key of a client that is admitted (privkey:<hex>), which must not "
        "be connected at the same time.",
    ),
    Flag("timeout", Kind.DURATION, TIMEOUT, "How long each step may take."),
)
MAX_TIMEOUT: Final = 60.0

USAGE: Final = """\
Usage: derper doctor [options] HOST[:PORT]
       derper doctor --local [options] [HOST[:PORT]] [-- flags of the relay]

Examines a relay as clients see it, says what is wrong and what helps, and how it is written into
a DERP map. HOST may also be a URL: http://HOST:PORT is a relay without TLS. With --local, on the
relay's machine, its files, sockets and limits are examined as well; its flags are found out, or
given behind --. Exits with 0 if nothing is wrong, with 1 if something is, with 2 for a wrong
command line.

"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorOptions:
    """What was asked for."""

    patient: Patient | None
    """``None`` leaves it to the relay that runs here."""
    local: bool
    json: bool
    relay_words: tuple[str, ...]
    """Flags of the relay, as they stood behind ``--``."""
    values: dict[str, Any]
    """Fields of :class:`Patient` that flags have set, whoever it is."""


def usage(width: int = 80) -> str:
    """The help text."""
    return USAGE + "".join(format_flag(flag, width) for flag in FLAGS)


def parse_doctor(argv: Sequence[str], reactor: Any) -> DoctorOptions | None:
    """
    Read a command line; ``None`` if it asks for help.

    :raises FlagError: if it is wrong.
    :raises ConfigError: if a file it names is.
    """
    words, relay_words = _divide(argv)
    options, names = _sort(words)
    parsed = parse_flags(FLAGS, options)
    if parsed.help:
        return None
    flags = FlagValues(FLAGS, parsed.given)
    local = flags.bool("local")
    if len(names) > 1:
        raise FlagError(f"{quoted(names[1])}: one relay at a time")
    if not names and not local:
        raise FlagError("whom to examine? Name a HOST or HOST:PORT, or say --local")
    if relay_words and not local:
        raise FlagError("the relay's flags behind -- are for --local")
    parse_flags(RELAY_FLAGS, relay_words)
    values = _values(flags)
    patient = None
    if names:
        patient = Patient(
            reactor=reactor, **{**patient_fields(names[0], flags.text("derp-map")), **values}
        )
    return DoctorOptions(
        patient=patient,
        local=local,
        json=flags.bool("json"),
        relay_words=relay_words,
        values=values,
    )


def _divide(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    words = list(argv)
    if "--" not in words:
        return words, ()
    at = words.index("--")
    return words[:at], tuple(words[at + 1 :])


def _sort(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell flags, with their values, from other words, in whatever order they come."""
    takes_value = {flag.name for flag in FLAGS if flag.kind is not Kind.BOOL}
    options, names = [], []
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            names.append(word)
            continue
        options.append(word)
        if word.lstrip("-") in takes_value:
            options += [value for value in [next(rest, None)] if value is not None]
    return options, names


def _values(flags: FlagValues) -> dict[str, Any]:
    """What flags say of the examination, only where they say something."""
    roots = flags.text("ca-file")
    values: dict[str, Any] = {"ca_file": os.path.abspath(roots) if roots else ""}
    if flags.bool("insecure"):
        values["insecure"] = True
    if flags.bool("4") and flags.bool("6"):
        raise FlagError("-4 and -6 contradict each other: leave both out to examine both")
    if flags.bool("4") or flags.bool("6"):
        values["families"] = (4,) if flags.bool("4") else (6,)
    if flags.given("http-port"):
        port = flags.int("http-port")
        values["http_port"] = None if port < 0 else _port("--http-port", port)
    if flags.bool("no-stun"):
        values["stun_port"] = None
    elif flags.given("stun-port"):
        values["stun_port"] = _port("--stun-port", flags.int("stun-port"))
    if flags.text("pin"):
        values["cert_name"] = _pin(flags.text("pin"))
    timeout = flags.float("timeout")
    if not 0 < timeout <= MAX_TIMEOUT:
        raise FlagError(f"--timeout: give more than 0s and at most {MAX_TIMEOUT:g}s")
    values["timeout"] = timeout
    if flags.text("mesh-psk-file"):
        values["mesh_key"] = read_mesh_key(flags.text("mesh-psk-file"))
        if values["mesh_key"] is None:
            raise ConfigError(f"--mesh-psk-file: {quoted(flags.text('mesh-psk-file'))} is empty")
    if flags.text("key-file"):
        values["private_key"] = read_client_key(flags.text("key-file"))
    return values


def _port(flag: str, port: int) -> int:
    try:
        return check_port(flag, port) or _no_port(flag)
    except ConfigError as error:
        raise FlagError(str(error)) from None


def _no_port(flag: str) -> int:
    raise FlagError(f"{flag}: port 0 cannot be reached")


def _pin(text: str) -> str:
    digest = text.removeprefix(PIN_PREFIX)
    if text.startswith(PIN_PREFIX) and not (
        len(digest) == 64 and set(digest) <= set("0123456789abcdef")
    ):
        raise FlagError(f"--pin: {quoted(text)} is no pin: {PIN_PREFIX} and 64 lower-case digits")
    return text


def read_client_key(path: str) -> bytes:
    """
    Read the private key of a client: ``privkey:<hex>``, alone or as derper's key file has it.

    :raises ConfigError: if there is none; the file's content is not repeated.
    """
    try:
        content = Path(path).read_bytes()[: 1 << 16]
    except OSError as error:
        raise ConfigError(f"--key-file {quoted(path)}: cannot be read ({error.strerror})") from None
    try:
        return parse_node_private(content.decode("ascii", "replace").strip())
    except ProtocolError:
        pass
    try:
        return parse_key_file(path, content)
    except ConfigError:
        raise ConfigError(
            f"--key-file {quoted(path)}: holds no private key: write privkey: and 64 hex digits"
        ) from None
