# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which column of a table means what, and which rows are current, usable or disabled: declared, never SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import EnvelopeSpec, load_spec
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.conditions import parse_conditions
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.quoting import identifier
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import Field, Shape, nearest
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.forms import (
    FORMS,
    JWK_EXTRAS,
    KID_RULES,
    KeyForm,
)

try:
    from psycopg import sql
except ImportError:
    if TYPE_CHECKING:
        raise

__all__ = ["KEY_TABLE", "NOW", "PRESETS", "KeyTable", "Rule", "declared_envelope", "parse_table"]

#: Stands for the present time in what a column is set to.
NOW = object()
#: What a rule looks at: the value, a time at which it ends, or whether anything is there.
_WAYS = ("value", "end", "present")
_COLUMNS = Shape(
    "columns of a key table",
    {
        "kid": Field("str", "The key's name"),
        "private": Field("str", "The private part, encrypted"),
        "public": Field("str", "The public part"),
        "tenant": Field("str", "Whose key it is, where each tenant has its own; leave it away for one for all"),
        "created": Field("str", "When the key was made, a timestamp"),
        "alg": Field("str", "The algorithm"),
    },
)
_RULE = Shape(
    "rule for rows",
    {
        "column": Field("str", "The column it looks at", required=True),
        "as": Field("str", "What it looks at there; value by default", choices=_WAYS),
        "is": Field("any", "The value, or a list of values, that the column has then"),
        "else": Field("any", "What the column is set to when that ends"),
        "next": Field("any", "For current: what a key has that is not in use yet; as else by default"),
    },
)
#: The fields of a key table but for where it is.
KEY_TABLE = Shape(
    "key table",
    {
        "database": Field("str", "A name from keyturn_databases", required=True),
        "shape": Field("str", "A preset: newest (the newest row signs) or flags", choices=("newest", "flags")),
        "table": Field("str", "The table, with its schema where it is not on the search path"),
        "columns": Field("map", "Which column means what", shape=_COLUMNS),
        "kid": Field("str", "How a kid is made", choices=tuple(KID_RULES)),
        "private": Field("str", "How the private part is written, before encryption", choices=FORMS),
        "public": Field("str", "How the public part is written", choices=FORMS),
        "jwk_with": Field("list", "Members that the JWKs have besides the key and alg: kid, use"),
        "envelope": Field("str|map", "How the private part is encrypted: a preset's name, or a declared layout"),
        "current": Field("str|map", "Which row signs: newest, or a rule"),
        "usable": Field("list", "Rules that all hold for a key that is published and not disabled", shape=_RULE),
        "set": Field("map", "Other columns of a new row, with their values"),
        "under": Field("str", "The secret of this catalog that the private parts are encrypted with"),
        "key_from": Field(
            "map",
            "That key, where the catalog does not have it",
            shape=Shape(
                "where a key comes from, on the controller",
                {
                    "file": Field("str", "A file of mode 0600 on the controller"),
                    "env": Field("str", "A variable of the controller's environment"),
                    "variable": Field("str", "An Ansible variable (vaulted)"),
                },
            ),
        ),
        "initial": Field("bool", "Whether a tenant, or a table, without a key gets its first one"),
        "workers": Field("int", "Processes that make keys; 0, the default, for one on each processor", minimum=0),
    },
)
#: The two common shapes; what an entry says goes before them.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "newest": {
        "table": "jwks_keys",
        "columns": {
            "kid": "kid",
            "private": "private_jwk",
            "public": "public_jwk",
            "tenant": "account_id",
            "created": "created_at",
        },
        "kid": "uuid",
        "private": "jwk",
        "public": "jwk",
        "envelope": "aes256gcm-b64",
        "current": "newest",
        "usable": [{"column": "expires_at", "as": "end"}, {"column": "public_jwk", "as": "present"}],
    },
    "flags": {
        "table": "signing_keys",
        "columns": {
            "kid": "kid",
            "private": "private_pem_enc",
            "public": "public_pem",
            "created": "created_at",
            "alg": "alg",
        },
        "kid": "spki-sha256-16",
        "private": "pem-one-line",
        "public": "pem-one-line",
        "envelope": "aesgcm-raw",
        "current": {"column": "is_current", "is": True, "else": False},
        "usable": [{"column": "enabled", "is": True, "else": False}],
    },
}
_NEEDED = ("table", "kid", "private", "public", "envelope", "current", "usable")
_NEEDED_COLUMNS = ("kid", "private", "public")


@dataclass(frozen=True)
class Rule:
    """A rule about the column of a row.

    :param holds: the values with which it holds; empty for other ways than ``value``.
    :param ended: what ends it.
    :param waiting: for the rule that makes a row current, what a key has before that.
    """

    column: str
    way: str
    holds: tuple[Any, ...] = ()
    ended: Any = None
    waiting: Any = None

    @property
    def expression(self) -> sql.Composable:
        """True or false for a row of ``c``."""
        column = identifier("c", self.column)
        if self.way == "present":
            return sql.SQL("{} IS NOT NULL").format(column)
        if self.way == "end":
            return sql.SQL("({c} IS NULL OR {c} > clock_timestamp())").format(c=column)
        (condition,) = parse_conditions({"column": self.column, "is": list(self.holds)}, self.column)
        return sql.SQL("({} IS TRUE)").format(condition.expression)


@dataclass(frozen=True)
class KeyTable:
    """A declared table.

    :param columns: by what they mean.
    :param current: the rule that makes a row sign; None where the newest one does.
    :param usable: rules that all hold for a key that is published and accepted.
    :param fixed: other columns of a new row.
    """

    table: str
    columns: Mapping[str, str]
    form: KeyForm
    envelope: EnvelopeSpec
    current: Rule | None
    usable: Sequence[Rule]
    fixed: Mapping[str, Any]

    @property
    def at_birth(self) -> dict[str, Any]:
        """The values of a new row that is published and not in use."""
        values = {rule.column: rule.holds[0] for rule in self.usable if rule.way == "value"}
        if self.current is not None:
            values[self.current.column] = self.current.waiting
        return {**values, **self.fixed}

    @property
    def when_disabled(self) -> dict[str, Any]:
        """What disabling sets."""
        return {rule.column: rule.ended for rule in self.usable}


def _invalid(message: str, where: str, hint: str = "See docs/signing-keys.md") -> KeyturnError:
    return KeyturnError("key-table-invalid", message, where=where, hint=hint)


def declared_envelope(value: Mapping[str, Any]) -> Any:
    """The envelope of a declared table, as a preset's name or as it is declared."""
    return {**PRESETS.get(value.get("shape", ""), {}), **value}["envelope"]


def parse_table(value: Any, where: str = "key_table") -> KeyTable:
    """The table that a mapping declares, a preset filled in.

    :raises KeyturnError: ``catalog-invalid`` for unknown fields; ``key-table-invalid``; ``envelope-unknown``,
        ``envelope-invalid``.
    """
    KEY_TABLE.check(value, where)
    preset = PRESETS[value["shape"]] if "shape" in value else {}
    given = {**preset, **value, "columns": _columns(preset, value)}
    for field in _NEEDED:
        if field not in given:
            raise _invalid(f"field {field!r} is missing", where, f"Give it, or a shape: {', '.join(PRESETS)}")
    for column in _NEEDED_COLUMNS:
        if column not in given["columns"]:
            raise _invalid(f"the column {column!r} is not named", f"{where}.columns")
    envelope = load_spec(given["envelope"])
    if envelope.needs_context:
        raise _invalid("the envelope binds cells to their row, which new rows cannot have yet", f"{where}.envelope")
    extras = list(given.get("jwk_with") or ())
    for extra in extras:
        if extra not in JWK_EXTRAS:
            raise _invalid("names no member of a JWK", f"{where}.jwk_with", nearest(str(extra), JWK_EXTRAS))
    return KeyTable(
        table=given["table"],
        columns=given["columns"],
        form=KeyForm(given["kid"], given["private"], given["public"], extras),
        envelope=envelope,
        current=_current(given, f"{where}.current"),
        usable=[_rule(entry, f"{where}.usable[{index}]") for index, entry in enumerate(given["usable"])],
        fixed=_fixed(given, f"{where}.set"),
    )


def _columns(preset: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, str]:
    """An empty name takes a preset's column away."""
    named = {**preset.get("columns", {}), **(value.get("columns") or {})}
    return {meaning: name for meaning, name in named.items() if name}


def _current(given: Mapping[str, Any], where: str) -> Rule | None:
    if given["current"] == "newest":
        if "created" not in given["columns"]:
            raise _invalid("the newest row cannot be told without a column 'created'", where)
        return None
    if not isinstance(given["current"], Mapping):
        raise _invalid("is neither newest nor a rule", where, "Write {column: is_current, is: true, else: false}")
    _RULE.check(given["current"], where)
    rule = _rule(given["current"], where)
    if rule.way != "value":
        raise _invalid("a row is current by a value", where, "Name what the column is then, or say newest")
    return rule


def _rule(entry: Mapping[str, Any], where: str) -> Rule:
    way = entry.get("as", "value")
    if way != "value":
        if "is" in entry or "else" in entry:
            raise _invalid(f"a rule as {way} says itself what the column is", where, "Take is and else away")
        return Rule(entry["column"], way, (), NOW if way == "end" else None)
    if "is" not in entry or "else" not in entry:
        raise _invalid("a rule needs is and else", where)
    holds = tuple(entry["is"]) if isinstance(entry["is"], (list, tuple)) else (entry["is"],)
    parse_conditions({"column": entry["column"], "is": list(holds)}, where)
    waiting = entry.get("next", entry["else"])
    for text, after in (("else", entry["else"]), ("next", waiting)):
        parse_conditions({"column": entry["column"], "is": after}, f"{where}.{text}")
        if after in holds:
            raise _invalid(f"{text} is what the column is already", where, "Name another value")
    return Rule(entry["column"], way, holds, entry["else"], waiting)


def _fixed(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    fixed = dict(given.get("set") or {})
    mapped = set(given["columns"].values())
    for column, value in fixed.items():
        if column in mapped:
            raise _invalid(f"{column} is filled already", where, "Take it away")
        parse_conditions({"column": column, "is": value}, f"{where}.{column}")
    return fixed
