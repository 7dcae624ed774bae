# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is sealed here opens with the originals, or with readers written from the descriptions of the formats."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import zlib
from typing import Any, Callable

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import PRESETS, Envelope, load_spec
from cryptography.fernet import Fernet, MultiFernet
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

_RAW = bytes(range(32))
_B64, _TEXT = base64.b64encode(_RAW), b"0123456789abcdef0123456789ABCDEF"
_JWK = json.dumps({"kty": "oct", "k": base64.urlsafe_b64encode(_RAW).decode().rstrip("="), "kid": "k1"}).encode()
_PLAINTEXTS = [b"{}", b'{"token": "fake"}', b'["' + "schl\u00fcssel ".encode() * 40 + b'"]', b"[" + b"1," * 70 + b"1]"]
_SALT = "salt of the application"


def _cbc(key: bytes, iv: bytes, ciphertext: bytes) -> bytes:
    decryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).decryptor()
    return decryptor.update(ciphertext) + decryptor.finalize()


def _pkcs7(padded: bytes) -> bytes:
    remover = padding.PKCS7(128).unpadder()
    return remover.update(padded) + remover.finalize()


def _gcm(key: bytes, raw: bytes, size: int = 12, data: bytes | None = None) -> bytes:
    return AESGCM(key).decrypt(raw[:size], raw[size:], data)


def _pbkdf2(key: bytes, salt: bytes, rounds: int) -> bytes:
    return PBKDF2HMAC(hashes.SHA256(), 32, salt, rounds).derive(key)


def _tag_before(cell: bytes) -> bytes:
    raw = base64.b64decode(cell)
    return _gcm(_pbkdf2(_RAW, raw[:64], 100_000), raw[64:80] + raw[96:] + raw[80:96], 16)


def _tag_last(cell: bytes) -> bytes:
    raw = base64.b64decode(cell)
    return _gcm(_pbkdf2(_TEXT, raw[:64], 100_000), raw[64:], 16)


def _superset_cbc(cell: bytes) -> bytes:
    key = hashlib.sha256(_TEXT).digest()
    return _cbc(key, key[:16], base64.b64decode(cell)).rstrip(b"*")


def _superset_gcm(cell: bytes) -> bytes:
    raw = base64.b64decode(cell)
    return _gcm(hashlib.sha256(_TEXT).digest(), raw[:12] + raw[28:] + raw[12:28])


def _openssl(cell: bytes) -> bytes:
    raw = base64.b64decode(cell)
    assert raw[:8] == b"Salted__"
    first = hashlib.md5(_TEXT + raw[8:16], usedforsecurity=False).digest()
    second = hashlib.md5(first + _TEXT + raw[8:16], usedforsecurity=False).digest()
    third = hashlib.md5(second + _TEXT + raw[8:16], usedforsecurity=False).digest()
    return _pkcs7(_cbc(first + second, third, raw[16:]))


def _n8n_gcm(cell: bytes) -> bytes:
    raw = base64.b64decode(cell)
    assert raw[0] == 1
    material = HKDF(hashes.SHA256(), 44, raw[1:33], b"n8n-encryption-v1").derive(_RAW)
    return AESGCM(material[:32]).decrypt(material[32:], raw[49:] + raw[33:49], None)


def _langfuse(cell: bytes) -> bytes:
    nonce, ciphertext, tag = (bytes.fromhex(part) for part in cell.decode().split(":"))
    return AESGCM(_RAW).decrypt(nonce, ciphertext + tag, None)


def _calcom(cell: bytes) -> bytes:
    iv, ciphertext = (bytes.fromhex(part) for part in cell.decode().split(":"))
    return _pkcs7(_cbc(_TEXT, iv, ciphertext))


def _rails(cell: bytes) -> bytes:
    message = json.loads(cell)
    nonce, tag, payload = (base64.b64decode(text) for text in (message["h"]["iv"], message["h"]["at"], message["p"]))
    plain = AESGCM(_pbkdf2(_TEXT, _SALT.encode(), 65_536)).decrypt(nonce, payload + tag, None)
    assert ("c" in message["h"]) == plain.startswith(b"\x78\x9c")
    return zlib.decompress(plain) if "c" in message["h"] else plain


def _jwe(cell: bytes) -> bytes:
    header, none, *rest = cell.split(b".")
    assert not none
    nonce, ciphertext, tag = (base64.urlsafe_b64decode(part + b"==") for part in rest)
    assert json.loads(base64.urlsafe_b64decode(header + b"==")) == {"alg": "dir", "enc": "A256GCM", "kid": "k1"}
    return AESGCM(_RAW).decrypt(nonce, ciphertext + tag, header)


def _twenty(cell: bytes) -> bytes:
    prefix, version, key_id, payload = cell.split(b":")
    assert (prefix, version, key_id.decode()) == (b"enc", b"v2", hashlib.sha256(_TEXT).hexdigest()[:8])
    key = HKDF(hashes.SHA256(), 32, bytes(32), b"twenty:enc:v2:instance").derive(_TEXT)
    return _gcm(key, base64.b64decode(payload))


#: The key as it stands in its store, and a reader of one cell.
_READERS: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "aes256gcm-b64": (_B64, lambda cell: _gcm(_RAW, base64.b64decode(cell))),
    "aesgcm-raw": (_B64, lambda cell: _gcm(_RAW, cell)),
    "pbkdf2-aes256gcm-b64": (_B64, _tag_before),
    "pbkdf2-aes256gcm-b64-tag-last": (_TEXT, _tag_last),
    "fernet": (base64.urlsafe_b64encode(_RAW), Fernet(base64.urlsafe_b64encode(_RAW)).decrypt),
    "superset-cbc": (_TEXT, _superset_cbc),
    "superset-gcm": (_TEXT, _superset_gcm),
    "openssl-salted": (_TEXT, _openssl),
    "n8n-cbc": (_TEXT, _openssl),
    "n8n-gcm": (_RAW.hex().encode(), _n8n_gcm),
    "langfuse": (_RAW.hex().encode(), _langfuse),
    "calcom": (_TEXT, _calcom),
    "rails-json": (_TEXT, _rails),
    "jwe-dir-a256gcm": (_JWK, _jwe),
    "twenty-v2": (_TEXT, _twenty),
}


def test_every_preset_has_a_reader() -> None:
    assert set(_READERS) == set(PRESETS)


@pytest.mark.parametrize("name", sorted(_READERS))
def test_a_reader_of_the_format_opens_what_is_sealed(name: str) -> None:
    key, reader = _READERS[name]
    declared: Any = {"preset": name, "derive": {"salt": _SALT}} if PRESETS[name].missing else name
    cells = Envelope(load_spec(declared), key).seal_many(_PLAINTEXTS)
    assert [reader(cell) for cell in cells] == _PLAINTEXTS


def test_a_fernet_list_agrees_with_multifernet() -> None:
    new, old = Fernet.generate_key(), Fernet.generate_key()
    both, reference = Envelope(load_spec("fernet"), new + b"," + old), MultiFernet([Fernet(new), Fernet(old)])
    tokens = [Fernet(old).encrypt(b"a"), Fernet(new).encrypt(b"b")]
    assert both.open_many(tokens) == [reference.decrypt(token) for token in tokens]
    assert [Fernet(new).decrypt(token) for token in both.seal_many([b"c", b"d"])] == [b"c", b"d"]


def test_the_initialisation_vectors_of_a_batch_differ() -> None:
    tokens = Envelope(load_spec("fernet"), base64.urlsafe_b64encode(_RAW)).seal_many([b"same"] * 300)
    raws = [base64.urlsafe_b64decode(token) for token in tokens]
    assert len({raw[9:25] for raw in raws}) == 300
    assert len({raw[25:41] for raw in raws}) == 300
    assert all(hmac.digest(_RAW[:16], raw[:-32], "sha256") == raw[-32:] for raw in raws)
