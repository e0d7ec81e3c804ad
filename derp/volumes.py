"""
Where a start writes, looked at before anything is written.

Who changes a container's image keeps its volumes, and those of the images before were written by
root. What such a volume lacks is said here once, with the user and the cure, whatever flag it is
about.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from typing import Final

from derp.config import CertMode, Config
from derp.errors import ConfigError
from derp.net.cert_files import manual_paths, parse_ip
from derp.net.key_file import ROOT_KEY_PATH

CONTAINER: Final = "container"
"""Variable that says in what kind of container we run; systemd's convention, set by our image."""


def has_root_key_path() -> bool:
    """Whether ``-c`` needs not be given: to root, and where somebody has made its directory."""
    return os.getuid() == 0 or os.path.isdir(os.path.dirname(ROOT_KEY_PATH))


def check_volumes(config: Config, environ: Mapping[str, str], *, acme: bool) -> None:
    """
    Find out whether the files of a first start can be made.

    :param acme: look at the directory of certificates got by ACME, too. A relay could do without,
        and get them anew at each start; in a container that is a mount that went wrong.
    :raises ConfigError: naming flag, directory, user and cure.
    """
    for flag, directory in _written(config, acme):
        obstacle = _obstacle(directory)
        if obstacle:
            raise ConfigError(f"{flag} {directory}: {_sentence(directory, obstacle, environ)}")


def ownership_advice(error: BaseException | None, environ: Mapping[str, str]) -> str:
    """Say who may read a file, if that is what an error came from; else empty."""
    cause = error
    while cause is not None:
        if isinstance(cause, PermissionError) and cause.filename:
            return _owner(os.fsdecode(cause.filename), environ)
        cause = cause.__cause__ or cause.__context__
    return ""


def _written(config: Config, acme: bool) -> Iterator[tuple[str, str]]:
    """Flag and directory of each file that is going to be made."""
    if config.tls and _makes_certificates(config, acme):
        yield "--certdir", config.certdir
    if config.key_file and not os.path.lexists(config.key_file):
        yield "-c", os.path.dirname(os.path.abspath(config.key_file))


def _makes_certificates(config: Config, acme: bool) -> bool:
    if config.certmode is not CertMode.MANUAL:
        return acme
    paths = manual_paths(config.certdir, config.hostname)
    return parse_ip(config.hostname) is not None and not all(map(os.path.exists, paths))


def _obstacle(directory: str) -> str:
    """What is there and is no directory that can be written to; empty if there is none."""
    path = os.path.abspath(directory)
    while not os.path.exists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    usable = os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)
    return "" if usable else path


def _sentence(directory: str, obstacle: str, environ: Mapping[str, str]) -> str:
    contained = environ.get(CONTAINER)
    if not os.path.isdir(obstacle):
        return f"{obstacle} is no directory: name one, or move that away"
    if os.statvfs(obstacle).f_flag & os.ST_RDONLY:
        cure = f"mount a volume at {directory}" if contained else "name another place"
        return f"the file system is read-only, and the relay has to write there: {cure}"
    if contained and os.path.abspath(directory) != obstacle:
        cure = f"mount a volume at {directory}, or start the container with --user 0"
    else:
        cure = _chown(obstacle, environ)
    return f"the relay runs as user {os.geteuid()} and may not write to {obstacle}: {cure}"


def _owner(path: str, environ: Mapping[str, str]) -> str:
    try:
        owner = f"belongs to user {os.stat(path).st_uid}"
    except OSError as error:
        closed = error.errno in (errno.EACCES, errno.EPERM)
        owner = f"is in a directory that is {'closed' if closed else 'gone'}"
    cure = _chown(os.path.dirname(os.path.abspath(path)), environ)
    return f"{path} {owner}, and the relay runs as user {os.geteuid()}: {cure}"


def _chown(directory: str, environ: Mapping[str, str]) -> str:
    command = f"chown -R {os.geteuid()} {directory}"
    if environ.get(CONTAINER):
        return f"on its volume do {command}, or start the container with --user 0"
    return f"do {command}"
