# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys that verifiers see: a JWK set (RFC 7517 section 5), as a file or behind an address."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic, web
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.jws.keys import Verifier, load_public

__all__ = ["fetch_published", "parse_published"]


def parse_published(text: str, where: str) -> dict[str, Verifier]:
    """The keys that can check signatures, by kid.

    :raises KeyturnError: ``jwks-invalid`` for anything but a JWK set, or where two keys have one kid.
    """
    try:
        listed = json.loads(text)["keys"]
        entries = [(jwk.get("kid"), load_public(jwk)) for jwk in listed]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise KeyturnError("jwks-invalid", "is no JWK set", where=where, hint="Look at what is published") from None
    found: dict[str, Verifier] = {}
    for kid, verifier in entries:
        if not isinstance(kid, str) or verifier is None:
            continue
        if kid in found and not found[kid].is_same(verifier):
            raise KeyturnError(
                "jwks-invalid", f"two keys have the kid {kid}", where=where, hint="Look at what is published"
            )
        found[kid] = verifier
    return found


def fetch_published(source: Mapping[str, Any]) -> dict[str, Verifier]:
    """The same from ``url`` (with ``headers``, ``ca_file``, ``timeout``) or ``file``.

    :raises KeyturnError: ``jwks-unreachable`` for anything but an answer with status 200, ``jwks-invalid``,
        ``reference-invalid``, ``file-missing``.
    """
    url, path = source.get("url"), source.get("file")
    if bool(url) == bool(path):
        raise KeyturnError(
            "reference-invalid", "needs exactly one of url and file", where="jwks", hint="Say where the keys are"
        )
    if path:
        return parse_published(atomic.read_file(path).decode("utf-8", "replace"), path)
    web.check_url(str(url), "jwks.url")
    headers = {str(name): str(value) for name, value in (source.get("headers") or {}).items()}
    asked = web.Question(
        str(url), headers=headers, timeout=float(source.get("timeout") or 5), ca_file=source.get("ca_file"), follow=True
    )
    answer = web.ask(asked)
    if answer.status != 200:
        said = answer.reason if answer.status is None else f"status {answer.status}"
        raise KeyturnError(
            "jwks-unreachable",
            f"the published keys cannot be read ({said})",
            where="jwks.url",
            hint="Nothing was written. Look at the endpoint, then run again",
        )
    return parse_published(answer.body, "jwks.url")
