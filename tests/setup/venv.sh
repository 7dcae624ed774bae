#!/usr/bin/env bash
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Usage: tests/setup/venv.sh REQUIREMENTS_FILE
# Makes .venv when it is missing and installs the requirements into it.
set -euo pipefail

requirements=$1
cd "$(dirname "$0")/../.."

# That of the distribution comes first: it is built with all optimizations. Those of version managers often are not, and
# take 1.4 times as long.
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" /usr/bin/python3.11 python3.11 python3.12 python3.13 python3; do
        if [ -n "$candidate" ] && "$candidate" -c \
            'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    echo "No Python 3.11 to 3.13 with venv was found. Install one (Debian: python3-venv) or set PYTHON." >&2
    return 1
}

if [ ! -x .venv/bin/python ]; then
    python=$(find_python)
    "$python" -m venv .venv
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement "$requirements"

# For tests/support/compiled.py
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo 'import os; exec(open(os.environ["KEYTURN_COMPILED"]).read(), {}) if os.environ.get("KEYTURN_COMPILED") else None' \
    >"$site/keyturn_compiled.pth"
