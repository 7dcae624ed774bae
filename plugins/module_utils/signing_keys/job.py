# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of ``signing_key`` or ``signing_key_info``: from the arguments to the result."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import sealed
from ansible_collections.keyturn.rotation.plugins.module_utils.envelopes import Envelope, plaintext_of
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.connection import (
    Limits,
    Link,
    check_primary,
    connect,
    explained,
    snapshot,
    transaction,
    whole_tables,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.crew import Crew
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.fence import Fence
from ansible_collections.keyturn.rotation.plugins.module_utils.postgres.pace import Pace
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.forms import check_generate, public_sha256
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.mapping import parse_table
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.opening import look, refuse_closed
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.records import Records
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.rows import KeyRows
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.states import STATES, reach
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_keys.turn import Turn, refuse_unsound
from ansible_collections.keyturn.rotation.plugins.module_utils.values import VALUE_OPTIONS, resolve

__all__ = ["ARGUMENTS", "INFO_ARGUMENTS", "run", "run_info"]

_REFERENCE = {"type": "dict", "options": VALUE_OPTIONS}
_COMMON: dict[str, dict[str, Any]] = {
    **SESSION_ARGUMENTS,
    "name": {"type": "str", "required": True},
    "database": {"type": "str", "required": True},
    "dsn": {**_REFERENCE, "required": True},
    "key_table": {"type": "dict", "required": True, "no_log": False},
    "key": {**_REFERENCE, "no_log": False},
    "under": {"type": "str", "default": ""},
    "tenants": {"type": "list", "elements": "str", "default": []},
    "initial": {"type": "bool", "default": False},
    "schema": {"type": "str", "default": "keyturn"},
    "listed": {"type": "int", "default": 100},
    "seal_to": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "no_log": False,
        "options": {"host": {"type": "str", "required": True}, "public": {"type": "str", "required": True}},
    },
}
#: Arguments of ``signing_key``.
ARGUMENTS: dict[str, dict[str, Any]] = {
    **_COMMON,
    "state": {"type": "str", "required": True, "choices": list(STATES)},
    "generate": {"type": "dict", "default": {"type": "rsa", "bits": 2048}},
    "overlap_s": {"type": "int"},
    "early": {"type": "bool", "default": False},
    "disable": {"type": "str", "choices": ["previous", "all"], "default": "previous"},
    "workers": {"type": "int", "default": 0},
    "lock_timeout_ms": {"type": "int", "default": 100},
    "max_wait_s": {"type": "int", "default": 60},
}
#: Arguments of ``signing_key_info``.
INFO_ARGUMENTS: dict[str, dict[str, Any]] = {
    **_COMMON,
    "expect": {"type": "str", "choices": ["nothing", "sound", "new", "old"], "default": "nothing"},
}
_NEED = ("SELECT", "INSERT", "UPDATE", "DELETE")
_NAMED = 20


class _Call:
    """What both modules make of their arguments."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.session = Session.from_params(dict(params))
        self.rotation = self.session.rotation_id or "manual"
        self.name = str(params["name"])
        self.place = f"database {params['database']}"
        declared = {"database": params["database"], **params["key_table"]}
        self.declared = parse_table(declared)
        context = f"{self.session.rotation_id}/{params['under'] or params['name']}/old"
        value = resolve(self.session, params["key"], context) if params["key"] else None
        self.has_key = value is not None
        self.envelope = Envelope(self.declared.envelope, value)
        self._dsn = resolve(self.session, params["dsn"], f"{self.session.rotation_id}/database/{params['database']}")
        self._limits = Limits(lock_ms=params.get("lock_timeout_ms") or Limits.lock_ms)
        self.records = Records(params["schema"], params["name"], self.rotation)

    def require_key(self) -> None:
        """Refuse work that makes or opens private parts without the key for it.

        :raises KeyturnError: ``key-missing``.
        """
        if not self.has_key:
            message, hint = "the key that private parts are encrypted with is not given", "Give key"
            raise KeyturnError("key-missing", message, where=self.place, hint=hint)

    def open(self) -> Link:
        """A new connection."""
        return connect(self._dsn, self.place, self._limits)


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """The work of the module ``signing_key``; see its RETURN for the result."""
    started = time.perf_counter()
    check_generate(params["generate"], "generate")
    if params["state"] == "disabled" and params["overlap_s"] is None and not params["early"]:
        hint = "Give overlap_s: the longest token lifetime, every cache on the way, and the skew of clocks"
        raise KeyturnError("overlap-missing", "the overlap is not given", where="overlap_s", hint=hint)
    call = _Call(params)
    if params["state"] in ("staged", "replaced"):
        call.require_key()
    if not check_mode:
        call.session.check_epoch()
    link = call.open()
    try:
        with explained(call.place):
            check_primary(link, call.place)
            turn = _turn(call, link, params)
            before = turn.rows.counts(link, turn.tenants)
            overlap = None if params["early"] else params["overlap_s"]
            changed = reach(turn, params["state"], check_mode, params["schema"], overlap)
            after = turn.rows.counts(link, turn.tenants)
            keys, stages = _listed(turn.records, turn.rows, link, params["listed"])
            with transaction(link):
                boxes = _boxes(call, link, turn.rows, params["seal_to"], keys)
    finally:
        link.close()
    return {
        "changed": changed,
        **asdict(turn.done),
        "keys": keys,
        "stages": stages,
        "boxes": boxes,
        "counts": after,
        "diff": {"before": _lines(before), "after": _lines(after)},
        "seconds": round(time.perf_counter() - started, 3),
    }


def _boxes(
    call: _Call, link: Link, rows: KeyRows, hosts: Sequence[Mapping[str, str]], turns: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, str]]:
    """The private parts of both versions, sealed to each host that shows tokens of them; only of a table without
    tenants, since of others no key stands for the secret.
    """
    if not (hosts and call.has_key) or [turn["tenant"] for turn in turns] != [""]:
        return {}
    kids = {"new": turns[0]["new_kid"], "old": turns[0]["old_kid"]}
    found: dict[str, dict[str, str]] = {entry["host"]: {} for entry in hosts}
    for row in rows.each(link, []):
        versions = [version for version, kid in kids.items() if kid == row.kid]
        value = _plain(call.envelope, row.cell) if versions else None
        if value is None:
            continue
        for version in versions:
            context = f"{call.session.rotation_id}/{call.name}/{version}"
            for entry in hosts:
                found[entry["host"]][version] = sealed.seal(value, entry["public"], context)
    return found


def _plain(envelope: Envelope, cell: bytes | None) -> bytes | None:
    """A private key as a JWK or a PEM of several lines; None where it does not open."""
    if cell is None:
        return None
    opened = envelope.open(cell)
    value = opened if opened is not None else plaintext_of(envelope.spec, cell)
    return None if value is None else value.replace(b"\\n", b"\n") if value.startswith(b"-----BEGIN ") else value


def _lines(counts: Mapping[str, int]) -> str:
    return "".join(f"{name}: {count}\n" for name, count in counts.items())


def _turn(call: _Call, link: Link, params: Mapping[str, Any]) -> Turn:
    return Turn(
        Crew(link, call.open, params["workers"]),
        KeyRows(link, call.declared, _NEED),
        call.envelope,
        Fence(params["schema"], params["name"], call.rotation, call.session.epoch),
        call.records,
        Pace(params["state"], max_wait_s=params["max_wait_s"]),
        params["generate"],
        params["tenants"],
        initial=params["initial"],
        forward_only=params["state"] == "replaced",
        disable=params["disable"],
    )


def _listed(records: Records, rows: KeyRows, link: Link, limit: int) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The first tenants of this rotation with the digests of their public keys, and how many are at which stage."""
    stages = records.counts(link)
    page = next(records.pages(link, list(stages), limit), []) if stages and limit else []
    places = [(one.tenant, kid) for one in page for kid in (one.new_kid, one.old_kid) if kid is not None]
    digests = {place: public_sha256(text) for place, text in rows.published(link, places).items()} if page else {}
    return [
        {
            **asdict(one),
            "new_sha256": digests.get((one.tenant, one.new_kid)),
            "old_sha256": digests.get((one.tenant, one.old_kid or "")),
        }
        for one in page
    ], stages


def run_info(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    """The work of the module ``signing_key_info``; see its RETURN for the result. Nothing is written."""
    call = _Call(params)
    if params["expect"] in ("sound", "new"):
        call.require_key()
    link = call.open()
    tenants = params["tenants"]
    try:
        with explained(call.place):
            rows = KeyRows(link, call.declared, ("SELECT",))
            with snapshot(link, [rows.table.identifier]):
                whole_tables(link)
                counts = rows.counts(link, tenants)
                unsound, first = rows.unsound(link, tenants, _NAMED)
                opened = look(call.envelope, rows.each(link, tenants) if call.has_key else ())
                turns, stages = _listed(call.records, rows, link, params["listed"])
                astray = _astray(call, link, rows, params) if stages else []
                boxes = _boxes(call, link, rows, params["seal_to"], turns)
            if params["expect"] in ("sound", "new"):
                if params["initial"]:
                    first = [one for one in first if one.current]
                    unsound = len(first)
                refuse_unsound(unsound, first, str(rows.table))
                refuse_closed(opened, str(rows.table))
            if astray:
                wanted = "their new key" if params["expect"] == "new" else "their former key"
                raise KeyturnError(
                    "signing-astray",
                    f"tenants do not sign with {wanted}: {', '.join(name or 'the table' for name in astray)}",
                    where=str(rows.table),
                    hint="See who else turns these keys",
                )
            return {
                "changed": False,
                "counts": counts,
                "stages": stages,
                "turns": turns,
                "boxes": boxes,
                "unsound": unsound,
                "tenants_unsound": [{"tenant": one.tenant, "problem": one.problem} for one in first],
                "opened": opened.opened,
                "plaintext": opened.plaintext,
                "without_private": opened.missing,
                "closed": opened.closed,
                "kids_closed": opened.kids,
                "clouds": sorted(opened.clouds),
                "keys": rows.listed(link, tenants, params["listed"]),
            }
    finally:
        link.close()


def _astray(call: _Call, link: Link, rows: KeyRows, params: Mapping[str, Any]) -> list[str]:
    if params["expect"] not in ("new", "old"):
        return []
    found: list[str] = call.records.astray(link, rows.current, params["expect"] == "new", _NAMED)
    return found
