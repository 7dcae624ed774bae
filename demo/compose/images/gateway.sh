# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# nginx in front of the API. It hands out the public token, as the pages of such a stack do.
set -eu
cat >/tmp/nginx.conf <<CONF
daemon off;
events {}
http {
    access_log off;
    # Containers that were made anew have another address
    resolver 127.0.0.11 valid=1s ipv6=off;
    server {
        listen 80;
        location = /config.json { default_type application/json; return 200 '{"anon_key": "$ANON_KEY"}'; }
        location / {
            set \$api http://api:8000;
            proxy_pass \$api;
            proxy_connect_timeout 1s;
        }
    }
}
CONF
exec nginx -c /tmp/nginx.conf
