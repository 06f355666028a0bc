# shellcheck shell=bash disable=SC2154  # sourced; the script that does so sets $work, a folder, and defines skip
# apt with lists and a cache of its own in $work, from the mirror that this machine's apt uses: nothing is installed, and
# apt's own lists are left as they are.

# The machine's settings hold (proxies, time-outs), but not its sources and hooks.
private_apt() {
    local command=$1
    shift
    "$command" -q -c "$work/apt.conf" "$@" </dev/null
}

prepare_apt() { # prepare_apt deb|deb-src SUITE
    local keyring signed="" mirrors
    mkdir -p "$work"/lists/partial "$work"/cache/archives/partial
    touch "$work/status"
    cat >"$work/apt.conf" <<END
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work/cache";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Install-Recommends "false";
APT::Sandbox::User "$(id -un)";
Debug::NoLocking "true";
Acquire::Retries "2";
Acquire::http::Timeout "60";
END
    mirrors=$(private_apt apt-get update --print-uris | sed -nE "s|^'(.*)/dists/.*/(In)?Release' .*|\1|p" | grep -v security | sort -u) ||
        skip "apt names no mirror"
    for keyring in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
        [ -r "$keyring" ] && signed="[signed-by=$keyring]"
    done
    sed "s|.*|$1 $signed & $2 main|" <<<"$mirrors" >"$work/sources.list"
    cat >>"$work/apt.conf" <<END
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "/dev/null";
END
}
