# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keysets in the catalog: what their readers need, how long a reload may take, and which probes show it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, NoReturn

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.model import kid_for
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import Field, Shape, parse_duration

__all__ = [
    "KEYSET",
    "KIND",
    "PROBE_TYPES",
    "check_hosts",
    "check_keyset",
    "is_keyset_store",
    "probes_of",
    "summary",
]

KIND = "keyset"
#: Probes that ask with the keys of a keyset by themselves.
PROBE_TYPES = ("token", "active_kid")
_MARGIN = 10
_MODES = ("reload", "restart")

#: The catalog's field ``keyset``.
KEYSET = Shape(
    "keyset",
    {
        "readers": Field(
            "str", "Whether its consumers reload by themselves or are restarted; reload by default", choices=_MODES
        ),
        "reload_proof": Field(
            "str",
            "How a reload is known: asked by probes, or only waited for; probe by default",
            choices=("probe", "wait"),
        ),
        "kid": Field("str", "The form of new kids, for strftime in UTC: %Y-%m-%d"),
    },
)


def is_keyset_store(store: Mapping[str, Any]) -> bool:
    """Whether a store of the catalog holds a keyset."""
    return store["type"] == "keyset_command" or store.get("layout") == "keyset"


def _refuse(message: str, where: str, hint: str) -> NoReturn:
    raise KeyturnError("catalog-invalid", message, where=where, hint=hint)


def check_keyset(secret: Mapping[str, Any], where: str) -> None:
    """Refuse an entry that could not be turned as a keyset, and keysets in entries of other kinds.

    :raises KeyturnError: ``catalog-invalid``, ``kid-invalid``.
    """
    mine = secret["kind"] == KIND
    for index, store in enumerate(secret.get("stores", ())):
        if is_keyset_store(store) != mine:
            text = "is no keyset" if mine else "is a keyset"
            _refuse(text, f"{where}.stores[{index}]", "A keyset has the kind keyset, and layout: keyset in each store")
        _check_store(store, f"{where}.stores[{index}]")
    if not mine:
        if KIND in secret:
            _refuse("belongs to the kind keyset", f"{where}.keyset", "Change kind, or leave it away")
        for index, probe in enumerate(secret.get("probes", ())):
            if probe["type"] == "active_kid":
                _refuse("active_kid is for keysets", f"{where}.probes[{index}]", "Use http or command")
        return
    for other in ("data", "clear", "indexes", "server", "derive", "old_from"):
        if secret.get(other):
            _refuse("does not belong to a keyset", f"{where}.{other}", "Take it out")
    if secret.get("strategy", "overlap") != "overlap":
        _refuse("a keyset turns by overlap", f"{where}.strategy", "Leave strategy away")
    if (secret.get("generate") or {}).get("type", "bytes") not in ("bytes", "string", "none"):
        _refuse("a key of a keyset is text", f"{where}.generate", "Use type bytes or string")
    kid_for(_said(secret, "kid"), datetime(2026, 1, 1, tzinfo=timezone.utc), {})
    _check_probes(secret, where)


def _check_store(store: Mapping[str, Any], where: str) -> None:
    if store["type"] == "keyset_command":
        for command in ("read", "provision", "promote", "remove"):
            if not store.get(command):
                _refuse(f"field {command!r} is missing", where, "Give the command as a list")
    elif "path" not in store:
        _refuse("field 'path' is missing", where, "An absolute path")
    if store["type"] == "env_file" and is_keyset_store(store) and not store.get("active_variable"):
        _refuse("field 'active_variable' is missing", where, "Name the variable that holds the active kid")


def _check_probes(secret: Mapping[str, Any], where: str) -> None:
    proofs = [probe for probe in secret.get("probes", ()) if probe["type"] == "token"]
    if _proof(secret) == "probe" and not proofs:
        _refuse(
            "nothing shows that readers have loaded a key: one that failed to keeps its last keys and looks well",
            f"{where}.probes",
            "Name a probe of type token, or say reload_proof: wait",
        )
    for index, probe in enumerate(secret.get("probes", ())):
        if probe["type"] in PROBE_TYPES and (probe.get("version") or probe.get("refused")):
            text = "asks with both keys by itself, and with the removed one at the end"
            _refuse(text, f"{where}.probes[{index}]", "Leave version and refused away")


def check_hosts(secret: Mapping[str, Any], services: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """Refuse probes that run where no keyset is, and readers that no probe asks; hosts are resolved.

    :raises KeyturnError: ``catalog-invalid``.
    """
    if secret["kind"] != KIND:
        return
    holding = {host for store in secret["stores"] for host in store["hosts"]}
    reading = {host for service in secret.get("consumers", ()) for host in services[service]["hosts"]}
    asked: set[str] = set()
    for index, probe in enumerate(secret.get("probes", ())):
        hosts = set(probe.get("hosts", reading))
        if probe["type"] in PROBE_TYPES and not (hosts and hosts <= holding):
            text = f"runs on {', '.join(sorted(hosts - holding)) or 'no host'}, where no store of this keyset is"
            _refuse(
                text, f"{where}.probes[{index}]", "Set hosts to those with the keyset; the address may be another's"
            )
        if probe["type"] == "token":
            asked |= hosts
    if _proof(secret) == "probe" and reading - asked:
        text = f"no probe of type token asks the readers on {', '.join(sorted(reading - asked))}"
        _refuse(text, f"{where}.probes", "Add one, or say reload_proof: wait")


def _proof(secret: Mapping[str, Any]) -> str:
    return _said(secret, "reload_proof") or "probe"


def _said(secret: Mapping[str, Any], field: str) -> str:
    """What the field ``keyset`` says, or an empty text."""
    return str(secret.get(KIND, {}).get(field) or "")


def summary(secret: Mapping[str, Any]) -> dict[str, Any]:
    """What the phases need: ``wait`` (seconds), ``proof`` and ``readers``."""
    inline = any(store["type"] == "env_file" for store in secret["stores"])
    return {
        "wait": parse_duration(secret["window"]["reload"], "window.reload") + _MARGIN,
        "proof": _proof(secret),
        "readers": _said(secret, "readers") or ("restart" if inline else "reload"),
    }


def probes_of(probe: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What a probe of the catalog asks: ``always``; ``overlap``, while both keys are in; ``late``, once one is out."""
    if probe["type"] not in PROBE_TYPES:
        return {"late" if probe.get("refused") else "always": [dict(probe)]}
    new = {**probe, "version": "new"}
    if probe["type"] == "active_kid":
        return {"always": [new]}
    name = probe.get("name") or "token"
    old = {**probe, "version": "old", "name": f"{name}, signed with the previous key"}
    late = {key: value for key, value in old.items() if key not in ("expect", "expect_body")}
    return {
        "always": [new],
        "overlap": [old],
        "late": [{**late, "refused": True, **({"accept": _codes(probe)} if "expect" in probe else {})}],
    }


def _codes(probe: Mapping[str, Any]) -> list[int]:
    expect = probe["expect"]
    return [expect] if isinstance(expect, int) else list(expect)
