# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Key derivations against the test vectors of their documents."""

from __future__ import annotations

import base64
import hashlib
import threading
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.derivation import derive
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import Derivation

_KEY = base64.b64encode(b"k" * 32)


@pytest.mark.parametrize(
    ("how", "key", "salt", "expected"),
    [
        # RFC 6070
        (Derivation("pbkdf2-hmac-sha1", rounds=4096), b"password", b"salt", "4b007901b765489abead49d926f721d065a429c1"),
        # RFC 7914 section 11
        (
            Derivation("pbkdf2-hmac-sha256", rounds=1),
            b"passwd",
            b"salt",
            "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc",
        ),
        # RFC 7914 section 12
        (
            Derivation("scrypt", cost=1024, block_size=8, parallelization=16),
            b"password",
            b"NaCl",
            "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162",
        ),
        # RFC 5869 appendix A.1
        (
            Derivation("hkdf-sha256", info=bytes.fromhex("f0f1f2f3f4f5f6f7f8f9")),
            b"\x0b" * 22,
            bytes(range(13)),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        # RFC 5869 appendix A.3
        (
            Derivation("hkdf-sha256"),
            b"\x0b" * 22,
            b"",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
        # openssl enc -P -aes-256-cbc -pass pass:password -S 0102030405060708 -md …
        (
            Derivation("evp-bytes-to-key-sha256"),
            b"password",
            bytes(range(1, 9)),
            "2435177f1410536baad2acc155c0f94783d58384573cb0f72157443606285d3ff96efc044e0f1613bf324245c95e7411",
        ),
        (
            Derivation("evp-bytes-to-key-md5"),
            b"password",
            bytes(range(1, 9)),
            "e7b0971e52ca5cc8d0539fb3412f6316f7ba2e6ee293d9f3457b99436b51ce028d450e2ed75a84a923d4eac9fe49226b",
        ),
        (Derivation("sha256"), b"abc", b"", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ],
    ids=["pbkdf2-sha1", "pbkdf2-sha256", "scrypt", "hkdf", "hkdf-no-salt", "evp-sha256", "evp-md5", "sha256"],
)
def test_known_answers(how: Derivation, key: bytes, salt: bytes, expected: str) -> None:
    assert derive(how, key, salt, len(expected) // 2).hex() == expected


_SLOW: list[dict[str, Any]] = [
    {"function": "pbkdf2-hmac-sha512", "rounds": 3, "length": 32},
    {"function": "scrypt", "cost": 4, "length": 32},
]
_CHEAP: list[dict[str, Any]] = [{"function": "evp-bytes-to-key-md5"}, {"function": "hkdf-sha512", "info": "x"}]


@pytest.mark.parametrize("how", [*_SLOW, *_CHEAP], ids=lambda how: str(how["function"]))
def test_only_slow_derivations_run_in_threads(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    start = threading.Thread.start

    def counting(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", counting)
    spec = load_spec({"preset": "aesgcm-raw", "parts": ["salt:8", "nonce:12", "ciphertext", "tag:16"], "derive": how})
    envelope = Envelope(spec, _KEY)
    cells = envelope.seal_many([b"a", b"b", b"c"])
    assert bool(started) == (how in _SLOW)
    assert Envelope(spec, _KEY).open_many(cells) == [b"a", b"b", b"c"]


def test_a_salt_of_all_cells_is_derived_from_once() -> None:
    derive_from = {"function": "scrypt", "cost": 4, "salt": "fixed", "length": 32}
    spec = load_spec({"preset": "aesgcm-raw", "key": "utf8", "derive": derive_from})
    used = hashlib.scrypt(b"passphrase", salt=b"fixed", n=4, r=8, p=1, dklen=32)
    cell = Envelope(spec, b"passphrase").seal(b"x")
    assert Envelope(load_spec("aesgcm-raw"), base64.b64encode(used)).open(cell) == b"x"
    assert not spec.is_salted
