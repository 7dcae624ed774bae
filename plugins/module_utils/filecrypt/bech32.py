# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bech32 (BIP 173) without its limit of 90 characters: how age writes recipients and identities. Pure."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["decode", "encode"]

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECK_LENGTH = 6


def _polymod(values: Iterable[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, term in enumerate(_GENERATOR):
            if top >> bit & 1:
                check ^= term
    return check


def _expanded(prefix: str) -> list[int]:
    return [ord(letter) >> 5 for letter in prefix] + [0] + [ord(letter) & 31 for letter in prefix]


def _regroup(values: Iterable[int], size: int, wanted: int, pad: bool) -> list[int] | None:
    """Numbers of ``size`` bits as numbers of ``wanted`` bits; None when bits that must be zero are not."""
    gathered, bits = 0, 0
    result = []
    for value in values:
        gathered = gathered << size | value
        bits += size
        while bits >= wanted:
            bits -= wanted
            result.append(gathered >> bits & (1 << wanted) - 1)
    left = gathered & (1 << bits) - 1
    if pad:
        return [*result, left << wanted - bits] if bits else result
    return None if bits >= size or left else result


def decode(text: str, prefix: str) -> bytes | None:
    """The bytes behind ``<prefix>1…``, in lower or in upper case; None for anything else."""
    if text not in (text.lower(), text.upper()):
        return None
    human, one, data = text.lower().rpartition("1")
    if human != prefix.lower() or not one or any(letter not in _ALPHABET for letter in data):
        return None
    values = [_ALPHABET.index(letter) for letter in data]
    if len(values) < _CHECK_LENGTH or _polymod(_expanded(human) + values) != 1:
        return None
    numbers = _regroup(values[:-_CHECK_LENGTH], 5, 8, pad=False)
    return None if numbers is None else bytes(numbers)


def encode(prefix: str, content: bytes) -> str:
    """``<prefix>1…`` for these bytes, in lower case."""
    values = _regroup(content, 8, 5, pad=True) or []
    check = _polymod(_expanded(prefix) + values + [0] * _CHECK_LENGTH) ^ 1
    values += [check >> 5 * (_CHECK_LENGTH - 1 - place) & 31 for place in range(_CHECK_LENGTH)]
    return prefix + "1" + "".join(_ALPHABET[value] for value in values)
