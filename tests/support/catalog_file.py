# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changing a stack's catalog for a test."""

from __future__ import annotations

from typing import Any

import yaml
from demo.stack import SECRET, Stack

__all__ = ["change_secret", "edit", "load"]


def load(stack: Stack) -> dict[str, Any]:
    """The catalog's variables."""
    content: dict[str, Any] = yaml.safe_load((stack.folder / "group_vars/all/catalog.yml").read_text())
    return content


def edit(stack: Stack, variables: dict[str, Any]) -> None:
    """Write the catalog's variables."""
    (stack.folder / "group_vars/all/catalog.yml").write_text(yaml.safe_dump(variables, sort_keys=False))


def change_secret(stack: Stack, **fields: Any) -> None:
    """Set fields of the secret; ``None`` removes one."""
    variables = load(stack)
    secret = variables["keyturn_secrets"][SECRET]
    for name, value in fields.items():
        if value is None:
            secret.pop(name, None)
        else:
            secret[name] = value
    edit(stack, variables)
