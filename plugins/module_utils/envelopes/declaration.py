# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a spec from a mapping, with one clear error. ``docs/envelopes.md`` describes the mapping."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.shapes import KEY_ENCODINGS, SHORT_FORMS, SPEC
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import (
    CIPHERS,
    DERIVATIONS,
    KEY_ID,
    Check,
    CipherRule,
    Compression,
    Derivation,
    EnvelopeSpec,
    KeyForm,
    KeyId,
    Members,
    Part,
    PlaintextForm,
    TextForm,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["expand", "parse_spec"]

_MAX_PART = 1024
_MAX_ROUNDS = 10_000_000
_MAX_MEMORY = 1 << 30
_PLACEHOLDERS = re.compile(r"\{([^{}]*)\}")


def _invalid(name: str, message: str, hint: str) -> KeyturnError:
    return KeyturnError("envelope-invalid", message, where=f"envelope {name}", hint=hint)


def expand(value: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with its short forms written out: ``text: hex`` becomes ``text: {encoding: hex}``."""
    full = dict(value)
    for field, member in SHORT_FORMS.items():
        if isinstance(full.get(field), str) or (field == "key" and isinstance(full.get(field), (list, tuple))):
            full[field] = {member: full[field]}
    if full.get("derive") in (None, {"function": "none"}):
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


def _parse_parts(name: str, full: Mapping[str, Any]) -> tuple[Part, ...]:
    cipher, declared = full["cipher"], full.get("parts")
    rule = CIPHERS[cipher]
    if rule.layout:
        if declared is not None and tuple(_parse_part(name, value) for value in declared) != rule.layout:
            raise _invalid(name, f"the parts of {cipher} are fixed", "Leave parts away")
        return rule.layout
    if declared is None:
        raise _invalid(name, "field 'parts' is missing", "Name the parts in order: [nonce:12, ciphertext, tag:16]")
    parts = tuple(_parse_part(name, value) for value in declared)
    needed = {"ciphertext", *rule.sizes}
    if full.get("iv", "cell") in ("key", "derived"):
        needed.discard(rule.start)
    names = [part.name for part in parts]
    salts = {"salt"} & set(names) if "derive" in full else set()
    if len(set(names)) != len(names) or set(names) != needed | salts:
        raise _invalid(name, f"{cipher} needs the parts {', '.join(sorted(needed))}, each once", "Correct parts")
    for part in parts:
        sizes = rule.sizes.get(part.name)
        if sizes and part.size not in sizes:
            wanted = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
            raise _invalid(name, f"part {part.name} of {cipher} has {wanted} bytes", "Correct its size")
    return parts


def _path(value: Any) -> tuple[str, ...]:
    return tuple(str(value).split(".")) if value else ()


def _parse_text(name: str, value: Mapping[str, Any]) -> TextForm:
    encoding, separator, jose = value["encoding"], value.get("separator", ""), value.get("jose") == "dir"
    is_base64 = encoding in ("base64", "base64url")
    extra = sorted({"also_reads", "padding"} & set(value))
    if extra and not is_base64:
        raise _invalid(name, f"text.{extra[0]} belongs to base64", "Leave it away")
    if encoding == "raw" and "line_breaks" in value:
        raise _invalid(name, "raw bytes have no line breaks", "Leave text.line_breaks away")
    if sum(map(bool, (separator, value.get("members"), jose))) > 1:
        raise _invalid(name, "separator, members and jose exclude one another", "Keep one of them")
    if separator and (encoding == "raw" or not separator.isascii() or re.search(r"[A-Za-z0-9+/=]", separator)):
        raise _invalid(name, "the separator can be part of a text", "Use a character that the encoding has not")
    padding = value.get("padding", "required")
    if jose and (encoding, padding) != ("base64url", "forbidden"):
        raise _invalid(name, "JWE is written in base64url without padding", "Set encoding and padding so")
    reads = tuple(dict.fromkeys((encoding, value.get("also_reads", encoding)))) if is_base64 else ()
    is_broken = value.get("line_breaks") == "skip"
    return TextForm(encoding, reads, padding, is_broken, separator, _parse_members(value.get("members")), jose)


def _parse_members(value: Mapping[str, Any] | None) -> Members | None:
    if value is None:
        return None
    parts = tuple((part, _path(path)) for part, path in value["parts"].items())
    carried = tuple(_path(path) for path in value.get("carried", ()))
    return Members(parts, carried, _path(value.get("key_id")))


def _parse_key(name: str, rule: CipherRule, value: Mapping[str, Any], derives: bool) -> KeyForm:
    encodings = _listed(value["encoding"])
    for encoding in encodings:
        if encoding not in KEY_ENCODINGS:
            raise _invalid(name, f"key encoding {str(encoding)!r} is not known", f"Known: {', '.join(KEY_ENCODINGS)}")
    if not encodings:
        raise _invalid(name, "no key encoding is named", f"Known: {', '.join(KEY_ENCODINGS)}")
    default = () if derives else rule.key_lengths
    lengths = _listed(value["lengths"]) if "lengths" in value else default
    permitted = all(isinstance(length, int) and length > 0 for length in lengths)
    if not permitted or not (derives or (lengths and set(lengths) <= set(rule.key_lengths))):
        known = ", ".join(str(length) for length in rule.key_lengths)
        raise _invalid(name, "a key length is not possible", f"This cipher takes {known} bytes")
    several = value.get("list", "none")
    if several != "none" and not set(encodings) <= {"base64", "base64url", "hex"}:
        raise _invalid(name, "a list of keys needs base64 or hex", "Leave key.list away")
    key_id = KeyId(**value["id"]) if "id" in value else None
    if key_id is not None and not 0 < key_id.digits <= 40:
        raise _invalid(name, "a key id has 1 to 40 digits", "Correct key.id.digits")
    return KeyForm(encodings, lengths, value.get("padding", "optional"), "" if several == "none" else several, key_id)


def _parse_derive(name: str, rule: CipherRule, value: Mapping[str, Any] | None, is_salted: bool) -> Derivation | None:
    if value is None:
        return None
    function = value["function"]
    if not rule.derives and function != "sha256":
        raise _invalid(name, "this cipher has no key derivation but sha256", "Leave derive away")
    wanted = DERIVATIONS[function]
    foreign = sorted(set(value) - {"function", "length", "salt", *wanted.settings})
    if foreign:
        raise _invalid(name, f"{function} has no {foreign[0]}", f"Leave derive.{foreign[0]} away")
    has_salt = is_salted or value.get("salt") is not None
    if (has_salt and wanted.salt == "none") or (is_salted and value.get("salt") is not None):
        raise _invalid(name, "a salt too many", "It is a part of each cell, or derive.salt, or there is none")
    texts = {field: value[field].encode() for field in ("salt", "info") if field in value}
    numbers = {field: value[field] for field in ("rounds", "cost", "block_size", "parallelization") if field in value}
    derivation = Derivation(function, length=value.get("length", max(rule.key_lengths)), **texts, **numbers)
    cost = derivation.cost
    memory = 128 * derivation.block_size * (cost + derivation.parallelization)
    possible = 0 < derivation.rounds <= _MAX_ROUNDS if "rounds" in wanted.settings else True
    possible = possible and derivation.length in rule.key_lengths and min(numbers.values(), default=1) > 0
    if not possible or cost < 2 or cost & (cost - 1) or memory > _MAX_MEMORY:
        known = ", ".join(str(length) for length in rule.key_lengths)
        hint = f"Use 1 to {_MAX_ROUNDS} rounds, a cost that is a power of two, and a length of {known}"
        raise _invalid(name, "the derivation is not possible", hint)
    return derivation


def _parse_plaintext(name: str, value: Mapping[str, Any]) -> PlaintextForm:
    plaintext = PlaintextForm(**value)
    if bool(plaintext.marker) != bool(plaintext.member) or (plaintext.marker and plaintext.form == "none"):
        raise _invalid(name, "marker and member go together, with a plaintext form", "Name both or none")
    return plaintext


def _parse_check(name: str, rule: CipherRule, value: Mapping[str, Any] | None) -> Check | None:
    if value is None:
        return None if rule.authenticated else Check()
    if rule.authenticated:
        raise _invalid(name, "this cipher proves what it opens", "Leave check away")
    try:
        re.compile(value.get("pattern", ""))
    except re.error:
        raise _invalid(name, "the pattern is no regular expression", "Correct check.pattern") from None
    return Check(value.get("form", "utf8"), value.get("pattern", ""))


def _parse_magic(name: str, value: str) -> bytes:
    try:
        return bytes.fromhex(value)
    except ValueError:
        raise _invalid(name, "magic is not hex", 'Write the bytes in hex, quoted: "01"') from None


def _parse_compress(value: Mapping[str, Any] | None) -> Compression | None:
    return None if value is None else Compression(value["over"], _path(value["flag"]))


def _check_texts(name: str, full: Mapping[str, Any], rule: CipherRule) -> None:
    """Prefix, associated data and block padding."""
    prefix, associated = full.get("prefix", ""), full.get("associated_data", "")
    if not prefix.isascii():
        raise _invalid(name, "the prefix is not ASCII", "Correct prefix")
    if associated and full["cipher"] != "aes-gcm":
        raise _invalid(name, "this cipher has no associated data", "Leave associated_data away")
    for text, known in ((prefix, {"key_id"}), (associated, {"table", "column", "pk"})):
        unknown = sorted(set(_PLACEHOLDERS.findall(text)) - known)
        if unknown:
            raise _invalid(name, f"placeholder {unknown[0]!r} is not known", f"Known: {', '.join(sorted(known))}")
    padding = full.get("block_padding", "pkcs7")
    if "block_padding" in full and full["cipher"] != "aes-cbc":
        raise _invalid(name, "this cipher has no block padding of its own", "Leave block_padding away")
    if padding != "pkcs7" and not (len(padding) == 1 and padding.isascii()):
        raise _invalid(name, "block padding is not understood", "Write pkcs7, or one ASCII character")
    if rule.layout and full.get("iv", "cell") != "cell":
        raise _invalid(name, "this cipher has its own initialisation vector", "Leave iv away")


def _check_together(spec: EnvelopeSpec) -> None:
    """What one field asks of another."""
    text, name = spec.text, spec.name
    names = [part.name for part in spec.parts]
    if spec.iv == "derived" and spec.derive is None:
        raise _invalid(name, "a derived initialisation vector needs a derivation", "Declare derive")
    if spec.cipher == "aes-gcm" and (spec.iv == "key" or (spec.iv == "derived" and not spec.is_salted)):
        raise _invalid(name, "each value of aes-gcm needs its own nonce", "Make it a part, or derive it with a salt")
    if spec.iv == "key" and spec.is_salted:
        raise _invalid(name, "where each value has its own key, the vector is a part or derived", "Set iv so")
    if spec.iv == "hmac-sha256" and (spec.cipher != "aes-gcm" or spec.is_salted):
        raise _invalid(name, "a nonce by HMAC needs aes-gcm and one key", "Leave iv away")
    if (text.members is not None or text.jose) and (spec.prefix or spec.magic):
        raise _invalid(name, "JSON and JWE have no prefix and no magic", "Leave them away")
    if text.separator and spec.magic:
        raise _invalid(name, "joined parts have no magic", "Leave magic away")
    if text.jose and (names != ["nonce", "ciphertext", "tag"] or spec.minimum != 28 or spec.associated_data):
        raise _invalid(name, "the parts of JWE are fixed", "Write [nonce:12, ciphertext, tag:16], no associated data")
    if text.members is not None and sorted(part for part, path in text.members.parts) != sorted(names):
        raise _invalid(name, "text.members.parts names other parts than parts", "Give each part one path")
    if spec.compress is not None and text.members is None:
        raise _invalid(name, "compression needs a member that says so", "Leave compress away, or declare text.members")
    has_id = spec.key.key_id is not None
    if not has_id and (KEY_ID in spec.prefix or (text.members is not None and text.members.key_id)):
        raise _invalid(name, "the cells name their key, and key.id says not how", "Declare key.id")


def parse_spec(value: Mapping[str, Any], name: str = "custom") -> EnvelopeSpec:
    """Read a declaration. It may still lack what only the application knows: see ``EnvelopeSpec.missing``.

    :param name: for reports, when the declaration has none of its own.
    :raises KeyturnError: ``envelope-invalid`` with the first thing that is wrong.
    """
    full = expand(value)
    name = str(full.get("name") or name)
    try:
        SPEC.check(full, f"envelope {name}")
    except KeyturnError as error:
        raise KeyturnError("envelope-invalid", error.message, where=error.where, hint=error.hint) from None
    cipher = full["cipher"]
    rule = CIPHERS[cipher]
    _check_texts(name, full, rule)
    parts = _parse_parts(name, full)
    derive = _parse_derive(name, rule, full.get("derive"), any(part.name == "salt" for part in parts))
    smallest = sum(part.size for part in parts) + (0 if rule.authenticated and cipher != "fernet" else 16)
    minimum = full.get("min_raw", smallest)
    if minimum < smallest:
        raise _invalid(name, f"min_raw is less than the parts take ({smallest} bytes)", "Leave min_raw away")
    spec = EnvelopeSpec(
        name=name,
        cipher=cipher,
        text=_parse_text(name, full["text"]),
        parts=parts,
        key=_parse_key(name, rule, full["key"], derive is not None),
        derive=derive,
        prefix=full.get("prefix", ""),
        magic=_parse_magic(name, full.get("magic", "")),
        minimum=minimum,
        associated_data=full.get("associated_data", ""),
        iv=full.get("iv", "cell"),
        block_padding=full.get("block_padding", "pkcs7"),
        check=_parse_check(name, rule, full.get("check")),
        compress=_parse_compress(full.get("compress")),
        plaintext=_parse_plaintext(name, full.get("plaintext", {"form": "none"})),
    )
    _check_together(spec)
    return spec
