# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cryptographic inventory (CycloneDX 1.6, JSON) of every secret's versions: names, states and dates. Pure.

A version is known by the secret's name and its rotation, a key of a keyset by its keyed fingerprint. The same state at
the same time gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.release import RELEASE
from ansible_collections.keyturn.rotation.plugins.module_utils.state_host import stamp_of
from ansible_collections.keyturn.rotation.plugins.plugin_utils.standing import standing
from ansible_collections.keyturn.rotation.plugins.plugin_utils.timeline import Version, versions_of

__all__ = ["crypto_inventory"]

_TYPES = {
    "database_login": "password",
    "encryption_key": "secret-key",
    "env_secret": "shared-secret",
    "keyset": "secret-key",
    "redis_login": "password",
    "signing_key": "private-key",
    "token": "token",
}
#: What became of a version, by the status of the rotation that replaced it.
_FATES = {"closed": "destroyed", "replaced": "compromised"}
#: States of the keys of a keyset; of one that was inactive when it was first seen, nothing is known.
_KEY_STATES = {
    "closed": "destroyed",
    "compromised": "compromised",
    "dropped": "destroyed",
    "previous": "deactivated",
    "primary": "active",
    "retired": "deactivated",
    "staged": "pre-activation",
}
_PREFIX = "keyturn"


def _utc(stamp: str | float | None) -> str | None:
    """A time to the second, as the format wants it."""
    if stamp is None or stamp == "":
        return None
    text = stamp if isinstance(stamp, str) else stamp_of(stamp)
    return f"{text[:19]}Z"


def _component(
    ref: str, name: str, version: str, material: Mapping[str, Any], about: Mapping[str, Any]
) -> dict[str, Any]:
    component = {
        "type": "cryptographic-asset",
        "bom-ref": ref,
        "name": name,
        "version": version,
        "cryptoProperties": {
            "assetType": "related-crypto-material",
            "relatedCryptoMaterialProperties": {key: value for key, value in material.items() if value},
        },
        "properties": [
            {"name": f"{_PREFIX}:{key}", "value": str(value)} for key, value in sorted(about.items()) if value
        ],
    }
    return component if version else {key: value for key, value in component.items() if key != "version"}


def _about(row: Mapping[str, Any], due: str) -> dict[str, Any]:
    evidence = row.get("evidence") or {}
    return {
        "kind": row["kind"],
        "due": due,
        "hosts": ", ".join(row["hosts"]),
        "evidence:event": evidence.get("event"),
        "evidence:folder": evidence.get("folder"),
        "evidence:sha256": evidence.get("record"),
    }


def _state(version: Version, replaced_by: Mapping[str, Any] | None) -> str:
    if version.ended is None:
        return "active"
    return _FATES.get(str(replaced_by["status"]), "deactivated") if replaced_by else "deactivated"


def _secret(row: Mapping[str, Any], due: str, rotations: Mapping[str, Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """One component for each version that the register knows; one without dates where it knows none."""
    name, kind = str(row["name"]), _TYPES.get(row["kind"], "other")
    versions = versions_of(name, rotations)
    lasting = [version for version in versions if not version.rolled_back]
    for version in versions:
        after = next((each for each in lasting if each.began > version.began), None)
        state = _state(version, rotations[after.rotation_id] if after and not version.rolled_back else None)
        gone = after.kept_until if after and after.kept_until and not version.rolled_back else version.ended
        material = {
            "type": kind,
            "id": f"{name}@{version.rotation_id}",
            "state": state,
            "creationDate": _utc(rotations[version.rotation_id].get("started_at")),
            "activationDate": _utc(version.began),
            "expirationDate": _utc(row.get("next_due") if state == "active" else gone),
        }
        about = {**_about(row, due), "rotation:status": rotations[version.rotation_id]["status"]}
        yield _component(f"secret/{name}@{version.rotation_id}", name, version.rotation_id, material, about)
    if not any(version.ended is None for version in versions):
        material = {"type": kind, "id": name, "state": "active", "expirationDate": _utc(row.get("next_due"))}
        yield _component(f"secret/{name}", name, "", material, _about(row, due))
    opened = rotations.get(row["rotation_id"], {}) if row["open"] else {}
    if "stage" in opened.get("entered", ()) and all(row["rotation_id"] != each.rotation_id for each in versions):
        material = {
            "type": kind,
            "id": f"{name}@{row['rotation_id']}",
            "state": "pre-activation",
            "creationDate": _utc(opened.get("started_at")),
        }
        about = {**_about(row, due), "rotation:status": opened["status"]}
        yield _component(f"secret/{name}@{row['rotation_id']}", name, row["rotation_id"], material, about)


def _keys(name: str, evidence: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """One component for each key of a keyset, as it was sealed last."""
    for key in (evidence.get("keyset") or {}).get("keys", ()):
        state = _KEY_STATES.get(key["state"])
        material = {
            "type": "secret-key",
            "id": key.get("fingerprint") or f"{name}/{key['kid']}",
            "state": state,
            "activationDate": _utc(key.get("since")) if state == "active" else None,
            "creationDate": _utc(key.get("since")) if state == "pre-activation" else None,
        }
        about = {
            "keyset": name,
            "kid": key["kid"],
            "evidence:event": evidence["event"],
            "evidence:folder": evidence["folder"],
            "evidence:sha256": evidence["record"],
        }
        yield _component(f"keyset/{name}/{key['kid']}", f"{name}/{key['kid']}", "", material, about)


def crypto_inventory(planned: Mapping[str, Any]) -> str:
    """The inventory as JSON, keys sorted.

    :param planned: what ``rotation_plan`` returned with the mode ``status``.
    """
    rows = sorted(standing(planned), key=lambda entry: str(entry[0]["name"]))
    components = [each for row, due in rows for each in _secret(row, due, planned["rotations"])]
    components += [each for name, found in sorted(planned["evidence"].items()) for each in _keys(name, found)]
    content: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": _utc(planned["now"]),
            "tools": {"components": [{"type": "application", "name": "keyturn.rotation", "version": RELEASE}]},
        },
        "components": sorted(components, key=lambda component: str(component["bom-ref"])),
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    content["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, digest)}"
    return json.dumps(content, indent=2, sort_keys=True) + "\n"
