#!/usr/bin/env bash
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Installs the Debian packages that the full test run needs, when any is missing. `make demo` needs none of them.
set -euo pipefail

packages=(
    age                 # opens what we encrypt, and the other way round
    ca-certificates
    chromium            # draws the evidence report
    debootstrap         # base of the images of the real stack
    docker.io           # a daemon of the tests' own
    git                 # the clean copy that ansible-test works on
    iproute2
    iptables            # the daemon's networks
    nginx               # a gateway that caches published keys
    openssh-client
    pgbouncer           # a real pooler, to be refused
    procps
    python3-venv        # the distribution's Python, which is the fastest
    redis-server        # a server that checks passwords
    shellcheck          # ansible-test sanity
    strace              # every program that a run starts
    systemd             # reads the units of the schedule
)

missing=()
for package in "${packages[@]}"; do
    if [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)" != installed ]; then
        missing+=("$package")
    fi
done
if docker compose version >/dev/null 2>&1; then
    compose=
else
    compose=docker-compose
fi
if [ "${#missing[@]}" -eq 0 ] && [ -z "$compose" ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "make test needs these packages, and can install them only as root with apt-get: ${missing[*]} $compose" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
if [ "${#missing[@]}" -gt 0 ]; then
    echo "Installing ${missing[*]}"
    apt-get update --quiet=2
    apt-get install --quiet=2 --yes --no-install-recommends "${missing[@]}" >/dev/null
fi

# Compose v2 is one program inside a package of Debian 13, older Debians have v1. Only that program is taken.
if [ -n "$compose" ]; then
    echo "Installing Docker Compose v2"
    work=$(mktemp --directory)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" /usr/local/lib/docker/cli-plugins
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main" \
        >"$work/sources.list"
    options=(
        -o "Dir::Etc::SourceList=$work/sources.list"
        -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$work/lists"
        -o "Dir::Cache=$work/cache"
        -o APT::Sandbox::User=root
    )
    cd "$work"
    apt-get "${options[@]}" --quiet=2 update
    apt-get "${options[@]}" --quiet=2 download "$compose"
    dpkg-deb --fsys-tarfile docker-compose_*.deb |
        tar --extract --to-stdout ./usr/libexec/docker/cli-plugins/docker-compose >docker-compose
    install --mode=0755 docker-compose /usr/local/lib/docker/cli-plugins/docker-compose
fi
