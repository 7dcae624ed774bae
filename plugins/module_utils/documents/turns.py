# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which kid comes in the place of which, for all documents or for each tenant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["Turn", "Turns"]


@dataclass(frozen=True)
class Turn:
    """One change of key.

    :param tenant: whose documents; None for all.
    :param new: the kid to sign under.
    :param old: the kids to leave; the way back leads to the first.
    """

    tenant: str | None
    new: str
    old: tuple[str, ...]

    def goal(self, back: bool) -> str:
        """The kid to sign under."""
        return self.old[0] if back else self.new


def _invalid(message: str, hint: str) -> KeyturnError:
    return KeyturnError("turns-invalid", message, where="turns", hint=hint)


class Turns:
    """All of a call.

    :raises KeyturnError: ``turns-invalid``.
    """

    def __init__(self, entries: Sequence[Mapping[str, Any]]) -> None:
        if not entries:
            raise _invalid("no kid is named", "Write turns: [{new: <kid>, old: [<kid>]}]")
        self._by_tenant: dict[str | None, Turn] = {}
        for entry in entries:
            turn = Turn(entry.get("tenant"), entry["new"], tuple(entry["old"]))
            if not turn.new or not turn.old or not all(turn.old):
                raise _invalid("a kid is empty", "Name the new kid, and the old ones")
            if turn.new in turn.old:
                raise _invalid(f"{turn.new} is both the new kid and an old one", "Name two different kids")
            if turn.tenant in self._by_tenant:
                raise _invalid(f"two entries are for {turn.tenant or 'all documents'}", "Name each tenant once")
            self._by_tenant[turn.tenant] = turn
        if None in self._by_tenant and len(self._by_tenant) > 1:
            raise _invalid("some entries name a tenant and one does not", "Name the tenant in each of them, or in none")

    def __iter__(self) -> Any:
        return iter(self._by_tenant.values())

    @property
    def tenants(self) -> tuple[str, ...]:
        """Whose documents are meant; empty for all."""
        return tuple(tenant for tenant in self._by_tenant if tenant is not None)

    def of(self, tenant: str | None) -> Turn:
        """The turn of a tenant, or the one for all."""
        return self._by_tenant[tenant if self.tenants else None]
