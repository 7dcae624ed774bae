# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that are bound to their rows by associated data."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_RAW = bytes(range(32))
_KEY = base64.b64encode(_RAW)
_LAYOUTS: list[dict[str, Any]] = [
    {},
    {"parts": ["nonce:12", "tag:16", "ciphertext"]},
    {"text": {"encoding": "hex", "separator": ":"}},
    {"parts": ["salt:8", "nonce:12", "ciphertext", "tag:16"], "derive": {"function": "hkdf-sha256"}},
]


def _spec(template: str = "{table}|{column}|{pk}", **changes: Any) -> Any:
    return load_spec({"preset": "aesgcm-raw", "associated_data": template, **changes})


@pytest.mark.parametrize(
    ("template", "pk", "rendered"),
    [
        ("{table}|{column}|{pk}", ["7"], b"users|email|7"),
        ("{pk}", ["7", b"b"], b"7,b"),
        ("v1:{column}", [], b"v1:email"),
        ("\u00e9 {pk} {pk}", [b"{table}"], "\u00e9 {table} {table}".encode()),
        ("fixed", ["7"], b"fixed"),
    ],
)
def test_the_template_is_rendered(template: str, pk: list[str | bytes], rendered: bytes) -> None:
    spec = _spec(template)
    assert spec.associated_for("users", "email", pk) == rendered
    assert spec.needs_context == (template != "fixed")


@pytest.mark.parametrize("changes", _LAYOUTS, ids=["plain", "tag-first", "joined", "salted"])
def test_a_value_opens_in_its_own_row_only(changes: dict[str, Any]) -> None:
    spec = _spec(**changes)
    envelope = Envelope(spec, _KEY)
    rows = [spec.associated_for("t", "c", [str(number)]) for number in range(4)]
    plaintexts = [b"", b"a", b"bb", b"c" * 300]
    cells = envelope.seal_many(plaintexts, rows)
    assert envelope.open_many(cells, rows) == plaintexts
    assert envelope.open_many(cells, rows[::-1]) == [None] * 4
    assert Envelope(_spec("", **changes), _KEY).open_many(cells) == [None] * 4
    assert envelope.open(envelope.seal(b"x", rows[0]), rows[0]) == b"x"


def test_a_reference_opens_it_with_the_rendered_text() -> None:
    spec = _spec()
    row = spec.associated_for("public.users", "email", ["7"])
    cell = Envelope(spec, _KEY).seal(b"secret", row)
    assert AESGCM(_RAW).decrypt(cell[:12], cell[12:], b"public.users|email|7") == b"secret"


def test_a_list_of_keys_keeps_each_cell_with_its_row() -> None:
    spec = _spec(key={"list": "first"})
    old, new = base64.b64encode(b"o" * 32), base64.b64encode(b"n" * 32)
    rows = [spec.associated_for("t", "c", [str(number)]) for number in range(3)]
    cells = [Envelope(spec, key).seal(b"x", row) for key, row in zip((new, old, new), rows)]
    assert Envelope(spec, new + b"," + old).open_many(cells, rows) == [b"x"] * 3


def test_the_row_is_given_exactly_where_it_is_needed() -> None:
    bound, free = Envelope(_spec(), _KEY), Envelope(_spec("text"), _KEY)
    for envelope, associated in ((bound, None), (bound, []), (free, [b"text"])):
        with pytest.raises(ValueError, match="associated data"):
            envelope.open_many([b"x"], associated)
        with pytest.raises(ValueError, match="associated data"):
            envelope.seal_many([b"x"], associated)


def test_an_unknown_placeholder_is_refused() -> None:
    with pytest.raises(KeyturnError) as caught:
        _spec("{tabel}")
    assert caught.value.code == "envelope-invalid"
    assert "tabel" in caught.value.message
