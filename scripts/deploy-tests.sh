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

. scripts/debian.sh
# Debian has the programs of a PostgreSQL server in a folder of their own.
PATH="$PATH:$(printf '%s:' /usr/lib/postgresql/*/bin)" \
    needs redis-server chromium chromedriver:chromium-driver initdb:postgresql

exec "$python" -m pytest -m deploy tests/deploy tests/docs tests/quota "$@"
