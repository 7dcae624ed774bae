# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of ``jws_resign``."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.documents.rotation import Rotation, reach
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import check_primary, explained
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.crew import Crew
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.options import Database
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session

__all__ = ["run"]


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
            result = reach(Rotation(session, params, check_mode, database, crew))
    finally:
        link.close()
    result["seconds"] = round(time.perf_counter() - started, 3)
    return result
