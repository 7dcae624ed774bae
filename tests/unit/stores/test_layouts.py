# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each layout holds in each state."""

from __future__ import annotations

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.layouts import Layout, Slots, open_layout

_STATES = ("staged", "promoted", "retired", "rolled_back")


def _walk(layout: Layout, original: Slots, old: bytes | None, new: bytes = b"new") -> list[Slots]:
    return [layout.wanted(state, original, old, new) for state in _STATES]


def test_single_holds_one_version() -> None:
    layout = open_layout("single", "K")
    old: Slots = {"K": b"old"}
    new: Slots = {"K": b"new"}
    assert _walk(layout, old, b"old") == [old, new, new, old]
    assert _walk(layout, {"K": None}, None) == [{"K": None}, new, new, {"K": None}]


def test_list_has_the_primary_first() -> None:
    layout = open_layout("list", "K")
    forms = [{"K": b"old,new"}, {"K": b"new,old"}, {"K": b"new"}, {"K": b"old"}]
    assert _walk(layout, {"K": b"old"}, b"old") == forms
    assert [layout.primary(form) for form in forms] == [b"old", b"new", b"new", b"old"]


def test_list_keeps_earlier_versions_behind() -> None:
    layout = open_layout("list", "K", ";")
    forms = [{"K": b"old;new;older"}, {"K": b"new;old;older"}, {"K": b"new;older"}, {"K": b"old;older"}]
    assert _walk(layout, {"K": b"old;older"}, b"old") == forms


def test_list_of_a_first_version_is_untouched_until_promoted() -> None:
    assert _walk(open_layout("list", "K"), {"K": None}, None) == [
        {"K": None},
        {"K": b"new"},
        {"K": b"new"},
        {"K": None},
    ]


def test_list_refuses_a_value_with_the_separator() -> None:
    layout = open_layout("list", "K")
    for state in ("staged", "promoted"):
        with pytest.raises(KeyturnError) as caught:
            layout.wanted(state, {"K": b"old"}, b"old", b"n,w")
        assert caught.value.code == "value-unwritable"
        assert "n,w" not in str(caught.value)


def test_pair_has_two_variables() -> None:
    layout = open_layout("pair", "K")
    absent = {"K": b"old", "K_PREVIOUS": None}
    staged, promoted = {"K": b"old", "K_PREVIOUS": b"new"}, {"K": b"new", "K_PREVIOUS": b"old"}
    retired = {"K": b"new", "K_PREVIOUS": None}
    assert _walk(layout, absent, b"old") == [staged, promoted, retired, absent]
    older: Slots = {"K": b"old", "K_PREVIOUS": b"older"}
    assert _walk(layout, older, b"old") == [staged, promoted, retired, older]


def test_a_store_that_had_the_new_value_goes_back_to_the_old_one() -> None:
    assert open_layout("single", "K").wanted("rolled_back", {"K": b"new"}, b"old", b"new") == {"K": b"old"}
    assert open_layout("list", "K").wanted("rolled_back", {"K": b"new,old"}, b"old", b"new") == {"K": b"old"}
    pair = {"K": b"new", "P": b"old"}
    assert open_layout("pair", "K", previous="P").wanted("rolled_back", pair, b"old", b"new") == {
        "K": b"old",
        "P": b"old",
    }


@pytest.mark.parametrize(("kind", "separator", "previous"), [("list", "", ""), ("pair", ",", "K")])
def test_layouts_that_cannot_be_are_refused(kind: str, separator: str, previous: str) -> None:
    with pytest.raises(KeyturnError) as caught:
        open_layout(kind, "K", separator, previous)
    assert caught.value.code == "store-invalid"
