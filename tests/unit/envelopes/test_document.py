# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/envelopes.md: what it names exists, and its examples work."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import PRESETS, Envelope, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.shapes import KEY_ENCODINGS, SPEC
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import CIPHERS, DERIVATIONS

_ROOT = Path(__file__).parents[3]
_TEXT = (_ROOT / "docs" / "envelopes.md").read_text(encoding="utf-8")
_BLOCKS: list[Any] = [yaml.safe_load(block.split("```")[0]) for block in _TEXT.split("```yaml\n")[1:]]
_ENVELOPES = [block["envelope"] for block in _BLOCKS if "envelope" in block]
_DATA = [entry for block in _BLOCKS for entry in block.get("data", ())]


def test_it_names_everything_that_can_be_declared() -> None:
    names = [*PRESETS, *CIPHERS, *DERIVATIONS, *KEY_ENCODINGS, *SPEC.fields]
    for field in SPEC.fields.values():
        names += field.shape.fields if field.shape is not None else ()
    assert [name for name in names if f"`{name}`" not in _TEXT and f"{name}:" not in _TEXT] == []


def test_it_says_which_presets_prove_nothing() -> None:
    rows = [line for line in _TEXT.splitlines() if line.startswith("| `")]
    said = {row.split("`")[1] for row in rows if "**Not authenticated**" in row}
    assert said == {name for name, spec in PRESETS.items() if not spec.authenticated}


def test_the_first_example_is_the_declared_look_alike() -> None:
    vectors = json.loads((_ROOT / "tests" / "vectors" / "004_two_factor_look_alike.json").read_text(encoding="utf-8"))
    case = vectors["cases"][0]
    opened = Envelope(load_spec(_ENVELOPES[0]), vectors["key"]["value"].encode()).open(case["ciphertext"].encode())
    assert opened == case["plaintext"].encode()


@pytest.mark.parametrize("declared", _ENVELOPES, ids=lambda declared: declared["name"])
def test_each_declared_layout_works(declared: dict[str, Any]) -> None:
    spec = load_spec(declared)
    key = b"passphrase" if spec.key.encodings == ("utf8",) else b"k1:" + base64.b64encode(bytes(32))
    context = spec.associated_for("users", "email", ["1"]) if spec.needs_context else None
    cell = Envelope(spec, key).seal(b'{"token": "fake"}', context)
    assert Envelope(spec, key).open(cell, context) == b'{"token": "fake"}'


@pytest.mark.parametrize("entry", _DATA, ids=lambda entry: f"{entry['table']}-{entry['column']}")
def test_each_changed_preset_works(entry: dict[str, Any]) -> None:
    spec = load_spec(entry["envelope"])
    envelope = Envelope(spec, b"a text as a key")
    assert envelope.open(envelope.seal(b"long-enough")) == b"long-enough"
    assert spec != PRESETS[entry["envelope"]["preset"]]
