#!/usr/bin/env bash
# The tests with real servers and proxies, with an interpreter that has chatpool[test].  What Debian has is installed
# from there where it is missing; the tests start servers of their own on loopback ports, and end them.
#
#   scripts/server-tests.sh PYTHON [PYTEST ARGUMENTS]
#
#   CHATPOOL_LLAMA_PYTHON     the interpreter of an environment with chatpool[local], whose llama.cpp is served
#   CHATPOOL_LITELLM_PYTHON   that of one with tests/servers/litellm-requirements.txt
#
# `make test-servers` makes all three.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${1:?the interpreter that has chatpool[test]: scripts/server-tests.sh .venvs/test/bin/python}
shift

. scripts/debian.sh
export PATH="$PATH:/usr/sbin" # where Debian has both, and not every user's PATH
needs nginx haproxy tinyproxy microsocks

for variable in CHATPOOL_LLAMA_PYTHON CHATPOOL_LITELLM_PYTHON; do
    [ -x "${!variable:-}" ] || { echo "$variable names no interpreter: run make test-servers" >&2; exit 1; }
    export "$variable=$(realpath --no-symlinks "${!variable}")"
done
"$CHATPOOL_LLAMA_PYTHON" -m chatpool.cli local install >/dev/null

exec "$python" -m pytest -m servers tests/servers "$@"
