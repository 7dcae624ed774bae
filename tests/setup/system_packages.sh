#!/usr/bin/env bash
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Installs the Debian packages that the full test run needs, when any is missing. `make demo` needs none of them.
set -euo pipefail

packages=(
    ca-certificates
    chromium            # draws the evidence report
    debootstrap         # base of the images of the real stack
    docker.io           # a daemon of the tests' own
    git                 # the clean copy that ansible-test works on
    iproute2
    iptables            # the daemon's networks
    openssh-client
    pgbouncer           # a real pooler, to be refused
    procps
    python3-venv        # the distribution's Python, which is the fastest
    shellcheck          # ansible-test sanity
    strace              # every program that a run starts
)

missing=()
for package in "${packages[@]}"; do
    if [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)" != installed ]; then
        missing+=("$package")
    fi
done
if [ "${#missing[@]}" -eq 0 ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "make test needs these packages, and can install them only as root with apt-get: ${missing[*]}" >&2
    exit 1
fi
echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2
apt-get install --quiet=2 --yes --no-install-recommends "${missing[@]}" >/dev/null
