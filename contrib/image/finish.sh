#!/bin/sh
# The Dockerfile's second stage, after /opt/derper was copied into it: user, places, names.
set -eu
readonly uid=10001 libexec=/opt/derper/libexec

groupadd --gid "$uid" derper
# /root: it is home to derper in the images this one takes the place of, and what they keep there
# (derper-certs, .cache/tailscale/derper-certs, keys/derp-mesh.key) is looked for in $HOME.
useradd --uid "$uid" --gid "$uid" --home-dir /root --no-create-home --shell /bin/sh derper

# Keys and certificates. A new volume at one of them gets its owner from here.
install -d -m 0700 -o derper -g derper /var/lib/derper
install -d -m 0755 -o derper -g derper /app /app/certs /root

# Where those images have the program, and what else there is.
for name in derper derpprobe stunc; do
    [ -e "/opt/derper/bin/$name" ] || continue
    ln -s "$libexec/launch.sh" "/app/$name"
    ln -s "/app/$name" "/usr/local/bin/$name"
done
ln -s /app/derper /derper
ln -s "$libexec/launch.sh" /usr/local/bin/twistd

# Compile what we use of the standard library, in any mode: the base image has no bytecode of it.
python=/opt/derper/bin/python
$python -OO /opt/derper/bin/derper -check-config -dev
$python -OO /opt/derper/bin/twistd derper --version
$python -OO "$libexec/import_all.py"

# Last: a copy made after this would lose it.
cp /opt/derper/bin/python3 /opt/derper/bin/python-bind
$python -OO "$libexec/grant.py" /opt/derper/bin/python-bind
