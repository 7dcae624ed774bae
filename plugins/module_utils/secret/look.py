# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How secrets stand on one host, and where else their values lie. Nothing is changed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ansible_collections.keyturn.rotation.plugins.module_utils.atomic import check_replaceable
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.secret.jobs import (
    Held,
    Job,
    agreed_value,
    keyset_layout,
    open_jobs,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.secret.told import boxes_for, fingerprints_of, holds_of
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session
from ansible_collections.keyturn.rotation.plugins.module_utils.stores import Store, Workspace
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.inside import InsideStore
from ansible_collections.keyturn.rotation.plugins.module_utils.versions import Version

if TYPE_CHECKING:
    from ansible_collections.keyturn.rotation.plugins.module_utils.copies import Known

__all__ = ["inspect", "run_info"]

#: A larger file is no configuration.
_SEARCHED_BYTES = 1 << 20


def run_info(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """One call of the module ``secret_info``; the fingerprint key goes into the session folder in check mode too."""
    del check_mode
    session = Session.from_params(params)
    if params.get("accept_fingerprint"):
        session.accept_fingerprint_key(params["accept_fingerprint"])
    restored = _in_backup(session, params.get("backup"))
    told = inspect(session, params["secrets"], params.get("search") or (), Workspace(restored))
    told["problems"] += _fixed([*(params.get("replaced") or ()), *_differing(restored)])
    return told


def _differing(wanted: Mapping[str, bytes | None]) -> Iterator[str]:
    """The files that hold something else now."""
    now = Workspace()
    for path, content in wanted.items():
        with contextlib.suppress(KeyturnError):  # what is no file of ours is refused where it is replaced
            if now.on_disk(path) != content:
                yield path


def _fixed(paths: Iterable[str]) -> Iterator[dict[str, str]]:
    """What keeps files from being replaced, asked of all hosts before the first one changes."""
    for path in sorted({path for path in paths if os.path.isabs(path)}):
        try:
            check_replaceable(path)
        except KeyturnError as error:
            yield _problem(error)


def _in_backup(session: Session, asked: Mapping[str, Any] | None) -> dict[str, bytes | None]:
    """What the files would hold if a backup were restored; nothing where none is asked for."""
    if not asked:
        return {}
    from ansible_collections.keyturn.rotation.plugins.module_utils.backup import Place, backup_key, contents

    return contents(Place.of(asked, session).find(asked["name"]), backup_key(session, asked))


def inspect(
    session: Session,
    requests: Sequence[Mapping[str, Any]],
    search: Iterable[str] = (),
    workspace: Workspace | None = None,
) -> dict[str, Any]:
    """How secrets stand on this host. Nothing is changed; what is wrong comes in a list, all of it at once.

    :param requests: see :data:`INFO_OPTIONS`.
    :param search: files in which values are looked for, besides those of the stores.
    :param workspace: the files; as they are on the disk by default.
    :returns: ``secrets``, ``problems`` (``code``, ``where``, ``msg``), ``copies`` (see :func:`copies.find_copies`),
        ``loose_files``, ``changed`` (False).
    """
    problems: list[dict[str, str]] = []
    secrets: dict[str, Any] = {}
    workspace = workspace or Workspace()
    jobs = []
    for request in requests:
        try:
            job = Job.open(session, request)
        except KeyturnError as error:
            problems.append(_problem(error))
            continue
        jobs.append(job)
        secrets[job.name] = _describe(session, job, workspace, problems)
    try:
        open_jobs(session, [request for request in requests if request["name"] in secrets])
    except KeyturnError as error:
        problems.append(_problem(error))
    loose = workspace.loose()
    from ansible_collections.keyturn.rotation.plugins.module_utils.copies import find_copies

    copies = find_copies(*_searched(jobs, workspace, search))
    return {"changed": False, "secrets": secrets, "problems": problems, "copies": copies, "loose_files": loose}


def _searched(jobs: Iterable[Job], workspace: Workspace, search: Iterable[str]) -> tuple[list[Known], dict[str, bytes]]:
    """The values in use with the places that are known, and the files to look in."""
    from ansible_collections.keyturn.rotation.plugins.module_utils.copies import Known

    known: list[Known] = []
    paths = set(search)
    for job in jobs:
        values: set[bytes] = set()
        spans: dict[str, tuple[tuple[int, int], ...]] = {}
        variables: set[tuple[str, str]] = set()
        for store in job.stores:
            paths.add(store.path)
            outer = store.outer if isinstance(store, InsideStore) else store
            if store is outer or outer.variable:
                variables |= {(store.path, name) for name in (outer.layout.variables if outer.variable else ("",))}
            with contextlib.suppress(KeyturnError):
                values |= store.layout.searched(store.read(workspace))
                if isinstance(store, InsideStore) and not outer.variable:
                    spans[store.path] = (*spans.get(store.path, ()), store.written_span(workspace))
        known += [Known(job.name, value, frozenset(variables), spans) for value in sorted(values)]
    files: dict[str, bytes] = {}
    for path in sorted(paths):
        with contextlib.suppress(KeyturnError):  # what cannot be read is the stores' concern
            content = workspace.on_disk(path)
            if content is not None and len(content) <= _SEARCHED_BYTES:
                files[path] = content
    return known, files


def _problem(error: KeyturnError) -> dict[str, str]:
    return {"code": error.code, "where": error.where, "msg": str(error)}


def _described_keyset(
    session: Session, job: Job, store: Store, version: Version | None, workspace: Workspace
) -> dict[str, Any]:
    """What may be told of a keyset: its kids, their states and fingerprints; nothing for another store."""
    layout = keyset_layout(store)
    keyset = layout.load(store.read(workspace)) if layout else None
    if layout is None or keyset is None:
        return {}
    from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.model import Entry

    new = Entry.read(version.new) if version and version.new else None
    states = {new.kid: "staged"} if new else {}
    states[keyset.active] = "primary"
    record = version.original(store.path, store.variable) if version else None
    before = layout.load(store.original(record)) if record else None
    return {
        "keyset": {
            "active_kid": keyset.active,
            "previous_active_kid": before.active if before else "",
            "fingerprint": session.fingerprint(job.name, keyset.canonical()),
            "keys": [
                {
                    "kid": kid,
                    "state": states.get(kid, "previous"),
                    "fingerprint": session.fingerprint(job.name, keyset.entry(kid).encode()),
                    "since": version.made_at if version and new and kid == new.kid else "",
                    "holds": holds_of(session, version, job.name, keyset.entry(kid).encode()),
                }
                for kid in sorted(keyset.keys)
            ],
        }
    }


def _describe(session: Session, job: Job, workspace: Workspace, problems: list[dict[str, str]]) -> dict[str, Any]:
    versions = job.versions.all()
    version = job.version if session.rotation_id else next(reversed(versions), None)
    stores: list[dict[str, Any]] = []
    held: Held = []
    for store in job.stores:
        entry: dict[str, Any] = {"path": store.path, "variable": store.variable}
        try:
            value = store.layout.primary(store.read(workspace))
        except KeyturnError as error:
            problems.append(_problem(error))
            stores.append({**entry, "present": False, "fingerprint": "", "holds": "unknown"})
            continue
        held.append((store, value))
        mark = session.fingerprint(job.name, value) if value is not None else ""
        holds = holds_of(session, version, job.name, value)
        keyset = _described_keyset(session, job, store, version, workspace)
        stores.append({**entry, "present": value is not None, "fingerprint": mark, "holds": holds, **keyset})
    agreed = None
    try:
        agreed = agreed_value(session, job, held)
    except KeyturnError as error:
        problems.append(_problem(error))
    known: dict[str, bytes | None] = {"new": version.new, "old": version.old} if version else {}
    if version is None and agreed is not None:
        known = {"old": agreed}
    return {
        "stores": stores,
        "versions": {
            each.rotation_id: {
                "state": each.state,
                "made_at": each.made_at,
                "had_old": each.had_old,
                "fingerprints": fingerprints_of(session, each),
            }
            for each in versions
        },
        "boxes": boxes_for(session, job, known),
    }
