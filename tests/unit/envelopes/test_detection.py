# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which presets open a sample."""

from __future__ import annotations

import base64

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import PRESETS, Envelope, detect, load_spec

_TEXT, _OTHER = b"0123456789abcdef0123456789ABCDEF", b"another text that is a passphrase"
_B64 = base64.urlsafe_b64encode(b"k" * 32)
_KEYS = {
    "aes256gcm-b64": _B64,
    "aesgcm-raw": _B64,
    "pbkdf2-aes256gcm-b64": _B64,
    "fernet": _B64,
    "langfuse": b"ab" * 32,
    "n8n-gcm": b"ab" * 32,
    "jwe-dir-a256gcm": b"ab" * 32,
}
_JSON = [b'{"token": "a value of some length"}', b'{"token": "another value of some length"}']


@pytest.mark.parametrize("name", sorted(name for name, spec in PRESETS.items() if not spec.missing))
def test_each_preset_is_found_and_said_to_be_proof_or_not(name: str) -> None:
    key = _KEYS.get(name, _TEXT)
    found = dict(detect(Envelope(PRESETS[name], key).seal_many(_JSON), key))
    assert found[name] is PRESETS[name].authenticated
    assert {other for other, proven in found.items() if proven} == ({name} if PRESETS[name].authenticated else set())


def test_the_two_uses_of_one_layout_are_both_named() -> None:
    cells = Envelope(PRESETS["n8n-cbc"], _TEXT).seal_many(_JSON)
    assert detect(cells, _TEXT) == [("openssl-salted", False), ("n8n-cbc", False)]


def test_all_samples_must_open() -> None:
    cells = Envelope(PRESETS["calcom"], _TEXT).seal_many(_JSON)
    assert detect(cells, _TEXT) == [("calcom", False)]
    assert detect([*cells, b"not a cell"], _TEXT) == []
    assert detect(cells[0], _TEXT) == [("calcom", False)]


def test_a_column_under_two_keys_is_found_with_both() -> None:
    cells = [Envelope(PRESETS["twenty-v2"], key).seal(_JSON[0]) for key in (_TEXT, _OTHER)]
    assert detect(cells, _TEXT) == []
    assert detect(cells, [_OTHER, _TEXT]) == [("twenty-v2", True)]


def test_a_declaration_that_needs_more_is_tried_once_it_is_complete() -> None:
    spec = load_spec({"preset": "rails-json", "derive": {"salt": "salt"}})
    cell = Envelope(spec, _TEXT).seal(_JSON[0])
    assert detect(cell, _TEXT) == []
    assert detect(cell, _TEXT, {"ours": spec}) == [("ours", True)]


def test_nothing_is_found_without_samples_or_keys() -> None:
    assert detect([], _TEXT) == []
    assert detect(b"x", []) == []
