# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""People are told what became of a rotation. It never fails: what did not work is said, and kept in the journal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.state_host import stamp_of
from ansible_collections.keyturn.rotation.plugins.plugin_utils import notices, senders
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import KeyturnAction, display
from ansible_collections.keyturn.rotation.plugins.plugin_utils.owned_values import bring, render

_VARIABLE = "keyturn_notify"


class ActionModule(KeyturnAction):
    """Runs on the controller alone; the state host is asked only to note what did not work."""

    def work(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Send one message to everyone who wants it."""
        args = self._task.args
        told = notices.notice(str(args["event"]), args.get("about") or {}, stamp_of(time.time()))
        wrong: list[tuple[str, str]] = []
        recipients: list[tuple[str, Mapping[str, Any]]] = []
        try:
            recipients = self._recipients(task_vars, told, wrong)
            if not self._task.check_mode:
                answers = senders.send_all(recipients, told)
                wrong += [(where, why) for where, why in answers if why]
        except KeyturnError as error:
            wrong.append((_VARIABLE, str(error)))
        except Exception as error:  # whatever it is, the rotation matters more
            wrong.append((_VARIABLE, f"internal error {type(error).__name__}"))
        lines = [why if why.startswith(where) else f"{where}: {why}" for where, why in wrong]
        for line in lines:
            display.display(f"  not told    {line}")
        if lines and not self._task.check_mode:
            self._note([f"not told of {told['event']}: {line}" for line in lines], told, task_vars)
        return {
            "changed": bool(recipients) and not self._task.check_mode,
            "message": told,
            "told": [where for where, _entry in recipients if where not in dict(wrong)],
            "not_told": lines,
        }

    def _recipients(
        self, task_vars: Mapping[str, Any], told: Mapping[str, Any], wrong: list[tuple[str, str]]
    ) -> list[tuple[str, Mapping[str, Any]]]:
        """Those who want this message; each is templated by itself, so that a broken one leaves the others alone."""
        raw = task_vars.get(_VARIABLE) or []
        if isinstance(raw, str):
            raw = render(self._templar, raw, _VARIABLE)
        if not isinstance(raw, (list, tuple)):
            raise KeyturnError("catalog-invalid", "must be a list", where=_VARIABLE, hint="See docs/notifications.md")
        found: list[tuple[str, Mapping[str, Any]]] = []
        for index, entry in enumerate(raw):
            where = f"{_VARIABLE}[{index}]"
            try:
                recipient = dict(render(self._templar, entry, where) or {})
                notices.check(recipient, where)
                self._fetch(recipient, where, task_vars)
            except KeyturnError as error:
                wrong.append((where, str(error)))
                continue
            if notices.wanted(recipient, told):
                found.append((f"{where} ({recipient.get('name') or recipient['type']})", recipient))
        return found

    def _fetch(self, recipient: dict[str, Any], where: str, task_vars: Mapping[str, Any]) -> None:
        """Put the values that lie elsewhere where a sender looks for them."""
        for field in notices.FETCHED:
            source = recipient.pop(f"{field}_from", None)
            if source is not None:
                value = bring(source, self._templar, task_vars, f"{where}.{field}_from")
                recipient[field] = value.decode("utf-8", "replace").strip()

    def _note(self, lines: list[str], told: Mapping[str, Any], task_vars: dict[str, Any]) -> None:
        """Keep in the rotation's journal who was not told."""
        state_dir = self._task.args.get("state_dir")
        if not state_dir or not told["rotation_id"]:
            return
        arguments = {"action": "note", "state_dir": state_dir, "rotation_id": told["rotation_id"], "notes": lines}
        try:
            self.call("rotation_state", arguments, task_vars)
        except Exception as error:  # the state host may be what was lost
            display.display(f"  not told    and it could not be noted ({type(error).__name__})")
