# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turning the versions of secrets on one host: staged, promoted, retired, rolled back.

Each call takes all its secrets or none: everything is computed and checked in memory, then the versions and the stores
are written. Where a secret stands is read from its stores each time, so a call that was interrupted is finished by the
same call again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Callable, Optional

from ansible_collections.keyturn.rotation.plugins.module_utils import sealed
from ansible_collections.keyturn.rotation.plugins.module_utils.derived import in_order, parent_of, spec_of
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session
from ansible_collections.keyturn.rotation.plugins.module_utils.stores import Store, Workspace
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.catalog import STORE_OPTIONS, open_store
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.inside import InsideStore
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.layouts import ListLayout, Slots
from ansible_collections.keyturn.rotation.plugins.module_utils.values import VALUE_OPTIONS, resolve
from ansible_collections.keyturn.rotation.plugins.module_utils.versions import (
    Version,
    Versions,
    moves,
    save_all,
)

# Every execution compiles what it imports, on every host: what few secrets need is imported where it is needed
if TYPE_CHECKING:
    from ansible_collections.keyturn.rotation.plugins.module_utils.copies import Known
    from ansible_collections.keyturn.rotation.plugins.module_utils.stores.keyset import KeysetLayout

__all__ = [
    "FROM_BACKUP",
    "INFO_OPTIONS",
    "SECRET_OPTIONS",
    "WITHDRAWN",
    "Sources",
    "apply",
    "inspect",
    "run",
    "run_info",
]

#: The old version is out of the stores as when it is retired, but its value is still kept for the proof of that.
WITHDRAWN = "withdrawn"

_SEAL_TO: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {
        "host": {"type": "str", "required": True},
        "public": {"type": "str", "required": True},
        "versions": {"type": "list", "elements": "str", "choices": ["new", "old"], "default": ["new", "old"]},
    },
}

#: The argument spec of one secret for ``secret_info``.
INFO_OPTIONS: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "stores": {"type": "list", "elements": "dict", "default": [], "options": STORE_OPTIONS},
    "seal_to": _SEAL_TO,
}

#: The argument spec of a backup that ``secret_info`` looks into.
FROM_BACKUP: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "backup_dir": {"type": "path"},
    "root": {"type": "path"},
    "filename_format": {"type": "str"},
    "key": {"type": "dict", "options": VALUE_OPTIONS, "no_log": False},
}

_DERIVE: dict[str, Any] = {
    "type": "dict",
    "options": {
        "type": {"type": "str", "choices": ["jwt"], "default": "jwt"},
        "from": {"type": "str", "required": True},
        "claims": {"type": "dict", "default": {}},
        "lifetime": {"type": "str", "required": True},
        "algorithm": {"type": "str", "choices": ["HS256"], "default": "HS256"},
        "allow_weak": {"type": "bool", "default": False},
        "stores": {"type": "list", "elements": "dict", "default": []},
    },
}

#: The argument spec of one secret for ``secret``.
SECRET_OPTIONS: dict[str, dict[str, Any]] = {
    **INFO_OPTIONS,
    "generate": {"type": "dict"},
    "derive": _DERIVE,
    "new": {"type": "dict", "options": VALUE_OPTIONS},
    "old": {"type": "dict", "options": VALUE_OPTIONS},
    "origin": {"type": "bool", "default": False},
    "accept": {"type": "dict", "options": {"new": {"type": "str"}, "old": {"type": "str"}}},
    "kid": {"type": "str"},
}


@dataclass(frozen=True)
class Sources:
    """What is not on the host: random bytes and the clock (UTC)."""

    randbytes: Callable[[int], bytes] = os.urandom
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """One call of the module ``secret``."""
    session = Session.from_params(params)
    return apply(session, params["state"], params["secrets"], check_mode, Sources())


def run_info(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """One call of the module ``secret_info``; the fingerprint key goes into the session folder in check mode too."""
    del check_mode
    session = Session.from_params(params)
    if params.get("accept_fingerprint"):
        session.accept_fingerprint_key(params["accept_fingerprint"])
    return inspect(
        session, params["secrets"], params.get("search") or (), Workspace(_in_backup(session, params.get("backup")))
    )


def _in_backup(session: Session, asked: Mapping[str, Any] | None) -> dict[str, bytes | None]:
    """What the files would hold if a backup were restored; nothing where none is asked for."""
    if not asked:
        return {}
    from ansible_collections.keyturn.rotation.plugins.module_utils.backup import Place, backup_key, contents

    return contents(Place.of(asked, session).find(asked["name"]), backup_key(session, asked))


# -- one secret ------------------------------------------------------------------------------------------------------


@dataclass
class _Job:
    """One secret of the call, while it is worked out."""

    request: Mapping[str, Any]
    name: str
    stores: list[Store]
    versions: Versions
    version: Version | None
    before: str | None

    @classmethod
    def open(cls, session: Session, request: Mapping[str, Any]) -> _Job:
        name: str = request["name"]
        versions = Versions(session.state_dir, name)
        stores = [open_store(name, options) for options in request.get("stores") or ()]
        version = versions.load(session.rotation_id) if session.rotation_id else None
        return cls(request, name, stores, versions, version, version.state if version else None)

    def current(self) -> Version:
        if self.version is None:
            raise KeyturnError("not-staged", "nothing is staged here", where=self.name, hint="Run from the start")
        return self.version

    @property
    def keysets(self) -> list[tuple[Store, KeysetLayout]]:
        """Its stores that are keysets, with their layouts."""
        return [(store, layout) for store in self.stores if (layout := _keyset_layout(store))]

    def wanted(self, store: Store, state: str) -> Slots:
        version = self.current()
        record = version.original(store.path, store.variable)
        if record is None:
            raise KeyturnError(
                "store-not-staged",
                f"this store was added to {self.name} after its new version was staged",
                where=store.path,
                hint="Finish or roll back this rotation with the stores it began with",
            )
        return store.layout.wanted(state, store.original(record), version.old, version.value())


def _open_all(session: Session, requests: Sequence[Mapping[str, Any]]) -> list[_Job]:
    jobs = [_Job.open(session, request) for request in requests]
    taken: dict[tuple[str, str], str] = {}
    names: set[str] = set()
    for job in jobs:
        if job.name in names:
            raise KeyturnError("secret-twice", "is named twice in one call", where=job.name, hint="Name it once")
        names.add(job.name)
        _refuse_mixed(job)
        for store in job.stores:
            whole_file = not store.variable
            for variable in ("",) if whole_file else store.layout.variables:
                if (store.path, variable) in taken:
                    other = taken[store.path, variable]
                    raise KeyturnError(
                        "store-twice",
                        f"{variable or 'the file'} is a store of {other} and of {job.name}",
                        where=store.path,
                        hint="Name each place once",
                    )
                taken[store.path, variable] = job.name
    _refuse_parts_of_stores(jobs)
    return jobs


def _refuse_mixed(job: _Job) -> None:
    """A key of a keyset has a kid, and another store has no room for it."""
    if 0 < len(job.keysets) < len(job.stores):
        raise KeyturnError(
            "store-invalid",
            "some stores are keysets and others are not",
            where=job.name,
            hint="Name keysets and other places in entries of their own",
        )


def _refuse_parts_of_stores(jobs: Sequence[_Job]) -> None:
    """A part of what is a store itself would be written twice."""
    whole = {
        (store.path, variable): job.name
        for job in jobs
        for store in job.stores
        if not isinstance(store, InsideStore)
        for variable in (store.layout.variables if store.variable else ("",))
    }
    for job in jobs:
        for store in job.stores:
            if isinstance(store, InsideStore) and (store.path, store.outer.variable) in whole:
                other = whole[store.path, store.outer.variable]
                raise KeyturnError(
                    "store-twice",
                    f"{store.outer.variable or 'the file'} is a store of {other}, and a part of it one of {job.name}",
                    where=store.path,
                    hint="Name the whole, or its parts",
                )


def _context(session: Session, name: str, version: str) -> str:
    return f"{session.rotation_id}/{name}/{version}"


# -- staging ---------------------------------------------------------------------------------------------------------


_Held = list[tuple[Store, Optional[bytes]]]


def _held(job: _Job, workspace: Workspace) -> _Held:
    """Each store with its primary value."""
    return [(store, store.layout.primary(store.read(workspace))) for store in job.stores]


def _agreed(session: Session, job: _Job, held: _Held) -> bytes | None:
    """The one value that all stores hold, None when none holds any."""
    there = [(store, value) for store, value in held if value is not None]
    if len({value for _store, value in there}) > 1:
        places = [_place(store, session.fingerprint(job.name, value)) for store, value in there]
        raise KeyturnError(
            "stores-disagree",
            f"the stores of {job.name} hold different values: {', '.join(places)}",
            where=there[0][0].path,
            hint="Find out which one is in use and write it to all of them",
        )
    return there[0][1] if there else None


def _place(store: Store, mark: str) -> str:
    text = f"{store.path} {store.variable}".rstrip()
    return f"{text} ({mark})" if mark else text


def _new_value(session: Session, job: _Job, workspace: Workspace, sources: Sources, made: Mapping[str, _Job]) -> bytes:
    """The value of this rotation: never a second one.

    :param made: the secrets of this call that are staged already, parents before their children.
    """
    request = job.request
    accept = request.get("accept") or {}
    if accept.get("new"):
        return session.open_box(accept["new"], _context(session, job.name, "new"))
    leftover = job.versions.leftover(session.rotation_id)
    if leftover is not None and not request.get("derive"):  # a derived one may be of a parent that was lost
        return leftover
    if request.get("new"):
        value = resolve(session, request["new"], _context(session, job.name, "new"))
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


def _keyed(job: _Job, value: bytes, workspace: Workspace, sources: Sources) -> bytes:
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


def _derived(session: Session, job: _Job, workspace: Workspace, sources: Sources, made: Mapping[str, _Job]) -> bytes:
    """A value made from its parent: from the new one where the parent turns too, else from the one in use."""
    derive: Mapping[str, Any] = job.request["derive"]
    name = parent_of(job.request)
    if name in made:
        key: bytes | None = made[name].current().value()
    else:
        parent = _Job.open(session, {"name": name, "stores": derive.get("stores") or ()})
        key = _agreed(session, parent, _held(parent, workspace))
    if key is None:
        raise KeyturnError(
            "parent-missing",
            f"{job.name} is made from {name}, and no store of {name} is on this host or has a value",
            where=job.name,
            hint=f"Turn {name}, which makes {job.name} too",
        )
    from ansible_collections.keyturn.rotation.plugins.module_utils.generate import generate

    return generate(spec_of(derive), sources.randbytes, key=key, clock=sources.now().timestamp, where=job.name)


def _old_value(session: Session, job: _Job) -> bytes | None:
    """The old value that was named or sent, if any."""
    request = job.request
    accept = request.get("accept") or {}
    if accept.get("old"):
        return session.open_box(accept["old"], _context(session, job.name, "old"))
    if request.get("old"):
        return resolve(session, request["old"], _context(session, job.name, "old"))
    return None


def _stage(session: Session, job: _Job, workspace: Workspace, sources: Sources, made: Mapping[str, _Job]) -> Version:
    new, old = _new_value(session, job, workspace, sources, made), _old_value(session, job)
    named = old is not None
    held = _held(job, workspace)
    if old is None:
        old = _agreed(session, job, held)
    if new == old:
        raise KeyturnError(
            "value-unchanged",
            "the new value is the one in use already",
            where=job.name,
            hint="Give another value, or the old one where the stores hold the new one already",
        )
    for store, value in held:
        if value is not None and value != old and not (named and value == new):
            raise _drifted(session, job, store, value)
    return Version(
        job.name,
        session.rotation_id,
        "staged",
        sources.now().astimezone(timezone.utc).isoformat(timespec="microseconds"),
        old is not None,
        new,
        old,
        tuple(_record(store, workspace) for store in job.stores),
    )


def _record(store: Store, workspace: Workspace) -> dict[str, Any]:
    return {"path": store.path, "variable": store.variable, **store.record(workspace)}


def _restage(session: Session, job: _Job, workspace: Workspace) -> Version:
    """A version that is there already: the value that was sent is the same, and every store has its record."""
    version = job.current()
    accept = job.request.get("accept") or {}
    if accept.get("new") and version.new is not None:
        sent = session.open_box(accept["new"], _context(session, job.name, "new"))
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
            raise _drifted(session, job, store, value)
    return replace(version, originals=(*version.originals, *(_record(store, workspace) for store in added)))


# -- moving the stores -----------------------------------------------------------------------------------------------


def _drifted(session: Session, job: _Job, store: Store, value: bytes | None) -> KeyturnError:
    mark = session.fingerprint(job.name, value) if value is not None else ""
    return KeyturnError(
        "store-drifted",
        f"{_place(store, mark)} does not hold what {job.name} should have there, so somebody changed it",
        where=store.path,
        hint="Put the old or the new value there, or roll back by hand; nothing was changed",
    )


#: From which forms of a store each state is reached.
_FORMS = {
    "staged": ("rolled_back", "staged", "promoted", "retired"),
    "promoted": ("rolled_back", "staged", "promoted", "retired"),
    "retired": ("promoted", "retired"),
    "rolled_back": ("rolled_back", "staged", "promoted", "retired"),
}


def _move_stores(session: Session, job: _Job, state: str, workspace: Workspace) -> None:
    """Plan every store of a secret into ``state``; each must hold a form that this rotation made."""
    version = job.current()
    for store in job.stores:
        present = store.read(workspace)
        primary = store.layout.primary(present)
        record = version.original(store.path, store.variable) or {}
        forms = {form: job.wanted(store, form) for form in _FORMS[state]}
        if present not in [*forms.values(), *([] if state == "retired" else [store.original(record)])]:
            raise _drifted(session, job, store, primary)
        if state == "staged" and present in (forms["promoted"], forms["retired"]) and present != forms["rolled_back"]:
            continue  # promoted before this call's metadata was written: never demoted
        store.plan(workspace, forms[state], record)


def _retire(session: Session, job: _Job) -> Version:
    version = job.current()
    return replace(version, new=None, old=None, originals=(), fingerprints=_fingerprints(session, version))


def _move(
    session: Session, job: _Job, state: str, workspace: Workspace, sources: Sources, done: Mapping[str, _Job]
) -> None:
    """Work out one secret: its version as it shall be, and its stores in the workspace."""
    todo = moves(job.before, "retired" if state == WITHDRAWN else state, job.name)
    if state == WITHDRAWN:
        if todo:
            _move_stores(session, job, "retired", workspace)
        return
    if state == "staged":
        staged = _restage(session, job, workspace) if job.version else None
        job.version = staged or _stage(session, job, workspace, sources, done)
        if job.version.state == "staged":
            _move_stores(session, job, state, workspace)
        return
    if job.version is None or (job.before == "retired"):
        return
    if todo or state == "promoted":
        _move_stores(session, job, state, workspace)
    if todo:
        job.version = replace(job.current(), state=state)


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
        jobs = _open_all(session, requests)
        # Parents before their children; the way back is the other way round.
        by_name = {job.name: job for job in jobs}
        jobs = [by_name[name] for name in in_order({job.name: parent_of(job.request) for job in jobs})]
        done: dict[str, _Job] = {}
        for job in reversed(jobs) if state == "rolled_back" else jobs:
            _move(session, job, state, workspace, sources, done)
            done[job.name] = job
        # The answer is made while the values are still there.
        secrets = {job.name: _answer(session, job, workspace) for job in jobs}
        diff = _diff(session, jobs, workspace)
        touched = _keep(session, jobs, state, workspace, check_mode)
        loose = workspace.loose()
    return {"changed": touched, "secrets": secrets, "loose_files": loose, "diff": diff}


def _keep(session: Session, jobs: Sequence[_Job], state: str, workspace: Workspace, check_mode: bool) -> bool:
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
    if state == "staged":
        written = save_all(session.state_dir, versions)
        return bool(workspace.commit()) or bool(written)
    written = workspace.commit()
    written += save_all(session.state_dir, [*versions, *(_retire_earlier(session, version) for version in stale)])
    gone = [Versions(session.state_dir, version.name).forget(version.rotation_id) for version in stale]
    return bool(written) or any(gone)


def _outdated(job: _Job) -> list[Version]:
    """The versions, this rotation's and earlier ones, whose values are still here."""
    mine = job.current()
    earlier = [version for version in job.versions.all() if version.made_at <= mine.made_at]
    return [version for version in earlier if version.new is not None or version.old is not None or version.originals]


def _retire_earlier(session: Session, version: Version) -> Version:
    """An earlier version without its values; one that was never retired is superseded, which is the same here."""
    state = "retired" if version.state == "promoted" else version.state
    marks = version.fingerprints or _fingerprints(session, version)
    return replace(version, state=state, new=None, old=None, originals=(), fingerprints=marks)


# -- what is told ----------------------------------------------------------------------------------------------------


def _fingerprints(session: Session, version: Version) -> dict[str, str]:
    """By version; empty texts without a fingerprint key, and no entry for a version that does not exist."""
    marks = {"new": version.fingerprints.get("new", "")}
    if version.had_old:
        marks["old"] = version.fingerprints.get("old", "")
    for part, value in (("new", version.new), ("old", version.old)):
        if value is not None:
            marks[part] = session.fingerprint(version.name, value)
    return marks


def _holds(session: Session, version: Version | None, name: str, value: bytes | None) -> str:
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


def _boxes(session: Session, job: _Job, values: Mapping[str, bytes | None]) -> dict[str, dict[str, str]]:
    boxes: dict[str, dict[str, str]] = {}
    for target in job.request.get("seal_to") or ():
        boxes[target["host"]] = {}
        for part in target.get("versions") or ("new", "old"):
            value = values.get(part)
            if value is not None:
                box = sealed.seal(value, target["public"], _context(session, job.name, part))
                boxes[target["host"]][part] = box
    return boxes


def _kids(version: Version | None) -> dict[str, str]:
    """The kids of versions that are keys, by which their public halves are found in a JWKS."""
    parts = {"new": version.new, "old": version.old} if version else {}
    documents = {part: value for part, value in parts.items() if value is not None and b"{" in value}
    if not documents:  # nearly always
        return {}
    from ansible_collections.keyturn.rotation.plugins.module_utils.generate import kid_in

    kids = {part: kid_in(value) for part, value in documents.items()}
    return {part: kid for part, kid in kids.items() if kid}


def _answer(session: Session, job: _Job, workspace: Workspace) -> dict[str, Any]:
    version = job.version
    stores = []
    for store in job.stores:
        value = store.layout.primary(store.read(workspace))
        holds = _holds(session, version, job.name, value)
        stores.append({"path": store.path, "variable": store.variable, "holds": holds})
    kids = _kids(version)
    return {
        "state": version.state if version else "",
        "had_old": version.had_old if version else False,
        "fingerprints": _fingerprints(session, version) if version else {},
        **({"kids": kids} if kids else {}),
        "stores": stores,
        "boxes": _boxes(session, job, {"new": version.new, "old": version.old} if version else {}),
    }


def _diff(session: Session, jobs: Iterable[_Job], workspace: Workspace) -> list[dict[str, str]]:
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


def _keyset_layout(store: Store) -> KeysetLayout | None:
    """The layout of a keyset; nothing for another store."""
    if not store.layout.is_keyset:
        return None
    from ansible_collections.keyturn.rotation.plugins.module_utils.stores.keyset import KeysetLayout

    return store.layout if isinstance(store.layout, KeysetLayout) else None


def _redacted(session: Session, job: _Job, store: Store, workspace: Workspace) -> list[str]:
    lines = []
    keyset = _keyset_layout(store)
    if keyset:
        return _redacted_keyset(session, job, keyset, store.read(workspace))
    for variable, text in store.read(workspace).items():
        separator = store.layout.separator if isinstance(store.layout, ListLayout) else None
        parts = [] if text is None else text.split(separator) if separator else [text]
        marks = [_mark(session, job, part) for part in parts]
        name = variable if store.variable else "content"
        lines.append(f"{name}={(separator or b'').decode().join(marks)}\n")
    return lines


def _redacted_keyset(session: Session, job: _Job, layout: KeysetLayout, slots: Mapping[str, bytes | None]) -> list[str]:
    keyset = layout.load(slots)
    if keyset is None:
        return []
    marks = {kid: _mark(session, job, keyset.entry(kid).encode()) for kid in keyset.keys}
    return [f"active_kid={keyset.active}\n", *(f"{kid}={mark}\n" for kid, mark in sorted(marks.items()))]


def _mark(session: Session, job: _Job, value: bytes) -> str:
    part = _holds(session, job.version, job.name, value)
    mark = session.fingerprint(job.name, value)
    return f"<{part} {mark}>" if mark else f"<redacted {part}>"


# -- looking ---------------------------------------------------------------------------------------------------------


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
            job = _Job.open(session, request)
        except KeyturnError as error:
            problems.append(_problem(error))
            continue
        jobs.append(job)
        secrets[job.name] = _describe(session, job, workspace, problems)
    try:
        _open_all(session, [request for request in requests if request["name"] in secrets])
    except KeyturnError as error:
        problems.append(_problem(error))
    loose = workspace.loose()
    from ansible_collections.keyturn.rotation.plugins.module_utils.copies import find_copies

    copies = find_copies(*_searched(jobs, workspace, search))
    return {"changed": False, "secrets": secrets, "problems": problems, "copies": copies, "loose_files": loose}


#: A larger file is no configuration.
_SEARCHED_BYTES = 1 << 20


def _searched(
    jobs: Iterable[_Job], workspace: Workspace, search: Iterable[str]
) -> tuple[list[Known], dict[str, bytes]]:
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
    session: Session, job: _Job, store: Store, version: Version | None, workspace: Workspace
) -> dict[str, Any]:
    """What may be told of a keyset: its kids, their states and fingerprints; nothing for another store."""
    layout = _keyset_layout(store)
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
                    "holds": _holds(session, version, job.name, keyset.entry(kid).encode()),
                }
                for kid in sorted(keyset.keys)
            ],
        }
    }


def _describe(session: Session, job: _Job, workspace: Workspace, problems: list[dict[str, str]]) -> dict[str, Any]:
    versions = job.versions.all()
    version = job.version if session.rotation_id else next(reversed(versions), None)
    stores: list[dict[str, Any]] = []
    held: _Held = []
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
        holds = _holds(session, version, job.name, value)
        keyset = _described_keyset(session, job, store, version, workspace)
        stores.append({**entry, "present": value is not None, "fingerprint": mark, "holds": holds, **keyset})
    agreed = None
    try:
        agreed = _agreed(session, job, held)
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
                "fingerprints": _fingerprints(session, each),
            }
            for each in versions
        },
        "boxes": _boxes(session, job, known),
    }
