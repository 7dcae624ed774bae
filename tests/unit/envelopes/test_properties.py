# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Properties: round trips, and that nothing else opens."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import (
    PRESETS,
    Envelope,
    load_spec,
    plaintext_of,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import TextForm
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.text import TextCodec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from cryptography.fernet import Fernet
from hypothesis import given, settings
from hypothesis import strategies as st

_B64, _TEXT, _HEX = base64.b64encode(b"k" * 32), b"0123456789abcdef0123456789abcdef", b"6b" * 32
#: Few rounds, so that many examples are tried.
_CHANGES: dict[str, dict[str, Any]] = {
    "pbkdf2-aes256gcm-b64": {"derive": {"rounds": 1}},
    "pbkdf2-aes256gcm-b64-tag-last": {"derive": {"rounds": 1}},
    "rails-json": {"derive": {"rounds": 1, "salt": "salt"}},
}
_KEYS = {"langfuse": _HEX, "n8n-gcm": _HEX, "calcom": _TEXT, "jwe-dir-a256gcm": _HEX}
_SPECS = {name: load_spec({"preset": name, **_CHANGES.get(name, {})}) for name in PRESETS}
_ENVELOPES = {name: Envelope(spec, _KEYS.get(name, _B64)) for name, spec in _SPECS.items()}
_PROVEN = [name for name, spec in _SPECS.items() if spec.authenticated]
_UNPROVEN = [name for name, spec in _SPECS.items() if not spec.authenticated]
_VALUES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=300).map(str.encode)


@pytest.mark.parametrize("name", _PROVEN)
@given(plaintexts=st.lists(st.binary(max_size=300), max_size=5))
@settings(max_examples=60, deadline=None)
def test_round_trip(name: str, plaintexts: list[bytes]) -> None:
    envelope = _ENVELOPES[name]
    cells = envelope.seal_many(plaintexts)
    assert envelope.open_many(cells) == plaintexts
    assert [plaintext_of(envelope.spec, cell) for cell in cells] == [None] * len(cells)


@pytest.mark.parametrize("name", _UNPROVEN)
@given(plaintexts=st.lists(_VALUES, max_size=5))
@settings(max_examples=60, deadline=None)
def test_round_trip_of_what_passes_the_check(name: str, plaintexts: list[bytes]) -> None:
    envelope = _ENVELOPES[name]
    values = [json.dumps([plain.decode()]).encode() for plain in plaintexts]
    assert envelope.open_many(envelope.seal_many(values)) == values
    if name != "n8n-cbc":
        bare = [plain.rstrip(b"*") for plain in plaintexts]
        assert envelope.open_many(envelope.seal_many(bare)) == bare


@pytest.mark.parametrize("name", _UNPROVEN)
@given(plaintext=st.binary(max_size=40))
@settings(max_examples=60, deadline=None)
def test_trap_11_what_does_not_pass_the_check_is_neither_opened_nor_sealed(name: str, plaintext: bytes) -> None:
    envelope = _ENVELOPES[name]
    opener = envelope._openers[0]
    (unchecked,) = opener.layout.seal_many(opener.cipher, [plaintext])
    opened = envelope.open(unchecked)
    if opened == plaintext:
        assert envelope.open(envelope.seal(plaintext)) == plaintext
        return
    assert opened is None or opened == plaintext.rstrip(b"*")
    with pytest.raises(KeyturnError) as caught:
        envelope.seal(plaintext)
    assert caught.value.code == "seal-unproven"


def _junk(junk: bytes) -> list[bytes]:
    hexed = junk.hex().encode()
    texts = [junk, base64.b64encode(junk), base64.urlsafe_b64encode(junk), hexed, b"enc:v2:" + base64.b64encode(junk)]
    joined = [hexed[:24] + b":" + hexed[24:-32] + b":" + hexed[-32:], hexed[:32] + b":" + hexed[32:]]
    url = base64.urlsafe_b64encode(junk).rstrip(b"=")
    members = {"p": url.decode(), "h": {"iv": base64.b64encode(junk[:12]).decode(), "at": "A" * 22 + "=="}}
    return [*texts, *joined, b"..".join((url, url)) + b"." + url + b"." + url[:22], json.dumps(members).encode()]


@pytest.mark.parametrize("name", _PROVEN)
@given(junk=st.binary(max_size=400))
@settings(max_examples=60, deadline=None)
def test_random_bytes_never_open(name: str, junk: bytes) -> None:
    assert set(_ENVELOPES[name].open_many(_junk(junk))) == {None}


@pytest.mark.parametrize("name", _UNPROVEN)
@given(junk=st.binary(max_size=400))
@settings(max_examples=60, deadline=None)
def test_random_bytes_open_to_what_passes_the_check_or_not_at_all(name: str, junk: bytes) -> None:
    envelope = _ENVELOPES[name]
    opened = [plain for plain in envelope.open_many(_junk(junk)) if plain is not None]
    assert envelope.open_many(envelope.seal_many(opened)) == opened


@pytest.mark.parametrize("name", _PROVEN)
@given(
    plaintext=st.binary(max_size=60), cut=st.integers(min_value=1), at=st.integers(min_value=0), bit=st.integers(0, 7)
)
@settings(max_examples=60, deadline=None)
def test_truncation_and_bit_flips_never_open(name: str, plaintext: bytes, cut: int, at: int, bit: int) -> None:
    envelope = _ENVELOPES[name]
    cell = envelope.seal(plaintext)
    assert envelope.open(cell[: -(cut % len(cell)) or 0]) is None
    place = at % len(cell)
    flipped = cell[:place] + bytes([cell[place] ^ 1 << bit]) + cell[place + 1 :]
    opened = envelope.open(flipped)
    assert opened is None


@pytest.mark.parametrize("name", sorted(PRESETS))
@given(others=st.lists(st.binary(max_size=40), max_size=4), at=st.integers(0, 4))
@settings(max_examples=30, deadline=None)
def test_a_cell_opens_the_same_alone_and_among_others(name: str, others: list[bytes], at: int) -> None:
    envelope, value = _ENVELOPES[name], b'{"token": "a value of some length"}'
    place = min(at, len(others))
    cells = [*others[:place], envelope.seal(value), *others[place:]]
    assert envelope.open_many(cells) == [envelope.open(cell) for cell in cells]
    assert envelope.open_many(cells)[place] == value


def _canonical(text: bytes) -> bytes | None:
    """Slowly: what gives the same text when it is written again."""
    try:
        raw = base64.b64decode(text)
    except ValueError:
        return None
    return raw if base64.b64encode(raw) == text else None


@given(
    raw=st.binary(max_size=40),
    noise=st.lists(st.tuples(st.integers(0, 60), st.sampled_from(b"=\n-_+/ A9\xff")), max_size=4),
    cut=st.integers(0, 5),
    more=st.sampled_from([b"", b"=", b"==", b"===", b"====", b"AA=="]),
)
@settings(max_examples=1500, deadline=None)
def test_base64_is_read_as_it_is_written_or_not_at_all(
    raw: bytes, noise: list[tuple[int, int]], cut: int, more: bytes
) -> None:
    text = base64.b64encode(raw)
    for at, byte in noise:
        text = text[:at] + bytes([byte]) + text[at + cut % 2 :]
    text = text[: len(text) - cut // 2] + more
    codec = TextCodec(TextForm("base64", ("base64",)))
    assert codec.decode_many([text]) == [_canonical(text)]
    url = text.translate(bytes.maketrans(b"+/-_", b"-_+/"))
    assert TextCodec(TextForm("base64url", ("base64url",))).decode_many([url]) == [_canonical(text)]


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
