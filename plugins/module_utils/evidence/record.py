# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A record of what happened: its canonical bytes, and the checks it passes before it is sealed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.schema import DOCUMENT, RECORD
from ansible_collections.keyturn.rotation.plugins.module_utils.material import find_material
from ansible_collections.keyturn.rotation.plugins.module_utils.session import check_name

__all__ = ["canonical", "check_record", "digest", "faults", "folder_name", "keyset_files", "line", "parse", "summary"]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
}


def _dump(value: Any, **style: Any) -> bytes:
    try:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, **style)
        return (text + "\n").encode()
    except (TypeError, ValueError):
        raise KeyturnError(
            "evidence-invalid",
            "holds something that JSON cannot hold",
            hint="Hand in text, numbers, lists and mappings",
        ) from None


def canonical(value: Any) -> bytes:
    """The one way to write a record: keys sorted, two spaces, UTF-8, a line feed at the end."""
    return _dump(value, indent=2)


def line(value: Any) -> bytes:
    """The same on one line, for chains."""
    return _dump(value, separators=(",", ":"))


def parse(raw: bytes) -> Any:
    """The value that these bytes write, if they are exactly as :func:`canonical` or :func:`line` writes them.

    :raises KeyturnError: ``evidence-invalid``.
    """
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):  # also UnicodeDecodeError
        value = None
    if value is None or raw not in (canonical(value), line(value)):
        raise KeyturnError("evidence-invalid", "is not in canonical form", hint="Restore it from a copy")
    return value


def digest(raw: bytes) -> str:
    """SHA-256, 64 hex digits."""
    return hashlib.sha256(raw).hexdigest()


def _is_type(value: Any, name: str) -> bool:
    if name in ("integer", "number"):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return name == "number" or isinstance(value, int) or value.is_integer()
    return isinstance(value, _TYPES[name])


def _type_names(schema: Mapping[str, Any]) -> list[str]:
    names = schema.get("type", [])
    return [names] if isinstance(names, str) else list(names)


def faults(value: Any, schema: Mapping[str, Any] = RECORD, path: str = "$") -> Iterator[tuple[str, str]]:
    """Every place where ``value`` leaves the schema, with what is wrong there; no value is quoted."""
    names = _type_names(schema)
    if names and not any(_is_type(value, name) for name in names):
        yield path, f"is not {' or '.join(names)}"
        return
    if "enum" in schema and not (isinstance(value, str) and value in schema["enum"]):
        yield path, f"is none of {', '.join(schema['enum'])}"
    if "const" in schema and value != schema["const"]:
        yield path, f"is not {schema['const']}"
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        yield path, "does not have the right form"
    if "minimum" in schema and _is_type(value, "number") and value < schema["minimum"]:
        yield path, f"is less than {schema['minimum']}"
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield path, "is empty"
        for number, item in enumerate(value):
            yield from faults(item, schema.get("items", {}), f"{path}[{number}]")
    if isinstance(value, dict):
        yield from _object_faults(value, schema, path)


def _object_faults(value: dict[str, Any], schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    known = schema.get("properties", {})
    others = schema.get("additionalProperties", {})
    for name in schema.get("required", []):
        if name not in value:
            yield f"{path}.{name}", "is missing"
    for name, item in value.items():
        if "propertyNames" in schema and any(True for _fault in faults(name, schema["propertyNames"])):
            yield path, "has a name that is not usable"
        elif name in known:
            yield from faults(item, known[name], f"{path}.{name}")
        elif others is False:
            yield path, f"has a field that is not known ({len(known)} are known)"
        else:
            yield from faults(item, others, f"{path}.{name}")


def check_record(record: Any, *, sealed: bool = False) -> None:
    """Refuse a record that is not in the schema's shape, contradicts itself or holds private material.

    :param sealed: whether it is one from the disk, with its seal.
    :raises KeyturnError: ``evidence-invalid`` or ``evidence-material``, with the place and never the content.
    """
    canonical(record)
    for path in find_material(record):
        raise KeyturnError(
            "evidence-material",
            "looks like private material",
            where=path,
            hint="Evidence never holds a secret. Leave it out",
        )
    for path, what in faults(record, DOCUMENT if sealed else RECORD):
        raise KeyturnError("evidence-invalid", what, where=path, hint="See docs/evidence.schema.json")
    check_name(record["rotation_id"], "rotation_id")
    names = [secret["name"] for secret in record["secrets"]]
    for name in names:
        check_name(name, "secret name")
    if len(set(names)) != len(names):
        raise KeyturnError(
            "evidence-invalid", "names a secret twice", where="$.secrets", hint="Hand in each secret once"
        )
    for number, row in enumerate(record.get("coverage", [])):
        if row["total"] != sum(row[part] for part in ("new", "old", "plaintext", "null", "unknown")):
            raise KeyturnError(
                "evidence-invalid",
                "does not add up",
                where=f"$.coverage[{number}]",
                hint="Count again: total is the sum of the others",
            )
    for keyset in record.get("keysets", []):
        if keyset["active_kid"] not in [key["kid"] for key in keyset["keys"]]:
            raise KeyturnError(
                "evidence-invalid",
                "has an active kid that names no key",
                where=f"$.keysets.{keyset['name']}",
                hint="Check the keyset",
            )


def folder_name(record: Mapping[str, Any], number: int = 1) -> str:
    """The folder of an event: ``<rotation_id>.<event>``, then ``-2``, ``-3``; a captured one has its id."""
    name = record["rotation_id"] if record["event"] == "captured" else f"{record['rotation_id']}.{record['event']}"
    return name if number == 1 else f"{name}-{number}"


_KEY_FACTS = ("state", "since", "fingerprint", "changed")
_KEYSET_FACTS = ("name", "active_kid", "compared_with", "added", "removed", "active_moved", "not_compared")


def _rotation_state(keyset: Mapping[str, Any]) -> str:
    """``initial``, ``rotated`` or ``unchanged``; a key changed under the same kid counts as rotated."""
    before = keyset.get("previous_active_kid")
    if before is None:
        return "initial"
    changed = before != keyset["active_kid"] or any(key.get("changed") for key in keyset["keys"])
    return "rotated" if changed else "unchanged"


def _keyset_summary(keyset: Mapping[str, Any]) -> dict[str, Any]:
    facts = {
        "source_mode": keyset.get("source_mode", "file"),
        "active_kid": keyset["active_kid"],
        "keys_count": len(keyset["keys"]),
        "rotation_state": _rotation_state(keyset),
    }
    if "compared_with" in keyset:
        facts.update({name: keyset[name] for name in ("compared_with", "added", "removed", "active_moved")})
        facts["changed"] = [key["kid"] for key in keyset["keys"] if key.get("changed")]
    return facts


def summary(record: Mapping[str, Any], seal: Mapping[str, Any]) -> dict[str, Any]:
    """The few facts that a dashboard or a ticket wants."""
    hosts = record.get("hosts", {})
    coverage = record.get("coverage", [])
    probes = record.get("probes", [])
    facts: dict[str, Any] = {
        "schema_version": record["schema_version"],
        "event_id": seal["folder"],
        "captured_at_utc": seal["sealed_at"],
        "rotation_id": record["rotation_id"],
        "event": record["event"],
        "secrets": [secret["name"] for secret in record["secrets"]],
        "user": record["who"]["user"],
        "started_at": record["when"]["started_at"],
        "ended_at": record["when"]["ended_at"],
        "hosts_expected": len(hosts.get("expected", [])),
        "hosts_done": len(hosts.get("done", [])),
        "hosts_waived": len(hosts.get("waived", [])),
        "rows_total": sum(row["total"] for row in coverage),
        "rows_left": sum(row["old"] + row["plaintext"] + row["unknown"] for row in coverage),
        "probes_total": len(probes),
        "probes_passed": sum(1 for probe in probes if str(probe["expected"]) == str(probe["result"])),
        "gap_ms": record.get("gap_ms"),
        "sequence": seal["sequence"],
    }
    keysets = record.get("keysets", [])
    if len(keysets) == 1:
        facts.update(_keyset_summary(keysets[0]))
    elif keysets:
        facts["keysets"] = {keyset["name"]: _keyset_summary(keyset) for keyset in keysets}
    return facts


def keyset_files(record: Mapping[str, Any]) -> dict[str, bytes]:
    """``keyset.json`` (or one file for each of several): kids, states and dates, no material."""
    keysets = record.get("keysets", [])
    files = {}
    for keyset in keysets:
        keys = {key["kid"]: {name: key.get(name) for name in _KEY_FACTS if name in key} for key in keyset["keys"]}
        content = {name: keyset[name] for name in _KEYSET_FACTS if name in keyset}
        content["keys"] = {kid: {"since": None, **facts} for kid, facts in keys.items()}
        files["keyset.json" if len(keysets) == 1 else f"keyset.{keyset['name']}.json"] = canonical(content)
    return files
