# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private material in places where it must not be: find it, or mask it.

Structure tells: PEM blocks, private JWKs, compact tokens, credentials in URLs. A random string looks like any other, so
nothing here replaces care; it is the net below it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any
from urllib.parse import quote

__all__ = ["JWK_PRIVATE", "MASK", "find_material", "mask_texts", "redact", "written_forms"]

MASK = "********"
_SHORT = 4  # a given value shorter than this is masked only where it stands alone

_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)", re.S
)
_PATTERNS = (
    _PEM,
    re.compile(r"LS0tLS1CRUdJTi[A-Za-z0-9+/=_-]{16,}"),  # base64 of "-----BEGIN"
    re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{16,}"),  # a signed compact token (RFC 7515)
    re.compile(r"\beyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){4}"),  # an encrypted one (RFC 7516)
    re.compile(r"\bAGE-SECRET-KEY-1[A-Z0-9]{16,}"),
    re.compile(r"\bBearer\s+[A-Za-z0-9._~+/-]{16,}=*", re.I),
)
_URL = re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]*://[^\s:/@?#]*:)(?P<password>[^\s/@]+)(?=@)", re.I)
_JWK_TEXT = re.compile(r"\\*\"kty\\*\"\s*:", re.I)
_JWK_PRIVATE_TEXT = re.compile(r"(?P<before>\\*\"(?:d|p|q|dp|dq|qi|k)\\*\"\s*:\s*\\*\")(?P<value>[A-Za-z0-9_+/=-]+)")
#: Members of a JWK that are private, RFC 7518 section 6.
JWK_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_SECRET_KEY = re.compile(
    r"passw(?:or)?d|passphrase|(?:^|[_-])pass(?:$|[_-])|secret|token|api[_-]?key|private|credential|authori[sz]ation"
    r"|cookie|(?:^|[_-])(?:dsn|pwd|pin|pepper|auth)(?:$|[_-])|(?:^|(?<!public)[_-])key(?:$|[_-](?:value|data|material)$)",
    re.I,
)


def _is_masked(text: str) -> bool:
    return bool(text) and not text.strip("*")


def _text_has_material(text: str) -> bool:
    if any(pattern.search(text) for pattern in _PATTERNS):
        return True
    if any(not _is_masked(found["password"]) for found in _URL.finditer(text)):
        return True
    return bool(_JWK_TEXT.search(text) and _JWK_PRIVATE_TEXT.search(text))


def _private_members(mapping: Mapping[Any, Any]) -> frozenset[str]:
    """The private members of a JWK (RFC 7517); empty for any other mapping."""
    return frozenset(name for name in JWK_PRIVATE if name in mapping) if "kty" in mapping else frozenset()


def find_material(data: Any, path: str = "$") -> Iterator[str]:
    """Yield the places (``$.health.before.api``) that hold what looks like private material; never the material."""
    if isinstance(data, str):
        if _text_has_material(data):
            yield path
    elif isinstance(data, Mapping):
        if any(not _is_masked(str(data[name])) for name in _private_members(data)):
            yield path
        for key, value in data.items():
            if _text_has_material(str(key)):
                yield f"{path} (a key)"
            else:
                yield from find_material(value, f"{path}.{key}")
    elif isinstance(data, (Sequence, Set)) and not isinstance(data, (bytes, bytearray)):
        for number, value in enumerate(data):
            yield from find_material(value, f"{path}[{number}]")


def _forms(values: Iterable[Any]) -> tuple[frozenset[str], list[str]]:
    """The given values as they may appear in a text: as they are, percent-encoded, base64. Longest first."""
    plain = {str(value) for value in values if value is not None and str(value)}
    forms = set()
    for value in plain:
        if len(value) < _SHORT:
            continue
        raw = value.encode("utf-8", "surrogatepass")
        forms |= {value, quote(raw, safe="")}
        if len(raw) >= 2 * _SHORT:
            forms |= {base64.b64encode(raw).decode().rstrip("="), base64.urlsafe_b64encode(raw).decode().rstrip("=")}
    return frozenset(plain), sorted(forms, key=lambda form: (-len(form), form))


def written_forms(values: Iterable[str]) -> list[str]:
    """Values of four characters or more as they may stand in a text, the longest first."""
    return _forms(values)[1]


class _Redactor:
    def __init__(self, values: Iterable[Any], keep: Iterable[str], mask: str) -> None:
        self._whole, self._parts = _forms(values)
        self._keep = frozenset(str(key) for key in keep)
        self._mask = mask

    def text(self, text: str) -> str:
        if text in self._whole:
            return self._mask
        for part in self._parts:
            text = text.replace(part, self._mask)
        for pattern in _PATTERNS:
            text = pattern.sub(lambda _found: self._mask, text)
        text = _URL.sub(lambda found: found["before"] + self._mask, text)
        if _JWK_TEXT.search(text):
            text = _JWK_PRIVATE_TEXT.sub(lambda found: found["before"] + self._mask, text)
        return text

    def any(self, data: Any, secret: bool = False) -> Any:
        if data is None or isinstance(data, bool):
            return data
        if isinstance(data, Mapping):
            private = _private_members(data)
            return {
                (self.text(key) if isinstance(key, str) else key): self.any(
                    value,
                    secret or key in private or (str(key) not in self._keep and bool(_SECRET_KEY.search(str(key)))),
                )
                for key, value in data.items()
            }
        if isinstance(data, (Sequence, Set)) and not isinstance(data, (str, bytes, bytearray)):
            return [self.any(value, secret) for value in data]
        if secret or isinstance(data, (bytes, bytearray)):
            return self._mask
        if isinstance(data, str):
            return self.text(data)
        return self._mask if str(data) in self._whole else data


def redact(data: Any, values: Iterable[Any] = (), keep: Iterable[str] = (), mask: str = MASK) -> Any:
    """A copy of ``data`` that can be shown: same shape, secrets masked.

    Masked are: everything below a key that names a secret (``password``, ``api_key``, ``token`` and the like), the
    given values wherever they occur (also percent-encoded and in base64), and what looks like private material by
    itself.
    Truth values and null stay, for they tell nothing.

    :param values: values known to be secret.
    :param keep: keys that look like a secret's name and are none.
    :param mask: what stands in the place of a secret.
    """
    return _Redactor(values, keep, mask).any(data)


def mask_texts(data: Any, mask: str = MASK) -> Any:
    """A copy of ``data`` in which only what looks like private material by itself is masked, whatever it is called.

    For what people and programs say in their own words: :func:`find_material` has nothing to find in it then. What is
    no Unicode text becomes question marks.
    """
    redactor = _Redactor((), (), mask)

    def masked(value: Any) -> Any:
        if isinstance(value, str):
            return redactor.text(value.encode("utf-8", "replace").decode())
        if isinstance(value, Mapping):
            return {masked(key): masked(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [masked(each) for each in value]
        return value

    return masked(data)
