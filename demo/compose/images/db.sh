# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PostgreSQL. As with the images that people use, the password of the environment counts for an empty volume only.
set -eu
data=/var/lib/postgresql/data
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
if [ ! -s "$data/ready" ]; then
    initdb --pgdata "$data" --auth-local=peer --auth-host=scram-sha-256 --encoding=UTF8 --no-sync >/dev/null
    echo 'host all all samenet scram-sha-256' >>"$data/pg_hba.conf"
    pg_ctl --pgdata "$data" --options "-c listen_addresses=" --wait --silent start >/dev/null
    psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --dbname postgres <<'SQL'
\getenv password POSTGRES_PASSWORD
CREATE ROLE app LOGIN PASSWORD :'password';
CREATE DATABASE app OWNER app;
\connect app
CREATE TABLE items (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text NOT NULL);
ALTER TABLE items OWNER TO app;
SQL
    pg_ctl --pgdata "$data" --mode fast --wait --silent stop >/dev/null
    echo yes >"$data/ready"
fi
exec postgres -D "$data" -c "listen_addresses=*" -c fsync=off
