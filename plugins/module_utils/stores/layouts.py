# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many versions a store holds, and where: one value, ``new,old`` in one variable, or two variables.

Pure: a layout says what its variables hold in each state, given what they held before the rotation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Optional

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = ["LAYOUTS", "Layout", "ListLayout", "Pair", "Single", "Slots", "open_layout"]

LAYOUTS = ("single", "list", "pair", "keyset")

#: Variable to value; None for a variable that is not there or empty.
Slots = dict[str, Optional[bytes]]


class Layout(ABC):
    """What the variables of one store hold, state by state.

    :param variable: the variable that holds the primary version.
    """

    #: Whether it is a keyset, which holds more versions than two.
    is_keyset = False

    def __init__(self, variable: str) -> None:
        self.variable = variable

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables this layout reads and writes; the first holds the primary version."""
        return (self.variable,)

    def primary(self, slots: Mapping[str, bytes | None]) -> bytes | None:
        """The version that writers use, as the variables stand."""
        return slots[self.variable]

    def searched(self, slots: Mapping[str, bytes | None]) -> set[bytes]:
        """What copies of the version in use would look like."""
        primary = self.primary(slots)
        return {primary} if primary else set()

    def is_without(self, slots: Mapping[str, bytes | None], old: bytes | None, new: bytes) -> bool:
        """Whether the new version is out and the old one in, whatever else somebody has put there."""
        del slots, old, new
        return False

    def wanted(self, state: str, original: Mapping[str, bytes | None], old: bytes | None, new: bytes) -> Slots:
        """What the variables hold in ``state``, given what they held before the rotation."""
        if state == "rolled_back":
            return self._before(original, old, new)
        if state == "staged":
            return self._staged(self._before(original, old, new), new)
        if state == "promoted":
            return self._promoted(self._before(original, old, new), new)
        return self._retired(original, new)

    def _before(self, original: Mapping[str, bytes | None], old: bytes | None, new: bytes) -> Slots:
        """The original; where the new value lay already before the rotation, the old one."""
        slots = dict(original)
        if self.primary(slots) == new:
            slots[self.variable] = old
        return slots

    @abstractmethod
    def _staged(self, before: Slots, new: bytes) -> Slots: ...

    @abstractmethod
    def _promoted(self, before: Slots, new: bytes) -> Slots: ...

    @abstractmethod
    def _retired(self, original: Mapping[str, bytes | None], new: bytes) -> Slots: ...


class Single(Layout):
    """One value. A staged version lies beside the store, where no consumer reads."""

    def _staged(self, before: Slots, new: bytes) -> Slots:
        del new
        return before

    def _promoted(self, before: Slots, new: bytes) -> Slots:
        del before
        return {self.variable: new}

    def _retired(self, original: Mapping[str, bytes | None], new: bytes) -> Slots:
        del original
        return {self.variable: new}


class ListLayout(Layout):
    """Several versions in one variable, the first is primary (Airflow, MultiFernet).

    Versions that were in the list before, behind the primary one, stay at its end: only ``old`` is this rotation's.
    """

    def __init__(self, variable: str, separator: str = ",") -> None:
        super().__init__(variable)
        self.separator = separator.encode()
        if not self.separator:
            raise KeyturnError(
                "store-invalid",
                "the separator is empty",
                where=variable,
                hint="Name the character between the versions",
            )

    def primary(self, slots: Mapping[str, bytes | None]) -> bytes | None:
        """The first version of the list."""
        text = slots[self.variable]
        return None if text is None else text.split(self.separator)[0]

    def _before(self, original: Mapping[str, bytes | None], old: bytes | None, new: bytes) -> Slots:
        first, rest = self._parts(original)
        if first != new:
            return dict(original)
        return self._joined([*([] if old is None else [old]), *(part for part in rest if part != old)])

    def _parts(self, slots: Mapping[str, bytes | None]) -> tuple[bytes | None, list[bytes]]:
        text = slots[self.variable]
        if text is None:
            return None, []
        first, *rest = text.split(self.separator)
        return first, rest

    def _joined(self, versions: list[bytes]) -> Slots:
        return {self.variable: self.separator.join(versions) or None}

    def _check(self, new: bytes) -> None:
        if self.separator in new:
            raise KeyturnError(
                "value-unwritable",
                "the new value holds the separator of the list",
                where=self.variable,
                hint="Choose another separator, or another alphabet for the value",
            )

    def _staged(self, before: Slots, new: bytes) -> Slots:
        self._check(new)
        first, rest = self._parts(before)
        return before if first is None else self._joined([first, new, *rest])

    def _promoted(self, before: Slots, new: bytes) -> Slots:
        self._check(new)
        first, rest = self._parts(before)
        return self._joined([new, *([] if first is None else [first]), *rest])

    def _retired(self, original: Mapping[str, bytes | None], new: bytes) -> Slots:
        first, rest = self._parts(original)
        return self._joined([new, *(part for part in rest if part not in (first, new))])


class Pair(Layout):
    """Two variables: the primary version, and another one that readers accept too."""

    def __init__(self, variable: str, previous: str = "") -> None:
        super().__init__(variable)
        self.previous = previous or f"{variable}_PREVIOUS"
        if self.previous == variable:
            raise KeyturnError(
                "store-invalid",
                "both variables of the pair have one name",
                where=variable,
                hint="Change previous_variable",
            )

    @property
    def variables(self) -> tuple[str, ...]:
        """The primary variable, then the other one."""
        return (self.variable, self.previous)

    def _staged(self, before: Slots, new: bytes) -> Slots:
        return {self.variable: before[self.variable], self.previous: new}

    def _promoted(self, before: Slots, new: bytes) -> Slots:
        return {self.variable: new, self.previous: before[self.variable]}

    def _retired(self, original: Mapping[str, bytes | None], new: bytes) -> Slots:
        del original
        return {self.variable: new, self.previous: None}


def open_layout(kind: str, variable: str, separator: str = ",", previous: str = "") -> Layout:
    """Make the layout that a catalog names."""
    if kind == "list":
        return ListLayout(variable, separator)
    if kind == "pair":
        return Pair(variable, previous)
    return Single(variable)
