# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ciphers: raw envelopes in, plaintexts out, many at a time, under one key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, Protocol

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.cbc import AesCbc
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.fernet import Fernet
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.gcm import AesGcm
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import EnvelopeSpec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

try:
    import cryptography as _cryptography
except ImportError:
    HAS_CRYPTOGRAPHY = False
else:
    HAS_CRYPTOGRAPHY = bool(_cryptography)

__all__ = ["HAS_CRYPTOGRAPHY", "Cipher", "make_cipher"]


class Cipher(Protocol):
    """What an envelope needs from a cipher."""

    def prepare(self, raws: Sequence[bytes | None]) -> None:
        """Do the slow part (key derivation) for these ahead of time."""

    def open_many(self, raws: Sequence[bytes | None], associated: Sequence[bytes] | None = None) -> list[bytes | None]:
        """The plaintext of each, or None where it is not under this key."""

    def seal_many(self, plaintexts: Sequence[bytes], associated: Sequence[bytes] | None = None) -> list[bytes]:
        """The raw envelope of each."""


def make_cipher(
    spec: EnvelopeSpec, key: bytes, randbytes: Callable[[int], bytes], clock: Callable[[], float]
) -> Cipher:
    """The cipher of a spec under one key, from ``used_key``.

    :param randbytes: gives that many random bytes.
    :param clock: seconds since 1970, for ciphers that write the time.
    :raises KeyturnError: ``library-missing`` without the Python library ``cryptography``.
    """
    if not HAS_CRYPTOGRAPHY:
        raise KeyturnError(
            "library-missing",
            "the Python library cryptography is not installed on this host",
            where=f"envelope {spec.name}",
            hint="Install python3-cryptography",
        )
    if spec.cipher == "fernet":
        return Fernet(spec, key, randbytes, clock)
    if spec.cipher == "aes-cbc":
        return AesCbc(spec, key, randbytes)
    return AesGcm(spec, key, randbytes)
