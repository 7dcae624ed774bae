# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of ``jws_resign``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.documents.rotation import Rotation, reach
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Link,
    check_primary,
    explained,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.crew import Crew
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.options import Database, rotation_of
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.records import (
    DISABLED,
    PROMOTED,
    STAGED,
    WITHDRAWN,
    Records,
)

__all__ = ["run"]


#: The result where no key takes the place of another one.
_NOTHING: dict[str, Any] = {
    "changed": False,
    "coverage": [],
    "rows_written": 0,
    "rows_restored": 0,
    "rows_raced": 0,
    "diff": {"before": {"coverage": []}, "after": {"coverage": []}},
}
_PAGE = 1000
_STAGES = (STAGED, PROMOTED, WITHDRAWN, DISABLED)


def _recorded(session: Session, params: Mapping[str, Any], link: Link) -> list[dict[str, Any]]:
    """The turns that ``signing_key`` has recorded in this rotation; first keys take nobody's place.

    Where a compromised key was replaced, documents that a rotation before has left under a former key follow too.
    """
    records = Records(params["schema"], params["turns_of"], rotation_of(session))
    if not records.exists(link):
        return []
    forward_only = records.is_forward_only(link)
    turns = []
    for page in records.pages(link, _STAGES, _PAGE):
        before = records.before(link, [one.tenant for one in page]) if forward_only else {}
        for one in page:
            if one.old_kid:
                others = [kid for kid in before.get(one.tenant, ()) if kid != one.old_kid]
                turns.append({"tenant": one.tenant or None, "new": one.new_kid, "old": [one.old_kid, *others]})
    return turns


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """The work of the module ``jws_resign``; see its RETURN for the result."""
    started = time.perf_counter()
    session = Session.from_params(params)
    if not check_mode:
        session.check_epoch()
    database = Database(session, params)
    link = database.open()
    crew = Crew(link, database.open, params["workers"])
    try:
        with explained(database.place):
            check_primary(link, database.place)
            turns = params["turns"] if params.get("turns") is not None else _recorded(session, params, link)
            if turns or params.get("turns") is not None:
                result = reach(Rotation(session, {**params, "turns": turns}, check_mode, database, crew))
            else:
                result = dict(_NOTHING)
    finally:
        link.close()
    result["seconds"] = round(time.perf_counter() - started, 3)
    return result
