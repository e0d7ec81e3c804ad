#!/bin/sh
# install.sh dependencies|relay: a step of the Dockerfile's first stage, in a checkout.
#
# Makes /opt/derper: a virtual environment with an interpreter of its own (a copy, so that it can
# be given a capability), the locked dependencies, the relay, and nothing to install more with.
set -eu
readonly home=/opt/derper
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

dependencies() {
    python3 -m venv --copies "$home"
    # compiled below, in one go
    "$home/bin/pip" install --quiet --no-compile --require-hashes \
        --requirement contrib/image/requirements.txt
}

relay() {
    # with the locked setuptools, not the newest
    "$home/bin/pip" install --quiet --no-compile --no-deps --no-build-isolation .
    "$home/bin/pip" check
    "$home/bin/pip" uninstall --quiet --yes pip
    # a fifth of it all: the packages' own tests
    find "$home/lib" -depth -type d \( -name test -o -name tests \) -exec rm -rf {} +
    # The root of a container may be read-only: what Python and Twisted write on their first run
    # is written now. Hashes and not times decide whether bytecode is current, since not every
    # builder keeps times. For launch.sh, which starts Python with -OO.
    "$home/bin/python" -m compileall -q -f -o 2 --invalidation-mode unchecked-hash "$home/lib"
    "$home/bin/python" -OO -c '
from twisted.plugin import IPlugin, getPlugins
list(getPlugins(IPlugin))'
    test -s "$("$home/bin/python" -OO -c '
import twisted.plugins
print(twisted.plugins.__path__[0])')/dropin.cache"
    mkdir -p "$home/libexec"
    cp contrib/image/finish.sh contrib/image/launch.sh contrib/image/entrypoint.sh \
        contrib/image/grant.py contrib/image/import_all.py "$home/libexec"
    chmod 0755 "$home"/libexec/*.sh
}

"$1"
