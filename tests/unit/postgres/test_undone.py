# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A swap by rows that the table undoes, or refuses, swaps nothing and says where."""

from __future__ import annotations

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import Link
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.sides import Side
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.writes import Writer

from tests.support.reencryption import Rig

_FUNCTION = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN NULL; END $$; "
_EACH = "IF NEW.ver = OLD.ver THEN UPDATE creds SET secret = OLD.secret, ver = 1 - ver WHERE id = NEW.id; END IF;"
_SOME = "IF pg_trigger_depth() < 2 AND NEW.id = 3 THEN UPDATE creds SET secret = OLD.secret WHERE id = 3; END IF;"
_ALL = "IF pg_trigger_depth() < 2 THEN UPDATE creds c SET secret = o.secret FROM o WHERE o.id = c.id; END IF;"
_FORMER = "UPDATE creds c SET secret = k.secret FROM kept k WHERE k.id = c.id AND c.id = NEW.id;"
_FIRES = "CREATE TRIGGER undo AFTER UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION f()"
_LATER = "CREATE CONSTRAINT TRIGGER undo AFTER UPDATE ON {} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
_UNDOING = {
    "row": (_FUNCTION.format(_EACH) + _FIRES.format("creds"), 6),
    "one row of them": (_FUNCTION.format(_SOME) + _FIRES.format("creds"), 1),
    "deferred": (_FUNCTION.format(_EACH) + _LATER.format("creds") + "EXECUTE FUNCTION f()", 6),
    "statement": (
        _FUNCTION.format(_ALL) + "CREATE TRIGGER undo AFTER UPDATE ON creds REFERENCING OLD TABLE AS o "
        "FOR EACH STATEMENT EXECUTE FUNCTION f()",
        6,
    ),
    "rule": (
        "CREATE TABLE other AS SELECT * FROM creds; "
        "CREATE RULE undo AS ON UPDATE TO creds DO INSTEAD UPDATE other SET secret = NEW.secret WHERE id = NEW.id",
        6,
    ),
}


def _refused(rig: Rig, state: str) -> KeyturnError:
    with pytest.raises(KeyturnError) as refused:
        rig.run(state)
    return refused.value


def _drop(rig: Rig, what: str) -> None:
    rig.sql.execute("DROP RULE undo ON creds" if what == "rule" else "DROP TRIGGER undo ON creds")


@pytest.mark.parametrize("what", _UNDOING, ids=lambda what: what.replace(" ", "-"))
def test_what_undoes_the_swap_is_found_in_both_directions(rig: Rig, what: str) -> None:
    statements, rows = _UNDOING[what]
    rig.fill(6)
    rig.run("prepared")
    for state, fact in (("cut_over", "next"), ("rolled_back", "prev")):
        rig.sql.execute(statements)
        before = rig.snapshot()
        error = _refused(rig, state)
        assert (error.code, error.where) == ("trigger-rewrites", "public.creds.secret")
        assert f"undoes the change of {rows} of 6 rows (there is undo), so none was exchanged" in error.message
        assert (rig.snapshot(), rig.shadows()) == (before, [fact])
        _drop(rig, what)
        rig.sql.execute("DROP TABLE IF EXISTS other; DROP FUNCTION IF EXISTS f")
        if state == "cut_over":
            rig.run(state)
            assert rig.plaintexts("new") == {row: f"{row}:0" for row in range(1, 7)}
    rig.run("rolled_back")
    rig.run("swept")
    assert rig.plaintexts("old") == {row: f"{row}:0" for row in range(1, 7)}


def test_a_trigger_of_a_partition_is_found(rig: Rig) -> None:
    rig.fill(4)
    rig.sql.execute("ALTER TABLE creds RENAME TO part; ALTER TABLE part ALTER id SET NOT NULL")
    rig.sql.execute("CREATE TABLE creds (LIKE part INCLUDING ALL) PARTITION BY RANGE (id)")
    rig.sql.execute("ALTER TABLE creds ATTACH PARTITION part FOR VALUES FROM (0) TO (100)")
    rig.run("prepared")
    rig.sql.execute(_FUNCTION.format(_EACH) + _FIRES.format("part"))
    assert _refused(rig, "cut_over").code == "trigger-rewrites"
    assert rig.shadows() == ["next"]


def test_another_columns_swap_that_undoes_this_one_is_found(rig: Rig) -> None:
    """The trigger of the last statement gives the first column its former cell."""
    rig.fill(3)
    rig.sql.execute("ALTER TABLE creds ADD second text; UPDATE creds SET second = secret")
    rig.sql.execute("CREATE TABLE kept AS SELECT id, secret FROM creds")
    rig.columns.append(rig.column("creds", "second"))
    rig.run("prepared")
    rig.sql.execute(_FUNCTION.format(_FORMER))
    rig.sql.execute("CREATE TRIGGER undo AFTER UPDATE OF second ON creds FOR EACH ROW EXECUTE FUNCTION f()")
    error = _refused(rig, "cut_over")
    assert (error.code, error.where) == ("trigger-rewrites", "public.creds.secret")
    assert rig.shadows() == ["next", "next"]


@pytest.mark.parametrize("has_trigger", [False, True])
def test_a_table_without_such_a_trigger_is_not_looked_at_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, has_trigger: bool
) -> None:
    looked: list[int] = []
    count = Writer.count_swapped

    def counted(writer: Writer, link: Link, side: Side) -> int:
        looked.append(1)
        return count(writer, link, side)

    monkeypatch.setattr(Writer, "count_swapped", counted)
    rig.fill(3)
    rig.sql.execute("CREATE TABLE kin (id bigint REFERENCES creds ON UPDATE CASCADE)")  # triggers of the server's own
    rig.sql.execute(_FUNCTION.format("") + _FIRES.format("creds"))
    if not has_trigger:
        rig.sql.execute("ALTER TABLE creds DISABLE TRIGGER undo")
    for state in ("prepared", "cut_over", "rolled_back"):
        rig.run(state)
    assert len(looked) == (2 if has_trigger else 0)


@pytest.mark.parametrize("when", [_FIRES, _LATER + "EXECUTE FUNCTION f()"], ids=["at once", "deferred"])
def test_a_trigger_that_fails_is_told_with_its_table(rig: Rig, when: str) -> None:
    rig.fill(3)
    rig.run("prepared")
    rig.sql.execute(_FUNCTION.format("RAISE 'row % holds %', NEW.id, NEW.secret;") + when.format("creds"))
    before = rig.snapshot()
    error = _refused(rig, "cut_over")
    assert (error.code, error.where.removesuffix(".secret")) == ("sql-failed", "public.creds")
    assert rig.snapshot() == before


@pytest.mark.parametrize("check", ["at once", "deferred"])
def test_a_constraint_that_refuses_is_told_with_its_table(rig: Rig, check: str) -> None:
    rig.fill(3)
    rig.run("prepared")
    if check == "at once":
        rig.sql.execute("ALTER TABLE creds ADD CHECK (secret < 'A') NOT VALID")
    else:
        rig.sql.execute("CREATE TABLE parent AS SELECT secret FROM creds; ALTER TABLE parent ADD PRIMARY KEY (secret)")
        rig.sql.execute("ALTER TABLE creds ADD FOREIGN KEY (secret) REFERENCES parent DEFERRABLE INITIALLY DEFERRED")
    error = _refused(rig, "cut_over")
    assert (error.code, error.where.removesuffix(".secret")) == ("constraint-refused", "public.creds")
    assert rig.shadows() == ["next"]
