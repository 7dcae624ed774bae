# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declarations: what is read, what is refused and how the refusal reads."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import (
    PRESETS,
    Envelope,
    ciphers,
    derivation,
    detect,
    load_spec,
    plaintext_of,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

_KEY = bytes(range(32))
_BASE: dict[str, Any] = {
    "cipher": "aes-gcm",
    "text": "base64",
    "parts": ["nonce:12", "ciphertext", "tag:16"],
    "key": {"encoding": "base64", "lengths": 32},
}


def _key(spec: Any) -> bytes:
    return {"raw": _KEY, "hex": _KEY.hex().encode(), "utf8": b"k" * 32}.get(
        spec.key.encodings[0], base64.b64encode(_KEY)
    )


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_load_or_say_what_they_lack(name: str) -> None:
    assert PRESETS[name].name == name
    if PRESETS[name].missing:
        for declared in (name, {"preset": name}):
            with pytest.raises(KeyturnError) as caught:
                load_spec(declared)
            assert PRESETS[name].missing in str(caught.value)
        with pytest.raises(KeyturnError):
            Envelope(PRESETS[name], b"key")
        return
    assert load_spec(name) is PRESETS[name]
    assert load_spec({"preset": name}) == PRESETS[name]


def test_presets_whose_cipher_proves_nothing_have_a_check() -> None:
    assert {name: spec.check.form for name, spec in PRESETS.items() if spec.check} == {
        "superset-cbc": "utf8",
        "openssl-salted": "utf8",
        "n8n-cbc": "json",
        "calcom": "utf8",
    }
    assert [name for name, spec in PRESETS.items() if spec.authenticated == bool(spec.check)] == []


def test_minimum_lengths_follow_from_the_parts() -> None:
    assert {name: spec.minimum for name, spec in PRESETS.items()} == {
        "aes256gcm-b64": 28,
        "aesgcm-raw": 28,
        "pbkdf2-aes256gcm-b64": 96,
        "pbkdf2-aes256gcm-b64-tag-last": 96,
        "fernet": 73,
        "superset-cbc": 16,
        "superset-gcm": 28,
        "openssl-salted": 24,
        "n8n-cbc": 24,
        "n8n-gcm": 48,
        "langfuse": 28,
        "calcom": 32,
        "rails-json": 28,
        "jwe-dir-a256gcm": 28,
        "twenty-v2": 28,
    }


@pytest.mark.parametrize(("given", "meant"), [("aes256gcm-b46", "aes256gcm-b64"), ("fernt", "fernet")])
def test_unknown_preset_names_the_nearest(given: str, meant: str) -> None:
    for value in (given, {"preset": given}):
        with pytest.raises(KeyturnError) as caught:
            load_spec(value)
        assert caught.value.code == "envelope-unknown"
        assert meant in caught.value.hint


def test_unknown_preset_far_from_all_lists_them() -> None:
    with pytest.raises(KeyturnError) as caught:
        load_spec("???")
    assert all(name in caught.value.hint for name in PRESETS)


@pytest.mark.parametrize(
    ("change", "part_of_message"),
    [
        ({"cipher": "aes-gcn"}, "aes-gcn"),
        ({"cipher": None}, "cipher"),
        ({"chipher": "x"}, "chipher"),
        ({"parts": None}, "parts"),
        ({"parts": ["nonce:12", "ciphertext"]}, "tag"),
        ({"parts": ["nonce:12", "nonce:12", "ciphertext", "tag:16"]}, "once"),
        ({"parts": ["nonce:12", "ciphertext", "tag:12"]}, "16 bytes"),
        ({"parts": ["nonce:4", "ciphertext", "tag:16"]}, "8 to 64"),
        ({"parts": ["nonce", "ciphertext", "tag:16"]}, "nonce"),
        ({"parts": ["nonce:12", "ciphertext:5", "tag:16"]}, "ciphertext:5"),
        ({"parts": ["salt:16", "nonce:12", "ciphertext", "tag:16"]}, "each once"),
        ({"derive": {"function": "pbkdf2-hmac-sha256", "rounds": 10}}, "salt"),
        ({"derive": {"function": "scrypt", "rounds": 10}}, "scrypt"),
        ({"derive": {"function": "pbkdf2-hmac-sha256", "rounds": 0}}, "derivation"),
        ({"text": "base32"}, "base32"),
        ({"text": {"encoding": "hex", "padding": "optional"}}, "padding"),
        ({"text": {"encoding": "raw", "line_breaks": "skip"}}, "line breaks"),
        ({"key": "rot13"}, "rot13"),
        ({"key": []}, "encoding"),
        ({"key": {"encoding": "base64", "lengths": 31}}, "length"),
        ({"key": {"encoding": "base64", "lengths": "32"}}, "lengths"),
        ({"key": {"encoding": "utf8", "list": "first"}}, "list"),
        ({"prefix": "é"}, "ASCII"),
        ({"min_raw": 3}, "28"),
        ({"plaintext": {"form": "json-object", "marker": "m"}}, "marker"),
        ({"plaintext": "xml"}, "xml"),
        ({"derive": {"function": "scrypt", "cost": 1000, "salt": "s"}}, "derivation"),
        ({"derive": {"function": "scrypt", "cost": 1 << 30, "salt": "s"}}, "derivation"),
        ({"derive": {"function": "sha256", "salt": "s"}}, "salt"),
        ({"derive": {"function": "hkdf-sha256", "rounds": 7}}, "rounds"),
        ({"derive": {"function": "hkdf-sha256", "length": 20}}, "derivation"),
        ({"text": {"encoding": "hex", "separator": "a"}}, "separator"),
        ({"text": {"encoding": "raw", "separator": ":"}}, "separator"),
        ({"text": {"encoding": "base64", "jose": "dir"}}, "base64url"),
        ({"text": {"encoding": "base64url", "padding": "forbidden", "jose": "dir"}, "prefix": "x"}, "prefix"),
        ({"text": {"encoding": "base64url", "padding": "forbidden", "jose": "dir", "separator": "."}}, "exclude"),
        (
            {
                "text": {"encoding": "base64url", "padding": "forbidden", "jose": "dir"},
                "parts": ["tag:16", "nonce:12", "ciphertext"],
            },
            "JWE",
        ),
        ({"text": {"encoding": "base64", "members": {"parts": {"nonce": "n", "tag": "t"}}}}, "members"),
        (
            {
                "text": {
                    "encoding": "base64",
                    "members": {"parts": {"nonce": "n", "tag": "t", "ciphertext": "c"}, "key_id": "i"},
                }
            },
            "key.id",
        ),
        ({"prefix": "{key_id}:"}, "key.id"),
        ({"prefix": "{id}:"}, "placeholder"),
        ({"associated_data": "{row}"}, "placeholder"),
        ({"key": {"encoding": "utf8", "lengths": 32, "id": {"source": "text", "digits": 0}}}, "digits"),
        ({"magic": "no"}, "hex"),
        ({"magic": 1}, "magic"),
        ({"magic": "01", "text": {"encoding": "hex", "separator": ":"}}, "magic"),
        ({"compress": {"over": 1, "flag": "c"}}, "member"),
        ({"check": "utf8"}, "check"),
        ({"block_padding": "*"}, "padding"),
        ({"iv": "key", "parts": ["ciphertext", "tag:16"]}, "nonce"),
        ({"iv": "derived", "parts": ["ciphertext", "tag:16"]}, "derivation"),
        ({"iv": "derived", "parts": ["ciphertext", "tag:16"], "derive": "hkdf-sha256"}, "nonce"),
        ({"cipher": "aes-cbc"}, "needs the parts"),
        ({"cipher": "aes-cbc", "parts": ["iv:12", "ciphertext"]}, "16 bytes"),
        ({"cipher": "aes-cbc", "parts": ["iv:16", "ciphertext"], "block_padding": "**"}, "padding"),
        ({"cipher": "aes-cbc", "parts": ["iv:16", "ciphertext"], "check": "xml"}, "xml"),
        ({"cipher": "aes-cbc", "parts": ["iv:16", "ciphertext"], "check": {"pattern": "("}}, "regular expression"),
        ({"cipher": "aes-cbc", "parts": ["iv:16", "ciphertext"], "associated_data": "x"}, "associated"),
        ({"cipher": "aes-cbc", "parts": ["iv:16", "ciphertext"], "iv": "hmac-sha256"}, "HMAC"),
        (
            {"cipher": "aes-cbc", "parts": ["salt:8", "ciphertext"], "derive": "hkdf-sha256", "iv": "key"},
            "own key",
        ),
        ({"cipher": "fernet", "parts": None, "iv": "key"}, "initialisation vector"),
        ({"cipher": "fernet", "parts": None, "derive": "hkdf-sha256"}, "derivation"),
        ({"cipher": "fernet"}, "fixed"),
        ({"cipher": "fernet", "parts": None, "associated_data": "x"}, "associated"),
        ({"cipher": "fernet", "parts": None, "derive": {"function": "pbkdf2-hmac-sha256", "rounds": 1}}, "derivation"),
    ],
)
def test_refuses_a_wrong_declaration(change: dict[str, Any], part_of_message: str) -> None:
    declared = {key: value for key, value in {**_BASE, **change}.items() if value is not None}
    with pytest.raises(KeyturnError) as caught:
        load_spec(declared)
    assert caught.value.code == "envelope-invalid"
    assert part_of_message in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("value", [7, None, ["fernet"]])
def test_refuses_what_is_no_declaration(value: Any) -> None:
    with pytest.raises(KeyturnError) as caught:
        load_spec(value)
    assert caught.value.code == "envelope-invalid"


@pytest.mark.parametrize(
    "change",
    [
        {"text": "hex"},
        {"text": "raw", "prefix": "v1:"},
        {"text": {"encoding": "base64url", "padding": "forbidden"}, "prefix": "enc:v2:k1:"},
        {"text": {"encoding": "base64", "padding": "optional"}},
        {"parts": [{"nonce": 16}, {"tag": 16}, "ciphertext"]},
        {"parts": ["tag:16", "ciphertext", "nonce:12"]},
        {"parts": ["ciphertext", "tag:16", "nonce:12"]},
        {"key": "hex"},
        {"key": "utf8"},
        {"key": "raw", "associated_data": "app"},
        {
            "parts": ["ciphertext", "nonce:12", "salt:8", "tag:16"],
            "key": "utf8",
            "derive": {"function": "pbkdf2-hmac-sha256", "rounds": 2, "length": 16},
        },
    ],
)
def test_other_layouts_need_no_code(change: dict[str, Any]) -> None:
    spec = load_spec({**_BASE, **change})
    envelope = Envelope(spec, _key(spec))
    plaintexts = [b"", b"x", b"long " * 50]
    cells = envelope.seal_many(plaintexts)
    assert envelope.open_many(cells) == plaintexts
    assert all(cell.startswith(spec.prefix.encode()) for cell in cells)
    assert envelope.open_many([cell[:-4] for cell in cells]) == [None] * 3
    if spec.prefix:
        assert envelope.open_many([cell[len(spec.prefix) :] for cell in cells]) == [None] * 3


def test_associated_data_is_authenticated() -> None:
    bound, free = load_spec({**_BASE, "associated_data": "app"}), load_spec(_BASE)
    assert Envelope(free, _key(free)).open(Envelope(bound, _key(bound)).seal(b"x")) is None


def test_preset_with_one_change_keeps_the_rest() -> None:
    spec = load_spec({"preset": "aes256gcm-b64", "prefix": "enc:", "text": {"padding": "optional"}})
    assert spec.prefix == "enc:"
    assert spec.text.reads == ("base64", "base64url")
    assert spec.text.padding == "optional"
    assert spec.plaintext == PRESETS["aes256gcm-b64"].plaintext
    assert spec.name == "aes256gcm-b64 (changed)"


def test_text_padding_and_alphabets_are_strict() -> None:
    spec = PRESETS["aes256gcm-b64"]
    envelope = Envelope(spec, base64.b64encode(_KEY))
    cell = next(cell for cell in envelope.seal_many([b"x" * 30] * 50) if b"+" in cell and b"/" in cell)
    assert cell.endswith(b"==")
    url = base64.urlsafe_b64encode(base64.b64decode(cell))
    assert envelope.open(url) == b"x" * 30
    assert envelope.open(cell.replace(b"+", b"-")) is None, "alphabets are not mixed"
    assert envelope.open(cell.rstrip(b"=")) is None
    assert envelope.open(cell + b"=") is None
    assert envelope.open(b" " + cell) is None
    unused_bits = cell[:-3] + bytes([cell[-3] + 1]) + b"=="
    assert base64.b64decode(unused_bits) == base64.b64decode(cell)
    assert envelope.open(unused_bits) is None


def test_optional_padding_reads_both_and_hex_reads_lower_case() -> None:
    spec = load_spec({**_BASE, "text": {"encoding": "base64url", "padding": "optional"}})
    envelope = Envelope(spec, _key(spec))
    cell = envelope.seal(b"x")
    assert not cell.endswith(b"=")
    assert envelope.open(cell + b"=" * (-len(cell) % 4)) == b"x"
    forbidden = load_spec({**_BASE, "text": {"encoding": "base64", "padding": "forbidden"}})
    bare = Envelope(forbidden, _key(forbidden)).seal(b"x")
    assert Envelope(forbidden, _key(forbidden)).open(bare) == b"x"
    assert Envelope(forbidden, _key(forbidden)).open(bare + b"=" * (-len(bare) % 4)) is None
    hexed = load_spec({**_BASE, "text": "hex"})
    cell = Envelope(hexed, _key(hexed)).seal(b"x")
    assert Envelope(hexed, _key(hexed)).open(cell) == b"x"
    assert Envelope(hexed, _key(hexed)).open(cell.upper()) is None
    assert Envelope(hexed, _key(hexed)).open(cell[:-1] + b" ") is None


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_key_file_may_end_with_one_line_break(ending: bytes) -> None:
    envelope = Envelope(PRESETS["fernet"], base64.urlsafe_b64encode(_KEY) + ending)
    assert envelope.open(envelope.seal(b"x")) == b"x"
    with pytest.raises(KeyturnError):
        Envelope(PRESETS["fernet"], base64.urlsafe_b64encode(_KEY) + ending * 2)


def test_key_with_unused_bits_is_taken_as_its_readers_take_it() -> None:
    text = base64.urlsafe_b64encode(b"\xff" * 32).rstrip(b"=")
    other = text[:-1] + b"9"
    spec = PRESETS["aes256gcm-b64"]
    assert base64.urlsafe_b64decode(other + b"=") == b"\xff" * 32
    assert Envelope(spec, other).open(Envelope(spec, text).seal(b"x")) == b"x"
    with pytest.raises(KeyturnError):
        Envelope(spec, text[:-1] + b"%")


@pytest.mark.parametrize(("encoding", "value"), [("utf8", b"\xff\xfe"), ("hex", b"0g" * 16), ("raw", b"short")])
def test_bad_keys_of_other_encodings(encoding: str, value: bytes) -> None:
    spec = load_spec({**_BASE, "key": encoding})
    with pytest.raises(KeyturnError) as caught:
        Envelope(spec, value)
    assert caught.value.code == "key-invalid"


def test_without_a_key_nothing_opens_and_sealing_gives_the_plaintext() -> None:
    spec = PRESETS["aes256gcm-b64"]
    envelope = Envelope(spec, None)
    cell = Envelope(spec, base64.b64encode(_KEY)).seal(b'{"k": 1}')
    assert envelope.open_many([cell, b'{"k": 1}']) == [None, None]
    assert envelope.seal(b'{"k": 1}') == b'{"k": 1}'
    assert plaintext_of(spec, envelope.seal(b'{"k": 1}')) == b'{"k": 1}'


@pytest.mark.parametrize(
    "cell",
    [
        b"",
        b"{",
        b"[1]",
        b'"{"',
        b'{"a": NaN}',
        b'{"__plain__": true}',
        b'{"__plain__": true, "jwk": "text"}',
        b'{"__plain__": true, "jwk": {"n": 1e999}}',
        b'{"a": "\xff"}',
        b"\xff{",
        b'{"a": ' * 100_000,
        '{"a": 1}'.encode("utf-16"),
    ],
)
def test_not_every_text_with_a_brace_is_plaintext(cell: bytes) -> None:
    assert plaintext_of(PRESETS["aes256gcm-b64"], cell) is None


def test_no_plaintext_form_where_none_is_declared() -> None:
    assert plaintext_of(PRESETS["aesgcm-raw"], b'{"a": 1}') is None


def test_trap_10_derivation_is_done_ahead_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_spec({"preset": "pbkdf2-aes256gcm-b64", "derive": {"rounds": 50}})
    key = base64.b64encode(_KEY)
    cells = Envelope(spec, key).seal_many([b"a", b"b", b"c"])
    derived: list[bytes] = []
    real = hashlib.pbkdf2_hmac

    def counting(name: str, password: bytes, salt: bytes, rounds: int, length: int) -> bytes:
        derived.append(salt)
        return real(name, password, salt, rounds, length)

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", counting)
    envelope = Envelope(spec, key)
    envelope.prepare([*cells, b"junk", cells[0]])
    assert sorted(derived) == sorted({base64.b64decode(cell)[:64] for cell in cells})
    assert envelope.open_many(cells) == [b"a", b"b", b"c"]
    assert len(derived) == 3, "opening derives nothing again"
    again = envelope.seal_many([b"x", b"y"])
    assert len(derived) == 5, "the proof of a seal derives nothing again"
    assert len({base64.b64decode(cell)[:64] for cell in again}) == 2, "each value has its own salt"


def test_derived_keys_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derivation, "_CACHED_SALTS", 4)
    spec = load_spec({"preset": "pbkdf2-aes256gcm-b64", "derive": {"rounds": 1}})
    envelope = Envelope(spec, base64.b64encode(_KEY))
    plaintexts = [bytes([number]) for number in range(10)]
    cells = [cell for plaintext in plaintexts for cell in envelope.seal_many([plaintext])]
    assert [envelope.open(cell) for cell in cells] == plaintexts
    cipher: Any = envelope._openers[0].cipher
    assert len(cipher._keys._known) <= 4
    assert envelope.open_many(cells) == plaintexts


def test_seal_that_does_not_open_is_refused() -> None:
    envelope = Envelope(PRESETS["aesgcm-raw"], base64.b64encode(_KEY), randbytes=bytes)
    broken: Any = envelope._openers[0].cipher
    broken._plain = _Flipping(broken._plain)
    with pytest.raises(KeyturnError) as caught:
        envelope.seal(b"the value")
    assert caught.value.code == "seal-unproven"
    assert "the value" not in str(caught.value)


class _Flipping:
    """A cipher on a machine that computes wrongly."""

    def __init__(self, inner: Any) -> None:
        self.decrypt = inner.decrypt
        self._encrypt = inner.encrypt

    def encrypt(self, nonce: bytes, plaintext: bytes, associated: bytes | None) -> bytes:
        sealed: bytes = self._encrypt(nonce, plaintext, associated)
        return bytes([sealed[0] ^ 1]) + sealed[1:]


def test_nonces_of_a_batch_differ() -> None:
    envelope = Envelope(PRESETS["aesgcm-raw"], base64.b64encode(_KEY))
    assert len({cell[:12] for cell in envelope.seal_many([b"same"] * 500)}) == 500


def test_key_list_that_encrypts_with_the_last() -> None:
    spec = load_spec({"preset": "fernet", "key": {"list": "last"}})
    old, new = base64.urlsafe_b64encode(b"o" * 32), base64.urlsafe_b64encode(b"n" * 32)
    envelope = Envelope(spec, old + b"," + new)
    cell = envelope.seal(b"x")
    assert Envelope(spec, new).open(cell) == b"x"
    assert Envelope(spec, old).open(cell) is None
    assert envelope.open(Envelope(spec, old).seal(b"y")) == b"y"


def test_missing_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ciphers, "HAS_CRYPTOGRAPHY", False)
    for call in (
        lambda: Envelope(PRESETS["fernet"], base64.b64encode(_KEY)),
        lambda: detect([b"x"], base64.b64encode(_KEY)),
    ):
        with pytest.raises(KeyturnError) as caught:
            call()
        assert caught.value.code == "library-missing"


def test_detect_of_no_samples_is_nothing() -> None:
    assert detect([], base64.b64encode(_KEY)) == []
