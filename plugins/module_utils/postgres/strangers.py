# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions and operators of others that would run with our rights.

One of the very types goes before PostgreSQL's own of any type, wherever its schema is in the path (CVE-2018-1058). The
path stays as it is: triggers of the service's tables may need it.
"""

from __future__ import annotations

__all__ = ["FUNCTIONS", "STRANGER"]

#: The functions of PostgreSQL that our statements call.
FUNCTIONS = (
    "aclexplode",
    "cardinality",
    "clock_timestamp",
    "col_description",
    "count",
    "current_database",
    "current_setting",
    "decode",
    "encode",
    "format_type",
    "has_column_privilege",
    "has_database_privilege",
    "has_schema_privilege",
    "has_table_privilege",
    "lo_close",
    "lo_get",
    "lo_open",
    "lo_put",
    "lo_truncate",
    "lower",
    "make_interval",
    "max",
    "min",
    "obj_description",
    "octet_length",
    "pg_advisory_lock",
    "pg_advisory_unlock",
    "pg_advisory_unlock_all",
    "pg_advisory_xact_lock_shared",
    "pg_backend_pid",
    "pg_column_size",
    "pg_current_wal_lsn",
    "pg_current_xact_id",
    "pg_describe_object",
    "pg_export_snapshot",
    "pg_get_expr",
    "pg_get_userbyid",
    "pg_get_viewdef",
    "pg_has_role",
    "pg_is_in_recovery",
    "pg_partition_ancestors",
    "pg_partition_tree",
    "pg_relation_filenode",
    "pg_relation_size",
    "pg_table_is_visible",
    "pg_terminate_backend",
    "pg_total_relation_size",
    "pg_try_advisory_lock",
    "pg_wal_lsn_diff",
    "quote_ident",
    "regexp_replace",
    "row_security_active",
    "set_config",
    "sha256",
    "starts_with",
    "sum",
    "to_regclass",
    "to_regnamespace",
    "to_regprocedure",
    "unnest",
)
#: Those, and operators of built-in types, in a schema that is searched, of somebody who is not trusted anyway. Every
#: name of PostgreSQL's is qualified here. Its parameter is :data:`FUNCTIONS`, its answer ``schema.name of role owner``.
STRANGER = """
    SELECT pg_catalog.format('%%s.%%s of role %%s', n.nspname, f.name, r.rolname)
    FROM (
        SELECT p.tableoid AS class, p.oid, p.pronamespace AS place, p.proname::text AS name, p.proowner AS owner
        FROM pg_catalog.pg_proc p WHERE p.proname::text OPERATOR(pg_catalog.=) ANY (%s::text[])
        UNION ALL
        SELECT o.tableoid, o.oid, o.oprnamespace, o.oprname::text, o.oprowner FROM pg_catalog.pg_operator o
        WHERE o.oprright OPERATOR(pg_catalog.<) 16384::oid AND o.oprleft OPERATOR(pg_catalog.<) 16384::oid
          AND EXISTS (SELECT FROM pg_catalog.pg_operator b WHERE b.oprname OPERATOR(pg_catalog.=) o.oprname
                      AND b.oprnamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace::oid)
    ) f
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) f.place
    JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) f.owner
    JOIN pg_catalog.pg_database d ON d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
    WHERE n.nspname OPERATOR(pg_catalog.=) ANY (pg_catalog.current_schemas(false))
      AND n.nspname OPERATOR(pg_catalog.<>) 'pg_catalog' AND NOT r.rolsuper
      AND f.owner OPERATOR(pg_catalog.<>) d.datdba
      AND r.rolname OPERATOR(pg_catalog.<>) current_user AND r.rolname OPERATOR(pg_catalog.<>) session_user
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
                      WHERE e.classid OPERATOR(pg_catalog.=) f.class AND e.objid OPERATOR(pg_catalog.=) f.oid
                        AND e.deptype OPERATOR(pg_catalog.=) 'e'::"char")
    ORDER BY 1 LIMIT 1"""
