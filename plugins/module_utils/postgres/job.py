# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of ``reencrypt``: from what the catalog of the database says to the state that is asked for."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import check_primary, explained
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.crew import Crew
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.options import Database
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.rotation import Rotation
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.states import reach
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session

__all__ = ["run"]


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """The work of the module ``reencrypt``; see its RETURN for the result."""
    started = time.perf_counter()
    session = Session.from_params(params)
    if not check_mode:
        session.check_epoch()
    database = Database(session, params)
    link = database.open()
    crew = Crew(link, database.open, params["workers"])
    rotation: Rotation | None = None
    try:
        with explained(database.place):
            check_primary(link, database.place)
            rotation = Rotation(session, params, check_mode, database, crew)
            result = reach(rotation)
    except KeyturnError as error:
        overtaken = rotation.overtaken() if rotation is not None and error.code == "connection-lost" else None
        raise overtaken or error from None
    finally:
        link.close()
    result["seconds"] = round(time.perf_counter() - started, 3)
    return result
