# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One secret of a call while it is worked out: its stores, its versions, and what its stores hold."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Callable, Optional

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session
from ansible_collections.keyturn.rotation.plugins.module_utils.stores import Store, Workspace
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.catalog import open_store
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.inside import InsideStore
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.layouts import Slots
from ansible_collections.keyturn.rotation.plugins.module_utils.versions import Version, Versions

if TYPE_CHECKING:
    from ansible_collections.keyturn.rotation.plugins.module_utils.stores.keyset import KeysetLayout

__all__ = [
    "Held",
    "Job",
    "Sources",
    "agreed_value",
    "box_context",
    "drifted",
    "held_by",
    "keyset_layout",
    "lost",
    "open_jobs",
    "place_of",
]


@dataclass(frozen=True)
class Sources:
    """What is not on the host: random bytes and the clock (UTC)."""

    randbytes: Callable[[int], bytes] = os.urandom
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)


@dataclass
class Job:
    """One secret of the call, while it is worked out."""

    request: Mapping[str, Any]
    name: str
    stores: list[Store]
    versions: Versions
    version: Version | None
    before: str | None

    @classmethod
    def open(cls, session: Session, request: Mapping[str, Any]) -> Job:
        """Read where a secret stands; nothing is changed.

        :param request: an entry of the option ``secrets``, see :data:`options.SECRET_OPTIONS`.
        """
        name: str = request["name"]
        versions = Versions(session.state_dir, name)
        stores = [open_store(name, options) for options in request.get("stores") or ()]
        version = versions.load(session.rotation_id) if session.rotation_id else None
        return cls(request, name, stores, versions, version, version.state if version else None)

    def current(self) -> Version:
        """The version of this rotation.

        :raises KeyturnError: ``not-staged``.
        """
        if self.version is None:
            raise KeyturnError("not-staged", "nothing is staged here", where=self.name, hint="Run from the start")
        return self.version

    @property
    def keysets(self) -> list[tuple[Store, KeysetLayout]]:
        """Its stores that are keysets, with their layouts."""
        return [(store, layout) for store in self.stores if (layout := keyset_layout(store))]

    def wanted(self, store: Store, state: str) -> Slots:
        """What a store shall hold in ``state``.

        :raises KeyturnError: ``store-not-staged``.
        """
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

    def in_words(self, parts: Sequence[str] = ("old", "new")) -> str:
        """The old or the new value, with the files in which this host keeps them; what is not kept has none."""
        version = self.version
        values = {"old": version.old, "new": version.new} if version else {}
        kept = [part for part in parts if values.get(part)]
        paths = [self.versions.path(version.rotation_id, part) for part in kept] if version else []
        words = " or ".join(f"the {part}" for part in parts)
        return f"{words} value of {self.name}" + (f" (here: {', '.join(paths)})" if paths else "")


def open_jobs(session: Session, requests: Sequence[Mapping[str, Any]]) -> list[Job]:
    """All secrets of a call; each place is written by one of them only.

    :raises KeyturnError: ``secret-twice``, ``store-twice``, ``store-invalid``.
    """
    jobs = [Job.open(session, request) for request in requests]
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


def _refuse_mixed(job: Job) -> None:
    """A key of a keyset has a kid, and another store has no room for it."""
    if 0 < len(job.keysets) < len(job.stores):
        raise KeyturnError(
            "store-invalid",
            "some stores are keysets and others are not",
            where=job.name,
            hint="Name keysets and other places in entries of their own",
        )


def _refuse_parts_of_stores(jobs: Sequence[Job]) -> None:
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


def box_context(session: Session, name: str, version: str) -> str:
    """What a box is bound to, so that it is never taken for that of another version."""
    return f"{session.rotation_id}/{name}/{version}"


def keyset_layout(store: Store) -> KeysetLayout | None:
    """The layout of a keyset; nothing for another store."""
    if not store.layout.is_keyset:
        return None
    from ansible_collections.keyturn.rotation.plugins.module_utils.stores.keyset import KeysetLayout

    return store.layout if isinstance(store.layout, KeysetLayout) else None


Held = list[tuple[Store, Optional[bytes]]]


def held_by(job: Job, workspace: Workspace) -> Held:
    """Each store with its primary value."""
    return [(store, store.layout.primary(store.read(workspace))) for store in job.stores]


def agreed_value(session: Session, job: Job, held: Held) -> bytes | None:
    """The one value that all stores hold, None when none holds any."""
    there = [(store, value) for store, value in held if value is not None]
    if len({value for _store, value in there}) > 1:
        places = [place_of(store, session.fingerprint(job.name, value)) for store, value in there]
        raise KeyturnError(
            "stores-disagree",
            f"the stores of {job.name} hold different values: {', '.join(places)}",
            where=there[0][0].path,
            hint="Find out which one is in use and write it to all of them",
        )
    return there[0][1] if there else None


def place_of(store: Store, mark: str) -> str:
    """A store in words, with the fingerprint of what it holds."""
    text = f"{store.path} {store.variable}".rstrip()
    return f"{text} ({mark})" if mark else text


def drifted(session: Session, job: Job, store: Store, value: bytes | None, state: str) -> KeyturnError:
    """The error for a store that holds neither the old nor the new value, or that is to be retired without the new one.

    :param state: what the store was to be brought to.
    """
    mark = session.fingerprint(job.name, value) if value is not None else ""
    parts, way = (("new",), "") if state == "retired" else (("old", "new"), ", or roll back by hand")
    hint = f"Put {job.in_words(parts)} there{way}"
    if state == "rolled_back" and keyset_layout(store) and job.version and job.version.new and job.version.old:
        from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.model import Entry

        new, old = (Entry.decode(part, store.path).kid for part in (job.version.new, job.version.old))
        hint = f"Have {old} in it and take {new} out, then run the same command again: other keys may stay"
    return KeyturnError(
        "store-drifted",
        f"{place_of(store, mark)} does not hold what {job.name} should have there, so somebody changed it",
        where=store.path,
        hint=f"{hint}; this step changed nothing on this host",
    )


def lost(job: Job, store: Store, cause: KeyturnError) -> KeyturnError:
    """The error for a store that is not there any more when it is to go back."""
    return KeyturnError(
        "store-lost",
        f"{cause.message}, so {job.name} cannot go back there; this step changed nothing on this host",
        where=store.path,
        hint=f"Put it back by hand, with {job.in_words()}, then run: "
        f"ansible-playbook keyturn.rotation.rollback -e keyturn_only={job.name}",
    )
