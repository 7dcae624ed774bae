# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back and the end of a rotation; who came too late; edits in the same moment."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.documents import judge as judging
from ansible_collections.keyturn.rotation.plugins.module_utils.documents.judge import Judge, Signed
from ansible_collections.keyturn.rotation.plugins.module_utils.documents.rows import DocumentRows
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from psycopg.types.json import Jsonb

from tests.support.documents import NEW, OLD, PolicyRig, keys, policy

_BOTH = {"new": {"value": keys()[NEW]}, "old": {"value": keys()[OLD]}}


def _refused(rig: PolicyRig, state: str, **more: Any) -> KeyturnError:
    with pytest.raises(KeyturnError) as raised:
        rig.run(state, **more)
    return raised.value


def _edit(link: psycopg.Connection[tuple[Any, ...]], app: str, kid: str) -> None:
    """The service publishes the next edit of a policy in the place of the last one."""
    query = """UPDATE policies SET bundle = %s, jws = %s, signed_with_kid = %s, version = version + 1
               WHERE app_name = %s"""
    bundle = {"n": app, "edit": 1}
    link.execute(query, (Jsonb(bundle), policy(kid, bundle, app), kid, app))


def test_trap_37_back_is_as_it_was_in_every_column(rig: PolicyRig) -> None:
    rig.fill(9)
    rig.sql.execute("UPDATE policies SET resigned_count = 4, rotation_id = 'r0', resigned_at = now() WHERE version = 1")
    rig.sql.execute("UPDATE policies SET signed_with_kid = NULL, resigned_count = NULL WHERE app_name = 'app-3'")
    before = rig.rows()
    rig.run("resigned")
    assert rig.rows() != before
    assert rig.run("rolled_back", check=True)["changed"]
    back = rig.run("rolled_back")
    assert (back["changed"], back["rows_restored"], back["rows_written"]) == (True, 9, 0)
    assert rig.rows() == before
    again = rig.run("rolled_back")
    assert (again["changed"], again["rows_restored"]) == (False, 0)
    cleaned = rig.run("cleaned")
    assert cleaned["changed"]
    assert cleaned["coverage"][0]["old"] == 9
    assert not rig.run("cleaned")["changed"]
    assert rig.left_behind() == []
    assert rig.rows() == before


def test_forward_to_the_end(rig: PolicyRig) -> None:
    rig.fill(4)
    rig.run("resigned")
    assert len(rig.left_behind()) == 1
    after = rig.rows()
    assert rig.run("cleaned", check=True)["changed"]
    assert len(rig.left_behind()) == 1
    assert rig.run("cleaned")["changed"]
    assert rig.left_behind() == []
    assert rig.rows() == after
    assert _refused(rig, "resigned", epoch=0, state_dir=str(rig.folder / "another host")).code == "fenced"
    turned = {"turns": [{"tenant": None, "new": OLD, "old": [NEW]}], "keys": {"new": {"value": keys()[OLD]}}}
    rig.run("resigned", rotation_id="r2", **turned)
    assert rig.kids() == {OLD: 4}


def test_trap_40_what_was_written_since_is_signed_under_the_old_key_on_the_way_back(rig: PolicyRig) -> None:
    rig.fill(5)
    before = rig.rows()
    rig.run("resigned")
    _edit(rig.sql, "app-2", NEW)
    _edit(rig.sql, "app-3", OLD)
    error = _refused(rig, "rolled_back")
    assert error.code == "rows-behind"
    assert "1 rows are still, or again, under the new kid" in error.message
    result = rig.run("rolled_back", keys=_BOTH)
    assert (result["rows_written"], rig.kids()) == (1, {OLD: 5})
    rows = {row["app_name"]: row for row in rig.rows().values()}
    assert rows["app-2"]["bundle"] == {"n": "app-2", "edit": 1}
    assert rows["app-3"]["bundle"] == {"n": "app-3", "edit": 1}
    for row in before.values():
        if row["app_name"] not in ("app-2", "app-3"):
            assert rows[row["app_name"]] == row


def test_a_version_that_the_service_has_changed_since_is_not_taken_back(rig: PolicyRig) -> None:
    rig.fill(2)
    rig.run("resigned")
    rig.sql.execute("UPDATE policies SET version = 30 WHERE app_name = 'app-0'")
    rig.run("rolled_back", keys=_BOTH)
    assert {row["app_name"]: row["version"] for row in rig.rows().values()} == {"app-0": 31, "app-1": 1}
    assert rig.kids() == {OLD: 2}


def test_a_policy_revoked_since_stays_revoked(rig: PolicyRig) -> None:
    rig.fill(2)
    rig.run("resigned")
    rig.sql.execute("UPDATE policies SET revocation_time = '2026-01-01', active = false WHERE app_name = 'app-0'")
    rig.run("rolled_back")
    (row,) = [row for row in rig.rows().values() if row["app_name"] == "app-0"]
    assert (row["active"], row["version"], row["signed_with_kid"]) == (False, 1, OLD)


def test_deleted_rows_do_not_stand_in_the_way(rig: PolicyRig) -> None:
    rig.fill(3)
    rig.run("resigned")
    rig.sql.execute("DELETE FROM policies WHERE app_name = 'app-1'")
    assert rig.run("rolled_back")["rows_restored"] == 2
    rig.run("cleaned")
    assert rig.left_behind() == []


def test_the_way_back_without_a_beginning_forbids_one(rig: PolicyRig) -> None:
    rig.fill(2)
    assert not rig.run("rolled_back", epoch=5)["changed"]
    assert _refused(rig, "resigned", epoch=4, state_dir=str(rig.folder / "another host")).code == "fenced"
    assert rig.kids() == {OLD: 2}
    rig.run("resigned", rotation_id="r2")


def test_trap_57_a_run_that_was_left_behind_writes_nothing(rig: PolicyRig) -> None:
    rig.fill(3)
    rig.run("resigned", epoch=5)
    _edit(rig.sql, "app-0", OLD)
    assert _refused(rig, "resigned", epoch=4, state_dir=str(rig.folder / "another host")).code == "fenced"
    assert _refused(rig, "rolled_back", epoch=4, state_dir=str(rig.folder / "another host")).code == "fenced"
    assert rig.kids() == {NEW: 2, OLD: 1}
    rig.run("rolled_back", epoch=6)
    assert _refused(rig, "resigned", epoch=6).code == "fenced"


def test_trap_23_another_rotation_waits_until_this_one_is_cleaned(rig: PolicyRig) -> None:
    rig.fill(3)
    rig.run("resigned")
    for state in ("resigned", "rolled_back", "cleaned"):
        error = _refused(rig, state, rotation_id="r2", epoch=9)
        assert error.code == "leftover-signatures"
        assert "rotation r1" in error.message


def test_other_columns_than_were_kept_are_refused(rig: PolicyRig) -> None:
    rig.fill(2)
    rig.run("resigned")
    rig.documents["kid"] = None
    assert _refused(rig, "rolled_back").code == "leftover-signatures"


# -- in the same moment ------------------------------------------------------------------------------------------


class _Meanwhile:
    """Something happens once, after documents were read and before they are written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, happen: Any) -> None:
        signs, self._happen = Judge.sign, happen

        def sign(judge: Judge, link: Any, rows: DocumentRows, now: Any) -> Signed:
            made = signs(judge, link, rows, now)
            self._happen, then = None, self._happen
            if then is not None:
                then()
            return made

        monkeypatch.setattr(judging.Judge, "sign", sign)


@pytest.mark.parametrize(
    "change",
    [
        """bundle = '{"n": 1, "edit": 7}'""",
        "is_draft = true",
        "revocation_time = now()",
        "version = 12",
        "jws = jws",
    ],
)
def test_trap_05_an_edit_in_between_is_never_overwritten(
    rig: PolicyRig, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    rig.fill(4)
    query = psycopg.sql.SQL("UPDATE policies SET {} WHERE app_name = 'app-1'").format(psycopg.sql.SQL(change))
    _Meanwhile(monkeypatch, lambda: rig.sql.execute(query))
    result = rig.run("resigned")
    assert result["rows_raced"] == 1
    (row,) = [row for row in rig.rows().values() if row["app_name"] == "app-1"]
    if row["is_draft"] or row["revocation_time"]:
        assert (row["signed_with_kid"], row["version"]) == (OLD, 1)
        return
    assert row["version"] == (13 if "version" in change else 2)
    assert row["bundle"] == {"n": 1, "edit": 7 if "bundle" in change else 0}
    assert rig.kids() == {NEW: 4}


def test_a_version_that_the_service_takes_in_the_same_moment_is_not_taken_twice(
    rig: PolicyRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.fill(3)
    link = psycopg.connect(rig.dsn)

    def publish_slowly() -> None:
        account, app, bundle, jws, kid = rig.row(1, OLD)
        link.execute(
            "INSERT INTO policies (account_id, app_name, version, bundle, jws, signed_with_kid, is_draft)"
            " VALUES (%s, %s, 2, %s, %s, %s, true)",
            (account, app, bundle, jws, kid),
        )
        threading.Timer(0.3, link.commit).start()

    _Meanwhile(monkeypatch, publish_slowly)
    rig.run("resigned")
    link.close()
    assert sorted(row["version"] for row in rig.rows().values() if row["app_name"] == "app-1") == [2, 3]
    assert rig.kids() == {NEW: 3}


def test_a_row_that_somebody_holds_is_waited_for_and_then_named_as_left(rig: PolicyRig) -> None:
    rig.fill(3)
    with psycopg.connect(rig.dsn) as link:
        link.execute("SELECT FROM policies WHERE app_name = 'app-1' FOR UPDATE")
        error = _refused(rig, "resigned", max_wait_s=1)
        assert error.code in ("rows-behind", "lock-unavailable")
        assert rig.kids() == {NEW: 2, OLD: 1}
    rig.run("resigned")
    assert rig.kids() == {NEW: 3}


# -- a compromised key -----------------------------------------------------------------------------------------------

_REPLACED: dict[str, Any] = {
    "rotation_id": "r2",
    "epoch": 2,
    "turns": [{"tenant": None, "new": OLD, "old": [NEW]}],
    "keys": {"new": {"value": keys()[OLD]}, "old": None},
}


def test_trap_44_where_a_key_is_compromised_nothing_is_kept_of_its_signatures(rig: PolicyRig) -> None:
    rig.fill(4)
    rig.run("resigned")
    rig.sql.execute("UPDATE keyturn.fence SET closed = false")  # as a run leaves it that was killed
    _edit(rig.sql, "app-1", NEW)
    before = rig.rows()
    assert rig.run("replaced", check=True, **_REPLACED)["changed"]
    assert rig.rows() == before
    done = rig.run("replaced", **_REPLACED)
    assert (done["changed"], done["rows_written"], rig.kids()) == (True, 4, {OLD: 4})
    assert rig.left_behind() == []
    assert not rig.run("replaced", **_REPLACED)["changed"]
    after = rig.rows()
    assert not rig.run("rolled_back", keys=_BOTH)["changed"], "what the rotation before had kept is gone"
    assert rig.rows() == after


def test_an_emergency_that_is_not_later_than_what_is_open_is_refused(rig: PolicyRig) -> None:
    rig.fill(2)
    rig.run("resigned")
    rig.sql.execute("UPDATE keyturn.fence SET closed = false")
    assert _refused(rig, "replaced", **{**_REPLACED, "epoch": 1}).code == "fenced"
    assert rig.kids() == {NEW: 2}
