# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an envelope is, as data. Nothing here encrypts; ``declaration.py`` reads it from a mapping."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = [
    "CIPHERS",
    "DERIVATIONS",
    "Check",
    "CipherRule",
    "Compression",
    "Derivation",
    "DerivationRule",
    "EnvelopeSpec",
    "KeyForm",
    "KeyId",
    "Members",
    "Part",
    "PlaintextForm",
    "TextForm",
]

PLACEHOLDER = re.compile(r"\{(table|column|pk)\}")
KEY_ID = "{key_id}"


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
    :param start: the part that is its initialisation vector, which a spec may take from elsewhere.
    :param derived_start: the size of that in bytes, where it is derived.
    :param layout: the parts, where the format leaves no choice.
    :param derives: a salt of each cell makes sense.
    """

    authenticated: bool
    key_lengths: tuple[int, ...]
    sizes: Mapping[str, tuple[int, ...]]
    start: str = ""
    derived_start: int = 0
    layout: tuple[Part, ...] = ()
    derives: bool = False


_FERNET = (Part("version", 1), Part("timestamp", 8), Part("iv", 16), Part("ciphertext", 0), Part("mac", 32))

#: Ciphers by name. Each has an implementation that ``ciphers.py`` chooses.
CIPHERS: Mapping[str, CipherRule] = {
    "aes-gcm": CipherRule(True, (16, 24, 32), {"nonce": tuple(range(8, 65)), "tag": (16,)}, "nonce", 12, derives=True),
    "aes-cbc": CipherRule(False, (16, 24, 32), {"iv": (16,)}, "iv", 16, derives=True),
    "fernet": CipherRule(True, (32,), {part.name: (part.size,) for part in _FERNET if part.size}, layout=_FERNET),
}


@dataclass(frozen=True)
class DerivationRule:
    """What a key derivation asks of a spec.

    :param salt: ``required``, ``optional`` or ``none``.
    :param settings: the fields that only some functions have, of which the first must be given where it is rounds.
    :param slow: worth threads.
    """

    salt: str
    settings: tuple[str, ...] = ()
    slow: bool = False


_PBKDF2 = DerivationRule("required", ("rounds",), slow=True)

#: Key derivations by name: RFC 8018, RFC 5869, RFC 7914, EVP_BytesToKey(3), and the plain hash of a text.
DERIVATIONS: Mapping[str, DerivationRule] = {
    "pbkdf2-hmac-sha1": _PBKDF2,
    "pbkdf2-hmac-sha256": _PBKDF2,
    "pbkdf2-hmac-sha512": _PBKDF2,
    "scrypt": DerivationRule("required", ("cost", "block_size", "parallelization"), slow=True),
    "hkdf-sha256": DerivationRule("optional", ("info",)),
    "hkdf-sha512": DerivationRule("optional", ("info",)),
    "evp-bytes-to-key-md5": DerivationRule("optional"),
    "evp-bytes-to-key-sha256": DerivationRule("optional"),
    "sha256": DerivationRule("none"),
}


@dataclass(frozen=True)
class Members:
    """Where the parts stand in a JSON object.

    :param parts: path (``("h", "iv")``) of each part, in the order in which they are written.
    :param carried: paths of members that go with the value: they are kept when it is sealed again.
    :param key_id: path of the key's id; written where the cell that was opened had one.
    """

    parts: tuple[tuple[str, tuple[str, ...]], ...]
    carried: tuple[tuple[str, ...], ...] = ()
    key_id: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compression:
    """Plaintexts longer than ``over`` bytes are deflated (zlib), and the member at ``flag`` is true then."""

    over: int
    flag: tuple[str, ...]


@dataclass(frozen=True)
class TextForm:
    """How raw bytes stand in the cell.

    :param encoding: ``raw``, ``base64``, ``base64url`` or ``hex``; always written so.
    :param reads: base64 alphabets accepted on reading, the written one among them.
    :param padding: of base64: ``required``, ``optional`` (``base64`` is written with it, ``base64url`` without) or
        ``forbidden``.
    :param line_breaks: line breaks inside the text are skipped on reading.
    :param separator: the parts are encoded each, with this between them; empty for one text.
    :param members: the parts are members of a JSON object; None for one text.
    :param jose: JWE compact serialisation (RFC 7516 section 7.1) with ``dir``.
    """

    encoding: str
    reads: tuple[str, ...] = ()
    padding: str = "required"
    line_breaks: bool = False
    separator: str = ""
    members: Members | None = None
    jose: bool = False


@dataclass(frozen=True)
class KeyId:
    """How a key is called in its cells.

    :param source: ``text`` or ``derived`` (a hash of the key's text, or of the key that is used), ``jwk`` (the member
        kid), or ``stored`` (the value in the store is ``id:key``).
    :param digits: how many hex digits of the hash.
    """

    source: str
    function: str = "sha256"
    digits: int = 8


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
    key_id: KeyId | None = None


@dataclass(frozen=True)
class Derivation:
    """The key that is used comes from the stored one; ``length`` in bytes.

    :param salt: the same for all cells; None where it is a part of each cell, or where there is none.
    """

    function: str
    rounds: int = 0
    length: int = 32
    salt: bytes | None = None
    info: bytes = b""
    cost: int = 16_384
    block_size: int = 8
    parallelization: int = 1

    @property
    def slow(self) -> bool:
        """Whether it is worth threads."""
        return DERIVATIONS[self.function].slow


@dataclass(frozen=True)
class Check:
    """What a plaintext must look like, where the cipher itself proves nothing.

    :param form: ``utf8`` (text without control characters but tabs and line breaks) or ``json`` (object or array).
    :param pattern: a regular expression that matches all of it as well; empty for none.
    """

    form: str = "utf8"
    pattern: str = ""


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

    :param prefix: ASCII text before the encoded bytes; ``{key_id}`` in it is the id of the cell's key.
    :param magic: the raw bytes begin with these.
    :param minimum: shortest raw length in bytes, without ``magic``.
    :param associated_data: template of what is authenticated with each value; empty for none.
    :param iv: where the initialisation vector is: ``cell`` (a part), ``key`` (the first bytes of the key), ``derived``
        (what the derivation gives after the key) or ``hmac-sha256`` (a part; the first bytes of the plaintext's HMAC).
    :param block_padding: of block ciphers: ``pkcs7``, or one character.
    """

    name: str
    cipher: str
    text: TextForm
    parts: tuple[Part, ...]
    key: KeyForm
    derive: Derivation | None = None
    prefix: str = ""
    magic: bytes = b""
    minimum: int = 0
    associated_data: str = ""
    iv: str = "cell"
    block_padding: str = "pkcs7"
    check: Check | None = None
    compress: Compression | None = None
    plaintext: PlaintextForm = PlaintextForm()

    @property
    def authenticated(self) -> bool:
        """Whether opening a value proves that it is whole and under this key."""
        return CIPHERS[self.cipher].authenticated

    @property
    def is_salted(self) -> bool:
        """Whether each cell has a key of its own, derived with the cell's salt."""
        return self.derive is not None and any(part.name == "salt" for part in self.parts)

    @property
    def derives_slowly(self) -> bool:
        """Whether each cell has a key of its own that takes long to derive."""
        return self.is_salted and self.derive is not None and self.derive.slow

    @property
    def needs_context(self) -> bool:
        """Whether the associated data names the row, so that each call needs it."""
        return PLACEHOLDER.search(self.associated_data) is not None

    @property
    def missing(self) -> str:
        """The field that this declaration still lacks, since only the application knows it; empty when complete."""
        derive = self.derive
        if derive is None or self.is_salted or derive.salt is not None:
            return ""
        return "derive.salt" if DERIVATIONS[derive.function].salt == "required" else ""

    def require_complete(self) -> None:
        """Refuse a declaration that still lacks a field.

        :raises KeyturnError: ``envelope-invalid``.
        """
        if self.missing:
            raise KeyturnError(
                "envelope-invalid",
                f"field {self.missing!r} is missing, and no part of the cell is a salt",
                where=f"envelope {self.name}",
                hint="Declare it with the value that the application has; see docs/envelopes.md",
            )

    def associated_for(self, table: str, column: str, pk_texts: Sequence[str | bytes]) -> bytes:
        """The associated data of one row.

        :param pk_texts: the values of the primary key as the database writes them; several are joined by a comma.
        """
        pk = b",".join([part.encode() if isinstance(part, str) else part for part in pk_texts])
        values = {"table": table.encode(), "column": column.encode(), "pk": pk}
        return b"".join([values.get(name, text) for name, text in _pieces(self.associated_data)])


@lru_cache(maxsize=64)
def _pieces(template: str) -> list[tuple[str, bytes]]:
    """The placeholders' names and the texts between them, without a name."""
    pieces = enumerate(PLACEHOLDER.split(template))
    return [(piece, b"") if at % 2 else ("", piece.encode()) for at, piece in pieces]
