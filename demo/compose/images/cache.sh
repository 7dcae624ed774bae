# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Redis with a password. It comes by standard input: a command line is for everybody to see.
set -eu
exec redis-server - <<CONF
bind *
protected-mode no
save ""
dir /tmp
requirepass $REDIS_PASSWORD
CONF
