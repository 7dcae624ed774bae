# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of a secret: fingerprints, which version a store holds, boxes. Never a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.secret.jobs import Job, box_context
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session
from ansible_collections.keyturn.rotation.plugins.module_utils.stores import Workspace
from ansible_collections.keyturn.rotation.plugins.module_utils.versions import Version

__all__ = ["answer_of", "boxes_for", "fingerprints_of", "holds_of", "kids_of"]


def fingerprints_of(session: Session, version: Version) -> dict[str, str]:
    """By version; empty texts without a fingerprint key, and no entry for a version that does not exist."""
    marks = {"new": version.fingerprints.get("new", "")}
    if version.had_old:
        marks["old"] = version.fingerprints.get("old", "")
    for part, value in (("new", version.new), ("old", version.old)):
        if value is not None:
            marks[part] = session.fingerprint(version.name, value)
    return marks


def holds_of(session: Session, version: Version | None, name: str, value: bytes | None) -> str:
    """Which version a store's primary value is."""
    if value is None:
        return "absent"
    if version is None:
        return "unknown"
    for part, known in (("new", version.new), ("old", version.old)):
        if value == known:
            return part
    if version.new is not None:
        return "other"
    mark = session.fingerprint(name, value)
    if not mark or not version.fingerprints.get("new"):
        return "unknown"
    return next((part for part in ("new", "old") if version.fingerprints.get(part) == mark), "other")


def boxes_for(session: Session, job: Job, values: Mapping[str, bytes | None]) -> dict[str, dict[str, str]]:
    """By host and version, boxes for those that the secret is to be sealed to.

    :param values: by ``new`` and ``old``, what there is.
    """
    boxes: dict[str, dict[str, str]] = {}
    if not job.request.get("seal_to"):
        return boxes
    from ansible_collections.keyturn.rotation.plugins.module_utils.sealed import seal

    for target in job.request["seal_to"]:
        boxes[target["host"]] = {}
        for part in target.get("versions") or ("new", "old"):
            value = values.get(part)
            if value is not None:
                box = seal(value, target["public"], box_context(session, job.name, part))
                boxes[target["host"]][part] = box
    return boxes


def kids_of(version: Version | None) -> dict[str, str]:
    """The kids of versions that are keys, by which their public halves are found in a JWKS."""
    parts = {"new": version.new, "old": version.old} if version else {}
    documents = {part: value for part, value in parts.items() if value is not None and b"{" in value}
    if not documents:  # nearly always
        return {}
    from ansible_collections.keyturn.rotation.plugins.module_utils.generate import kid_in

    kids = {part: kid_in(value) for part, value in documents.items()}
    return {part: kid for part, kid in kids.items() if kid}


def answer_of(session: Session, job: Job, workspace: Workspace) -> dict[str, Any]:
    """What the module ``secret`` says of one secret."""
    version = job.version
    stores = []
    for store in job.stores:
        holds = "unknown"
        if version:  # else this rotation never wrote there: the way back needs no such store
            holds = holds_of(session, version, job.name, store.layout.primary(store.read(workspace)))
        stores.append({"path": store.path, "variable": store.variable, "holds": holds})
    kids = kids_of(version)
    return {
        "state": version.state if version else "",
        "had_old": version.had_old if version else False,
        "fingerprints": fingerprints_of(session, version) if version else {},
        **({"kids": kids} if kids else {}),
        "stores": stores,
        "boxes": boxes_for(session, job, {"new": version.new, "old": version.old} if version else {}),
    }
