#!/usr/bin/env bash
# Builds the package and installs it into empty environments, as a user would.
#
#   scripts/check_package.sh PYTHON...      with each of these interpreters, of which the last one builds
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

make package PYTHON="${!#}"
wheel=$(echo dist/chatpool-*-py3-none-any.whl)
contents=$(python3 -m zipfile --list "$wheel" | awk 'NR > 1 { print $1 }')
echo "$contents"
if grep -vE '^chatpool(-[0-9.]+\.dist-info)?/' <<<"$contents"; then
    echo "The wheel holds what is not the package's." >&2
    exit 1
fi
grep -qx 'chatpool/py.typed' <<<"$contents" || { echo "The wheel lacks py.typed." >&2; exit 1; }

for python in "$@"; do
    environment="$folder/$(basename "$(dirname "$(dirname "$python")")")-$RANDOM"
    "$python" -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check .
    (
        cd "$folder"
        "$environment/bin/chatpool" --version
        "$environment/bin/python" -c 'import chatpool; print(chatpool.__file__)' | grep -F "$environment"
    )
done
