# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an inventory lays over a catalog that others share. Pure.

Mappings are merged, everything else is replaced. Some short words reach into an entry: see :data:`SHORT`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import nearest

__all__ = ["SHORT", "lay_over", "lay_over_secrets"]

#: Short words of an overlay, and where in the entry they stand.
SHORT: Mapping[str, tuple[str, ...]] = {
    "length": ("generate", "length"),
    "min_length": ("generate", "min_length"),
    "charset": ("generate", "charset"),
    "lifetime": ("derive", "lifetime"),
    "claims": ("derive", "claims"),
    "overlap": ("overlap_min",),
}
#: Short words that stand in each store.
_IN_STORES = ("hosts", "if_missing")
_MORE = "more_stores"


def _invalid(where: str, message: str, hint: str) -> KeyturnError:
    return KeyturnError("catalog-invalid", message, where=where, hint=hint)


def _merged(below: Any, above: Any) -> Any:
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return copy.deepcopy(above)
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


def lay_over(below: Mapping[str, Any], above: Any, where: str) -> dict[str, Any]:
    """Entries with those of the overlay merged in, by name.

    :raises KeyturnError: ``catalog-invalid`` for a name that is not below, and for what is no mapping.
    """
    if not isinstance(above, Mapping):
        raise _invalid(where, "must be a mapping by name", "Write the name of what is in the catalog")
    for name, entry in above.items():
        if name not in below:
            raise _invalid(f"{where}.{name}", "is not in the catalog", nearest(str(name), below))
        if not isinstance(entry, Mapping):
            raise _invalid(f"{where}.{name}", "must be a mapping of fields", "See docs/environments.md")
    return {name: _merged(entry, above.get(name, {})) for name, entry in below.items()}


def lay_over_secrets(below: Mapping[str, Any], above: Any, where: str) -> dict[str, Any]:
    """The same for secrets, with the short words.

    :raises KeyturnError: ``catalog-invalid``.
    """
    lay_over(below, above, where)
    return {
        name: _secret(entry, above[name], f"{where}.{name}") if name in above else entry
        for name, entry in below.items()
    }


def _secret(entry: Any, said: Mapping[str, Any], where: str) -> dict[str, Any]:
    merged: dict[str, Any] = _merged(
        entry, {key: value for key, value in said.items() if key not in (*SHORT, *_IN_STORES, _MORE)}
    )
    for word, path in SHORT.items():
        if word in said:
            _reach(merged, path, said[word], f"{where}.{word}")
    stores: list[Any] = list(merged.get("stores") or ())
    for word in _IN_STORES:
        if word in said:
            stores = [{**store, word: said[word]} for store in stores]
    if _MORE in said:
        stores += _more_stores(said[_MORE], stores, f"{where}.{_MORE}")
    return {**merged, "stores": stores} if stores else merged


def _reach(entry: dict[str, Any], path: tuple[str, ...], value: Any, where: str) -> None:
    *above, last = path
    for step in above:
        if not isinstance(entry.get(step), Mapping):
            raise _invalid(where, f"this secret has no {step}", f"Say {step} in full")
        entry[step] = dict(entry[step])
        entry = entry[step]
    entry[last] = value


def _more_stores(said: Any, stores: list[Any], where: str) -> list[dict[str, Any]]:
    """Stores beside those of the catalog; on the same hosts where they name none."""
    if not isinstance(said, (list, tuple)) or not all(isinstance(store, Mapping) for store in said):
        raise _invalid(where, "must be a list of stores", "Write {type: env_file, path: …}")
    hosts = {"hosts": stores[0]["hosts"]} if stores and "hosts" in stores[0] else {}
    return [{**hosts, **store} for store in said]
