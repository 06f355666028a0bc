# Sourced by the scripts that run tests: what they need of Debian is installed where it is missing.

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

needs() { # needs PROGRAM[:PACKAGE]...
    local program missing=()
    for program in "$@"; do
        command -v "${program%:*}" >/dev/null || missing+=("${program#*:}")
    done
    [ ${#missing[@]} = 0 ] && return
    echo "There is no ${missing[*]}; installing Debian's."
    install "${missing[@]}" </dev/null ||
        { echo "Could not be installed: do so (on Debian and Ubuntu: apt install ${missing[*]})" >&2; exit 1; }
}
