# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The last line of a run that did not end as it was asked to. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.keyturn.rotation.plugins.module_utils import registry
from ansible_collections.keyturn.rotation.plugins.plugin_utils import emergencies
from ansible_collections.keyturn.rotation.plugins.plugin_utils.account import Run, left_behind, stopped_on

__all__ = ["verdict"]


def verdict(run: Run, status: str, lost: Sequence[str]) -> str:
    """Why a run did not end as it was asked to: what holds, and what failed first."""
    if status in ("replacing", "refused"):
        return emergencies.verdict(run, list(lost))
    if status in ("kept", "retiring"):
        why = "; ".join(f"{host}: {said['msg']}" for host, said in sorted(run.answers.get("cause", {}).items()))
        text = why or f"{', '.join(lost)} could not be reached"
        if status == "kept":
            return f"Nothing was retired or removed, and the way back is open. {text}"
        return f"Retire did not finish. {text.rstrip('.')}. Then run the retire playbook again"
    if status == "stayed":
        why = _stopped_back(run) or f"{', '.join(lost)} could not be reached"
        return f"The way back was refused. Nothing was changed, and the rotation is as it was. {why}"
    cause = str(run.rotation.get("cause") or "")
    asked = run.mode == "rollback" or cause == registry.ASKED
    first = "The way back was asked for" if asked else "The rotation failed"
    why = "" if asked else cause or "a host was lost"
    behind = left_behind(run)
    but = f", except on {', '.join(behind)}" if behind else ""
    if status == "rolled_back" and asked:
        return f"{first}, so everything was brought back{but} and nothing has turned. The same command turns it"
    if status == "rolled_back":
        return f"{first} and everything was brought back{but}. {why}"
    if status == "rollback_pending":
        return f"{first}; {', '.join(lost)} could not be brought back and is still to be done. {why}".rstrip()
    stopped = _stopped_back(run)
    if stopped and why:
        return f"{first} and the way back did not finish. {stopped.rstrip('.')}. What failed before that: {why}"
    return f"{first} and did not finish. {stopped}" if asked else f"{first} and the way back did not finish. {why}"


def _stopped_back(run: Run) -> str:
    """Where the way back of this rotation stopped: host, task and message of the first, and how many there are more."""
    found = stopped_on(run)
    if not found:
        return ""
    host, said = found[0]
    more = f" (and {len(found) - 1} more, see the notes)" if len(found) > 1 else ""
    return f"{host}: {said.get('task')}: {said.get('msg')}{more}"
