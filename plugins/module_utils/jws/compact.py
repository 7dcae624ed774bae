# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compact JWS (RFC 7515 section 7.1). The header's members are sorted, the payload's are not; neither has blanks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from ansible_collections.keyturn.rotation.plugins.module_utils.base64url import decode, encode
from ansible_collections.keyturn.rotation.plugins.module_utils.jws.keys import (
    Signer,
    Verifier,
)

__all__ = ["Compact", "head", "read", "sign"]

_SEGMENTS = 3
_PAYLOAD = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


class Compact(NamedTuple):
    """A JWS as it was read: nothing in it is proven.

    :param signed: the bytes that the signature is over.
    """

    kid: str
    algorithm: str
    signed: bytes
    signature: bytes

    def holds(self, verifier: Verifier) -> bool:
        """Whether this key signed it, with the algorithm of the key: what the header says is not trusted."""
        return self.algorithm == verifier.algorithm and verifier.holds(self.signature, self.signed)

    @property
    def text(self) -> bytes:
        """As it is stored."""
        return self.signed + b"." + encode(self.signature)

    @property
    def payload(self) -> bytes:
        """The payload's bytes.

        :raises ValueError: where it is no base64url.
        """
        return decode(self.signed.split(b".")[1])


def head(signer: Signer, header: Mapping[str, Any]) -> bytes:
    """The first segment, which documents that are signed together share.

    :param header: its members but for ``alg`` and ``kid``.
    :raises ValueError: for what JSON cannot say.
    """
    whole = {**header, "alg": signer.algorithm, "kid": signer.kid}
    return encode(json.dumps(whole, separators=(",", ":"), sort_keys=True, allow_nan=False).encode())


def sign(signer: Signer, first: bytes, payload: Mapping[str, Any]) -> Compact:
    """A payload, signed.

    :param first: what :func:`head` gave for this signer.
    :raises ValueError: for what JSON cannot say.
    """
    signed = first + b"." + encode(_PAYLOAD.encode(payload).encode())
    return Compact(signer.kid, signer.algorithm, signed, signer.sign(signed))


@lru_cache(maxsize=1024)
def _read_head(first: bytes) -> tuple[str, str] | None:
    """Kid and algorithm; many documents have the same header."""
    try:
        header = json.loads(decode(first))
        kid, algorithm = header["kid"], header["alg"]
        if isinstance(kid, str) and isinstance(algorithm, str) and "crit" not in header:
            return kid, algorithm
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return None


def read(text: bytes) -> Compact | None:
    """A JWS with a kid and an algorithm; None for anything else."""
    segments = text.split(b".")
    if len(segments) != _SEGMENTS:
        return None
    named = _read_head(segments[0])
    if named is None:
        return None
    try:
        signature = decode(segments[2])
    except ValueError:
        return None
    return Compact(*named, segments[0] + b"." + segments[1], signature)
