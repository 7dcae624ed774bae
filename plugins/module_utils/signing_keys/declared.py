# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalog's field ``key_table``: a secret whose versions are the rows of a table, with no store. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import nearest
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.forms import check_generate
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.mapping import (
    KeyTable,
    declared_envelope,
    parse_table,
)

__all__ = ["DEFAULT_GENERATE", "KIND", "check_key_table", "check_together", "job_of"]

KIND = "signing_key"
DEFAULT_GENERATE: Mapping[str, Any] = {"type": "rsa", "bits": 2048, "alg": "RS256"}
#: Fields that say where a table is and how the work goes, not what its columns mean.
_AROUND = ("database", "under", "key_from", "initial", "workers")


def _invalid(message: str, where: str, hint: str) -> KeyturnError:
    return KeyturnError("catalog-invalid", message, where=where, hint=hint)


def check_key_table(
    name: str,
    secret: Mapping[str, Any],
    secrets: Mapping[str, Mapping[str, Any]],
    databases: Mapping[str, Any],
    where: str,
) -> None:
    """Refuse a secret of this kind that could not turn.

    :raises KeyturnError: ``catalog-invalid``, ``key-table-invalid``, ``generate-invalid``.
    """
    entry = secret.get("key_table")
    if secret["kind"] != KIND:
        if entry is not None and "." not in secret["kind"]:
            raise _invalid(f"is not for the kind {secret['kind']}", f"{where}.key_table", f"Use the kind {KIND}")
        return
    if entry is None:
        raise _invalid("field 'key_table' is missing", where, "Say in which table the keys are")
    for field in ("stores", "data", "value_from", "derive", "server"):
        if secret.get(field):
            raise _invalid(
                "does not go with key_table: the table holds the versions", f"{where}.{field}", "Take it away"
            )
    if secret.get("strategy", "overlap") != "overlap":
        raise _invalid("signing keys turn with an overlap", f"{where}.strategy", "Leave it away, or say overlap")
    if "window" not in secret and "overlap_min" not in secret:
        hint = (
            "Add a line like 'overlap_min: 24h' (the longest lifetime of a token, every cache on the way, and the skew "
            "of clocks), or their figures in window"
        )
        raise _invalid("nothing says how long the former key must be accepted", where, hint)
    place = f"{where}.key_table"
    table = parse_table(entry, place)
    _check_published(secret, table, where)
    for index, documents in enumerate(secret.get("documents", ())):
        _check_documents(documents, entry, table, f"{where}.documents[{index}]")
    check_generate(secret.get("generate") or DEFAULT_GENERATE, f"{where}.generate")
    if entry["database"] not in databases:
        hint = nearest(entry["database"], databases)
        raise _invalid(f"database {entry['database']!r} is not defined", place, hint)
    if ("under" in entry) == ("key_from" in entry):
        hint = "The key that the private parts are encrypted with: a secret of this catalog, or a source"
        raise _invalid("needs under or key_from", place, hint)
    if "key_from" in entry and len(entry["key_from"]) != 1:
        raise _invalid("must name exactly one source", f"{place}.key_from", "file, env or variable")
    if "under" in entry and not (secrets.get(entry["under"]) or {}).get("stores"):
        known = [other for other in secrets if other != name and secrets[other].get("stores")]
        raise _invalid("is no secret with a store", f"{place}.under", nearest(str(entry["under"]), known))


def _check_published(secret: Mapping[str, Any], table: KeyTable, where: str) -> None:
    """Refuse to wait for published keys of a table in which each tenant has its own: there may be thousands of them,
    and nothing says which address shows whose.
    """
    if secret.get("jwks") and "tenant" in table.columns:
        hint = (
            "Say columns: {tenant: ''} where the table has one current key. Else take jwks away, stop at "
            "keyturn_until=stage, and go on after the longest cache"
        )
        message = "cannot be waited for where each tenant has keys of its own"
        raise _invalid(message, f"{where}.jwks", hint)
    for index, probe in enumerate(secret.get("probes", ())):
        if "tenant" in table.columns and probe.get("version", "none") != "none":
            message = "has no key to ask with where each tenant has keys of its own"
            raise _invalid(message, f"{where}.probes[{index}]", "Take it away, or leave version away")


def _check_documents(documents: Mapping[str, Any], entry: Mapping[str, Any], table: KeyTable, where: str) -> None:
    """Refuse documents for which the keys cannot be read where they are signed, or told apart."""
    if documents["database"] != entry["database"]:
        message, hint = "lie in another database than the keys that sign them", f"Name the database {entry['database']}"
        raise _invalid(message, f"{where}.database", hint)
    if "tenant" in table.columns and "tenant" not in documents:
        message = "each tenant has keys of its own, and no column says whose a document is"
        raise _invalid(message, where, "Add a line like 'tenant: account_id'")


def check_together(secrets: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> None:
    """Refuse to turn signing keys in the same run as the key that they are encrypted with.

    :raises KeyturnError: ``keys-together``.
    """
    chosen = set(names)
    for name in sorted(chosen):
        under = (secrets[name].get("key_table") or {}).get("under")
        if under in chosen:
            message = f"{name} is encrypted with {under}, which turns in the same run"
            raise KeyturnError("keys-together", message, where="keyturn_only", hint="Turn them in runs of their own")


def job_of(
    name: str, secret: Mapping[str, Any], databases: Mapping[str, Mapping[str, Any]], overlap_s: int
) -> dict[str, Any]:
    """What the database's first host does for a secret of a resolved catalog; empty for other secrets."""
    entry = secret.get("key_table")
    if not entry:
        return {}
    database = databases[entry["database"]]
    return {
        "secret": name,
        "database": entry["database"],
        "host": database["hosts"][0],
        "dsn_file": database.get("dsn_file", ""),
        "key_table": {field: value for field, value in entry.items() if field not in _AROUND},
        "table": parse_table(entry).table,
        **{field: entry[field] for field in ("under", "key_from") if field in entry},
        "generate": dict(secret.get("generate") or DEFAULT_GENERATE),
        "initial": bool(entry.get("initial", False)),
        "workers": entry.get("workers", 0),
        "overlap_s": overlap_s,
        "max_wait": database.get("max_wait", 0),
        **_documents_of(secret, database["hosts"][0]),
    }


def _documents_of(secret: Mapping[str, Any], host: str) -> dict[str, Any]:
    """The documents that a secret's keys sign, where the keys are, and what is published, as ``jws_resign`` takes them;
    empty without documents.

    :param host: the host that signs; published keys are compared where the catalog says that it may ask for them.
    """
    if not secret.get("documents"):
        return {}
    table = parse_table(secret["key_table"])
    columns = {field: table.columns[field] for field in ("kid", "private", "tenant") if field in table.columns}
    asked = [endpoint for endpoint in secret.get("jwks", ()) if host in endpoint["hosts"]]
    fields = ("url", "headers", "ca_file", "timeout")
    published = [{field: endpoint[field] for field in fields if field in endpoint} for endpoint in asked[:1]]
    return {
        "documents": {
            "tables": [
                {field: value for field, value in entry.items() if field != "database"} for entry in secret["documents"]
            ],
            "key_table": {"table": table.table, **columns, "envelope": declared_envelope(secret["key_table"])},
            **({"jwks": published[0]} if published else {}),
        }
    }
