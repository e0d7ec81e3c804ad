#!/bin/sh
# docker run IMAGE                     starts derper with what the environment says,
# docker run IMAGE -hostname ...       with these flags,
# docker run IMAGE derper ..., /bin/sh runs that command, as in derper's images.
set -eu
case ${1-} in
'') set -- derper ;;
-*) set -- derper "$@" ;;
esac
case $1 in
derper | /app/derper | /derper) exec "$@" 2>&1 ;; # the log, to where collectors take no line for an error
esac
exec "$@"
