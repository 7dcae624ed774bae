#!/usr/bin/env bash
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Usage: tests/setup/matrix.sh
# Runs a part of the tests with every version of ansible-core, and of Python on hosts, that the README names and this
# machine can run. What cannot be tried for want of an interpreter is named at the end.
set -euo pipefail

cd "$(dirname "$0")/../.."
if [ -n "$(git status --porcelain)" ]; then
    echo "Commit first: a part of this runs on a clone." >&2
    exit 2
fi
place=$PWD/.cache/matrix
missing=()
failed=()
tried=0

# Of each ansible-core the Python versions that it runs under.
declare -A controllers=([2.19]="3.11 3.12 3.13" [2.20]="3.12 3.13" [2.21]="3.12 3.13")
hosts=(3.9 3.10 3.11 3.12 3.13)
libraries=(cryptography docker "psycopg[binary]" PyJWT redis)
playbooks=(tests/integration/test_rotation.py tests/integration/test_env_secrets.py tests/integration/test_signing_keys.py)

# The first interpreter that is there and can make environments; version managers put others beside it.
find_python() {
    local version candidate
    for version in "$@"; do
        for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python; do
            if "$candidate" -c "import ensurepip, sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" 2>/dev/null; then
                printf '%s\n' "$candidate"
                return
            fi
        done
    done
    return 1
}

note() {
    tried=$((tried + 1))
    if "${@:2}"; then echo "== $1: passed"; else failed+=("$1"); fi
}

controller() {
    local core=$1 python=$2 tree=$place/core-$1
    rm -rf "$tree" &&
        git clone --quiet . "$tree" &&
        sed -i "s/^ansible-core~=.*/ansible-core~=$core.0/" "$tree/requirements-demo.txt" &&
        PYTHON=$python make --no-print-directory -C "$tree" .venv/dev.stamp &&
        [[ $("$tree/.venv/bin/python" -c "from ansible.release import __version__; print(__version__)") == "$core".* ]] &&
        make --no-print-directory -C "$tree" test-unit test-integration INTEGRATION="${playbooks[*]}"
}

host() {
    local environment=$place/host-$1
    "$2" -m venv "$environment" &&
        "$environment/bin/python" -m pip install --quiet --disable-pip-version-check "${libraries[@]}" &&
        KEYTURN_COLD=1 KEYTURN_HOST_PYTHON=$environment/bin/python \
        make --no-print-directory test-integration INTEGRATION="${playbooks[*]}"
}

for core in 2.19 2.20 2.21; do
    read -ra versions <<<"${controllers[$core]}"
    if python=$(find_python "${versions[@]}"); then
        note "ansible-core $core" controller "$core" "$python"
    else
        missing+=("ansible-core $core (needs Python ${controllers[$core]// / or })")
    fi
done
for version in "${hosts[@]}"; do
    if python=$(find_python "$version"); then
        note "hosts with Python $version" host "$version" "$python"
    else
        missing+=("hosts with Python $version")
    fi
done

for what in ${missing[@]+"${missing[@]}"}; do echo "== not tried, no interpreter: $what"; done
for what in ${failed[@]+"${failed[@]}"}; do echo "== FAILED: $what"; done
[ "$tried" -gt 0 ] && [ ${#failed[@]} -eq 0 ]
