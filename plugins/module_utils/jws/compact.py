# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compact JWS (RFC 7515 section 7.1). The header's members are sorted, the payload's are not; neither has blanks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible_collections.keyturn.rotation.plugins.module_utils.jws.keys import (
    Signer,
    Verifier,
    decode_segment,
    encode_segment,
)

__all__ = ["Compact", "read", "sign"]


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
    def payload(self) -> bytes:
        """The payload's bytes.

        :raises ValueError: where it is no base64url.
        """
        return decode_segment(self.signed.split(b".")[1])


def sign(signer: Signer, header: Mapping[str, Any], payload: Mapping[str, Any]) -> bytes:
    """The JWS as text.

    :param header: its members but for ``alg`` and ``kid``.
    :raises ValueError: for what JSON cannot say.
    """
    whole = {**header, "alg": signer.algorithm, "kid": signer.kid}
    first = json.dumps(whole, separators=(",", ":"), sort_keys=True, allow_nan=False)
    second = json.dumps(payload, separators=(",", ":"), allow_nan=False)
    signed = encode_segment(first.encode()) + b"." + encode_segment(second.encode())
    return signed + b"." + encode_segment(signer.sign(signed))


def read(text: bytes) -> Compact | None:
    """A JWS with a kid and an algorithm; None for anything else."""
    try:
        first, second, third = text.split(b".")
        header = json.loads(decode_segment(first))
        kid, algorithm = header["kid"], header["alg"]
        if isinstance(kid, str) and isinstance(algorithm, str) and "crit" not in header:
            return Compact(kid, algorithm, first + b"." + second, decode_segment(third))
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return None
