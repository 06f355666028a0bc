#!/usr/bin/env bash
# The tests of real deployments (gunicorn, Django, Celery, gevent, OpenTelemetry), with an interpreter that has
# chatpool[test,deploy].  Celery's broker is a Redis, installed from Debian's packages where there is none; the tests
# start one of their own on a socket in a temporary folder, and end it.  Reports are looked at in Debian's chromium.
#
#   scripts/deploy-tests.sh PYTHON [PYTEST ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."

python=${1:?the interpreter that has chatpool[test,deploy]: scripts/deploy-tests.sh .venvs/deploy/bin/python}
shift

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -n "$@"
    else
        return 1
    fi
}

for program in redis-server chromium; do
    command -v "$program" >/dev/null && continue
    echo "There is no $program; installing Debian's."
    # RUNLEVEL=1: the package is not to start a server of its own.
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "$program" ||
        { echo "$program could not be installed: do so (on Debian and Ubuntu: apt install $program)" >&2; exit 1; }
done

exec "$python" -m pytest -m deploy tests/deploy tests/quota "$@"
