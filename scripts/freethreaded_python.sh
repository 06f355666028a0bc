#!/usr/bin/env bash
# Builds CPython without its global lock (python3.13t) from the source package of Debian's stable release, into a folder of
# this source tree; six minutes on two cores.  Nothing is installed but, where they are missing, the headers that it needs.
#
#   make test-freethreaded
#   scripts/freethreaded_python.sh --with-gil    the same version with the lock, built alike: for comparisons
#
# Prints the path of the interpreter; it is built once, and removed by `make clean`.
# Exits with 77, and says why, where it cannot be had: no Debian, no network, no compiler.
set -euo pipefail
cd "$(dirname "$0")/.."

VERSION=3.13
NEEDED=(gcc make libc6-dev libssl-dev zlib1g-dev libffi-dev libsqlite3-dev liblzma-dev libbz2-dev)
MODULES="import bz2, ctypes, lzma, sqlite3, ssl, zlib"
option=--disable-gil variant=t
[ "${1:-}" != --with-gil ] || option="" variant=""
folder=$PWD/.pythons-built/python$VERSION$variant
python=$folder/bin/python$VERSION$variant
work=

skip() {
    echo "skipped: no Python $VERSION$variant: $1" >&2
    exit 77
}

. scripts/private_apt.sh

install_headers() {
    local package missing=()
    for package in "${NEEDED[@]}"; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    [ "$(id -u)" = 0 ] || skip "install ${missing[*]}"
    { apt-get update -q && apt-get install -qy --no-install-recommends "${missing[@]}"; } </dev/null >"$work/log" 2>&1 ||
        skip "$(grep -m1 '^[EW]:' "$work/log")"
}

build() {
    command -v apt-get >/dev/null || skip "this machine has no apt"
    install_headers
    prepare_apt deb-src stable
    private_apt apt-get update >"$work/log" 2>&1 || true # of several sources, some may lack it
    (cd "$work" && private_apt apt-get source --download-only "python$VERSION") >"$work/log" 2>&1 ||
        skip "$(grep -m1 '^[EW]:' "$work/log")"
    mkdir "$work/source"
    tar -xf "$work"/python*.orig.tar.[gx]z -C "$work/source" --strip-components 1
    cd "$work/source"
    # shellcheck disable=SC2086  # one option or none
    {
        ./configure -q --prefix="$folder" --with-ensurepip=install $option
        make -s -j"$(nproc)"
        make -s install
    } >"$work/log" 2>&1 || skip "$(grep -m1 -i 'error' "$work/log" || tail -n 1 "$work/log")"
    "$python" -c "$MODULES" >"$work/log" 2>&1 || { rm -rf "$folder" && skip "$(tail -n 1 "$work/log")"; }
}

if [ ! -x "$python" ]; then
    work=$(mktemp -d "${TMPDIR:-/tmp}/python-build.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    echo "Building Python $VERSION$variant from Debian's source package into $folder ..." >&2
    build
fi
echo "$python"
