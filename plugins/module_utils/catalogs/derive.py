# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalog's field for a value that is made from another secret's value. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.derived import in_order, parent_of, spec_of
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.generate import LIFETIME, check_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import Field, Shape, nearest

__all__ = ["DERIVE", "check_derived"]

#: The catalog's field ``derive``.
DERIVE = Shape(
    "derived value",
    {
        "type": Field("str", "What is made: a signed token", required=True, choices=("jwt",)),
        "from": Field("str", "The secret whose value signs it", required=True),
        "claims": Field("map", "Its claims but for iat and exp, in this order"),
        "lifetime": Field("str", "How long it is valid: 5y, 90d", required=True, pattern=LIFETIME),
        "algorithm": Field("str", "How it is signed", choices=("HS256",)),
        "allow_weak": Field("bool", "Accept a parent of less than 32 bytes"),
    },
)


def check_derived(secrets: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse derived values that cannot be made.

    :raises KeyturnError: ``catalog-invalid``, ``generate-invalid``.
    """
    for name, secret in secrets.items():
        if "derive" not in secret:
            continue
        where = f"keyturn_secrets.{name}"
        parent = parent_of(secret)
        if parent not in secrets:
            raise KeyturnError(
                "catalog-invalid",
                f"secret {parent!r} is not defined",
                where=f"{where}.derive.from",
                hint=nearest(parent, secrets),
            )
        if secrets[parent].get("kind") == "keyset":
            raise KeyturnError(
                "catalog-invalid",
                f"{parent} is a keyset, and nothing is made from one",
                where=f"{where}.derive.from",
                hint="Name a secret with one value",
            )
        for other in ("generate", "value_from"):
            if other in secret:
                raise KeyturnError(
                    "catalog-invalid",
                    f"a derived value has no {other}: it is made from {parent}",
                    where=f"{where}.{other}",
                    hint="Take one of the two out",
                )
        check_spec(spec_of(secret["derive"]), f"{where}.derive")
    in_order({name: parent_of(secret) for name, secret in secrets.items()})
