# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done to a keyset: add, promote, remove, compare; and kids that nobody has yet."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.forms import parse_document
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.model import Entry, Keyset, compare, kid_for
from ansible_collections.keyturn.rotation.plugins.module_utils.session import fingerprint

VECTORS = Path(__file__).parents[2] / "vectors"
NOW = datetime(2026, 11, 21, 12, 30, 15, tzinfo=timezone.utc)
_CANARY = "canary-9rW2-key-material"


def _described(text: str) -> dict[str, Any]:
    """A keyset as ``keyset_info`` tells of it."""
    keyset = parse_document(text.encode(), "f")
    marks = {kid: fingerprint(b"inventory", "JWT", keyset.entry(kid).encode()) for kid in keyset.keys}
    return {"active_kid": keyset.active, "keys": [{"kid": kid, "fingerprint": mark} for kid, mark in marks.items()]}


def test_a_key_comes_in_becomes_active_and_the_former_one_goes() -> None:
    keyset = Keyset("a", {"a": "1", "other": "0"})
    staged = keyset.with_key(Entry("b", "2"))
    assert (staged.active, dict(staged.keys)) == ("a", {"a": "1", "other": "0", "b": "2"})
    promoted = staged.with_active("b")
    assert promoted.active_entry == Entry("b", "2")
    assert promoted.without("a") == Keyset("b", {"other": "0", "b": "2"})
    assert staged.with_key(Entry("b", "2")) == staged
    assert promoted.without("nobody") == promoted


def test_the_active_key_cannot_go_and_no_other_becomes_active() -> None:
    keyset = Keyset("a", {"a": _CANARY, "b": "2"}, "place")
    for step in (lambda: keyset.without("a"), lambda: keyset.with_active("z"), lambda: Keyset("a", {}, "place")):
        with pytest.raises(KeyturnError) as raised:
            step()
        assert (raised.value.code, raised.value.where) == ("keyset-invalid", "place")
        assert _CANARY not in str(raised.value)


def test_a_kid_with_another_key_is_refused() -> None:
    with pytest.raises(KeyturnError) as raised:
        Keyset("a", {"a": _CANARY}, "place").with_key(Entry("a", "else"))
    assert (raised.value.code, raised.value.where) == ("kid-taken", "place")
    assert _CANARY not in str(raised.value)


def test_trap_28_neither_a_keyset_nor_an_entry_shows_its_keys() -> None:
    keyset = Keyset("a", {"a": _CANARY})
    assert _CANARY not in repr(keyset) + str(keyset) + repr(keyset.active_entry)


def test_an_entry_is_one_line_and_reads_back() -> None:
    entry = Entry('k"2', "пароль")
    assert Entry.decode(entry.encode()) == entry
    assert b"\n" not in entry.encode()
    assert Entry.read(b"a key alone") is None
    assert Entry.read(b'{"kid": "a"}') is None
    assert Entry.read(b'{"kid": "a", "key": 1}') is None
    for broken in (b'{"kid": "a"}', b'{"kid": " ", "key": "b"}', b'{"kid": "a", "key": "b\\n"}'):
        with pytest.raises(KeyturnError, match="kid"):
            Entry.decode(broken)


def test_trap_34_a_key_that_changed_under_the_same_kid_is_seen() -> None:
    cases = {case["name"]: case for case in json.loads((VECTORS / "003_evidence.json").read_text())["cases"]}
    one, two = cases["unchanged"], cases["rotated"]
    assert compare(None, _described(one["keyset_text"])).state == "initial"
    assert compare(_described(one["keyset_text"]), _described(one["keyset_text"])).state == "unchanged"
    turned = compare(_described(one["keyset_text"]), _described(two["keyset_text"]))
    assert (turned.state, turned.added, turned.removed, turned.changed) == ("rotated", ("2026-04",), (), ())
    case = cases["secret_changed_same_kid"]
    assert case["summary_parsed"]["rotation_state"] == "unchanged"
    seen = compare(_described(two["keyset_text"]), _described(case["keyset_text"]))
    assert (seen.state, seen.changed) == ("rotated", ("2026-04",))
    added = cases["key_added_not_active"]
    assert compare(_described(one["keyset_text"]), _described(added["keyset_text"])).state == "unchanged"


def test_the_same_keys_have_the_same_canonical_bytes_and_others_have_others() -> None:
    cases = {
        case["name"]: parse_document(case["file_text"].encode(), "f").canonical()
        for case in json.loads((VECTORS / "003_keyset_files.json").read_text())["cases"]
    }
    assert cases["two_keys_compact"] == cases["same_content_indented"] == cases["same_content_other_order"]
    assert cases["two_keys_compact"] == cases["kid_and_secret_are_trimmed"]
    assert cases["delimiters_in_values"] != cases["delimiters_collision"]
    assert cases["two_keys_compact"] != cases["rolled_back_active"]


def test_new_kids_are_dates_that_nobody_has() -> None:
    assert kid_for("", NOW, {}) == "20261121T123015Z"
    assert kid_for("%Y-%m", NOW, {"2026-11": "", "2026-11-2": ""}) == "2026-11-3"
    for form in ("%Y/%m", "a b", " "):
        with pytest.raises(KeyturnError) as raised:
            kid_for(form, NOW, {})
        assert raised.value.code == "kid-invalid"
