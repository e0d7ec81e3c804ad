"""
``derper doctor``: examine a relay, report, end.

Exit codes: 0 if nothing is wrong, 1 if something is, 2 if the command line, or a file it names,
cannot be used. With ``--json`` the report alone is on stdout.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred

from derp.command_line import config_from_flags
from derp.derper_settings import read_settings
from derp.doctor.examination import Examination, examine, worst
from derp.doctor.finding import Verdict
from derp.doctor.local_relay import LocalRelay
from derp.doctor.local_rounds import local_patient, local_rounds
from derp.doctor.patient import Chart, Patient
from derp.doctor.report import as_json, as_text
from derp.doctor.rounds import node_of, rounds
from derp.doctor_flags import DoctorOptions, parse_doctor, usage
from derp.errors import ConfigError
from derp.flags import FLAGS
from derp.goflag import FlagError, Value, parse_flags
from derp.net.socket_address import host_port
from derp.net.steady_time import keep_steady_time
from derp.running_relay import (
    RunningRelay,
    directory_of,
    doors_of,
    environ_of,
    find_relays,
    flags_of,
    user_of,
)

USAGE_ERROR = 2


def run(argv: Sequence[str]) -> int:
    """Examine; give the exit code."""
    from twisted.internet import reactor

    width = shutil.get_terminal_size().columns
    try:
        options = parse_doctor(argv, reactor)
    except ConfigError as error:
        hint = "; derper doctor -h lists the options" if isinstance(error, FlagError) else ""
        print(f"derper doctor: {error}{hint}", file=sys.stderr)
        return USAGE_ERROR
    if options is None:
        print(usage(width), end="")
        return 0
    codes: list[int] = []
    running: Any = reactor
    keep_steady_time(running)

    def begin() -> None:
        done = Deferred.fromCoroutine(report(options, running, width))
        done.addCallback(show)
        done.addErrback(lambda failure: failure.printTraceback(sys.stderr))
        done.addBoth(lambda _: running.stop())

    def show(reported: tuple[str, int]) -> None:
        text, code = reported
        sys.stdout.write(text)
        sys.stdout.flush()
        codes.append(code)
        if running.getThreadPool().working:
            os._exit(code)  # a name is still being looked up: its thread cannot be stopped

    running.callWhenRunning(begin)
    running.run()
    return codes[0] if codes else 1


async def report(options: DoctorOptions, reactor: Any, width: int) -> tuple[str, int]:
    """Run the examinations; give the report and the exit code."""
    begun = reactor.seconds()
    patient = options.patient
    todo: list[Examination] = []
    if options.local:
        local, dial_host = find_local(options.relay_words, os.environ)
        if patient is None:
            patient = local_patient(local, dial_host, reactor, options.values)
        todo += local_rounds(local, over_network=patient is not None)
    chart = Chart()
    if patient is not None:
        todo += rounds(patient)
    # Local examinations alone need nobody to look at, but a clock and a deadline.
    results = await examine(todo, patient or Patient(reactor=reactor, host="localhost"), chart)
    who = "this machine" if patient is None else _who(patient)
    node = None if patient is None else node_of(patient, chart)
    seconds = reactor.seconds() - begun
    code = 1 if worst(results) is Verdict.FAIL else 0
    if options.json:
        return as_json(who, results, node, seconds=seconds), code
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    text = as_text(who, results, node, seconds=seconds, colour=colour, width=width)
    return text, code


def _who(patient: Patient) -> str:
    where = host_port(patient.host, patient.port)
    return f"{where} by {patient.dial_host}" if patient.dial_host else where


def find_local(words: Sequence[str], environ: Any) -> tuple[LocalRelay, str]:
    """
    Find out about the relay of this machine, and where it is reached.

    :param words: its flags, if they were given.
    """
    known: dict[str, Any] = {}
    try:
        process, flags = _process(words)
        if process is not None:
            known = {"pid": process.pid, "uid": user_of(process.pid)}
            with suppress(OSError):  # from here on its relative paths are ours
                os.chdir(directory_of(process))
            environ = environ_of(process, environ) if not words else environ
        settings = read_settings(flags, environ, socket.gethostname())
        is_root = known["uid"] == 0 if known else None
        config = config_from_flags(settings.given, environ, is_root=is_root)
        return LocalRelay(config=config, **known), doors_of(settings.given).host
    except ConfigError as error:
        return LocalRelay(problem=str(error), **known), ""


def _process(words: Sequence[str]) -> tuple[RunningRelay | None, dict[str, Value]]:
    """
    The process: the one with these flags, or the first whose flags are ours; and its flags.

    :raises ConfigError: if the words are no flags of a relay.
    """
    wanted = parse_flags(FLAGS, words).given
    for relay in find_relays():
        flags = flags_of(relay)
        if flags is not None and (not words or flags == wanted):
            return relay, flags
    return None, wanted
