# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files in the format of age (age-encryption.org/v1), for native X25519 recipients.

A host needs public keys only. What is written here opens with ``age -d -i identity``, and what ``age`` wrote for such a
recipient opens here. Source: the specification at c2sp.org/age.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.filecrypt import bech32

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["check_recipients", "decrypt", "encrypt", "is_file", "open_payload"]

_VERSION = b"age-encryption.org/v1"
_X25519_INFO = b"age-encryption.org/v1/X25519"
_MARK = b"---"
_FILE_KEY_BYTES = 16
_NONCE_BYTES = 16
_TAG_BYTES = 16
_CHUNK_BYTES = 65536
_COLUMNS = 64
_IDENTITY = re.compile(r"AGE-SECRET-KEY-1[0-9A-Z]+")


def _b64(content: bytes) -> bytes:
    return base64.b64encode(content).rstrip(b"=")


def _unb64(text: bytes) -> bytes:
    try:
        content = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise _damaged() from None
    if _b64(content) != text:
        raise _damaged()
    return content


def _derive(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt or None, info).derive(key)


def _damaged() -> KeyturnError:
    return KeyturnError(
        "age-damaged", "is no whole age file, or was changed", hint="Choose another backup; nothing was changed"
    )


def _recipient(text: str, where: str) -> bytes:
    raw = bech32.decode(text.strip(), "age")
    if raw is None or len(raw) != 32:
        raise KeyturnError(
            "recipient-invalid",
            "is no public key of age",
            where=where,
            hint="Give the line that age-keygen -y prints: age1 and 58 characters. Keys of ssh are not taken",
        )
    return raw


def check_recipients(recipients: Sequence[str], where: str) -> None:
    """Refuse what is no list of public keys.

    :raises KeyturnError: ``recipient-invalid``.
    """
    if not recipients:
        raise KeyturnError("recipient-invalid", "names nobody", where=where, hint="Give one public key of age or more")
    for number, text in enumerate(recipients):
        _recipient(str(text), f"{where}[{number}]")


def _stanza(file_key: bytes, recipient: bytes, ephemeral: bytes) -> list[bytes]:
    """The lines that let one recipient find the file key."""
    private = X25519PrivateKey.from_private_bytes(ephemeral)
    share = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    shared = private.exchange(X25519PublicKey.from_public_bytes(recipient))
    wrap = _derive(shared, share + recipient, _X25519_INFO)
    body = _b64(ChaCha20Poly1305(wrap).encrypt(bytes(12), file_key, None))
    return [b"-> X25519 " + _b64(share), body]


def _chunk_nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def encrypt(content: bytes, recipients: Sequence[str], randbytes: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    """Encrypt for all recipients. Returns the file, and its file key, which :func:`open_payload` proves it with.

    :raises KeyturnError: ``recipient-invalid``.
    """
    check_recipients(recipients, "recipients")
    file_key = randbytes(_FILE_KEY_BYTES)
    lines = [_VERSION]
    for number, text in enumerate(recipients):
        lines += _stanza(file_key, _recipient(text, f"recipients[{number}]"), randbytes(32))
    header = b"\n".join([*lines, _MARK])
    nonce = randbytes(_NONCE_BYTES)
    cipher = ChaCha20Poly1305(_derive(file_key, nonce, b"payload"))
    starts = range(0, len(content), _CHUNK_BYTES) or range(1)
    chunks = [
        cipher.encrypt(
            _chunk_nonce(number, start + _CHUNK_BYTES >= len(content)), content[start : start + _CHUNK_BYTES], None
        )
        for number, start in enumerate(starts)
    ]
    return header + b" " + _b64(_header_mac(file_key, header)) + b"\n" + nonce + b"".join(chunks), file_key


def _header_mac(file_key: bytes, header: bytes) -> bytes:
    return hmac.new(_derive(file_key, b"", b"header"), header, hashlib.sha256).digest()


def _parse(content: bytes) -> tuple[list[tuple[list[bytes], bytes]], bytes, bytes, bytes]:
    """Stanzas (arguments and body), the header that is authenticated, its MAC, and the payload."""
    end = content.find(b"\n" + _MARK + b" ")
    if end < 0 or not content.startswith(_VERSION + b"\n"):
        raise _damaged()
    header = content[: end + 1 + len(_MARK)]
    mac, newline, payload = content[len(header) + 1 :].partition(b"\n")
    if not newline:
        raise _damaged()
    stanzas: list[tuple[list[bytes], bytes]] = []
    body: list[bytes] | None = None
    for line in content[len(_VERSION) + 1 : end].split(b"\n"):
        if body is None:
            if not line.startswith(b"-> "):
                raise _damaged()
            stanzas.append((line[3:].split(b" "), b""))
            body = []
            continue
        body.append(line)
        if len(line) < _COLUMNS:
            stanzas[-1] = (stanzas[-1][0], _unb64(b"".join(body)))
            body = None
    if body is not None:
        raise _damaged()
    return stanzas, header, _unb64(mac), payload


def is_file(content: bytes) -> bool:
    """Whether this has all parts of an age file; that it opens, nobody can tell without an identity."""
    try:
        stanzas, _header, _mac, payload = _parse(content)
    except KeyturnError:
        return False
    return bool(stanzas) and len(payload) >= _NONCE_BYTES + _TAG_BYTES


def _identities(text: str) -> list[bytes]:
    found = []
    for word in _IDENTITY.findall(text):
        raw = bech32.decode(word, "AGE-SECRET-KEY-")
        if raw is not None and len(raw) == 32:
            found.append(raw)
    if not found:
        raise KeyturnError(
            "identity-invalid",
            "holds no identity of age",
            hint="Name the file that age-keygen made, with the line AGE-SECRET-KEY-1…",
        )
    return found


def _unwrap(stanzas: Sequence[tuple[list[bytes], bytes]], identity: bytes) -> bytes | None:
    private = X25519PrivateKey.from_private_bytes(identity)
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    for arguments, body in stanzas:
        if arguments[0] != b"X25519" or len(arguments) != 2 or len(body) != _FILE_KEY_BYTES + _TAG_BYTES:
            continue
        share = _unb64(arguments[1])
        try:
            shared = private.exchange(X25519PublicKey.from_public_bytes(share))
            return ChaCha20Poly1305(_derive(shared, share + public, _X25519_INFO)).decrypt(bytes(12), body, None)
        except (InvalidTag, ValueError):
            continue
    return None


def open_payload(content: bytes, file_key: bytes) -> bytes:
    """The content, with the file key at hand.

    :raises KeyturnError: ``age-damaged``.
    """
    _stanzas, header, mac, payload = _parse(content)
    if not hmac.compare_digest(_header_mac(file_key, header), mac) or len(payload) < _NONCE_BYTES + _TAG_BYTES:
        raise _damaged()
    cipher = ChaCha20Poly1305(_derive(file_key, payload[:_NONCE_BYTES], b"payload"))
    sealed = payload[_NONCE_BYTES:]
    starts = range(0, len(sealed), _CHUNK_BYTES + _TAG_BYTES)
    parts = []
    try:
        for number, start in enumerate(starts):
            chunk = sealed[start : start + _CHUNK_BYTES + _TAG_BYTES]
            parts.append(cipher.decrypt(_chunk_nonce(number, number == len(starts) - 1), chunk, None))
    except InvalidTag:
        raise _damaged() from None
    return b"".join(parts)


def decrypt(content: bytes, identity: str) -> bytes:
    """The content of an age file.

    :param identity: the text of an identity file; comments and several identities are fine.
    :raises KeyturnError: ``identity-invalid``, ``identity-wrong`` (made for others), ``age-damaged``.
    """
    stanzas = _parse(content)[0]
    for raw in _identities(identity):
        file_key = _unwrap(stanzas, raw)
        if file_key is not None:
            return open_payload(content, file_key)
    raise KeyturnError(
        "identity-wrong", "was encrypted for somebody else", hint="Name the identity of one of its recipients"
    )
