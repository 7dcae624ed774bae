# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Formats of known applications that need more than one preset and one key: the vectors, positive and negative."""

from __future__ import annotations

import base64
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, EnvelopeSpec, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

_VECTORS = Path(__file__).parents[2] / "vectors"
_SUPERSET, _N8N, _CALCOM = "006_superset_aes_cbc", "006_n8n_credentials_cbc", "006_calcom"
_RAILS, _TWENTY, _JWE = "006_rails_ar_encryption", "006_twenty_enc_v2", "006_jwe_dir_a256gcm"
#: Formats whose cipher proves nothing.
_UNPROVEN = {_SUPERSET: "superset-cbc", _N8N: "openssl-salted", _CALCOM: "calcom"}


def _load(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((_VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    return data


def _cases(list_name: str, *files: str) -> list[Any]:
    return [
        pytest.param(file, case, id=f"{file}-{case.get('name', number)}")
        for file in files
        for number, case in enumerate(_load(file)[list_name])
    ]


def _key(file: str, name: str = "key") -> bytes:
    key: str = _load(file)[name]["value"]
    return key.encode()


def _plaintext(case: dict[str, Any]) -> bytes:
    text: str = case.get("decrypts_to", case["plaintext"])
    return base64.b64decode(text) if case.get("plaintext_encoding") == "base64" else text.encode()


# -- without authentication ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("file", "case"), _cases("cases", *_UNPROVEN) + _cases("cases_under_new_key", *_UNPROVEN))
def test_opens_what_the_application_sealed(file: str, case: dict[str, Any]) -> None:
    spec = load_spec(_UNPROVEN[file])
    under, other = ("new_key", "key") if case["name"] == "under_new_key" else ("key", "new_key")
    envelope, plaintext = Envelope(spec, _key(file, under)), _plaintext(case)
    assert envelope.open(case["ciphertext"].encode()) == plaintext
    assert envelope.open(envelope.seal(plaintext)) == plaintext
    assert Envelope(spec, _key(file, other)).open(case["ciphertext"].encode()) is None


@pytest.mark.parametrize(("file", "case"), _cases("negative_cases", *_UNPROVEN))
def test_refuses_what_can_be_told(file: str, case: dict[str, Any]) -> None:
    spec = load_spec(_UNPROVEN[file])
    opened = Envelope(spec, _key(file)).open(case["value"].encode())
    assert not spec.authenticated
    if case["name"] == "tampered_iv":  # one other character in the text
        assert "cannot be detected" in case["expect"]
        assert opened not in (None, _plaintext(_load(file)["cases"][2]))
    else:
        assert opened is None


@pytest.mark.parametrize(("file", "case"), _cases("cases", _N8N))
def test_credentials_of_n8n_are_json(file: str, case: dict[str, Any]) -> None:
    opened = Envelope(load_spec("n8n-cbc"), _key(file)).open(case["ciphertext"].encode())
    assert opened == (_plaintext(case) if case["plaintext"].startswith("{") else None)


def test_a_key_of_n8n_that_is_not_ascii_is_read_as_it_reads_it() -> None:
    (case,) = _load(_N8N)["odd_keys"]
    changed = load_spec({"preset": "n8n-cbc", "check": "utf8"})
    cell = case["ciphertext"].encode()
    assert Envelope(changed, case["key"].encode()).open(cell) == case["plaintext"].encode()
    assert Envelope(load_spec("openssl-salted"), case["key"].encode()).open(cell) is None


@pytest.mark.parametrize(("file", "case"), _cases("pkcs5_variant", _SUPERSET))
def test_the_same_engine_with_the_other_padding(file: str, case: dict[str, Any]) -> None:
    envelope = Envelope(load_spec({"preset": "superset-cbc", "block_padding": "pkcs7"}), _key(file))
    assert envelope.open(case["ciphertext"].encode()) == case["plaintext"].encode()
    assert envelope.seal(case["plaintext"].encode()) == case["ciphertext"].encode(), "nothing in it is random"


def test_the_fernet_engine_of_the_same_library() -> None:
    (case,) = _load(_SUPERSET)["fernet_engine_variant"]
    spec = load_spec({"cipher": "fernet", "text": "base64url", "key": "utf8", "derive": "sha256"})
    envelope = Envelope(spec, _key(_SUPERSET))
    assert envelope.open(case["ciphertext"].encode()) == case["plaintext"].encode()


def test_a_value_that_the_format_would_shorten_is_not_sealed() -> None:
    with pytest.raises(KeyturnError) as caught:
        Envelope(load_spec("superset-cbc"), b"any text").seal(b"ends in a star*")
    assert caught.value.code == "seal-unproven"
    assert "padding" in caught.value.hint
    assert "star" not in str(caught.value)


@pytest.mark.parametrize("case", _load(_CALCOM)["bad_keys"], ids=lambda case: f"{case['characters']}-characters")
def test_a_key_that_the_application_refuses(case: dict[str, Any]) -> None:
    with pytest.raises(KeyturnError) as caught:
        Envelope(load_spec("calcom"), case["value"].encode())
    assert caught.value.code == "key-invalid"
    assert case["value"] not in str(caught.value)


# -- Rails ---------------------------------------------------------------------------------------------------------


def _rails(**changes: Any) -> EnvelopeSpec:
    derive = {"salt": _load(_RAILS)["key"]["key_derivation_salt"], **changes.pop("derive", {})}
    return load_spec({"preset": "rails-json", "derive": derive, **changes})


def _rails_key(name: str = "key", member: str = "primary_key") -> bytes:
    text: str = _load(_RAILS)[name][member]
    return text.encode()


@pytest.mark.parametrize("case", _load(_RAILS)["cases"], ids=lambda case: case["name"])
def test_rails_opens_and_writes_the_same_members(case: dict[str, Any]) -> None:
    envelope, cell = Envelope(_rails(), _rails_key()), case["ciphertext"].encode()
    opened = envelope.open(cell)
    assert opened == _plaintext(case)
    assert Envelope(_rails(), _rails_key("new_key")).open(cell) is None
    again = envelope.seal(opened)
    assert envelope.open(again) == opened
    before, after = json.loads(cell), json.loads(again)
    assert list(after) == list(before)
    assert list(after["h"]) == list(before["h"])
    assert {name: after["h"][name] for name in "cei" if name in after["h"]} == {
        name: before["h"][name] for name in "cei" if name in before["h"]
    }


def test_rails_writes_the_id_of_the_new_key_where_the_old_one_had_one() -> None:
    (case,) = [case for case in _load(_RAILS)["cases"] if "key_id" in case]
    opened = Envelope(_rails(), _rails_key()).open(case["ciphertext"].encode())
    assert opened is not None
    header = json.loads(Envelope(_rails(), _rails_key("new_key")).seal(opened))["h"]
    assert header["i"] != json.loads(case["ciphertext"])["h"]["i"]
    assert len(base64.b64decode(header["i"])) == len(case["key_id"])


def test_what_a_cell_says_of_its_value_is_in_a_copy_of_it() -> None:
    case = next(case for case in _load(_RAILS)["cases"] if "string_encoding" in case)
    opened = Envelope(_rails(), _rails_key()).open(case["ciphertext"].encode())
    copied = copy.deepcopy(opened)
    header = json.loads(Envelope(_rails(), _rails_key("new_key")).seal(copied))["h"]
    assert base64.b64decode(header["e"]).decode() == case["string_encoding"]


def test_rails_reads_what_jsonb_makes_of_a_cell() -> None:
    case = _load(_RAILS)["cases"][2]
    whole = json.loads(case["ciphertext"])
    cell = json.dumps({"h": dict(reversed(whole["h"].items())), "p": whole["p"]}).encode()
    assert Envelope(_rails(), _rails_key()).open(cell) == _plaintext(case)
    other = json.dumps({**whole, "k": "x"}).encode()
    assert Envelope(_rails(), _rails_key()).open(other) is None


@pytest.mark.parametrize("case", _load(_RAILS)["negative_cases"], ids=lambda case: case["name"])
def test_rails_refuses(case: dict[str, Any]) -> None:
    assert case["expect"] == "reject"
    for key in ("key", "new_key"):
        assert Envelope(_rails(), _rails_key(key)).open(case["value"].encode()) is None


@pytest.mark.parametrize("case", _load(_RAILS)["sha1_cases"], ids=lambda case: f"{case['plaintext_bytes']}-bytes")
def test_rails_before_7_1_derives_with_sha1(case: dict[str, Any]) -> None:
    spec = _rails(derive={"function": "pbkdf2-hmac-sha1"})
    assert Envelope(spec, _rails_key()).open(case["ciphertext"].encode()) == _plaintext(case)
    assert Envelope(_rails(), _rails_key()).open(case["ciphertext"].encode()) is None


@pytest.mark.parametrize("number", range(4))
def test_rails_deterministic_cells_are_the_same_again(number: int) -> None:
    case = _load(_RAILS)["deterministic_cases"][number]
    envelope = Envelope(_rails(iv="hmac-sha256"), _rails_key(member="deterministic_key"))
    assert envelope.open(case["ciphertext"].encode()) == _plaintext(case)
    assert envelope.seal(_plaintext(case)) == case["ciphertext"].encode()


def test_rails_encrypts_with_the_last_key_of_a_list() -> None:
    (case,) = _load(_RAILS)["key_list_cases"]
    cell = case["ciphertext"].encode()
    assert Envelope(_rails(), _rails_key("new_key")).open(cell) == case["plaintext"].encode()
    assert Envelope(_rails(), _rails_key()).open(cell) is None


# -- cells that name their key ---------------------------------------------------------------------------------------


def _twenty(workspace: str | None = None) -> EnvelopeSpec:
    return load_spec({"preset": "twenty-v2", "derive": {"info": f"twenty:enc:v2:{workspace or 'instance'}"}})


@pytest.mark.parametrize("case", _load(_TWENTY)["cases"], ids=lambda case: case["name"])
def test_twenty_opens(case: dict[str, Any]) -> None:
    spec, cell = _twenty(case["workspace_id"]), case["ciphertext"].encode()
    envelope = Envelope(spec, _key(_TWENTY))
    assert envelope.open(cell) == _plaintext(case)
    assert envelope.key_prefix == f"enc:v2:{case['key_id']}:".encode()
    assert envelope.seal(_plaintext(case)).startswith(envelope.key_prefix)
    assert Envelope(spec, _key(_TWENTY, "new_key")).open(cell) is None


def test_twenty_tells_old_cells_from_new_ones_by_their_beginning() -> None:
    data, spec = _load(_TWENTY), _twenty()
    old, new = Envelope(spec, _key(_TWENTY)), Envelope(spec, _key(_TWENTY, "new_key"))
    assert [old.key_prefix, new.key_prefix] == [
        f"enc:v2:{data[name]['key_id']}:".encode() for name in ("key", "new_key")
    ]
    (case,) = data["cases_under_new_key"]
    assert new.open(case["ciphertext"].encode()) == _plaintext(case)
    assert old.open(case["ciphertext"].encode()) is None
    assert load_spec("twenty-v2").prefix == spec.prefix


@pytest.mark.parametrize("case", _load(_TWENTY)["negative_cases"], ids=lambda case: case["name"])
def test_twenty_refuses(case: dict[str, Any]) -> None:
    assert case["expect"] == "reject"
    spec = _twenty(case["read_with_workspace_id"])
    assert Envelope(spec, _key(_TWENTY)).open(case["value"].encode()) is None


@pytest.mark.parametrize("case", _load(_JWE)["cases"], ids=lambda case: case["name"])
def test_jwe_names_the_new_key(case: dict[str, Any]) -> None:
    data, spec = _load(_JWE), load_spec("jwe-dir-a256gcm")
    opened = Envelope(spec, json.dumps(data["key"]["jwk"]).encode()).open(case["ciphertext"].encode())
    assert opened == _plaintext(case)
    new = {"kty": "oct", "kid": data["new_key"]["kid"]}
    new["k"] = base64.urlsafe_b64encode(bytes.fromhex(data["new_key"]["hex"])).decode().rstrip("=")
    header = Envelope(spec, json.dumps(new).encode()).seal(opened).split(b".")[0]
    assert json.loads(base64.urlsafe_b64decode(header + b"==")) == {
        **json.loads(case["header_json"]),
        "kid": new["kid"],
    }


def test_jwe_is_not_written_without_the_name_that_its_readers_choose_by() -> None:
    data, spec = _load(_JWE), load_spec("jwe-dir-a256gcm")
    opened = Envelope(spec, data["key"]["hex"].encode()).open(data["cases"][2]["ciphertext"].encode())
    assert opened is not None
    nameless = Envelope(spec, data["new_key"]["hex"].encode())
    with pytest.raises(KeyturnError) as caught:
        nameless.seal(opened)
    assert caught.value.code == "key-id-missing"
    assert nameless.open(nameless.seal(bytes(opened))) == opened, "a value without a header of its own needs no name"


@pytest.mark.parametrize(
    ("key", "prefix"),
    [(b"k2:" + base64.b64encode(bytes(32)), b"v1.k2."), (b"2024-01:" + base64.b64encode(bytes(32)), b"v1.2024-01.")],
)
def test_a_key_with_its_name_beside_it(key: bytes, prefix: bytes) -> None:
    key_form = {"encoding": "base64", "lengths": [32], "id": {"source": "stored"}}
    envelope = Envelope(
        load_spec({"preset": "aesgcm-raw", "text": "base64", "prefix": "v1.{key_id}.", "key": key_form}), key
    )
    assert envelope.key_prefix == prefix
    assert envelope.seal(b"x").startswith(prefix)
    for nameless in (key.partition(b":")[2], b"%:" + key, b":" + key):
        with pytest.raises(KeyturnError) as caught:
            Envelope(envelope.spec, nameless)
        assert caught.value.code == "key-invalid"


def test_a_list_of_named_keys_opens_cells_of_each() -> None:
    key_form = {"encoding": "base64", "lengths": [32], "list": "first", "id": {"source": "stored"}}
    spec = load_spec({"preset": "aesgcm-raw", "text": "base64", "prefix": "{key_id}:", "key": key_form})
    new, old = (name + b":" + base64.b64encode(name * 32) for name in (b"n", b"o"))
    both = Envelope(spec, new + b"," + old)
    cells = [Envelope(spec, old).seal(b"a"), Envelope(spec, new).seal(b"b")]
    assert both.open_many(cells) == [b"a", b"b"]
    assert both.primary.open_many(cells) == [None, b"b"]
    assert both.key_prefix == b"n:"


def test_cells_that_do_not_name_their_key_have_no_prefix_of_it() -> None:
    assert Envelope(load_spec("calcom"), b"k" * 32).key_prefix is None
    assert Envelope(load_spec({"preset": "calcom", "prefix": "v1:"}), b"k" * 32).key_prefix is None
    assert Envelope(load_spec("twenty-v2"), None).key_prefix is None
