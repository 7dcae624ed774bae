# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was sealed last of each secret, for those who only want to know that; nothing is checked here."""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence import store

__all__ = ["latest"]


def latest(directory: str) -> dict[str, dict[str, Any]]:
    """By secret ``event``, ``at`` (UTC), ``folder``, ``record`` (SHA-256), and ``keyset``: the last one of this name.

    A chain that cannot be read has the event ``damaged`` and no more: the status is shown all the same.
    """
    folder = os.path.join(directory, store.CHAINS)
    if not os.path.isdir(folder):
        return {}
    names = sorted(name[: -len(".jsonl")] for name in os.listdir(folder) if name.endswith(".jsonl"))
    return {name: found for name in names if (found := _last_of(directory, name))}


def _last_of(directory: str, name: str) -> dict[str, Any]:
    try:
        chain = store.read_chain(directory, name)
        if not chain:
            return {}
        last = {field: chain[-1][field] for field in ("event", "at", "folder", "record")}
        return {**last, "keyset": _keyset(directory, name, [str(entry["folder"]) for entry in chain])}
    except KeyturnError:
        return {"event": "damaged", "at": "", "folder": "", "record": "", "keyset": None}


def _keyset(directory: str, name: str, folders: list[str]) -> dict[str, Any] | None:
    """The keyset of the last record that has one of this name."""
    files = ("keyset.json", f"keyset.{name}.json")
    for folder in reversed(folders):
        if not any(os.path.lexists(os.path.join(directory, folder, file)) for file in files):
            continue  # most secrets are no keysets, and their records are not read for that
        read = store.read_document(directory, folder)
        for keyset in read[0].get("keysets", ()) if read else ():
            if keyset["name"] == name:
                return dict(keyset)
    return None
