# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of ``signing_key_api`` or ``signing_key_api_info``: from the arguments to the result."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.module import SESSION_ARGUMENTS
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session, check_name
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api.client import Client
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api.declared import parse_api
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api.kept import Kept, Note
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api.shown import Shown
from ansible_collections.keyturn.rotation.plugins.module_utils.signing_api.turn import (
    STATES,
    UNSEEN,
    Seen,
    Turn,
)
from ansible_collections.keyturn.rotation.plugins.module_utils.values import VALUE_OPTIONS, resolve

__all__ = ["ARGUMENTS", "INFO_ARGUMENTS", "run", "run_info"]

_REFERENCE: dict[str, Any] = {"type": "dict", "options": VALUE_OPTIONS}
_HEADER = {"name": {"type": "str", "required": True}, "text": {"type": "str"}, **VALUE_OPTIONS}
_SHOWN = {
    "name": {"type": "str"},
    "version": {"type": "str", "choices": ["new", "old"], "required": True},
    "url": {"type": "str", "required": True},
    "method": {"type": "str"},
    "headers": {"type": "dict"},
    "body": {"type": "str"},
    "expect": {"type": "list", "elements": "int"},
    "expect_body": {"type": "str"},
    "ca_file": {"type": "path"},
    "timeout": {"type": "float", "default": 10},
}
_COMMON: dict[str, dict[str, Any]] = {
    **SESSION_ARGUMENTS,
    "name": {"type": "str", "required": True},
    "api": {"type": "dict", "required": True},
    "bearer": _REFERENCE,
    "headers": {"type": "list", "elements": "dict", "options": _HEADER, "default": []},
    "client_secret": {**_REFERENCE, "no_log": False},
    "ca_file": {"type": "path"},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path", "no_log": False},
    "client_pem": _REFERENCE,
    "initial": {"type": "bool", "default": False},
    "shown_to": {"type": "list", "elements": "dict", "options": _SHOWN, "default": []},
    "timeout": {"type": "float", "default": 10},
}
#: Arguments of ``signing_key_api``.
ARGUMENTS: dict[str, dict[str, Any]] = {
    **_COMMON,
    "rotation_id": {"type": "str", "required": True},
    "state": {"type": "str", "required": True, "choices": list(STATES)},
    "restart": {"type": "list", "elements": "str", "default": []},
    "restart_timeout": {"type": "float", "default": 120},
    "wait": {"type": "float", "default": 30},
    "defer": {"type": "bool", "default": False},
    "overlap_s": {"type": "int"},
    "early": {"type": "bool", "default": False},
    "disable": {"type": "str", "choices": ["previous", "all"], "default": "previous"},
}
#: Arguments of ``signing_key_api_info``.
INFO_ARGUMENTS: dict[str, dict[str, Any]] = {
    **_COMMON,
    "signs": {"type": "str"},
    "count": {"type": "int", "default": 0},
    "expect": {"type": "str", "choices": ["sound", "new", "old"]},
}


class _Call:
    """What both modules make of their arguments."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.session = Session.from_params(dict(params))
        self.params = params
        self.name = check_name(params["name"], "secret name")
        self.api = parse_api(params["api"])
        if self.api.get("token") and not params.get("client_secret"):
            hint = "Give client_secret, or take api.token away"
            raise KeyturnError("signing-api-invalid", "the client's secret is not given", where="api.token", hint=hint)
        self.client = Client(
            self.api,
            bearer=self._text(params.get("bearer"), "bearer"),
            headers=self._headers(),
            secret=self._text(params.get("client_secret"), "client"),
            timeout=float(params.get("timeout") or 10),
            ca_file=params.get("ca_file"),
            cert_file=self._certificate(),
            key_file=params.get("client_key"),
        )

    def turn(self, check_mode: bool = False, **more: Any) -> Turn:
        """The steps; ``more`` are fields of :class:`Turn`."""
        kept = Kept(self.session, self.name, self.api["base"])
        return Turn(self.client, kept, check_mode, initial=bool(self.params.get("initial")), **more)

    def shown(self, kept: Kept, wait: float) -> Shown:
        """What shows tokens to those who verify them.

        :raises KeyturnError: ``signing-api-invalid`` where no token can be had.
        """
        probes = self.params.get("shown_to") or ()
        if probes and not self.api.get("token"):
            hint = "Declare api.token, or take shown_to away"
            raise KeyturnError("signing-api-invalid", "no token can be had", where="shown_to", hint=hint)
        return Shown(self.client, probes, kept.token_path, wait)

    def _certificate(self) -> str | None:
        """The file with the client certificate; one that lies in no file is in memory alone, for TLS reads files."""
        path: str | None = self.params.get("client_cert")
        reference = self.params.get("client_pem")
        if not reference:
            return path
        if path:
            hint = "Give client_cert, or client_pem"
            raise KeyturnError("reference-invalid", "two client certificates are given", where="client_pem", hint=hint)
        content = resolve(self.session, reference, f"{self.session.rotation_id}/{self.name}/certificate")
        memory = os.memfd_create("certificate")
        with os.fdopen(os.dup(memory), "wb") as stream:
            stream.write(content + b"\n")
        return f"/proc/self/fd/{memory}"

    def _text(self, reference: Mapping[str, Any] | None, what: str) -> str:
        if not reference:
            return ""
        value = resolve(self.session, reference, f"{self.session.rotation_id}/{self.name}/{what}")
        try:
            return value.decode("ascii")
        except UnicodeDecodeError:
            hint = "It goes into a header: use printable ASCII"
            raise KeyturnError("value-unusable", "this value is no ASCII text", where=what, hint=hint) from None

    def _headers(self) -> dict[str, str]:
        found = {}
        for header in self.params.get("headers") or ():
            name, plain = header["name"], header.get("text")
            reference = {key: header.get(key) for key in VALUE_OPTIONS}
            if plain is not None and any(value is not None for value in reference.values()):
                hint = "Give text, or one source of a value"
                raise KeyturnError("reference-invalid", "a header has two values", where=repr(name), hint=hint)
            found[name] = plain if plain is not None else self._text(reference, f"header {name}")
        return found


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """The work of the module ``signing_key_api``; see its RETURN for the result."""
    if params["state"] == "disabled" and params.get("overlap_s") is None and not params.get("early"):
        hint = "Give overlap_s: the longest token lifetime, every cache on the way, and the skew of clocks"
        raise KeyturnError("overlap-missing", "the overlap is not given", where="overlap_s", hint=hint)
    call = _Call(params)
    defer = bool(params.get("defer"))
    turn = call.turn(
        check_mode,
        restart=() if check_mode else params.get("restart") or (),
        restart_timeout=float(params["restart_timeout"]),
        wait=0.0 if check_mode or defer else float(params["wait"]),
        overlap_s=None if params.get("early") else params.get("overlap_s"),
        defers=defer,
        disable_all=params.get("disable") == "all",
    )
    with call.session.changing(check_mode):
        before = turn.look()
        changed, is_seen, probes = _step(turn, call.shown(turn.kept, float(params["wait"])), params["state"], defer)
        after = turn.look() if changed and is_seen and not check_mode else before
        note = turn.kept.load()
    return {
        "changed": changed,
        "seen": is_seen,
        **_shown(after),
        **_noted(note),
        "restarted": turn.restarted,
        "probes": probes,
        "passed": True,
        "diff": {"before": _lines(before), "after": _lines(after)},
    }


def _step(turn: Turn, shown: Shown, state: str, defer: bool) -> tuple[bool, bool, list[dict[str, Any]]]:
    """One step: whether it changed anything, whether that is seen, and what those said who were shown tokens."""
    is_promote = state == "promoted" and not turn.check_mode
    try:
        if is_promote:
            shown.keep(turn.kept.load())
        changed = STATES[state](turn) or turn.restarted
    except KeyturnError as error:
        if not defer or error.code not in UNSEEN:
            raise
        return True, False, []
    probes = shown.show() if is_promote else []
    if state != "staged" and not turn.check_mode:
        shown.forget()
    return changed, True, probes


def run_info(params: dict[str, Any], _check_mode: bool) -> dict[str, Any]:
    """The work of the module ``signing_key_api_info``; see its RETURN for the result. Nothing is changed."""
    call = _Call(params)
    turn = call.turn()
    note: Note | None = turn.kept.load() if call.session.rotation_id else None
    seen = turn.look_sound() if params.get("expect") == "sound" else turn.look(needs_token=True)
    problem = _problem(params, seen) or _unexpected(params.get("expect") or "", seen, note)
    if problem:
        raise KeyturnError("signing-api-astray", problem, where=call.api["base"], hint="See who else turns these keys")
    asked = call.shown(turn.kept, 0.0).show(["new"]) if params.get("expect") == "new" else []
    return {"changed": False, **_shown(seen), **_noted(note), "probes": asked, "passed": True}


def _problem(params: Mapping[str, Any], seen: Seen) -> str:
    signs, count = params.get("signs"), int(params.get("count") or 0)
    if signs and not (seen.is_told and seen.is_signed_by(signs)):
        return f"{signs!r} does not sign, but {seen.signing!r}" if seen.is_told else "nothing says which key signs"
    if count and len(seen.listed.usable) != count:
        return f"{len(seen.listed.usable)} keys are accepted, expected {count}"
    return ""


def _unexpected(expect: str, seen: Seen, note: Note | None) -> str:
    """What is not as after this rotation, or as before it.

    Where nothing says which key signs, that it was asked for counts.
    """
    if expect == "old":
        former = note.former if note else ""
        is_right = not former or not seen.is_told or seen.is_signed_by(former)
        return "" if is_right else f"the former key {former!r} does not sign, but {seen.signing!r}"
    if expect != "new":
        return ""
    if note is None or not note.made:
        return "this rotation has made no key"
    if not (seen.is_signed_by(note.made) if seen.is_told else note.signs == note.made):
        return f"the new key {note.made!r} does not sign, but {seen.signing!r}"
    if note.made not in seen.listed.usable:
        return f"the new key {note.made!r} is not listed"
    if note.former and not note.disabling and note.former not in seen.listed.usable:
        return f"the former key {note.former!r} is not listed any more, so tokens that it signed are refused"
    return ""


def _noted(note: Note | None) -> dict[str, Any]:
    return {
        "new_kid": note.made if note else "",
        "former_kid": note.former if note else "",
        "before_kids": list(note.before) if note else [],
    }


def _shown(seen: Seen) -> dict[str, Any]:
    return {
        "keys": [{"kid": kid, "state": _state(kid, state, seen)} for kid, state in seen.listed.states.items()],
        "count": len(seen.listed.usable),
        "current_kid": seen.signing,
        "issued_kid": seen.issued,
    }


def _state(kid: str, state: str, seen: Seen) -> str:
    """A list that does not say which key is current is completed by the token."""
    return "current" if not seen.listed.tells and kid == seen.issued and state == "usable" else state


def _lines(seen: Seen) -> str:
    return "".join(f"{one['kid']}: {one['state']}\n" for one in _shown(seen)["keys"])
