# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making or taking the new version of a secret, once: a call that was interrupted finds it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timezone
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.derived import parent_of, spec_of
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.secret.jobs import (
    Job,
    Sources,
    agreed_value,
    box_context,
    drifted,
    held_by,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session
from ansible_collections.keyturn.rotation.plugins.module_utils.stores import Store, Workspace
from ansible_collections.keyturn.rotation.plugins.module_utils.values import resolve
from ansible_collections.keyturn.rotation.plugins.module_utils.versions import Version

__all__ = ["restage", "stage"]


def _new_value(session: Session, job: Job, workspace: Workspace, sources: Sources, made: Mapping[str, Job]) -> bytes:
    """The value of this rotation: never a second one.

    :param made: the secrets of this call that are staged already, parents before their children.
    """
    request = job.request
    accept = request.get("accept") or {}
    if accept.get("new"):
        return session.open_box(accept["new"], box_context(session, job.name, "new"))
    leftover = job.versions.leftover(session.rotation_id)
    if leftover is not None and not request.get("derive"):  # a derived one may be of a parent that was lost
        return leftover
    if request.get("new"):
        value = resolve(session, request["new"], box_context(session, job.name, "new"))
        from ansible_collections.keyturn.rotation.plugins.module_utils.generate import check_length

        check_length(request.get("generate") or {}, value, job.name)
        return _keyed(job, value, workspace, sources)
    if not request.get("origin"):
        raise KeyturnError(
            "value-missing",
            "this host neither makes the new value nor was given it",
            where=job.name,
            hint="Set origin on one host and pass its box to the others",
        )
    if request.get("derive"):
        return _derived(session, job, workspace, sources, made)
    from ansible_collections.keyturn.rotation.plugins.module_utils.generate import generate

    return _keyed(job, generate(request.get("generate") or {}, sources.randbytes), workspace, sources)


def _keyed(job: Job, value: bytes, workspace: Workspace, sources: Sources) -> bytes:
    """A key of a keyset has a kid of its own; any other value is as it is."""
    if not job.keysets:
        return value
    from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.model import Entry, kid_for, text_of

    entry = Entry.read(value)
    if entry is None:
        taken: dict[str, str] = {}
        for store, layout in job.keysets:
            keyset = layout.load(store.read(workspace))
            taken.update(keyset.keys if keyset else {})
        kid = kid_for(job.request.get("kid") or "", sources.now().astimezone(timezone.utc), taken)
        entry = Entry(kid, text_of(value, job.name))
    return entry.encode()


def _derived(session: Session, job: Job, workspace: Workspace, sources: Sources, made: Mapping[str, Job]) -> bytes:
    """A value made from its parent: from the new one where the parent turns too, else from the one in use."""
    derive: Mapping[str, Any] = job.request["derive"]
    name = parent_of(job.request)
    if name in made:
        key: bytes | None = made[name].current().value()
    else:
        parent = Job.open(session, {"name": name, "stores": derive.get("stores") or ()})
        key = agreed_value(session, parent, held_by(parent, workspace))
    if key is None:
        raise KeyturnError(
            "parent-missing",
            f"{job.name} is made from {name}, and no store of {name} is on this host or has a value",
            where=job.name,
            hint=f"Turn {name}, which makes {job.name} too",
        )
    from ansible_collections.keyturn.rotation.plugins.module_utils.generate import generate

    return generate(spec_of(derive), sources.randbytes, key=key, clock=sources.now().timestamp, where=job.name)


def _old_value(session: Session, job: Job) -> bytes | None:
    """The old value that was named or sent, if any."""
    request = job.request
    accept = request.get("accept") or {}
    if accept.get("old"):
        return session.open_box(accept["old"], box_context(session, job.name, "old"))
    if request.get("old"):
        return resolve(session, request["old"], box_context(session, job.name, "old"))
    return None


def stage(session: Session, job: Job, workspace: Workspace, sources: Sources, made: Mapping[str, Job]) -> Version:
    """The version of this rotation, as it was not there before.

    :raises KeyturnError: ``value-missing``, ``value-unchanged``, ``store-drifted``, ``stores-disagree``.
    """
    new, old = _new_value(session, job, workspace, sources, made), _old_value(session, job)
    named = old is not None
    held = held_by(job, workspace)
    if old is None:
        old = agreed_value(session, job, held)
    if new == old:
        raise KeyturnError(
            "value-unchanged",
            "the new value is the one in use already",
            where=job.name,
            hint="Give another value, or the old one where the stores hold the new one already",
        )
    for store, value in held:
        if value is not None and value != old and not (named and value == new):
            raise drifted(session, job, store, value, "staged")
    return Version(
        job.name,
        session.rotation_id,
        "staged",
        sources.now().astimezone(timezone.utc).isoformat(timespec="microseconds"),
        old is not None,
        new,
        old,
        tuple(_record(job, store, workspace, old, new) for store in job.stores),
    )


def _record(job: Job, store: Store, workspace: Workspace, old: bytes | None, new: bytes | None) -> dict[str, Any]:
    is_sent = bool((job.request.get("accept") or {}).get("new"))
    kept = store.record_sent(workspace, old, new) if new is not None and is_sent else store.record(workspace)
    return {"path": store.path, "variable": store.variable, **kept}


def restage(session: Session, job: Job, workspace: Workspace) -> Version:
    """A version that is there already: the value that was sent is the same, and every store has its record."""
    version = job.current()
    accept = job.request.get("accept") or {}
    if accept.get("new") and version.new is not None:
        sent = session.open_box(accept["new"], box_context(session, job.name, "new"))
        if sent != version.new:
            raise KeyturnError(
                "version-differs",
                f"this host holds another value for rotation {session.rotation_id} than it was sent",
                where=job.name,
                hint="Roll this rotation back and start a new one",
            )
    if version.state != "staged":
        return version
    added = [store for store in job.stores if version.original(store.path, store.variable) is None]
    for store in added:
        value = store.layout.primary(store.read(workspace))
        if value is not None and value != version.old:
            raise drifted(session, job, store, value, "staged")
    return replace(
        version,
        originals=(*version.originals, *(_record(job, store, workspace, version.old, version.new) for store in added)),
    )
