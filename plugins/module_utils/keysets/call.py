# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules ``keyset`` and ``keyset_info``: a keyset is a secret whose stores are keysets."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import atomic
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.model import compare
from ansible_collections.keyturn.rotation.plugins.module_utils.keysets.policy import (
    POLICY_OPTIONS,
    SOURCES,
    Policy,
    Sources,
    judge_file,
    judge_keys,
    judge_sources,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.secret.options import INFO_OPTIONS as _SECRET_INFO
from ansible_collections.keyturn.rotation.plugins.module_utils.secret.options import SECRET_OPTIONS
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session
from ansible_collections.keyturn.rotation.plugins.module_utils.stores import Store, Workspace
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.catalog import STORE_OPTIONS, open_store
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.env_file import read_variable
from ansible_collections.keyturn.rotation.plugins.module_utils.stores.keyset import KeysetFileStore, KeysetLayout

__all__ = ["ENVIRONMENT_OPTIONS", "INFO_OPTIONS", "KEYSET_OPTIONS", "POLICY_OPTIONS", "run", "run_info"]

_GENERATE = {"type": "bytes", "length": 32, "encoding": "base64url"}
_STORE_NAMES = (
    *("type", "path", "variable", "active_variable", "if_missing", "mode"),
    *("read", "provision", "promote", "remove", "timeout"),
)
_STORES: dict[str, Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {
        **{name: STORE_OPTIONS[name] for name in _STORE_NAMES},
        "layout": {"type": "str", "choices": ["keyset"], "default": "keyset"},
    },
}

#: The argument spec of one keyset for ``keyset_info``.
INFO_OPTIONS: dict[str, dict[str, Any]] = {**_SECRET_INFO, "stores": _STORES}

#: The argument spec of one keyset for ``keyset``.
KEYSET_OPTIONS: dict[str, dict[str, Any]] = {
    **INFO_OPTIONS,
    **{name: SECRET_OPTIONS[name] for name in ("generate", "new", "accept", "kid")},
    "origin": {"type": "bool", "default": True},
}

#: The argument spec of a service's environment.
ENVIRONMENT_OPTIONS: dict[str, dict[str, Any]] = {
    "env_file": {"type": "path", "required": True},
    **{name: {"type": "str", "no_log": False} for name in SOURCES},
}


def _requests(keysets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As secrets: what a keyset is said to be, all of its stores are."""
    return [
        {**keyset, "stores": [{**store, "layout": "keyset"} for store in keyset.get("stores") or ()]}
        for keyset in keysets
    ]


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """One call of the module ``keyset``."""
    from ansible_collections.keyturn.rotation.plugins.module_utils.secret import turn

    session = Session.from_params(params)
    requests = [
        {**request, "generate": request.get("generate") or _GENERATE} for request in _requests(params["keysets"])
    ]
    answer = turn.apply(session, params["state"], requests, check_mode, turn.Sources())
    return {**answer, "keysets": answer.pop("secrets")}


def run_info(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """One call of the module ``keyset_info``."""
    from ansible_collections.keyturn.rotation.plugins.module_utils.secret.look import inspect

    del check_mode
    session = Session.from_params(params)
    if params.get("accept_fingerprint"):
        session.accept_fingerprint_key(params["accept_fingerprint"])
    requests = _requests(params["keysets"])
    workspace = Workspace()
    answer = inspect(session, requests, workspace=workspace)
    previous = params.get("previous") or {}
    told = answer.pop("secrets").items()
    sources = {request["name"]: request["stores"][0]["type"] for request in requests if request["stores"]}
    keysets = {
        name: {"source": sources.get(name, ""), **_told(said, previous.get(name), session.rotation_id)}
        for name, said in told
    }
    problems = answer["problems"] + _apart(keysets)
    findings = _findings(params, requests, workspace)
    return {**answer, "keysets": keysets, "problems": problems, "findings": findings}


def _told(said: Mapping[str, Any], previous: Mapping[str, Any] | None, rotation_id: str) -> dict[str, Any]:
    """What is told of one keyset: that of its first store, with what changed since the last look."""
    shown = [store["keyset"] for store in said["stores"] if "keyset" in store]
    keyset = shown[0] if shown else {"active_kid": "", "previous_active_kid": "", "fingerprint": "", "keys": []}
    version = said["versions"].get(rotation_id, {})
    return {
        **said,
        **keyset,
        "state": version.get("state", ""),
        "had_old": version.get("had_old", False),
        "has_old": any(key["holds"] == "old" for each in shown for key in each["keys"]),
        "change": asdict(compare(previous, keyset)) if shown else {},
    }


def _apart(keysets: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Stores of one keyset that do not hold the same keys."""
    found = []
    for name, said in keysets.items():
        stores = [store for store in said["stores"] if "keyset" in store]
        kids = {tuple((key["kid"], key["fingerprint"]) for key in store["keyset"]["keys"]) for store in stores}
        if len(kids) > 1:
            places = ", ".join(store["path"] for store in stores)
            error = KeyturnError(
                "keysets-differ",
                f"the stores of {name} do not hold the same keys: {places}",
                where=stores[0]["path"],
                hint="Find out which one is right and write it to all of them",
            )
            found.append({"code": error.code, "where": error.where, "msg": str(error)})
    return found


def _findings(params: Mapping[str, Any], requests: list[dict[str, Any]], workspace: Workspace) -> list[dict[str, str]]:
    """What goes against the policy; nothing where none is given."""
    if params.get("policy") is None:
        return []
    policy = Policy.of(params["policy"])
    found: list[dict[str, str]] = []
    for request in requests:
        for options in request["stores"]:
            try:
                found += _judged(open_store(request["name"], options), options, policy, workspace)
            except KeyturnError as error:
                found.append({"code": error.code, "where": error.where, "msg": str(error)})
    for environment in params.get("environments") or ():
        found += _judged_environment(environment, policy)
    return found


def _judged(store: Store, options: Mapping[str, Any], policy: Policy, workspace: Workspace) -> list[dict[str, str]]:
    layout = store.layout
    keyset = layout.load(store.read(workspace)) if isinstance(layout, KeysetLayout) else None
    found = [] if keyset is None else judge_keys(keyset, policy, store.path)
    if isinstance(store, KeysetFileStore) and os.path.lexists(store.path):
        found += judge_file(_owner(store.path), policy, store.path)
    if options["type"] == "env_file" and keyset is not None:
        found += judge_sources(Sources(inline="there"), policy, store.path)
    return found


def _owner(path: str) -> str:
    number = os.lstat(path).st_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _judged_environment(environment: Mapping[str, Any], policy: Policy) -> list[dict[str, str]]:
    """Where a service's dotenv file says that its keys are."""
    path = environment["env_file"]
    try:
        content = atomic.read_file(path)
        given = {
            name: (read_variable(content, environment[name], path) or b"").decode("utf-8", "replace")
            for name in SOURCES
            if environment.get(name)
        }
    except KeyturnError as error:
        return [{"code": error.code, "where": error.where, "msg": str(error)}]
    return judge_sources(Sources(**given), policy, path)
