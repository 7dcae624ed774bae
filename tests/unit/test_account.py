# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plan warns of after the search for columns that nobody named."""

from __future__ import annotations

from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import plan
from ansible_collections.keyturn.rotation.plugins.module_utils.catalog import load_catalog
from ansible_collections.keyturn.rotation.plugins.plugin_utils.account import Run, plan_lines

from tests.unit.test_catalog import GROUPS, catalog
from tests.unit.test_plan import KINDS


def _warnings(**result: Any) -> list[str]:
    built = plan.build(load_catalog(catalog(), GROUPS), ["KEY"], KINDS, {})
    told = {"job": {"secret": "KEY", "database": "app"}, **result}
    run = Run(built, "rotate", "", {}, {}, [("db", "preflight", told)])
    return [line for line in plan_lines(run, []) if line.startswith("  warning")]


def test_a_forgotten_column_is_named_with_its_envelope() -> None:
    row = {"table": "public.notes", "column": "body", "path": "$.token", "envelope": "fernet", "key": "old"}
    assert _warnings(found=[{**row, "opened": 3, "sampled": 4}]) == [
        "  warning     public.notes.body on db $.token: 3 of 4 samples open as fernet under the old key, "
        "and the catalog does not name it"
    ]


def test_tables_that_were_not_searched_are_one_line() -> None:
    tables = [{"table": f"public.t{number}", "reason": "this role may not read it"} for number in range(5)]
    start = "  warning     app on db: not searched for columns without a name in the catalog: "
    named = ", ".join(f"public.t{number} (this role may not read it)" for number in range(3))
    assert _warnings(unreadable=tables[:1]) == [f"{start}public.t0 (this role may not read it)"]
    assert _warnings(unreadable=tables) == [f"{start}{named}, and 2 more"]
    assert _warnings(unreadable=[]) == []


def test_the_plan_says_who_loses_a_way_back() -> None:
    built = {**plan.build(load_catalog(catalog(), GROUPS), ["KEY"], KINDS, {}), "losing": ["OTHER can no longer"]}
    assert "  warning     OTHER can no longer" in plan_lines(Run(built, "rotate", "", {}, {}, []), [])
