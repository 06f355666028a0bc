#!/usr/bin/env bash
# The tests of real deployments (gunicorn, Django, Celery, gevent, OpenTelemetry, Jupyter), with an interpreter that has
# chatpool[test,deploy].  Celery's broker is a Redis, installed from Debian's packages where there is none; the tests
# start one of their own on a socket in a temporary folder, and end it; PostgreSQL likewise.  Pages are looked at in
# Debian's chromium, which Debian's chromium-driver (the program chromedriver) moves.
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

# RUNLEVEL=1: a package is not to start a server of its own.  Whoever else installs something is waited for.
install() {
    as_root apt-get update -qq -o DPkg::Lock::Timeout=300 &&
        as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
            apt-get install -y -qq -o DPkg::Lock::Timeout=300 --no-install-recommends "$@"
}

missing=()
for program in redis-server chromium chromedriver; do
    command -v "$program" >/dev/null || missing+=("${program/chromedriver/chromium-driver}")
done
# Debian has the programs of a PostgreSQL server in a folder of their own.
compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || missing+=(postgresql)
if [ ${#missing[@]} -gt 0 ]; then
    echo "There is no ${missing[*]}; installing Debian's."
    install "${missing[@]}" </dev/null ||
        { echo "Could not be installed: do so (on Debian and Ubuntu: apt install ${missing[*]})" >&2; exit 1; }
fi

exec "$python" -m pytest -m deploy tests/deploy tests/docs tests/quota "$@"
