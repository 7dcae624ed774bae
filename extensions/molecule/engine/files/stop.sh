#!/bin/sh
# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
set -eu
cd /srv/api
exec python3 -m demo.service --stop --pid-file service.pid
