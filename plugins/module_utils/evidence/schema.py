# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of an evidence record, schema version 1; ``docs/evidence.schema.json`` is this, for editors and auditors.

A subset of JSON Schema draft 2020-12, so that a target needs no library: ``type``, ``properties``, ``required``,
``additionalProperties``, ``propertyNames``, ``items``, ``minItems``, ``enum``, ``const``, ``pattern``, ``minimum``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["DOCUMENT", "EVENTS", "NAME_PATTERN", "RECORD", "SCHEMA_VERSION", "STATES"]

SCHEMA_VERSION = 1
EVENTS = (
    "rotated",
    "replaced",
    "rolled_back",
    "failed",
    "stuck",
    "rollback_pending",
    "retired",
    "closed",
    "restored",
    "check",
    "captured",
)
STATES = ("staged", "primary", "previous", "retired", "closed", "compromised", "dropped")

_END = r"$(?!\n)"  # in Python "$" also matches before a last line feed
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}" + _END

_Schema = dict[str, Any]
_TEXT: _Schema = {"type": "string"}
_TEXT_OR_NULL: _Schema = {"type": ["string", "null"]}
_NAME: _Schema = {"type": "string", "pattern": NAME_PATTERN}
_COUNT: _Schema = {"type": "integer", "minimum": 0}
_NUMBER: _Schema = {"type": "number", "minimum": 0}
_NUMBER_OR_NULL: _Schema = {"type": ["number", "null"], "minimum": 0}
_UTC_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z" + _END
_UTC: _Schema = {"type": "string", "pattern": _UTC_PATTERN}
_UTC_OR_NULL: _Schema = {"type": ["string", "null"], "pattern": _UTC_PATTERN}
_DIGEST_PATTERN = r"^[0-9a-f]{64}" + _END
_MARK: _Schema = {"type": "string", "pattern": r"^[0-9a-f]{16}" + _END}
_DIGEST: _Schema = {"type": "string", "pattern": _DIGEST_PATTERN}
_DIGEST_OR_NULL: _Schema = {"type": ["string", "null"], "pattern": _DIGEST_PATTERN}


def _object(required: Mapping[str, _Schema], optional: Mapping[str, _Schema] | None = None, **more: Any) -> _Schema:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
        **more,
    }


def _list(items: _Schema, **more: Any) -> _Schema:
    return {"type": "array", "items": items, **more}


def _map(values: _Schema, **more: Any) -> _Schema:
    return {"type": "object", "additionalProperties": values, **more}


def _about(description: str, schema: _Schema) -> _Schema:
    return {**schema, "description": description}


_ANY: _Schema = {}
_SCALARS = _map({"type": ["string", "number", "boolean", "null"]})
_VERSION = _object(
    {"version": {"enum": ["new", "old"]}, "state": {"enum": list(STATES)}},
    {"at": _about("when it came into this state", _UTC_OR_NULL)},
)
_SECRET = _object(
    {"name": _NAME, "kind": _TEXT},
    {"strategy": _TEXT_OR_NULL, "versions": _list(_VERSION), "fingerprint_changed": {"type": ["boolean", "null"]}},
)
_RUN = _object(
    {"run_id": _TEXT, "epoch": _COUNT},
    {"user": _TEXT_OR_NULL, "started_at": _UTC_OR_NULL, "interrupted": {"type": "boolean"}},
)
_PHASE = _object(
    {
        "name": _TEXT,
        "result": {"enum": ["ok", "unchanged", "skipped", "stopped", "failed", "interrupted", "rolled_back"]},
    },
    {"started_at": _UTC_OR_NULL, "ended_at": _UTC_OR_NULL, "seconds": _NUMBER_OR_NULL},
)
_COVERAGE = _object(
    {"table": _TEXT, "column": _TEXT} | dict.fromkeys(("total", "new", "old", "plaintext", "null", "unknown"), _COUNT),
    {"host": _TEXT_OR_NULL, "database": _TEXT_OR_NULL},
)
_CLEARED = _object(
    {"table": _TEXT, "column": _TEXT}, {"host": _TEXT_OR_NULL, "database": _TEXT_OR_NULL, "rows": _COUNT}
)
_PROBE = _object(
    {
        "name": _TEXT,
        "type": _TEXT,
        "version": {"enum": ["new", "old"]},
        "expected": {"type": ["string", "integer"]},
        "result": {"type": ["string", "integer"]},
    },
    {"secret": _TEXT_OR_NULL, "host": _TEXT_OR_NULL},
)
_KEYSET = _object(
    {
        "name": _NAME,
        "active_kid": _TEXT,
        "keys": _list(
            _object(
                {"kid": _TEXT, "state": {"enum": [*STATES, "inactive"]}},
                {
                    "since": _UTC_OR_NULL,
                    "changed": _about("the secret is another one than in the event before", {"type": "boolean"}),
                    "fingerprint": _about("HMAC-SHA256 under a key of the state host, 16 digits", _MARK),
                },
            ),
            minItems=1,
        ),
    },
    {
        "source_mode": {"enum": ["file", "command", "inline"]},
        "previous_active_kid": _TEXT_OR_NULL,
        "fingerprint_key": _about("tells fingerprints under another key apart", _MARK),
        "compared_with": _about("folder of the event before; null for the first one", _TEXT_OR_NULL),
        "active_moved": {"type": "boolean"},
        "added": _list(_TEXT),
        "removed": _list(_TEXT),
        "not_compared": _about("kids whose fingerprints before are under another key", _list(_TEXT)),
    },
)
_EXPOSED = _object(
    {"secret": _NAME, "seconds": _COUNT},
    {
        "until": _about("null while it is not known that it is disabled", _UTC_OR_NULL),
        "parts": _list(_object({"name": _TEXT, "seconds": _COUNT, "source": _TEXT})),
        "unknown": _about("what nobody says, so that something stands in for it", _TEXT),
    },
)

_SIGNING = _object(
    {
        "name": _NAME,
        "tenants": _about("how many turned, all of them; their keys are those of the first hundred", _COUNT),
        "keys": _list(
            _object(
                {"tenant": _TEXT, "kid": _TEXT, "state": {"enum": list(STATES)}},
                {"public_sha256": _about("SHA-256 of the public key's SubjectPublicKeyInfo", _DIGEST_OR_NULL)},
            )
        ),
    }
)

_REQUIRED: dict[str, _Schema] = {
    "schema_version": {"type": "integer", "const": SCHEMA_VERSION},
    "rotation_id": _about(
        "the rotation; of a captured event, the name that a person gave it; of a restore, a name of its own", _NAME
    ),
    "event": {"enum": list(EVENTS)},
    "secrets": _list(_SECRET, minItems=1),
    "who": _object(
        {"user": _TEXT},
        {
            "controller": _TEXT_OR_NULL,
            "sudo_user": _TEXT_OR_NULL,
            "ci": {"type": ["string", "object", "null"], "additionalProperties": _ANY},
            "awx": {**_SCALARS, "type": ["object", "null"]},
        },
    ),
    "when": _object({"started_at": _UTC, "ended_at": _UTC}),
    "why": _TEXT,
}
_OPTIONAL: dict[str, _Schema] = {
    "plan_digest": _TEXT_OR_NULL,
    "runs": _about("every run of this rotation; more than one tells of interruptions", _list(_RUN)),
    "phases": _list(_PHASE),
    "hosts": _object(
        {"expected": _list(_TEXT), "done": _list(_TEXT)},
        {
            "waived": _list(_object({"host": _TEXT, "reason": _TEXT}, {"until": _TEXT_OR_NULL})),
            "lost": _list(_TEXT),
        },
    ),
    "coverage": _about("per column: total = new + old + plaintext + null + unknown", _list(_COVERAGE)),
    "cleared": _list(_CLEARED),
    "probes": _list(_PROBE),
    "keysets": _list(_KEYSET),
    "signing_keys": _list(_SIGNING),
    "health": _object({}, {"before": _map(_ANY), "after": _map(_ANY), "worse": _list(_ANY)}),
    "gap_ms": _about("how long a one-key reader could not read, in milliseconds", _NUMBER_OR_NULL),
    "promised": _object({}, {"seconds": _NUMBER_OR_NULL, "gap_ms": _NUMBER_OR_NULL}),
    "taken": _map({"type": ["number", "null"], "minimum": 0}),
    "backups": _about(
        "what still opens with the old key",
        _list(_object({"host": _TEXT, "path": _TEXT}, {"expires": _TEXT_OR_NULL})),
    ),
    "exposed": _about("how long a compromised version may still be accepted after it was disabled", _list(_EXPOSED)),
    "software": _SCALARS,
    "messages": _list(_TEXT),
}
_SEAL = _object(
    {
        "sequence": _about("counts all records of the inventory, from 1", {"type": "integer", "minimum": 1}),
        "sealed_at": _UTC,
        "folder": _about(
            "name of the folder: <rotation_id>.<event>, then -2, -3; <rotation_id> of a captured event",
            {"type": "string"},
        ),
        "inventory_previous": _about(
            "SHA-256 of the record with the sequence before; null for the first", _DIGEST_OR_NULL
        ),
        "previous": _about(
            "per secret: SHA-256 of the record before in its chain", _map(_DIGEST_OR_NULL, propertyNames=_NAME)
        ),
        "files": _about("SHA-256 of the other files of the folder", _map(_DIGEST, propertyNames=_NAME)),
        "signer": _about("Ed25519 public key, base64 of 32 bytes; null when not signed", _TEXT_OR_NULL),
    }
)

#: What the engine hands in.
RECORD: _Schema = _object(_REQUIRED, _OPTIONAL)
#: What lies on the disk: the record and its seal.
DOCUMENT: _Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "keyturn.rotation evidence record",
    "description": "What happened in one event. Holds no secret, and of a keyset only fingerprints under a key.",
    **_object({**_REQUIRED, "seal": _SEAL}, _OPTIONAL),
}
