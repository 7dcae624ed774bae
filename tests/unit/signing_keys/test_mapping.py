# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declarations of key tables."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.mapping import NOW, PRESETS, parse_table

_PLACE = {"database": "app"}


@pytest.mark.parametrize("shape", PRESETS)
def test_a_preset_is_whole(shape: str) -> None:
    table = parse_table({**_PLACE, "shape": shape})
    assert {"kid", "private", "public", "created"} <= set(table.columns)


def test_what_an_entry_says_goes_before_its_preset() -> None:
    columns = {"kid": "key_id", "tenant": ""}
    table = parse_table({**_PLACE, "shape": "newest", "table": "keys", "columns": columns, "kid": "thumbprint"})
    assert (table.table, table.form.kid, table.columns["kid"]) == ("keys", "thumbprint", "key_id")
    assert "tenant" not in table.columns
    assert table.columns["private"] == "private_jwk"


def test_a_state_column_says_everything_by_data() -> None:
    table = parse_table(
        {
            **_PLACE,
            "shape": "flags",
            "current": {"column": "state", "is": "active", "else": "old", "next": "new"},
            "usable": [{"column": "state", "is": ["new", "active", "old"], "else": "dead"}],
            "set": {"purpose": "sign"},
        }
    )
    assert table.at_birth == {"state": "new", "purpose": "sign"}
    assert table.when_disabled == {"state": "dead"}


def test_disabling_the_newest_shape_ends_and_unpublishes_a_key() -> None:
    assert parse_table({**_PLACE, "shape": "newest"}).when_disabled == {"expires_at": NOW, "public_jwk": None}


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({}, "key-table-invalid"),
        ({"shape": "newest", "columns": {"created": ""}}, "key-table-invalid"),
        ({"shape": "newest", "columns": {"kid": ""}}, "key-table-invalid"),
        ({"shape": "newest", "columns": {"kids": "x"}}, "catalog-invalid"),
        ({"shape": "newest", "kid": "md5"}, "catalog-invalid"),
        ({"shape": "newest", "envelope": "nothing"}, "envelope-unknown"),
        ({"shape": "newest", "jwk_with": ["d"]}, "key-table-invalid"),
        ({"shape": "newest", "set": {"kid": "x"}}, "key-table-invalid"),
        ({"shape": "newest", "set": {"a": {"b": "c"}}}, "condition-invalid"),
        ({"shape": "flags", "current": "oldest"}, "key-table-invalid"),
        ({"shape": "flags", "current": {"column": "c", "as": "end"}}, "key-table-invalid"),
        ({"shape": "flags", "current": {"column": "c", "is": True}}, "key-table-invalid"),
        ({"shape": "flags", "current": {"column": "c", "is": True, "else": True}}, "key-table-invalid"),
        ({"shape": "flags", "current": {"column": "c", "is": 1, "else": 0, "next": 1}}, "key-table-invalid"),
        ({"shape": "flags", "usable": [{"column": "c", "as": "end", "else": 1}]}, "key-table-invalid"),
        ({"shape": "flags", "usable": [{"column": "c", "is": 1, "else": 0, "or": 2}]}, "catalog-invalid"),
    ],
)
def test_what_cannot_be_meant_is_refused(entry: dict[str, Any], code: str) -> None:
    with pytest.raises(KeyturnError) as refused:
        parse_table({**_PLACE, **entry})
    assert refused.value.code == code
