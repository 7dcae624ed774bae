# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turning the versions of secrets on one host: staged, promoted, retired, rolled back.

Each call takes all its secrets or none: everything is computed and checked in memory, then the versions and the stores
are written. Where a secret stands is read from its stores each time, so a call that was interrupted is finished by the
same call again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.atomic import check_replaceable, sweep
from ansible_collections.keyturn.rotation.plugins.module_utils.derived import in_order, parent_of
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.secret.jobs import (
    Job,
    Sources,
    drifted,
    lost,
    open_jobs,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.secret.told import answer_of, fingerprints_of
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session
from ansible_collections.keyturn.rotation.plugins.module_utils.stores import Store, Workspace
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.layouts import Slots
from ansible_collections.keyturn.rotation.plugins.module_utils.versions import Version, Versions, moves, save_all

__all__ = ["WITHDRAWN", "Sources", "apply", "run"]

#: The old version is out of the stores as when it is retired, but its value is still kept for the proof of that.
WITHDRAWN = "withdrawn"


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """One call of the module ``secret``."""
    session = Session.from_params(params)
    return apply(session, params["state"], params["secrets"], check_mode, Sources())


def apply(
    session: Session, state: str, requests: Sequence[Mapping[str, Any]], check_mode: bool, sources: Sources
) -> dict[str, Any]:
    """Bring secrets into a state on this host, all or none.

    :param state: one of :data:`versions.STATES`, or :data:`WITHDRAWN`.
    :param requests: see :data:`SECRET_OPTIONS`.
    :returns: ``changed``, ``secrets``, ``loose_files``, ``diff``.
    :raises KeyturnError: what was wrong; nothing was changed then, unless the code is ``write-torn``.
    """
    if not session.rotation_id:
        raise KeyturnError(
            "rotation-missing", "no rotation_id was given", hint="Name the rotation this call belongs to"
        )
    with session.changing(check_mode):
        workspace = Workspace()
        jobs = open_jobs(session, requests)
        # Parents before their children; the way back is the other way round.
        by_name = {job.name: job for job in jobs}
        jobs = [by_name[name] for name in in_order({job.name: parent_of(job.request) for job in jobs})]
        done: dict[str, Job] = {}
        for job in reversed(jobs) if state == "rolled_back" else jobs:
            _move(session, job, state, workspace, sources, done)
            done[job.name] = job
        # The answer is made while the values are still there.
        secrets = {job.name: answer_of(session, job, workspace) for job in jobs}
        diff = _diff(session, jobs, workspace)
        touched = _keep(session, jobs, state, workspace, check_mode)
        loose = workspace.loose()
    return {"changed": touched, "secrets": secrets, "loose_files": loose, "diff": diff}


def _move(
    session: Session, job: Job, state: str, workspace: Workspace, sources: Sources, done: Mapping[str, Job]
) -> None:
    """Work out one secret: its version as it shall be, and its stores in the workspace."""
    todo = moves(job.before, "retired" if state == WITHDRAWN else state, job.name)
    if state == WITHDRAWN:
        if todo:
            _move_stores(session, job, "retired", workspace)
        return
    if state == "staged":
        from ansible_collections.keyturn.rotation.plugins.module_utils.secret.staging import restage, stage

        staged = restage(session, job, workspace) if job.version else None
        job.version = staged or stage(session, job, workspace, sources, done)
        if job.version.state == "staged":
            _move_stores(session, job, state, workspace)
            _rehearse(job, workspace)
        return
    if job.version is None or (job.before == "retired"):
        return
    if todo or state == "promoted":
        _move_stores(session, job, state, workspace)
    if todo:
        job.version = replace(job.current(), state=state)


#: From which forms of a store each state is reached.
_FORMS = {
    "staged": ("rolled_back", "staged", "promoted", "retired"),
    "promoted": ("rolled_back", "staged", "promoted", "retired"),
    "retired": ("promoted", "retired"),
    "rolled_back": ("rolled_back", "staged", "promoted", "retired"),
}


def _move_stores(session: Session, job: Job, state: str, workspace: Workspace) -> None:
    """Plan every store of a secret into ``state``; each must hold a form that this rotation made."""
    version = job.current()
    for store in job.stores:
        present = _present(job, store, state, workspace)
        primary = store.layout.primary(present)
        record = version.original(store.path, store.variable) or {}
        forms = {form: job.wanted(store, form) for form in _FORMS[state]}
        if present not in [*forms.values(), *([] if state == "retired" else [store.original(record)])]:
            if state == "rolled_back" and store.layout.is_without(present, version.old, version.value()):
                continue  # somebody else's keys have come in, and ours is out already
            raise drifted(session, job, store, primary, state)
        if state == "staged" and present in (forms["promoted"], forms["retired"]) and present != forms["rolled_back"]:
            continue  # promoted before this call's metadata was written: never demoted
        store.plan(workspace, forms[state], record)


def _rehearse(job: Job, workspace: Workspace) -> None:
    """Write the forms to come into nothing: what a store cannot hold is refused before any data moves.

    :raises KeyturnError: what writing raises, and ``file-fixed``.
    """
    version = job.current()
    for path in sorted({store.path for store in job.stores if os.path.isabs(store.path)}):
        check_replaceable(path)
    for form in ("promoted", "retired"):
        scratch = Workspace({store.path: workspace.read(store.path) for store in job.stores})
        for store in job.stores:
            store.plan(scratch, job.wanted(store, form), version.original(store.path, store.variable) or {})


#: Codes of what is not there. What to do about it is another thing once it has been there.
_MISSING = ("env-file-missing", "file-missing", "variable-missing")


def _present(job: Job, store: Store, state: str, workspace: Workspace) -> Slots:
    """What a store holds.

    :raises KeyturnError: ``store-lost`` on the way back, and what reading raises.
    """
    try:
        return store.read(workspace)
    except KeyturnError as error:
        if state != "rolled_back" or error.code not in _MISSING:
            raise
        raise lost(job, store, error) from None


def _diff(session: Session, jobs: Sequence[Job], workspace: Workspace) -> list[dict[str, str]]:
    if not workspace.changes:
        return []
    from ansible_collections.keyturn.rotation.plugins.module_utils.secret.difference import diff_of

    return diff_of(session, jobs, workspace)


def _keep(session: Session, jobs: Sequence[Job], state: str, workspace: Workspace, check_mode: bool) -> bool:
    """Write everything down and say whether that changed anything.

    Staging puts the versions on the disk before the stores use them; later states change the stores first, so that
    metadata never claims more than is true. Values go last.
    """
    versions = [job.version for job in jobs if job.version is not None]
    if state == "retired":
        versions = [_retire(session, job) if job.before == "promoted" else job.current() for job in jobs]
    moved = any(job.version is not None and job.version.state != job.before for job in jobs)
    stale = [stale for job in jobs for stale in _outdated(job)] if state == "retired" else []
    if check_mode:
        return bool(workspace.changes) or moved or bool(stale)
    for folder in _folders(session, jobs):
        sweep(folder)
    if state == "staged":
        written = save_all(session.state_dir, versions)
        return bool(workspace.commit()) or bool(written)
    written = workspace.commit()
    written += save_all(session.state_dir, [*versions, *(_retire_earlier(session, version) for version in stale)])
    gone = [Versions(session.state_dir, version.name).forget(version.rotation_id) for version in stale]
    return bool(written) or any(gone)


def _folders(session: Session, jobs: Sequence[Job]) -> set[str]:
    """Where a call of this rotation that was killed may have left something."""
    kept = {os.path.dirname(job.versions.path(session.rotation_id, "new")) for job in jobs}
    return kept | {os.path.dirname(store.path) for job in jobs for store in job.stores if os.path.isabs(store.path)}


def _retire(session: Session, job: Job) -> Version:
    version = job.current()
    return replace(version, new=None, old=None, originals=(), fingerprints=fingerprints_of(session, version))


def _outdated(job: Job) -> list[Version]:
    """The versions, this rotation's and earlier ones, whose values are still here."""
    mine = job.current()
    earlier = [version for version in job.versions.all() if version.made_at <= mine.made_at]
    return [version for version in earlier if version.new is not None or version.old is not None or version.originals]


def _retire_earlier(session: Session, version: Version) -> Version:
    """An earlier version without its values; one that was never retired is superseded, which is the same here."""
    state = "retired" if version.state == "promoted" else version.state
    marks = version.fingerprints or fingerprints_of(session, version)
    return replace(version, state=state, new=None, old=None, originals=(), fingerprints=marks)
