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

export PATH="$PATH:/usr/sbin" # where Debian has both, and not every user's PATH
missing=()
for program in nginx haproxy tinyproxy microsocks; do
    command -v "$program" >/dev/null || missing+=("$program")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "There is no ${missing[*]}; installing Debian's."
    install "${missing[@]}" </dev/null ||
        { echo "Could not be installed: do so (on Debian and Ubuntu: apt install ${missing[*]})" >&2; exit 1; }
fi

for variable in CHATPOOL_LLAMA_PYTHON CHATPOOL_LITELLM_PYTHON; do
    [ -x "${!variable:-}" ] || { echo "$variable names no interpreter: run make test-servers" >&2; exit 1; }
    export "$variable=$(realpath --no-symlinks "${!variable}")"
done
"$CHATPOOL_LLAMA_PYTHON" -m chatpool.cli local install >/dev/null

exec "$python" -m pytest -m servers tests/servers "$@"
