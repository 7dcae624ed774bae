# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sealed boxes: with old and new versions of the library."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils import sealed
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

from tests.support.modules import ROOT


class _Old:
    """A key as version 39 has it, without the functions for raw bytes."""

    def __init__(self, key: Any) -> None:
        self._key = key
        for name in ("private_bytes", "public_bytes", "exchange"):
            if hasattr(key, name):
                setattr(self, name, getattr(key, name))

    def public_key(self) -> _Old:
        return _Old(self._key.public_key())


class _OldKeys:
    @staticmethod
    def generate() -> _Old:
        return _Old(_KEYS.generate())

    @staticmethod
    def from_private_bytes(raw: bytes) -> _Old:
        return _Old(_KEYS.from_private_bytes(raw))


_KEYS = sealed.X25519PrivateKey


@pytest.mark.parametrize("old_seals", [False, True])
@pytest.mark.parametrize("old_opens", [False, True])
def test_old_and_new_versions_of_the_library_understand_each_other(
    monkeypatch: pytest.MonkeyPatch, old_seals: bool, old_opens: bool
) -> None:
    assert not hasattr(_OldKeys.generate(), "private_bytes_raw")
    monkeypatch.setattr(sealed, "X25519PrivateKey", _OldKeys if old_opens else _KEYS)
    private, public = sealed.new_keypair()
    assert (len(private), sealed.public_of(private)) == (32, public)
    monkeypatch.setattr(sealed, "X25519PrivateKey", _OldKeys if old_seals else _KEYS)
    box = sealed.seal(b"value", public, "r1/KEY/new")
    monkeypatch.setattr(sealed, "X25519PrivateKey", _OldKeys if old_opens else _KEYS)
    assert sealed.open_box(box, private, "r1/KEY/new") == b"value"
    with pytest.raises(KeyturnError) as caught:
        sealed.open_box(box, private, "r1/KEY/old")
    assert caught.value.code == "box-invalid"


def test_parsers_of_other_forms_of_keys_are_not_read() -> None:
    """They are a third of the library's import, and each execution on each host would pay for it."""
    program = f"""
import sys
from {sealed.__name__} import new_keypair, open_box, seal
private, public = new_keypair()
assert open_box(seal(b"value", public, "c"), private, "c") == b"value"
print("cryptography.hazmat.primitives.serialization" in sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".build"), "KEYTURN_COMPILED": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout == "False\n"
