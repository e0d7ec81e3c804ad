#!/bin/sh
# Starts the program it is called as: /app/derper and the like are links to this file.
#
# Ports below 1024 need CAP_NET_BIND_SERVICE. The interpreter python-bind has it as a file
# capability. Where the capability is out of reach (cap_drop: ALL) the kernel refuses to run such
# a file at all, and root needs none; both get the plain interpreter.
#
# -OO: without docstrings a relay takes 2.5 MB less and starts sooner. As a flag, so that a command
# of --acme-dns-hook that is Python, too, does not inherit it.
set -u
readonly bit=10 # CAP_NET_BIND_SERVICE in linux/capability.h

python=python
if [ "$(id -u)" -ne 0 ]; then
    while read -r name value _; do
        if [ "$name" = CapBnd: ] && [ $((0x$value >> bit & 1)) -eq 1 ]; then
            python=python-bind
        fi
    done </proc/self/status
fi
exec /opt/derper/bin/$python -OO "/opt/derper/bin/${0##*/}" "$@"
