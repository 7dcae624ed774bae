# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An event of a person's own, outside of any rotation: a keyset as it is, compared with the event before, sealed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence import store
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.keyset import compare
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.schema import EVENTS
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.sealing import Sealed, seal
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.signing import Signer
from ansible_collections.keyturn.rotation.plugins.module_utils.session import check_name

__all__ = ["capture", "check_event_id"]

_OURS = re.compile(rf".*\.(?:{'|'.join(EVENTS)})(?:-[0-9]+)?")
_SAME = ("name", "source_mode", "active_kid", "fingerprint_key")


def check_event_id(event_id: str) -> str:
    """Return the name of an event if it can be a folder's.

    :raises KeyturnError: ``name-invalid``.
    """
    check_name(event_id, "event id")
    if event_id in (store.CHAINS, store.HEAD, store.LOCK) or _OURS.fullmatch(event_id):
        raise KeyturnError(
            "name-invalid", "this event id is kept for the evidence itself", where=event_id, hint="Choose another one"
        )
    return event_id


def capture(
    directory: str,
    event_id: str,
    found: Mapping[str, Any],
    about: Mapping[str, Any],
    *,
    now: str,
    previous: str = "",
    signer: Signer | None = None,
    copies: Iterable[str] = (),
    check_mode: bool = False,
) -> tuple[Sealed, dict[str, Any]]:
    """Seal a keyset as it is. The same event of the same keyset again changes nothing.

    :param found: ``name``, ``source_mode``, ``active_kid``, ``fingerprint_key``, ``fingerprints`` by kid, ``messages``.
    :param about: ``who``, ``why`` and ``hosts`` of the record.
    :param previous: the event to compare with; the last one of this keyset when empty.
    :returns: what was sealed, and the keyset of the record.
    :raises KeyturnError: ``name-invalid``, ``event-exists``, ``event-unknown``, and what :func:`sealing.seal` raises.
    """
    check_event_id(event_id)
    check_name(found["name"], "keyset name")
    record = _known(directory, event_id, found)
    if record is None:
        place, before = _event_before(directory, found["name"], previous)
        keyset = compare(found, before, place, now)
        record = _record(event_id, keyset, found, about, now)
    options: dict[str, Any] = {"signer": signer, "copies": copies, "check_mode": check_mode}
    return seal(directory, record, now=now, **options), record["keysets"][0]


def _known(directory: str, event_id: str, found: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record that this event has already, if it says the same."""
    if not os.path.lexists(os.path.join(directory, event_id)):
        return None
    read = store.read_document(directory, event_id)
    record = {key: value for key, value in read[0].items() if key != "seal"} if read else {}
    for keyset in record.get("keysets", ())[:1]:
        marks = {key["kid"]: key.get("fingerprint") for key in keyset["keys"]}
        if marks == found["fingerprints"] and all(keyset.get(name) == found[name] for name in _SAME):
            return record
    raise KeyturnError(
        "event-exists",
        "there is another event of this name",
        where=os.path.join(directory, event_id),
        hint="Evidence is never overwritten. Choose another event id",
    )


def _event_before(directory: str, name: str, wanted: str) -> tuple[str | None, dict[str, Any] | None]:
    """The folder and the keyset of the event to compare with; nothing when there is none yet."""
    folders = [entry["folder"] for entry in store.read_chain(directory, name)]
    for folder in reversed([wanted] if wanted and wanted in folders else [] if wanted else folders):
        read = store.read_document(directory, str(folder))
        for keyset in read[0].get("keysets", ()) if read else ():
            if keyset["name"] == name:
                return str(folder), keyset
    if wanted:
        raise KeyturnError(
            "event-unknown", f"there is no event {wanted!r} of {name}", where=directory, hint="Name a folder of it"
        )
    return None, None


def _record(
    event_id: str, keyset: Mapping[str, Any], found: Mapping[str, Any], about: Mapping[str, Any], now: str
) -> dict[str, Any]:
    changed = keyset["active_moved"] or any(
        key["changed"] for key in keyset["keys"] if key["kid"] == keyset["active_kid"]
    )
    known = keyset["compared_with"] is not None and keyset["active_kid"] not in keyset["not_compared"]
    return {
        "schema_version": 1,
        "rotation_id": event_id,
        "event": "captured",
        "secrets": [
            {"name": keyset["name"], "kind": "keyset", "fingerprint_changed": changed if known or changed else None}
        ],
        "who": dict(about["who"]),
        "when": {"started_at": now, "ended_at": now},
        "why": about["why"],
        "hosts": dict(about["hosts"]),
        "keysets": [dict(keyset)],
        "messages": list(found["messages"]),
    }
