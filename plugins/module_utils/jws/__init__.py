# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents signed as compact JWS (RFC 7515): keys, signing, checking, and what goes into the payload."""

from __future__ import annotations

from ansible_collections.keyturn.rotation.plugins.module_utils.jws.compact import Compact, head, read, sign
from ansible_collections.keyturn.rotation.plugins.module_utils.jws.form import (
    Form,
    RefusedError,
    parse_document,
    parse_form,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.jws.keys import (
    Signer,
    Verifier,
    load_public,
    load_signer,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.jws.published import parse_published

__all__ = [
    "Compact",
    "Form",
    "RefusedError",
    "Signer",
    "Verifier",
    "head",
    "load_public",
    "load_signer",
    "parse_document",
    "parse_form",
    "parse_published",
    "read",
    "sign",
]
