#!/usr/bin/env bash
# Unpacks the Pythons that are newer than most machines': those of Debian unstable, from the mirror that this machine's
# apt uses, into a folder of this source tree.  Nothing is installed, and apt's own lists are left as they are.
#
#   make test PYTHON="$(scripts/new_pythons.sh | tail -1)"
#
# Prints the paths of the interpreters, the oldest first; they are fetched once, and removed by `make clean`.
# Exits with 77, and says why, where they cannot be had: no Debian, no network.
set -euo pipefail
cd "$(dirname "$0")/.."

LEAST=14 # older ones are found otherwise
folder=$PWD/.pythons
work=

skip() {
    echo "skipped: no Python from Debian unstable: $1" >&2
    exit 77
}

. scripts/private_apt.sh

# The newer C library and the others are the interpreter's alone: it is started by the loader that belongs to them.
wrap() { # wrap NAME
    local root="$work/root" loader libraries
    loader=$(cd "$root" && find usr/lib* -name 'ld-linux*.so.*' | head -1)
    libraries=$(cd "$root" && find usr/lib -name libc.so.6 -printf '%h\n' | head -1)
    mkdir -p "$root/libexec"
    mv "$root/usr/bin/$1" "$root/libexec/$1"
    cat >"$root/usr/bin/$1" <<END
#!/bin/sh
exec "$folder/$loader" --library-path "$folder/$libraries" --argv0 "\$0" "$folder/libexec/$1" "\$@"
END
    chmod +x "$root/usr/bin/$1"
    # Debian's ensurepip takes its wheels from where a package would have put them.
    sed -i "s|sysconfig.get_config_var('WHEEL_PKG_DIR')|'$folder/usr/share/python-wheels'|" \
        "$root/usr/lib/$1/ensurepip/__init__.py"
    # What else a package does when it is installed; it shows whether the interpreter runs on this machine.
    "$root/$loader" --library-path "$root/$libraries" --argv0 "$root/usr/bin/$1" "$root/libexec/$1" \
        -m compileall -q -s "$root" -p "$folder" "$root/usr/lib/$1" >"$work/log" 2>&1 || skip "$1: $(tail -1 "$work/log")"
}

fetch() {
    local names package
    command -v apt-get >/dev/null || skip "this machine has no apt"
    prepare_apt deb sid
    private_apt apt-get update >"$work/log" 2>&1 || true # of several sources, some may lack it
    names=$(private_apt apt-cache pkgnames python3. | awk -F. -v least="$LEAST" '/^python3\.[0-9]+-venv$/ && $2 + 0 >= least' | sort -V)
    [ -n "$names" ] || skip "$(grep -m1 '^[EW]:' "$work/log" || echo "there is none from 3.$LEAST on")"
    # shellcheck disable=SC2086  # names hold no blanks
    private_apt apt-get install -y --download-only $names >"$work/log" 2>&1 || skip "$(grep -m1 '^[EW]:' "$work/log")"
    mkdir "$work/root"
    for package in "$work"/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$work/root"
    done
    for package in $names; do
        wrap "${package%-venv}"
    done
    mv -T "$work/root" "$folder" 2>/dev/null || [ -d "$folder" ] # another process may have been faster
}

if [ ! -d "$folder" ]; then
    work=$(mktemp -d "$folder.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    echo "Fetching the newest Pythons from Debian unstable into $folder ..." >&2
    fetch
fi
find "$folder/usr/bin" -name 'python3.[0-9]*' | sort -V
