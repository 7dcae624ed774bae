# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The diff of a call: the variables of each file before and after, as fingerprints, never as values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ansible_collections.keyturn.rotation.plugins.module_utils.secret.jobs import Job, keyset_layout
from ansible_collections.keyturn.rotation.plugins.module_utils.secret.told import holds_of
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session
from ansible_collections.keyturn.rotation.plugins.module_utils.stores import Store, Workspace
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.layouts import ListLayout

if TYPE_CHECKING:
    from ansible_collections.keyturn.rotation.plugins.module_utils.stores.keyset import KeysetLayout

__all__ = ["diff_of"]


def diff_of(session: Session, jobs: Iterable[Job], workspace: Workspace) -> list[dict[str, str]]:
    """Per file that changes: its variables before and after, as fingerprints, never as values."""
    disk = Workspace()
    texts: dict[str, tuple[list[str], list[str]]] = {}
    for job in jobs:
        for store in job.stores:
            if store.path in workspace.changes:
                before, after = texts.setdefault(store.path, ([], []))
                before.extend(_redacted(session, job, store, disk))
                after.extend(_redacted(session, job, store, workspace))
    return [
        {
            "before_header": path,
            "after_header": path,
            "before": "".join(before),
            "after": "".join(after),
        }
        for path, (before, after) in sorted(texts.items())
    ]


def _redacted(session: Session, job: Job, store: Store, workspace: Workspace) -> list[str]:
    lines = []
    keyset = keyset_layout(store)
    if keyset:
        return _redacted_keyset(session, job, keyset, store.read(workspace))
    for variable, text in store.read(workspace).items():
        separator = store.layout.separator if isinstance(store.layout, ListLayout) else None
        parts = [] if text is None else text.split(separator) if separator else [text]
        marks = [_mark(session, job, part) for part in parts]
        name = variable if store.variable else "content"
        lines.append(f"{name}={(separator or b'').decode().join(marks)}\n")
    return lines


def _redacted_keyset(session: Session, job: Job, layout: KeysetLayout, slots: Mapping[str, bytes | None]) -> list[str]:
    keyset = layout.load(slots)
    if keyset is None:
        return []
    marks = {kid: _mark(session, job, keyset.entry(kid).encode()) for kid in keyset.keys}
    return [f"active_kid={keyset.active}\n", *(f"{kid}={mark}\n" for kid, mark in sorted(marks.items()))]


def _mark(session: Session, job: Job, value: bytes) -> str:
    part = holds_of(session, job.version, job.name, value)
    mark = session.fingerprint(job.name, value)
    return f"<{part} {mark}>" if mark else f"<redacted {part}>"
