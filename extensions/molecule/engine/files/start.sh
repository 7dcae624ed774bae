#!/bin/sh
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Starts the sample service. Where pinned.env lies, it starts with exactly those settings and no others.
set -eu
cd /srv/api
if [ -e pinned.env ] && ! cmp -s .env pinned.env; then
    exit 3
fi
exec python3 -m demo.service --env .env --port 8080 --pid-file service.pid --log service.log
