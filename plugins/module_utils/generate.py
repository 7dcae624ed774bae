# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""New values: random strings and bytes, signing keys as JWK or PEM, HS256 tokens; made as a mapping says.

``check_spec`` refuses what cannot be made before anything is; ``describe`` tells of a value only what is public.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import math
import string
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Callable, Union

from ansible_collections.keyturn.rotation.plugins.module_utils import base64url
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import (
    Field,
    Shape,
    nearest,
    parse_duration,
)

try:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_pem_private_key,
    )
except ImportError:
    if TYPE_CHECKING:
        raise
    HAS_CRYPTOGRAPHY = False
else:
    HAS_CRYPTOGRAPHY = True

if TYPE_CHECKING:
    SigningKey = Union[rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey]
else:
    SigningKey = object

__all__ = [
    "CHARSETS",
    "HAS_CRYPTOGRAPHY",
    "LIFETIME",
    "SPEC_FIELDS",
    "SigningKey",
    "check_length",
    "check_spec",
    "compact_jws",
    "describe",
    "expires",
    "generate",
    "hs256",
    "jwk_thumbprint",
    "kid_in",
    "new_signing_key",
    "private_members",
    "public_jwk",
    "require_library",
]

#: How long a token is valid: as a duration, or in whole years of the calendar.
LIFETIME = r"^[0-9]+(s|m|h|d|w|y)$"

_WEAK_BITS = 128  # NIST SP 800-57 part 1, section 5.6.1
_HS256_BYTES = 32  # RFC 7518 section 3.2
_LONGEST = 65_536
_RSA_BITS = (2048, 3072, 4096)
_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_EC_ALGORITHMS = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_KTY = {"rsa": "RSA", "ec": "EC", "ed25519": "OKP"}
_THUMBPRINT = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}
_PUBLIC = ("kty", "kid", "use", "alg", "crv", "x", "y", "n", "e")

#: Characters by name. C(ascii_printable_safe) needs no quoting in dotenv files, shells, YAML and URLs (RFC 3986
#: section 2.3).
CHARSETS: Mapping[str, str] = {
    "alnum": string.ascii_letters + string.digits,
    "hex": "0123456789abcdef",
    "base64": string.ascii_letters + string.digits + "+/",
    "ascii_printable_safe": string.ascii_letters + string.digits + "-._~",
}

_WEAK = Field("bool", "Accept less than 128 bits of randomness")
_LEAST = Field("int", "The least number of characters that its readers take, as stored", minimum=1)
_TYPE = Field("str", "What to make", required=True)
_FORMAT = Field("str", "How the key is written", choices=("jwk", "pem"))
_SHAPES = {
    "string": Shape(
        "string",
        {
            "type": _TYPE,
            "length": Field("int", "Number of characters", required=True),
            "min_length": _LEAST,
            "charset": Field("str", "Characters by name", choices=tuple(CHARSETS)),
            "characters": Field("str", "The characters themselves"),
            "allow_weak": _WEAK,
        },
    ),
    "bytes": Shape(
        "bytes",
        {
            "type": _TYPE,
            "length": Field("int", "Number of bytes before encoding", required=True),
            "encoding": Field("str", "How they are written", choices=("base64url", "base64", "hex", "raw")),
            "padding": Field("bool", "Padding of base64"),
            "min_length": _LEAST,
            "allow_weak": _WEAK,
        },
    ),
    "rsa": Shape(
        "rsa",
        {
            "type": _TYPE,
            "bits": Field("int", "2048, 3072 or 4096"),
            "alg": Field("str", "The algorithm named in the JWK", choices=_RSA_ALGORITHMS),
            "format": _FORMAT,
        },
    ),
    "ec": Shape(
        "ec",
        {"type": _TYPE, "curve": Field("str", "The curve", choices=tuple(_EC_ALGORITHMS)), "format": _FORMAT},
    ),
    "ed25519": Shape("ed25519", {"type": _TYPE, "format": _FORMAT}),
    "jwt": Shape(
        "jwt",
        {
            "type": _TYPE,
            "payload": Field("map", "Claims but for iat and exp", required=True),
            "lifetime": Field("str", "How long the token is valid: 1825d, 5y", required=True, pattern=LIFETIME),
            "allow_weak": _WEAK,
        },
    ),
    "none": Shape("none", {"type": _TYPE, "min_length": _LEAST}),
}

#: Every field that a spec of some type may have.
SPEC_FIELDS = tuple(sorted({field for shape in _SHAPES.values() for field in shape.fields}))


def _invalid(where: str, message: str, hint: str) -> KeyturnError:
    return KeyturnError("generate-invalid", message, where=where, hint=hint)


def _characters(spec: Mapping[str, Any], where: str) -> str:
    if "characters" not in spec:
        return CHARSETS[spec.get("charset", "alnum")]
    characters: str = spec["characters"]
    if "charset" in spec:
        raise _invalid(where, "charset and characters exclude each other", "Name one of them")
    if not 2 <= len(characters) <= 256 or len(set(characters)) != len(characters) or not characters.isprintable():
        raise _invalid(where, "characters must be 2 to 256 different printable ones", "Correct characters")
    return characters


def _check_length(spec: Mapping[str, Any], bits_each: float, where: str) -> None:
    length = spec["length"]
    if not 0 < length <= _LONGEST:
        raise _invalid(where, f"length must be 1 to {_LONGEST}", "Correct length")
    bits = int(length * bits_each)
    if bits < _WEAK_BITS and not spec.get("allow_weak"):
        least = math.ceil(_WEAK_BITS / bits_each)
        raise _invalid(
            where, f"{bits} bits of randomness are too few", f"Use a length of {least} or more, or allow_weak"
        )


def check_spec(spec: Mapping[str, Any], where: str = "generate") -> None:
    """Refuse what :func:`generate` cannot make.

    :raises KeyturnError: ``generate-invalid``, also for less than 128 bits of randomness without ``allow_weak``.
    """
    if not isinstance(spec, Mapping):
        raise _invalid(where, "must be a mapping", "Write {type: bytes, length: 32}")
    kind = spec.get("type")
    if not isinstance(kind, str) or kind not in _SHAPES:
        raise _invalid(where, "the type is missing or not known", nearest(str(kind), _SHAPES))
    try:
        _SHAPES[kind].check(spec, where)
    except KeyturnError as error:
        raise _invalid(error.where, error.message, error.hint) from None
    if kind == "string":
        _check_length(spec, math.log2(len(_characters(spec, where))), where)
    elif kind == "bytes":
        _check_length(spec, 8, where)
        if "padding" in spec and spec.get("encoding", "base64url") not in ("base64", "base64url"):
            raise _invalid(where, "padding belongs to base64", "Leave padding away")
    elif kind == "rsa" and spec.get("bits", _RSA_BITS[1]) not in _RSA_BITS:
        raise _invalid(where, "bits must be 2048, 3072 or 4096", "Correct bits")
    elif kind == "rsa" and "alg" in spec and spec.get("format") == "pem":
        raise _invalid(where, "a PEM names no algorithm", "Leave alg away")
    elif kind == "jwt":
        _check_token(spec, where)
    if "min_length" in spec and kind in ("string", "bytes") and _written_length(spec) < spec["min_length"]:
        raise _invalid(
            where,
            f"{_written_length(spec)} characters are made, its readers need {spec['min_length']}",
            "Raise length, or correct min_length",
        )


def _written_length(spec: Mapping[str, Any]) -> int:
    length: int = spec["length"]
    if spec["type"] == "string":
        return length
    return len(_encoded(bytes(length), spec.get("encoding", "base64url"), spec.get("padding")))


def check_length(spec: Mapping[str, Any], value: bytes, where: str) -> None:
    """Refuse a value that a person brought and that is shorter than ``min_length``.

    :raises KeyturnError: ``value-short``.
    """
    least = spec.get("min_length") or 0
    if len(value) < least:
        raise KeyturnError(
            "value-short",
            f"has {len(value)} bytes, its readers need {least}",
            where=where,
            hint="Bring a longer value, or correct min_length",
        )


def _check_token(spec: Mapping[str, Any], where: str) -> None:
    if {"iat", "exp"} & set(spec["payload"]):
        raise _invalid(where, "iat and exp come from the clock and the lifetime", "Leave them out of payload")
    if expires(0, spec["lifetime"], where) == 0:
        raise _invalid(where, "a lifetime of zero is no lifetime", "Correct lifetime")
    try:
        json.dumps(spec["payload"], allow_nan=False)
    except (TypeError, ValueError):
        raise _invalid(where, "the payload cannot be written as JSON", "Use texts, numbers, lists, mappings") from None


# -- symmetric ---------------------------------------------------------------------------------------------------


def _random_string(characters: str, length: int, randbytes: Callable[[int], bytes]) -> str:
    """Every character is equally likely: bytes beyond the last whole multiple are thrown away."""
    limit = 256 - 256 % len(characters)
    chosen: list[str] = []
    while len(chosen) < length:
        chosen += [characters[byte % len(characters)] for byte in randbytes(2 * length) if byte < limit]
    return "".join(chosen[:length])


def _encoded(raw: bytes, encoding: str, padding: bool | None) -> bytes:
    if encoding == "raw":
        return raw
    if encoding == "hex":
        return binascii.hexlify(raw)
    url = encoding == "base64url"
    text = base64.urlsafe_b64encode(raw) if url else base64.b64encode(raw)
    return text if (not url if padding is None else padding) else text.rstrip(b"=")


def _base64url(raw: bytes) -> str:
    return base64url.encode(raw).decode()


# -- signing keys ------------------------------------------------------------------------------------------------


def jwk_thumbprint(jwk: Mapping[str, Any]) -> str:
    """The SHA-256 thumbprint (RFC 7638, RFC 8037 appendix A.3) of a JWK, base64url without padding."""
    members = {name: jwk[name] for name in _THUMBPRINT[jwk["kty"]]}
    return _base64url(hashlib.sha256(json.dumps(members, separators=(",", ":"), sort_keys=True).encode()).digest())


def kid_in(value: bytes) -> str:
    """The kid of a JWK: the one that it names, or its thumbprint (RFC 7638); empty for any other value."""
    try:
        jwk = json.loads(value)
        return str(jwk.get("kid") or jwk_thumbprint(jwk))
    except (ValueError, AttributeError, KeyError):
        return ""


def _number(value: int, size: int = 0) -> str:
    """An unsigned integer as in RFC 7518 section 2; with ``size`` in so many bytes."""
    return _base64url(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def public_jwk(key: SigningKey, alg: str) -> dict[str, Any]:
    """The public half of a key with its RFC 7638 kid, ``use`` and ``alg``.

    :param alg: named for RSA; the other kinds have one algorithm each.
    """
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        jwk = {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        point, size = key.public_key().public_numbers(), (key.key_size + 7) // 8
        curve = f"P-{key.key_size}"
        jwk = {"kty": "EC", "crv": curve, "x": _number(point.x, size), "y": _number(point.y, size)}
        alg = _EC_ALGORITHMS[curve]
    else:
        raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": _base64url(raw)}
        alg = "EdDSA"
    named = {"kty": jwk.pop("kty"), "kid": "", "use": "sig", "alg": alg, **jwk}
    named["kid"] = jwk_thumbprint(named)
    return named


def private_members(key: SigningKey) -> dict[str, str]:
    """What a private JWK has besides the public one (RFC 7518 section 6, RFC 8037 section 2)."""
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        values = {"d": numbers.d, "p": numbers.p, "q": numbers.q}
        values.update(dp=numbers.dmp1, dq=numbers.dmq1, qi=numbers.iqmp)
        return {name: _number(value) for name, value in values.items()}
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return {"d": _number(key.private_numbers().private_value, (key.key_size + 7) // 8)}
    return {"d": _base64url(key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))}


def require_library(where: str) -> None:
    """Refuse to go on without the library ``cryptography``.

    :raises KeyturnError: ``library-missing``.
    """
    if not HAS_CRYPTOGRAPHY:
        raise KeyturnError(
            "library-missing",
            "the Python library cryptography is not installed on this host",
            where=where,
            hint="Install python3-cryptography",
        )


def new_signing_key(spec: Mapping[str, Any], where: str = "generate") -> SigningKey:
    """A new key from the library's own generator.

    :param spec: of type ``rsa``, ``ec`` or ``ed25519``, as :func:`check_spec` accepts it.
    :raises KeyturnError: ``library-missing``.
    """
    require_library(where)
    if spec["type"] == "rsa":
        return rsa.generate_private_key(65537, spec.get("bits", _RSA_BITS[1]))
    if spec["type"] == "ec":
        curves = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
        return ec.generate_private_key(curves[spec.get("curve", "P-256")])
    return ed25519.Ed25519PrivateKey.generate()


def _signing_key(spec: Mapping[str, Any], where: str) -> bytes:
    """A new key as JWK text or PKCS #8 PEM."""
    key = new_signing_key(spec, where)
    if spec.get("format", "jwk") == "pem":
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return json.dumps({**public_jwk(key, spec.get("alg", "RS256")), **private_members(key)}).encode()


# -- tokens ------------------------------------------------------------------------------------------------------


def expires(issued: int, lifetime: str, where: str) -> int:
    """Seconds since 1970 when a token ends; 29 February becomes the 28th where the year has none."""
    if not lifetime.endswith("y"):
        return issued + parse_duration(lifetime, f"{where}.lifetime")
    start = datetime.fromtimestamp(issued, timezone.utc)
    year = start.year + int(lifetime[:-1])
    if year > datetime.max.year:
        raise _invalid(f"{where}.lifetime", "is longer than calendars reach", "Correct lifetime")
    try:
        return int(start.replace(year=year).timestamp())
    except ValueError:  # 29 February in a year that has none
        return int(start.replace(year=year, day=28).timestamp())


def _token(spec: Mapping[str, Any], key: bytes | None, now: float, where: str) -> bytes:
    """A compact HS256 JWS (RFC 7515, RFC 7519), JSON without blanks, claims in the order given, then iat and exp."""
    if not key:
        raise _invalid(where, "a token needs the key that signs it", "Give the value of its parent")
    if len(key) < _HS256_BYTES and not spec.get("allow_weak"):
        raise _invalid(where, f"the signing key has only {len(key)} bytes", "HS256 needs 32 or more, or allow_weak")
    issued = int(now)
    payload = {**spec["payload"], "iat": issued, "exp": expires(issued, spec["lifetime"], where)}
    return hs256({"alg": "HS256", "typ": "JWT"}, payload, key)


def hs256(header: Mapping[str, Any], payload: Mapping[str, Any], key: bytes) -> bytes:
    """A compact JWS (RFC 7515) signed with HMAC-SHA256, JSON without blanks, members in the order given."""
    return compact_jws(header, payload, lambda signed: hmac.digest(key, signed, "sha256"))


def compact_jws(header: Mapping[str, Any], payload: Mapping[str, Any], sign: Callable[[bytes], bytes]) -> bytes:
    """A compact JWS (RFC 7515), JSON without blanks, members in the order given.

    :param sign: from what is signed to the signature.
    """
    written = (json.dumps(part, separators=(",", ":"), ensure_ascii=False) for part in (header, payload))
    signed = b".".join(base64url.encode(part.encode()) for part in written)
    return signed + b"." + base64url.encode(sign(signed))


# -- public interface --------------------------------------------------------------------------------------------


def generate(
    spec: Mapping[str, Any],
    randbytes: Callable[[int], bytes],
    *,
    key: bytes | None = None,
    clock: Callable[[], float] = time.time,
    where: str = "generate",
) -> bytes:
    """A new value.

    :param spec: ``type`` and what belongs to it: ``string`` (length, charset or characters), ``bytes`` (length,
        encoding, padding), ``rsa`` (bits, alg, format), ``ec`` (curve, format), ``ed25519`` (format), ``jwt`` (payload,
        lifetime); ``none`` for a value that a person brings. ``min_length`` of the first two and the last is a floor.
    :param randbytes: gives that many random bytes (``os.urandom``); signing keys come from the library's own generator.
    :param key: the value that signs a ``jwt``, as its bytes stand.
    :param clock: seconds since 1970, for ``jwt``.
    :return: the bytes to store: text, but for ``encoding: raw``. No line end, but for PEM.
    :raises KeyturnError: ``generate-invalid``; ``library-missing`` without ``cryptography``.
    """
    check_spec(spec, where)
    kind = spec["type"]
    if kind == "none":
        raise _invalid(where, "this value is not made: a person brings it", "Give value_from")
    if kind == "string":
        return _random_string(_characters(spec, where), spec["length"], randbytes).encode()
    if kind == "bytes":
        return _encoded(randbytes(spec["length"]), spec.get("encoding", "base64url"), spec.get("padding"))
    if kind == "jwt":
        return _token(spec, key, clock(), where)
    return _signing_key(spec, where)


def describe(spec: Mapping[str, Any], value: bytes, where: str = "value") -> dict[str, Any]:
    """What may be shown of a value that was made for ``spec``.

    :return: ``type``, ``length`` in bytes as stored; of signing keys ``kid`` and ``public`` (JWK), of tokens ``public``
        (the claims).
    :raises KeyturnError: ``value-other`` when it is something else than the type says.
    """
    facts: dict[str, Any] = {"type": spec["type"], "length": len(value)}
    if spec["type"] in ("string", "bytes", "none"):
        return facts
    try:
        facts["public"] = _public_part(spec, value, where)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise KeyturnError(
            "value-other",
            f"this is no {spec['type']} of the declared form",
            where=where,
            hint="Look at the declaration",
        ) from None
    if spec["type"] != "jwt":
        facts["kid"] = facts["public"]["kid"]
    return facts


def _public_part(spec: Mapping[str, Any], value: bytes, where: str) -> dict[str, Any]:
    if spec["type"] == "jwt":
        payload = value.split(b".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        return dict(claims)
    if spec.get("format", "jwk") == "jwk":
        jwk = json.loads(value)
        public = {**{name: jwk[name] for name in _PUBLIC if name in jwk}, "kid": jwk.get("kid") or jwk_thumbprint(jwk)}
    else:
        require_library(where)
        key = load_pem_private_key(value, None)
        if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey)):
            raise ValueError("another kind of key")
        public = public_jwk(key, "RS256")
    if public["kty"] != _KTY[spec["type"]]:
        raise ValueError("another kind of key")
    return public
