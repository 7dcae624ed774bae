# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fields of a declared envelope."""

from __future__ import annotations

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes.spec import CIPHERS, DERIVATIONS
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import Field, Shape

__all__ = ["KEY_ENCODINGS", "SHORT_FORMS", "SPEC"]

KEY_ENCODINGS = ("base64", "base64url", "hex", "utf8", "latin1", "raw", "jwk")
_ENCODINGS = ("raw", "base64", "base64url", "hex")

_MEMBERS = Shape(
    "members of a JSON object",
    {
        "parts": Field("map", "The path of each part, as ciphertext: p, nonce: h.iv", required=True),
        "carried": Field("list", "Paths of members that are kept with the value"),
        "key_id": Field("str", "The path of the key's id"),
    },
)
_TEXT = Shape(
    "text encoding",
    {
        "encoding": Field("str", "How it is written", required=True, choices=_ENCODINGS),
        "also_reads": Field("str", "A second base64 alphabet that readers accept", choices=_ENCODINGS[1:3]),
        "padding": Field("str", "Padding of base64", choices=("required", "optional", "forbidden")),
        "line_breaks": Field("str", "Line breaks inside the text", choices=("refuse", "skip")),
        "separator": Field("str", "What stands between parts that are encoded each"),
        "members": Field("map", "Parts that are members of a JSON object", shape=_MEMBERS),
        "jose": Field("str", "JWE compact serialisation", choices=("dir",)),
    },
)
_KEY_ID = Shape(
    "key id",
    {
        "source": Field("str", "Where it is from", required=True, choices=("text", "derived", "jwk", "stored")),
        "function": Field("str", "The hash", choices=("sha1", "sha256")),
        "digits": Field("int", "How many hex digits of the hash"),
    },
)
_KEY = Shape(
    "key form",
    {
        "encoding": Field("str|list", f"One or more of {', '.join(KEY_ENCODINGS)}", required=True),
        "lengths": Field("int|list", "Permitted lengths in bytes after decoding"),
        "padding": Field("str", "Padding of base64", choices=("required", "optional")),
        "list": Field("str", "Which key of a comma-separated list encrypts", choices=("none", "first", "last")),
        "id": Field("map", "How cells call the key", shape=_KEY_ID),
    },
)
_DERIVE = Shape(
    "key derivation",
    {
        "function": Field("str", "The function", required=True, choices=tuple(DERIVATIONS)),
        "length": Field("int", "Length of the derived key in bytes"),
        "salt": Field("str", "The salt of all cells, where it is no part of each"),
        "rounds": Field("int", "Number of rounds (pbkdf2)"),
        "info": Field("str", "What the key is for (hkdf)"),
        "cost": Field("int", "N (scrypt)"),
        "block_size": Field("int", "r (scrypt)"),
        "parallelization": Field("int", "p (scrypt)"),
    },
)
_CHECK = Shape(
    "plaintext check",
    {
        "form": Field("str", "What it must be", choices=("utf8", "json")),
        "pattern": Field("str", "A regular expression for the whole of it"),
    },
)
_COMPRESS = Shape(
    "compression",
    {
        "over": Field("int", "Longer plaintexts are deflated, in bytes", required=True),
        "flag": Field("str", "The path of the member that says so", required=True),
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
#: The whole declaration.
SPEC = Shape(
    "envelope",
    {
        "name": Field("str", "How reports call it"),
        "cipher": Field("str", "The cipher", required=True, choices=tuple(CIPHERS)),
        "text": Field("map", "How the bytes are written", required=True, shape=_TEXT),
        "parts": Field("list", "Parts in order: name:size, and ciphertext"),
        "key": Field("map", "How the key is written", required=True, shape=_KEY),
        "derive": Field("map", "How the key that is used comes from the stored one", shape=_DERIVE),
        "prefix": Field("str", "ASCII text before the encoded bytes; {key_id} in it is the key's id"),
        "magic": Field("str", "What the raw bytes begin with, in hex"),
        "min_raw": Field("int", "Shortest raw length in bytes"),
        "associated_data": Field("str", "What is authenticated with each value; may name {table}, {column}, {pk}"),
        "iv": Field(
            "str", "Where the initialisation vector is from", choices=("cell", "key", "derived", "hmac-sha256")
        ),
        "block_padding": Field("str", "pkcs7, or the character that fills the last block"),
        "check": Field("map", "What a plaintext must look like", shape=_CHECK),
        "compress": Field("map", "Deflating of long plaintexts", shape=_COMPRESS),
        "plaintext": Field("map", "How a cell looks that was never encrypted", shape=_PLAINTEXT),
    },
)
#: The member that a text in place of a mapping means.
SHORT_FORMS = {"text": "encoding", "key": "encoding", "plaintext": "form", "check": "form", "derive": "function"}
