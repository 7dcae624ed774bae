# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong in a database: each fault ends in success or in one clear error, and coverage tells the truth.

Once the fault is gone, the same rotation goes on where it stopped. A pooler is in ``tests/integration/test_pooler.py``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Callable, NamedTuple

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import explain

from tests.support.faults import (
    OWNER,
    ROW_LOCK,
    ROWS,
    TABLE_LOCK,
    Bed,
    Run,
    check_truth,
    connection_cut,
    deadlock,
    killed,
    lock_held,
    named_instead,
    read_only_replica,
    role_limited,
    role_settings,
    rotate,
    sessions_of_ours,
    trigger,
    workers_killed,
)


class Fault(NamedTuple):
    """A fault.

    :param there: where it is there, until the end of the block.
    :param ends: how the rotation ends meanwhile: ``success``, or the code of the error; by way where they differ.
    """

    there: Callable[[Bed], AbstractContextManager[Run | None]]
    ends: str | Mapping[str, str]


FAULTS = {
    "worker killed": Fault(partial(killed, slowness=60), "killed"),
    "connection cut in a batch": Fault(connection_cut, "connection-lost"),
    "deadlock": Fault(deadlock, "success"),
    "row lock, released": Fault(lock_held(ROW_LOCK, True), "success"),
    "row lock, held for long": Fault(
        lock_held(ROW_LOCK, False),
        {"in_place": "rows-behind", "rows": "lock-unavailable", "columns": "lock-unavailable"},
    ),
    "table lock, released": Fault(lock_held(TABLE_LOCK, True), "success"),
    "table lock, held for long": Fault(lock_held(TABLE_LOCK, False), "lock-unavailable"),
    "statement_timeout of the role": Fault(role_settings("statement_timeout = '100ms'"), "success"),
    "other timeouts of the role": Fault(
        role_settings(
            "idle_in_transaction_session_timeout = '1ms'", "lock_timeout = '1ms'", "idle_session_timeout = '1s'"
        ),
        "success",
    ),
    "SERIALIZABLE as default": Fault(role_settings("default_transaction_isolation = 'serializable'"), "success"),
    "read only as default": Fault(role_settings("default_transaction_read_only = on"), "success"),
    "read-only replica": Fault(read_only_replica, "database-read-only"),
    "no UPDATE": Fault(
        role_limited("GRANT SELECT ON creds TO rotator", "GRANT CREATE ON DATABASE app TO rotator"), "privilege-missing"
    ),
    "no CREATE on the database": Fault(role_limited(OWNER), "privilege-missing"),
    "no CREATE on the schema": Fault(
        role_limited(OWNER, "CREATE SCHEMA IF NOT EXISTS keyturn", "GRANT USAGE ON SCHEMA keyturn TO rotator"),
        "privilege-missing",
    ),
    "trigger that rewrites": Fault(trigger("NEW.secret := upper(NEW.secret); RETURN NEW;"), "trigger-rewrites"),
    "trigger that rewrites some rows": Fault(
        trigger("IF NEW.id = 20 THEN NEW.secret := reverse(NEW.secret); END IF; RETURN NEW;"), "trigger-rewrites"
    ),
    "trigger that keeps the old value": Fault(
        trigger("NEW.secret := OLD.secret; RETURN NEW;"),
        {"in_place": "trigger-rewrites", "rows": "trigger-rewrites", "columns": "success"},
    ),
    "trigger that suppresses": Fault(
        trigger("RETURN NULL;"), {"in_place": "rows-behind", "rows": "swap-count-wrong", "columns": "lock-unavailable"}
    ),
    "trigger that fails": Fault(trigger("RAISE 'row % holds %', NEW.id, NEW.secret;"), "sql-failed"),
    "generated column": Fault(
        named_instead(
            "ALTER TABLE creds ADD made text GENERATED ALWAYS AS (secret) STORED",
            "ALTER TABLE creds DROP made",
            column="made",
        ),
        "column-type-unsupported",
    ),
    "view": Fault(
        named_instead("CREATE VIEW seen AS SELECT * FROM creds", "DROP VIEW seen", table="seen"), "table-unsupported"
    ),
    "row-level security": Fault(
        role_limited(
            "GRANT SELECT, UPDATE ON creds TO rotator",
            "GRANT CREATE ON DATABASE app TO rotator",
            "ALTER TABLE creds ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY half ON creds USING (id > 10)",
        ),
        "row-security",
    ),
    "row-level security, forced": Fault(
        role_limited(
            OWNER,
            "GRANT CREATE ON DATABASE app TO rotator",
            "ALTER TABLE creds ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE creds FORCE ROW LEVEL SECURITY",
            "CREATE POLICY half ON creds USING (id > 10)",
        ),
        "row-security",
    ),
}


#: Those that meet several workers in another way than one.
CREW_FAULTS = {
    "a worker killed": Fault(partial(workers_killed, most=1), "success"),
    "all workers killed": Fault(partial(workers_killed, most=3), "success"),
    "parent killed": Fault(partial(killed, slowness=2), "killed"),
    "connection cut in a batch": FAULTS["connection cut in a batch"],
    "deadlock": FAULTS["deadlock"],
    "row lock, released": FAULTS["row lock, released"],
    "row lock, held for long": FAULTS["row lock, held for long"],
    "trigger that rewrites some rows": FAULTS["trigger that rewrites some rows"],
}


def _name(what: str) -> str:
    return what.replace(" ", "-").replace(",", "")


def _check(bed: Bed, fault: Fault) -> None:
    with fault.there(bed) as run:
        ended = rotate(bed, run)
    assert ended == (fault.ends if isinstance(fault.ends, str) else fault.ends[bed.way])
    check_truth(bed.rig)
    assert rotate(bed) == "success"
    check_truth(bed.rig)
    assert bed.rig.plaintexts("new") == {row: f"{row}:0" for row in range(1, ROWS + 1)}
    bed.rig.run("cleaned")
    assert (bed.rig.shadows(), bed.rig.left_behind()) == ([], [])
    deadline = time.monotonic() + 30  # a server ends what has lost its client when it notices
    while sessions_of_ours(bed.rig.sql) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sessions_of_ours(bed.rig.sql) == []


@pytest.mark.parametrize("what", FAULTS, ids=_name)
def test_a_fault_ends_in_success_or_in_one_clear_error(bed: Bed, what: str) -> None:
    _check(bed, FAULTS[what])


@pytest.mark.parametrize("what", CREW_FAULTS, ids=_name)
def test_the_same_with_several_workers(crewed: Bed, what: str) -> None:
    _check(crewed, CREW_FAULTS[what])


@pytest.mark.parametrize("kind", [psycopg.OperationalError, psycopg.InternalError])
def test_what_the_driver_says_of_a_connection_that_is_cut(kind: type[psycopg.Error]) -> None:
    """In the middle of COMMIT it is an internal error ("received 2 results from command 'COMMIT'")."""
    assert explain(kind("the server's words"), "app").code == "connection-lost"
