# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of age and of ansible-vault: what their own programs wrote opens here, and what is written here opens there."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.filecrypt import Lock, age, bech32, unlock, vault

_VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[2] / "vectors/file_encryption.json").read_text(encoding="utf-8")
)
_IDENTITIES: list[str] = _VECTORS["identities"]
_PASSWORD = _VECTORS["password"].encode()
_RECIPIENTS: list[str] = _VECTORS["age"][2]["recipients"]


def _code(work: Callable[[], object]) -> str:
    with pytest.raises(KeyturnError) as caught:
        work()
    assert "AGE-SECRET-KEY-1S" not in str(caught.value)
    return caught.value.code


def _ids(case: dict[str, Any]) -> str:
    return str(case["name"])


@pytest.mark.parametrize("case", _VECTORS["age"], ids=_ids)
def test_what_age_wrote_opens(case: dict[str, Any]) -> None:
    sealed = base64.b64decode(case["file"])
    content = age.decrypt(sealed, "".join(_IDENTITIES))
    assert (len(content), hashlib.sha256(content).hexdigest()) == (case["length"], case["sha256"])


@pytest.mark.parametrize("case", _VECTORS["ansible_vault"], ids=_ids)
def test_what_ansible_vault_wrote_opens(case: dict[str, Any]) -> None:
    content = vault.decrypt(case["file"].encode(), _PASSWORD)
    assert (len(content), hashlib.sha256(content).hexdigest()) == (case["length"], case["sha256"])


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 1000])
def test_ansible_vault_opens_what_is_written_here(length: int) -> None:
    content = os.urandom(length)
    sealed = vault.encrypt(content, _PASSWORD, os.urandom)
    opened: bytes = VaultLib([("default", VaultSecret(_PASSWORD))]).decrypt(sealed)
    assert opened == content
    assert vault.decrypt(sealed, _PASSWORD) == content


@pytest.mark.parametrize("length", [0, 1, 65535, 65536, 65537, 131072])
def test_each_recipient_opens_what_is_written_here(length: int) -> None:
    content = os.urandom(length)
    sealed, file_key = age.encrypt(content, _RECIPIENTS, os.urandom)
    for identity in _IDENTITIES:
        assert age.decrypt(sealed, identity) == content
    assert age.open_payload(sealed, file_key) == content


def test_a_file_for_others_does_not_open() -> None:
    sealed, _file_key = age.encrypt(b"KEY=value\n", _RECIPIENTS[:1], os.urandom)
    assert _code(lambda: age.decrypt(sealed, _IDENTITIES[1])) == "identity-wrong"
    assert _code(lambda: age.decrypt(sealed, "nothing")) == "identity-invalid"
    assert _code(lambda: vault.decrypt(vault.encrypt(b"x", b"one", os.urandom), b"two")) == "password-wrong"


def test_a_changed_file_does_not_open() -> None:
    sealed, _file_key = age.encrypt(b"KEY=value\n", _RECIPIENTS, os.urandom)
    codes = set()
    for place in range(0, len(sealed), 7):
        changed = bytearray(sealed)
        changed[place] ^= 1
        codes.add(_code(lambda changed=bytes(changed): age.decrypt(changed, _IDENTITIES[0])))
    assert codes <= {"age-damaged", "identity-wrong"}
    for cut in (len(sealed) - 1, len(sealed) // 2, 0):
        assert _code(lambda cut=cut: age.decrypt(sealed[:cut], _IDENTITIES[0])) == "age-damaged"
    text = vault.encrypt(b"KEY=value\n", _PASSWORD, os.urandom)
    assert _code(lambda: vault.decrypt(text[:-5] + b"0000\n", _PASSWORD)) in ("password-wrong", "vault-damaged")
    assert _code(lambda: vault.decrypt(b"KEY=value\n", _PASSWORD)) == "vault-damaged"


@pytest.mark.parametrize(
    "recipient",
    [
        "",
        "age1",
        _RECIPIENTS[0][:-1],
        _RECIPIENTS[0][:-1] + "q",
        _RECIPIENTS[0].replace("age1", "agf1"),
        "ssh-ed25519 A",
    ],
)
def test_what_is_no_recipient_is_refused(recipient: str) -> None:
    assert _code(lambda: age.check_recipients([recipient], "keyturn_backup.encrypt.recipients")) == "recipient-invalid"


def test_nobody_is_no_list_of_recipients() -> None:
    assert _code(lambda: age.check_recipients([], "keyturn_backup.encrypt.recipients")) == "recipient-invalid"


def test_bech32_goes_both_ways() -> None:
    for length in (0, 1, 20, 32):
        content = os.urandom(length)
        text = bech32.encode("age", content)
        assert bech32.decode(text, "age") == bech32.decode(text.upper(), "age") == content
        assert bech32.decode(text.title(), "age") is None
    assert bech32.encode("age", bech32.decode(_RECIPIENTS[0], "age") or b"") == _RECIPIENTS[0]


@pytest.mark.parametrize("lock", [Lock("age", tuple(_RECIPIENTS)), Lock("ansible_vault", password=_PASSWORD)])
def test_a_lock_proves_what_it_has_sealed(lock: Lock) -> None:
    sealed, proof = lock.seal(b"KEY=value\n")
    assert lock.proves(sealed, proof, b"KEY=value\n")
    assert not lock.proves(sealed, proof, b"KEY=other\n")
    key = _IDENTITIES[0].encode() if lock.type == "age" else _PASSWORD
    assert unlock(lock.type, sealed, key, "/b") == b"KEY=value\n"
    assert _code(lambda: unlock(lock.type, sealed, None, "/b")) == "backup-key-missing"
    assert _code(lambda: unlock("zip", sealed, key, "/b")) == "backup-unusable"


def test_the_program_age_opens_what_is_written_here_and_writes_what_opens_here(tmp_path: Path) -> None:
    identity = tmp_path / "identity"
    identity.write_text(_VECTORS["identities"][0] + "\n")
    recipient = _VECTORS["age"][0]["recipients"][0]
    content = os.urandom(70_000)  # more than one chunk

    def run(*arguments: str, given: bytes) -> bytes:
        return subprocess.run(["age", *arguments], input=given, capture_output=True, check=True).stdout

    sealed, _proof = Lock("age", (recipient,)).seal(content)
    assert run("--decrypt", "--identity", str(identity), given=sealed) == content
    written = run("--recipient", recipient, given=content)
    assert unlock("age", written, identity.read_bytes(), "here") == content


@pytest.mark.parametrize("made_with", [b"a password", b"a password\r"])
def test_blanks_around_a_vault_password_are_no_part_of_it_as_for_ansible(made_with: bytes) -> None:
    sealed, _proof = Lock("ansible_vault", password=made_with).seal(b"KEY=value\n")
    assert unlock("ansible_vault", sealed, b"a password\r", "/b") == b"KEY=value\n", "what was made before, too"
    assert _code(lambda: unlock("ansible_vault", sealed, b"another\r", "/b")) == "password-wrong"
