# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every case of the known-answer vectors, positive and negative."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import (
    PRESETS,
    Envelope,
    EnvelopeSpec,
    check_key,
    detect,
    load_spec,
    plaintext_of,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

_VECTORS = Path(__file__).parents[2] / "vectors"
_PRESET = {
    "000_private_jwk_aesgcm": "aes256gcm-b64",
    "001_private_pem_enc": "aesgcm-raw",
    "001_mfa_secret_enc": "aesgcm-raw",
    "004_credential_envelope": "pbkdf2-aes256gcm-b64",
    "004_two_factor_look_alike": "pbkdf2-aes256gcm-b64-tag-last",
    "006_fernet": "fernet",
    "006_jwe_dir_a256gcm": "jwe-dir-a256gcm",
    "006_langfuse": "langfuse",
    "006_n8n_gcm_v1": "n8n-gcm",
    "006_superset_aes_gcm": "superset-gcm",
}


def _load(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((_VECTORS / f"{name}.json").read_text())
    return data


def _spec(file: str) -> EnvelopeSpec:
    return load_spec(_PRESET[file])


def _bytes(text: str, encoding: str = "utf8") -> bytes:
    return base64.b64decode(text) if encoding.startswith("base64") else text.encode()


def _cell(case: dict[str, Any], member: str) -> bytes:
    return _bytes(case[member], case.get(f"{member}_encoding", "text"))


def _cases(list_name: str, files: tuple[str, ...] = tuple(_PRESET)) -> list[Any]:
    return [
        pytest.param(file, case, id=f"{file}-{case.get('name', number)}")
        for file in files
        for number, case in enumerate(_load(file).get(list_name, []))
    ]


def _key(file: str, name: str = "key") -> bytes:
    key = _load(file)[name]
    text: str = key["value"] if "value" in key else json.dumps(key["jwk"]) if "jwk" in key else key["hex"]
    return text.encode()


@pytest.mark.parametrize(("file", "case"), _cases("cases"))
def test_opens_what_the_application_sealed(file: str, case: dict[str, Any]) -> None:
    plaintext = _cell(case, "plaintext")
    envelope = Envelope(_spec(file), _key(file))
    assert envelope.open(_cell(case, "ciphertext")) == plaintext
    assert envelope.open(envelope.seal(plaintext)) == plaintext
    assert Envelope(_spec(file), _key(file, "new_key")).open(_cell(case, "ciphertext")) is None


@pytest.mark.parametrize(("file", "case"), _cases("cases_under_new_key"))
def test_tells_new_rows_from_old_ones(file: str, case: dict[str, Any]) -> None:
    cell = _bytes(case["ciphertext"], case.get("ciphertext_encoding", "text"))
    assert Envelope(_spec(file), _key(file, "new_key")).open(cell) == _cell(case, "plaintext")
    assert Envelope(_spec(file), _key(file)).open(cell) is None


@pytest.mark.parametrize(("file", "case"), _cases("negative_cases"))
def test_refuses_what_a_strict_reader_refuses(file: str, case: dict[str, Any]) -> None:
    assert "reject" in case["expect"]
    cell = _cell(case, "value")
    assert Envelope(_spec(file), _key(file)).open(cell) is None
    assert Envelope(_spec(file), _key(file, "new_key")).open(cell) is None
    assert plaintext_of(_spec(file), cell) is None


@pytest.mark.parametrize(("file", "case"), _cases("bad_keys") + _cases("bad_keks"))
def test_refuses_bad_keys_without_showing_them(file: str, case: dict[str, Any]) -> None:
    text = case.get("value") or case["kek"]
    with pytest.raises(KeyturnError) as caught:
        check_key(_spec(file), text.encode())
    assert caught.value.code == "key-invalid"
    assert text not in str(caught.value)
    size = case.get("bytes") or case.get("kek_bytes")
    if size:
        assert f"{size} bytes" in str(caught.value)
    with pytest.raises(KeyturnError):
        Envelope(_spec(file), text.encode())


@pytest.mark.parametrize(("file", "case"), _cases("key_forms"))
def test_opens_with_every_form_of_a_key(file: str, case: dict[str, Any]) -> None:
    cell = case["ciphertext"].encode()
    assert Envelope(_spec(file), case["key_text"].encode()).open(cell) == case["plaintext"].encode()
    url = base64.urlsafe_b64encode(bytes.fromhex(case["key_bytes_hex"]))
    assert Envelope(_spec(file), url.rstrip(b"=")).open(cell) == case["plaintext"].encode()


def test_key_of_the_first_format_may_be_padded() -> None:
    data = _load("000_private_jwk_aesgcm")
    case = data["cases"][0]
    envelope = Envelope(_spec("000_private_jwk_aesgcm"), data["key"]["padded_form"].encode())
    assert envelope.open(case["ciphertext"].encode()) == _cell(case, "plaintext")


@pytest.mark.parametrize(("file", "case"), _cases("other_kek_sizes"))
def test_opens_under_shorter_keys_where_the_format_has_them(file: str, case: dict[str, Any]) -> None:
    envelope = Envelope(_spec(file), case["kek"].encode())
    assert envelope.open(base64.b64decode(case["ciphertext"])) == _cell(case, "plaintext")
    assert envelope.open(envelope.seal(b"x")) == b"x"


@pytest.mark.parametrize(("file", "case"), _cases("plaintext_rows", ("000_private_jwk_aesgcm",)))
def test_recognises_plaintext_rows(file: str, case: dict[str, Any]) -> None:
    cell = _cell(case, "value")
    jwk = json.loads(base64.b64decode(case["jwk"]))
    plaintext = plaintext_of(_spec(file), cell)
    assert plaintext is not None
    assert json.loads(plaintext) == jwk
    assert Envelope(_spec(file), _key(file)).open(cell) is None
    if json.loads(cell).get("__plain__"):
        assert plaintext == json.dumps(jwk).encode()
    else:
        assert plaintext == cell


@pytest.mark.parametrize(("file", "case"), _cases("cases_other_key"))
def test_opens_under_a_password_that_is_not_ascii(file: str, case: dict[str, Any]) -> None:
    assert Envelope(_spec(file), case["key"].encode()).open(case["ciphertext"].encode()) == case["plaintext"].encode()


@pytest.mark.parametrize(("file", "case"), _cases("cases", ("004_two_factor_look_alike",)))
def test_trap_12_look_alike_layout_is_not_taken_for_the_preset(file: str, case: dict[str, Any]) -> None:
    parts = ["salt:64", "nonce:16", "tag:16", "ciphertext"]
    declared = load_spec({"preset": "pbkdf2-aes256gcm-b64-tag-last", "parts": parts})
    cell = case["ciphertext"].encode()
    if case["plaintext"]:  # without a ciphertext the two layouts are one
        assert Envelope(declared, _key(file)).open(cell) is None
    assert Envelope(_spec("004_credential_envelope"), _key("004_credential_envelope")).open(cell) is None


@pytest.mark.parametrize(("file", "case"), _cases("rotated", ("006_fernet",)))
def test_fernet_key_list_opens_both_and_seals_with_the_first(file: str, case: dict[str, Any]) -> None:
    new, old = _key(file, "new_key"), _key(file)
    both = Envelope(_spec(file), new + b"," + old)
    plaintext = _cell(case, "plaintext")
    assert both.open_many([case["before"].encode(), case["after"].encode()]) == [plaintext, plaintext]
    assert both.primary.open(case["before"].encode()) is None
    assert both.primary.open(case["after"].encode()) == plaintext
    assert Envelope(_spec(file), new).open(both.seal(plaintext)) == plaintext


def test_fernet_writes_the_time_it_is_given_and_the_exact_token() -> None:
    case = next(case for case in _load("006_fernet")["cases"] if case["name"] == "issued_2017")
    raw = base64.urlsafe_b64decode(case["ciphertext"])
    envelope = Envelope(
        PRESETS["fernet"],
        _key("006_fernet"),
        clock=lambda: case["timestamp"] + 0.9,
        randbytes=lambda count: raw[9:25][:count],
    )
    assert envelope.seal(_cell(case, "plaintext")) == case["ciphertext"].encode()


@pytest.mark.parametrize(("file", "case"), _cases("cases", ("006_airflow_fernet_columns",)))
def test_airflow_columns_before_and_after_rotation(file: str, case: dict[str, Any]) -> None:
    spec, old, new = PRESETS["fernet"], _key(file), _key(file, "new_key")
    after = case["after_rotation"]
    checked = 0
    for column, flag in (("password", "is_encrypted"), ("extra", "is_extra_encrypted"), ("val", "is_encrypted")):
        if not case.get(flag) or not case.get(column):
            continue
        plaintext = case[f"{column}_plain"].encode()
        assert Envelope(spec, old).open(case[column].encode()) == plaintext
        assert Envelope(spec, new).open(case[column].encode()) is None
        assert Envelope(spec, new).open(after[column].encode()) == plaintext
        assert Envelope(spec, after["fernet_key"].encode()).primary.open(after[column].encode()) == plaintext
        checked += 1
    assert checked or case["name"] == "empty_password"


def test_airflow_plaintext_rows_are_not_taken_for_tokens() -> None:
    file = "006_airflow_fernet_columns"
    for row in _load(file)["plaintext_rows"]:
        for column in ("password", "extra"):
            assert Envelope(PRESETS["fernet"], _key(file)).open(row[column].encode()) is None


@pytest.mark.parametrize(("file", "case"), _cases("negative_cases", ("006_airflow_fernet_columns",)))
def test_airflow_negative_cases(file: str, case: dict[str, Any]) -> None:
    spec, name = PRESETS["fernet"], case["name"]
    keys = case.get("fernet_key", _load(file)["key"]["value"]).encode()
    if name in {"key_list_with_space", "key_list_empty_part", "key_missing"}:
        with pytest.raises(KeyturnError) as caught:
            Envelope(spec, keys)
        assert caught.value.code == "key-invalid"
        assert keys.decode() not in str(caught.value) or not keys
    elif name == "order_reversed":
        # The list opens it, and the key that encrypts does too: the old one. The new key alone shows the mistake.
        assert Envelope(spec, keys).primary.open(case["value"].encode()) is not None
        assert Envelope(spec, _key(file, "new_key")).open(case["value"].encode()) is None
    else:
        assert Envelope(spec, keys).open(case["value"].encode()) is None


@pytest.mark.parametrize("file", sorted(_PRESET))
def test_detect_names_the_preset(file: str) -> None:
    cells = [_bytes(case["ciphertext"], case["ciphertext_encoding"]) for case in _load(file)["cases"][:2]]
    assert detect(cells, _key(file)) == [(_PRESET[file], True)]
    assert detect([*cells, b"?"], _key(file)) == []
    assert detect(cells, _key(file, "new_key")) == []
