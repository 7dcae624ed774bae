# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Properties: round trips, and that nothing else opens."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec, plaintext_of
from cryptography.fernet import Fernet
from hypothesis import given, settings
from hypothesis import strategies as st

_FAST_DERIVATION = {"preset": "pbkdf2-aes256gcm-b64", "derive": {"rounds": 1}}
_SPECS = ["aes256gcm-b64", "aesgcm-raw", _FAST_DERIVATION, "fernet"]
_KEY = base64.b64encode(b"k" * 32)


def _envelope(declared: Any) -> Envelope:
    return Envelope(load_spec(declared), _KEY)


@pytest.mark.parametrize("declared", _SPECS, ids=str)
@given(plaintexts=st.lists(st.binary(max_size=300), max_size=5))
@settings(max_examples=60, deadline=None)
def test_round_trip(declared: Any, plaintexts: list[bytes]) -> None:
    envelope = _envelope(declared)
    cells = envelope.seal_many(plaintexts)
    assert envelope.open_many(cells) == plaintexts
    assert [plaintext_of(envelope.spec, cell) for cell in cells] == [None] * len(cells)


@pytest.mark.parametrize("declared", _SPECS, ids=str)
@given(junk=st.binary(max_size=400))
@settings(max_examples=60, deadline=None)
def test_random_bytes_never_open(declared: Any, junk: bytes) -> None:
    envelope = _envelope(declared)
    cells = [junk, base64.b64encode(junk), base64.urlsafe_b64encode(junk), junk.hex().encode()]
    assert envelope.open_many(cells) == [None] * 4


@pytest.mark.parametrize("declared", _SPECS, ids=str)
@given(
    plaintext=st.binary(max_size=60), cut=st.integers(min_value=1), at=st.integers(min_value=0), bit=st.integers(0, 7)
)
@settings(max_examples=60, deadline=None)
def test_truncation_and_bit_flips_never_open(declared: Any, plaintext: bytes, cut: int, at: int, bit: int) -> None:
    envelope = _envelope(declared)
    cell = envelope.seal(plaintext)
    assert envelope.open(cell[: -(cut % len(cell)) or 0]) is None
    place = at % len(cell)
    flipped = cell[:place] + bytes([cell[place] ^ 1 << bit]) + cell[place + 1 :]
    opened = envelope.open(flipped)
    assert opened is None


@given(plaintext=st.binary(max_size=200), key=st.binary(min_size=32, max_size=32))
@settings(max_examples=60, deadline=None)
def test_fernet_agrees_with_its_reference(plaintext: bytes, key: bytes) -> None:
    text = base64.urlsafe_b64encode(key)
    envelope, reference = Envelope(load_spec("fernet"), text), Fernet(text)
    assert envelope.open(reference.encrypt(plaintext)) == plaintext
    assert reference.decrypt(envelope.seal(plaintext)) == plaintext


@given(value=st.binary(max_size=80))
@settings(max_examples=100, deadline=None)
def test_plaintext_recognition_never_raises(value: bytes) -> None:
    spec = load_spec("aes256gcm-b64")
    found = plaintext_of(spec, b"{" + value)
    assert found in (None, b"{" + value)
