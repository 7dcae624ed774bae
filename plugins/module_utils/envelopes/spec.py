# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an envelope is, as data: cipher, text encoding, parts, key form, derivation, prefix, plaintext form.

Nothing here encrypts. ``docs/envelopes.md`` describes the mapping that :func:`parse_spec` reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import Field, Shape

__all__ = [
    "CIPHERS",
    "CipherRule",
    "Derivation",
    "EnvelopeSpec",
    "KeyForm",
    "Part",
    "PlaintextForm",
    "TextForm",
    "expand",
    "parse_spec",
]

BASE64_ALPHABETS = ("base64", "base64url")
PLACEHOLDER = re.compile(r"\{(table|column|pk)\}")
_MAX_PART = 1024
_MAX_ROUNDS = 10_000_000


@dataclass(frozen=True)
class Part:
    """One part of the raw envelope; ``size`` in bytes, 0 for the ciphertext, which takes what is left."""

    name: str
    size: int


@dataclass(frozen=True)
class CipherRule:
    """What a cipher asks of a spec.

    :param authenticated: a wrong key or a changed byte is always noticed.
    :param key_lengths: in bytes, after decoding or derivation.
    :param sizes: the parts it needs and their permitted sizes in bytes.
    :param layout: the parts, where the format leaves no choice.
    :param derives: a key derivation with a salt part makes sense.
    """

    authenticated: bool
    key_lengths: tuple[int, ...]
    sizes: Mapping[str, tuple[int, ...]]
    layout: tuple[Part, ...] = ()
    derives: bool = False


_FERNET = (Part("version", 1), Part("timestamp", 8), Part("iv", 16), Part("ciphertext", 0), Part("mac", 32))

#: Ciphers by name. Each has an implementation in ``ciphers.py``.
CIPHERS: Mapping[str, CipherRule] = {
    "aes-gcm": CipherRule(True, (16, 24, 32), {"nonce": tuple(range(8, 65)), "tag": (16,)}, derives=True),
    "fernet": CipherRule(True, (32,), {part.name: (part.size,) for part in _FERNET if part.size}, layout=_FERNET),
}


@dataclass(frozen=True)
class TextForm:
    """How raw bytes stand in the cell.

    :param encoding: ``raw``, ``base64``, ``base64url`` or ``hex``; always written so.
    :param reads: base64 alphabets accepted on reading, the written one among them.
    :param padding: of base64: ``required``, ``optional`` (``base64`` is written with it, ``base64url`` without) or
        ``forbidden``.
    :param line_breaks: line breaks inside the text are skipped on reading.
    """

    encoding: str
    reads: tuple[str, ...] = ()
    padding: str = "required"
    line_breaks: bool = False


@dataclass(frozen=True)
class KeyForm:
    """How the key stands in its store.

    :param encodings: tried in order; the first that gives a permitted length counts.
    :param lengths: permitted, in bytes after decoding; empty for any.
    :param padding: of base64: ``required`` or ``optional``.
    :param several: the text is a comma-separated list and this one encrypts: ``first``, ``last``; empty for one key.
    """

    encodings: tuple[str, ...]
    lengths: tuple[int, ...] = ()
    padding: str = "optional"
    several: str = ""


@dataclass(frozen=True)
class Derivation:
    """The cell's key is derived from the stored one and the cell's salt; ``length`` in bytes."""

    function: str
    rounds: int
    length: int = 32


@dataclass(frozen=True)
class PlaintextForm:
    """How a cell looks that was never encrypted.

    :param form: ``none`` (there is no such form) or ``json-object``.
    :param marker: a member that, when true, says that the value is wrapped.
    :param member: the member that holds the wrapped value.
    """

    form: str = "none"
    marker: str = ""
    member: str = ""


@dataclass(frozen=True)
class EnvelopeSpec:
    """The declared layout of one encrypted value.

    :param prefix: ASCII text before the encoded bytes.
    :param minimum: shortest raw length in bytes.
    :param associated_data: authenticated with each value; empty for none.
    """

    name: str
    cipher: str
    text: TextForm
    parts: tuple[Part, ...]
    key: KeyForm
    derive: Derivation | None = None
    prefix: str = ""
    minimum: int = 0
    associated_data: bytes = b""
    plaintext: PlaintextForm = PlaintextForm()

    @property
    def authenticated(self) -> bool:
        """Whether opening a value proves that it is whole and under this key."""
        return CIPHERS[self.cipher].authenticated

    @property
    def needs_context(self) -> bool:
        """Whether the associated data names the row, so that each call needs it."""
        return PLACEHOLDER.search(self.associated_data.decode()) is not None

    def associated_for(self, table: str, column: str, pk_texts: Sequence[str | bytes]) -> bytes:
        """The associated data of one row.

        :param pk_texts: the values of the primary key as the database writes them; several are joined by a comma.
        """
        pieces = PLACEHOLDER.split(self.associated_data.decode())
        pk = b",".join([part.encode() if isinstance(part, str) else part for part in pk_texts])
        values = {"table": table.encode(), "column": column.encode(), "pk": pk}
        return b"".join([values[piece] if at % 2 else piece.encode() for at, piece in enumerate(pieces)])


_TEXT = Shape(
    "text encoding",
    {
        "encoding": Field("str", "How it is written", required=True, choices=("raw", "base64", "base64url", "hex")),
        "also_reads": Field("str", "A second base64 alphabet that readers accept", choices=BASE64_ALPHABETS),
        "padding": Field("str", "Padding of base64", choices=("required", "optional", "forbidden")),
        "line_breaks": Field("str", "Line breaks inside the text", choices=("refuse", "skip")),
    },
)
_KEY_ENCODINGS = ("base64", "base64url", "hex", "utf8", "raw")
_KEY = Shape(
    "key form",
    {
        "encoding": Field("str|list", f"One or more of {', '.join(_KEY_ENCODINGS)}", required=True),
        "lengths": Field("int|list", "Permitted lengths in bytes after decoding"),
        "padding": Field("str", "Padding of base64", choices=("required", "optional")),
        "list": Field("str", "Which key of a comma-separated list encrypts", choices=("none", "first", "last")),
    },
)
_DERIVE = Shape(
    "key derivation",
    {
        "function": Field("str", "The function", required=True, choices=("pbkdf2-hmac-sha256",)),
        "rounds": Field("int", "Number of rounds", required=True),
        "length": Field("int", "Length of the derived key in bytes"),
    },
)
_PLAINTEXT = Shape(
    "plaintext form",
    {
        "form": Field("str", "What a plaintext cell looks like", required=True, choices=("none", "json-object")),
        "marker": Field("str", "A member that is true when the value is wrapped"),
        "member": Field("str", "The member that holds the wrapped value"),
    },
)
_SPEC = Shape(
    "envelope",
    {
        "name": Field("str", "How reports call it"),
        "cipher": Field("str", "The cipher", required=True, choices=tuple(CIPHERS)),
        "text": Field("map", "How the bytes are written", required=True, shape=_TEXT),
        "parts": Field("list", "Parts in order: name:size, and ciphertext"),
        "key": Field("map", "How the key is written", required=True, shape=_KEY),
        "derive": Field("map", "How the key of a value is derived", shape=_DERIVE),
        "prefix": Field("str", "ASCII text before the encoded bytes"),
        "min_raw": Field("int", "Shortest raw length in bytes"),
        "associated_data": Field("str", "Text that is authenticated with each value"),
        "plaintext": Field("map", "How a cell looks that was never encrypted", shape=_PLAINTEXT),
    },
)
_SHORT = {"text": "encoding", "key": "encoding", "plaintext": "form"}


def _invalid(name: str, message: str, hint: str) -> KeyturnError:
    return KeyturnError("envelope-invalid", message, where=f"envelope {name}", hint=hint)


def expand(value: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with its short forms written out: ``text: hex`` becomes ``text: {encoding: hex}``."""
    full = dict(value)
    for field, member in _SHORT.items():
        if isinstance(full.get(field), str) or (field == "key" and isinstance(full.get(field), (list, tuple))):
            full[field] = {member: full[field]}
    if full.get("derive") in (None, "none"):
        full.pop("derive", None)
    if full.get("associated_data") is None:
        full.pop("associated_data", None)
    return full


def _listed(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _parse_part(name: str, value: Any) -> Part:
    """``nonce:12``, ``{nonce: 12}`` or ``ciphertext``."""
    if isinstance(value, Mapping) and len(value) == 1:
        value = "{}:{}".format(*next(iter(value.items())))
    part, colon, size = str(value).partition(":")
    if part == "ciphertext" and not colon:
        return Part(part, 0)
    if not colon or not size.isdigit() or not 0 < int(size) <= _MAX_PART or part == "ciphertext":
        raise _invalid(name, f"part {str(value)!r} is not understood", "Write nonce:12, or ciphertext without a size")
    return Part(part, int(size))


def _parse_parts(name: str, cipher: str, declared: Any, derives: bool) -> tuple[Part, ...]:
    rule = CIPHERS[cipher]
    if rule.layout:
        if declared is not None and tuple(_parse_part(name, value) for value in declared) != rule.layout:
            raise _invalid(name, f"the parts of {cipher} are fixed", "Leave parts away")
        return rule.layout
    if declared is None:
        raise _invalid(name, "field 'parts' is missing", "Name the parts in order: [nonce:12, ciphertext, tag:16]")
    parts = tuple(_parse_part(name, value) for value in declared)
    needed = {"ciphertext", *rule.sizes, *(["salt"] if derives else [])}
    names = [part.name for part in parts]
    if len(set(names)) != len(names) or set(names) != needed:
        raise _invalid(name, f"{cipher} needs the parts {', '.join(sorted(needed))}, each once", "Correct parts")
    for part in parts:
        sizes = rule.sizes.get(part.name)
        if sizes and part.size not in sizes:
            wanted = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
            raise _invalid(name, f"part {part.name} of {cipher} has {wanted} bytes", "Correct its size")
    return parts


def _parse_text(name: str, value: Mapping[str, Any]) -> TextForm:
    encoding = value["encoding"]
    extra = sorted({"also_reads", "padding"} & set(value))
    if encoding not in BASE64_ALPHABETS:
        if extra:
            raise _invalid(name, f"text.{extra[0]} belongs to base64", "Leave it away")
        if encoding == "raw" and "line_breaks" in value:
            raise _invalid(name, "raw bytes have no line breaks", "Leave text.line_breaks away")
        return TextForm(encoding, line_breaks=value.get("line_breaks") == "skip")
    reads = tuple(dict.fromkeys((encoding, value.get("also_reads", encoding))))
    return TextForm(encoding, reads, value.get("padding", "required"), value.get("line_breaks") == "skip")


def _parse_key(name: str, rule: CipherRule, value: Mapping[str, Any], derives: bool) -> KeyForm:
    encodings = _listed(value["encoding"])
    for encoding in encodings:
        if encoding not in _KEY_ENCODINGS:
            raise _invalid(name, f"key encoding {str(encoding)!r} is not known", f"Known: {', '.join(_KEY_ENCODINGS)}")
    if not encodings:
        raise _invalid(name, "no key encoding is named", f"Known: {', '.join(_KEY_ENCODINGS)}")
    default = () if derives else rule.key_lengths
    lengths = _listed(value["lengths"]) if "lengths" in value else default
    permitted = all(isinstance(length, int) and length > 0 for length in lengths)
    if not permitted or not (derives or (lengths and set(lengths) <= set(rule.key_lengths))):
        known = ", ".join(str(length) for length in rule.key_lengths)
        raise _invalid(name, "a key length is not possible", f"This cipher takes {known} bytes")
    several = value.get("list", "none")
    if several != "none" and not set(encodings) <= {"base64", "base64url", "hex"}:
        raise _invalid(name, "a list of keys needs base64 or hex", "Leave key.list away")
    return KeyForm(encodings, lengths, value.get("padding", "optional"), "" if several == "none" else several)


def _parse_derive(name: str, rule: CipherRule, value: Mapping[str, Any] | None) -> Derivation | None:
    if value is None:
        return None
    if not rule.derives:
        raise _invalid(name, "this cipher has no key derivation", "Leave derive away")
    derivation = Derivation(value["function"], value["rounds"], value.get("length", max(rule.key_lengths)))
    if not 0 < derivation.rounds <= _MAX_ROUNDS or derivation.length not in rule.key_lengths:
        known = ", ".join(str(length) for length in rule.key_lengths)
        raise _invalid(
            name, "the derivation is not possible", f"Use 1 to {_MAX_ROUNDS} rounds, and a length of {known}"
        )
    return derivation


def _parse_plaintext(name: str, value: Mapping[str, Any]) -> PlaintextForm:
    plaintext = PlaintextForm(**value)
    if bool(plaintext.marker) != bool(plaintext.member) or (plaintext.marker and plaintext.form == "none"):
        raise _invalid(name, "marker and member go together, with a plaintext form", "Name both or none")
    return plaintext


def parse_spec(value: Mapping[str, Any], name: str = "custom") -> EnvelopeSpec:
    """Read a complete declaration.

    :param name: for reports, when the declaration has none of its own.
    :raises KeyturnError: ``envelope-invalid`` with the first thing that is wrong.
    """
    full = expand(value)
    name = str(full.get("name") or name)
    try:
        _SPEC.check(full, f"envelope {name}")
    except KeyturnError as error:
        raise KeyturnError("envelope-invalid", error.message, where=error.where, hint=error.hint) from None
    cipher = full["cipher"]
    rule = CIPHERS[cipher]
    derive = _parse_derive(name, rule, full.get("derive"))
    text = _parse_text(name, full["text"])
    parts = _parse_parts(name, cipher, full.get("parts"), derive is not None)
    smallest = sum(part.size for part in parts) + (16 if cipher == "fernet" else 0)
    minimum = full.get("min_raw", smallest)
    if minimum < smallest:
        raise _invalid(name, f"min_raw is less than the parts take ({smallest} bytes)", "Leave min_raw away")
    prefix = full.get("prefix", "")
    if not prefix.isascii():
        raise _invalid(name, "the prefix is not ASCII", "Correct prefix")
    associated_data = full.get("associated_data", "").encode()
    if associated_data and cipher != "aes-gcm":
        raise _invalid(name, "this cipher has no associated data", "Leave associated_data away")
    return EnvelopeSpec(
        name=name,
        cipher=cipher,
        text=text,
        parts=parts,
        key=_parse_key(name, rule, full["key"], derive is not None),
        derive=derive,
        prefix=prefix,
        minimum=minimum,
        associated_data=associated_data,
        plaintext=_parse_plaintext(name, full.get("plaintext", {"form": "none"})),
    )
