# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keysets as they are written: known answers, refusals that name the place and never the key, and what stays."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.forms import (
    parse_document,
    parse_inline,
    render_document,
    render_inline,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.model import Entry, Keyset
from hypothesis import given
from hypothesis import strategies as st

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "003_keyset_files.json").read_text())
_MATERIAL = "fake_vXdHldzhQFnU0zxsOb4RrDsZwsiDgVoM"


def _named(cases: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in cases]


def _is(keyset: Keyset, loaded: dict[str, Any]) -> bool:
    keys = {kid: base64.b64decode(key).decode() for kid, key in loaded["keys_b64"].items()}
    return (keyset.active, dict(keyset.keys)) == (loaded["active_kid"], keys)


@pytest.mark.parametrize("case", _named(VECTORS["cases"]))
def test_a_document_is_read_as_its_readers_do_and_written_so_that_they_read_the_same(case: dict[str, Any]) -> None:
    keyset = parse_document(case["file_text"].encode(), "keyset.json")
    assert _is(keyset, case["loaded"])
    for like in (None, case["file_text"].encode()):
        assert _is(parse_document(render_document(keyset, like), "again"), case["loaded"])


#: Where ours is stricter: a kid that stands twice.
_STRICTER = {"same_kid_twice"}
#: Not a keyset: a single secret that readers fall back to.
_FALLBACK = {case["name"] for case in VECTORS["inline_cases"] if case["RGS_JWT_SIGNING_SECRET"]}


@pytest.mark.parametrize("case", _named([case for case in VECTORS["inline_cases"] if case["name"] not in _FALLBACK]))
def test_the_inline_form_is_read_as_its_readers_do(case: dict[str, Any]) -> None:
    if "error" in case["result"] or case["name"] in _STRICTER:
        with pytest.raises(KeyturnError) as raised:
            parse_inline(case["RGS_JWT_KEYSET"], case["RGS_JWT_ACTIVE_KID"], ".env JWT_KEYSET")
        assert (raised.value.code, raised.value.where) == ("keyset-invalid", ".env JWT_KEYSET")
        assert "fake_" not in str(raised.value)
        return
    keyset = parse_inline(case["RGS_JWT_KEYSET"], case["RGS_JWT_ACTIVE_KID"], ".env")
    assert _is(keyset, case["result"])
    assert parse_inline(*render_inline(keyset), ".env") == keyset


@pytest.mark.parametrize("case", _named(VECTORS["negative_cases"]))
def test_trap_33_what_readers_do_not_agree_about_is_refused_with_its_place(case: dict[str, Any]) -> None:
    with pytest.raises(KeyturnError) as raised:
        parse_document(case["value"].encode(), "/srv/jwt-keyset.json")
    assert (raised.value.code, raised.value.where) == ("keyset-invalid", "/srv/jwt-keyset.json")
    assert raised.value.hint
    assert "fake_" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '{"active_kid": 1, "keys": {"a": "b"}}',
        '{"active_kid": null, "keys": {"a": "b"}}',
        '{"active_kid": "a", "keys": {"a": "b"}, "x": NaN}',
        '{"active_kid": "a", "Keys": {}, "keys": {"a": "b"}}',
        '{"active_kid": "a", "active_kid": "a", "keys": {"a": "b"}}',
        '{"active_kid": "a\\u0000", "keys": {"a\\u0000": "b"}}',
        '{"active_kid": "a", "keys": {"a": "\\ud800"}}',
        '{"active_kid": "a", "keys": {"a": "line\\nline"}}',
        "\ufeff" + '{"active_kid": "a", "keys": {"a": "b"}}',
        '{"x":' * 100_000,
    ],
)
def test_more_that_is_refused(text: str) -> None:
    with pytest.raises(KeyturnError) as raised:
        parse_document(text.encode(), "place")
    assert (raised.value.code, raised.value.where) == ("keyset-invalid", "place")


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(KeyturnError, match="not JSON"):
        parse_document(b'{"active_kid": "a", "keys": {"a": "\xff"}}', "place")


def test_style_order_and_other_members_stay() -> None:
    lines = [
        "{",
        '\t"note": "amber",',
        '\t"keys": {',
        '\t\t"z": "1",',
        '\t\t"a": "2"',
        "\t},",
        '\t"active_kid": "z"',
        "}",
    ]
    before = "\r\n".join([*lines, ""])
    keyset = parse_document(before.encode(), "f").with_key(Entry("m", "3"))
    assert render_document(keyset, before.encode()) == (before.replace('"2"', '"2",\r\n\t\t"m": "3"')).encode()
    compact = b'{"active_kid":"z","keys":{"z":"1"}}'
    assert render_document(parse_document(compact, "f"), compact) == compact
    spaced = b'{"active_kid": "z", "keys": {"z": "1"}}\n'
    assert render_document(parse_document(spaced, "f"), spaced) == spaced
    unnamed = b'{"keys":{"default":"1"}}'
    assert render_document(parse_document(unnamed, "f"), unnamed) == b'{"active_kid":"default","keys":{"default":"1"}}'
    unicode = '{"active_kid":"ключ","keys":{"ключ":"1"}}'.encode()
    assert render_document(parse_document(unicode, "f"), unicode) == unicode
    assert render_document(Keyset("k", {"k": "v"})) == b'{\n  "active_kid": "k",\n  "keys": {\n    "k": "v"\n  }\n}\n'


@pytest.mark.parametrize("keys", [{"a:b": "1"}, {"a": "1,2"}, {"a,b": "1"}])
def test_what_the_inline_form_cannot_hold_is_refused(keys: dict[str, str]) -> None:
    with pytest.raises(KeyturnError) as raised:
        render_inline(Keyset(next(iter(keys)), keys, "place"))
    assert (raised.value.code, raised.value.where) == ("keyset-unwritable", "place")


_TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=12)


@given(st.dictionaries(_TEXTS, _TEXTS, min_size=1, max_size=4), st.data())
def test_any_keyset_reads_back(keys: dict[str, str], data: st.DataObject) -> None:
    keyset = Keyset(data.draw(st.sampled_from(sorted(keys))), keys)
    like = data.draw(st.sampled_from([None, b'{"keys":{"q":"1"}}', b'{\n "active_kid": "\\u0041",\n "keys": {}\n}\n']))
    assert parse_document(render_document(keyset, like), "f") == keyset
    try:
        written = render_inline(keyset)
    except KeyturnError:
        assert any(sign in kid + key for kid, key in keys.items() for sign in ",:")
    else:
        assert parse_inline(*written, "f") == keyset
