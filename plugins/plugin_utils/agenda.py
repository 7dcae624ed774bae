# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What time asks for: how old each secret is, and what a schedule has to do now. Pure; time is passed in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils import plan as planning
from ansible_collections.keyturn.rotation.plugins.module_utils import registry
from ansible_collections.keyturn.rotation.plugins.module_utils.catalogs.columns import apart, beside
from ansible_collections.keyturn.rotation.plugins.module_utils.held import reasons_to_hold
from ansible_collections.keyturn.rotation.plugins.module_utils.schema import parse_duration
from ansible_collections.keyturn.rotation.plugins.module_utils.state_host import stamp_of

__all__ = ["age", "agenda"]

_Run = dict[str, Any]
#: By the status of a rotation with a lock: the playbook that finishes it. An emergency is a person's to finish.
_FINISHED_BY = {"open": "rotate", "rolling_back": "rollback", "retiring": "retire", "overlap": "retire"}


def age(secret: Mapping[str, Any], record: Mapping[str, Any], now: float) -> dict[str, Any]:
    """How a secret stands in time.

    :param record: its entry in the register.
    :returns: ``age_s`` (None when it never turned), ``period_s`` (None without one), ``next_due`` (UTC, or empty),
        ``late_s`` (seconds since it was due, or 0) and ``ahead_s`` (seconds until it will have turned, or 0: more than
        a few say that a clock was wrong then, or is now).
    """
    since = record.get("primary_since")
    period = parse_duration(secret["cryptoperiod"]) if "cryptoperiod" in secret else None
    if since is None:
        return {"age_s": None, "period_s": period, "next_due": "", "late_s": 0, "ahead_s": 0}
    began = planning.parse_stamp(since)
    ends = None if period is None else began + period
    return {
        "age_s": max(0, int(now - began)),
        "period_s": period,
        "next_due": "" if ends is None else stamp_of(ends)[:19] + "Z",
        "late_s": 0 if ends is None else max(0, int(now - ends)),
        "ahead_s": max(0, int(began - now)),
    }


def agenda(
    secrets: Mapping[str, Mapping[str, Any]],
    register: Mapping[str, Any],
    alive: Mapping[str, bool],
    now: float,
    grace: int,
    waived: Iterable[str] = (),
    only: Collection[str] = (),
) -> dict[str, Any]:
    """What a schedule has to do, each in a run of its own.

    An interrupted run is finished, what may be retired is retired, and what is due is turned, one run for each
    strategy.
    What a person has to decide is left alone: a rotation that was stopped after a phase, is stuck, or waits for a host.

    :param secrets: the catalog's secrets.
    :param alive: for each run that can be seen from here, whether it lives.
    :param grace: seconds that a secret may be late before it is overdue.
    :param waived: hosts that may still be missing.
    :param only: the secrets that are asked about; none for all. A rotation that has one of them is named as a whole.
    :returns: ``runs`` (``playbook``, ``only``), ``waiting`` (``rotation_id``, ``secrets``, ``status``), ``overdue``,
        and ``ended`` (when the last run about each secret ended).
    """
    finish, waiting = _open_rotations(secrets, register, alive, now)
    records = register["secrets"]
    free = {name: secret for name, secret in secrets.items() if not records.get(name, {}).get("open")}
    retire = [
        {"playbook": "retire", "only": _known(rotation, secrets)}
        for rotation_id, rotation in sorted(register["rotations"].items())
        if _retirable(rotation_id, rotation, records, secrets, now)
    ]
    held = reasons_to_hold(secrets)
    behind: dict[str, list[str]] = {}
    groups: dict[str, list[str]] = {}
    retired = {name for run in retire for name in run["only"]}
    # Keys of one column turn one after the other: the next once that before is retired
    first = [name for name in secrets if name not in retired and registry.has_way_back(register, name)]
    for name, secret in sorted(free.items()):
        late = registry.catching_up(register, name, waived)
        if late:
            behind.setdefault(late, []).append(name)
        elif name in held or not secret.get("auto_rotate", True) or not _meant([name], only):
            continue
        elif planning.due(secret, records.get(name, {}), now) == "due" and not beside(secrets, name, first):
            groups.setdefault(secret["strategy"], []).append(name)
            first.append(name)
    due = [part for names in groups.values() for part in apart(secrets, names)]
    rotate = [{"playbook": "rotate", "only": names} for names in (*behind.values(), *due)]
    overdue = [
        name for name, secret in sorted(secrets.items()) if age(secret, records.get(name, {}), now)["late_s"] > grace
    ]
    ended: dict[str, str] = {}
    for rotation in register["rotations"].values():
        for name in rotation["secrets"]:
            ended[name] = max(ended.get(name, ""), rotation.get("ended_at") or "")
    runs = [run for run in (*finish, *retire, *rotate) if _meant(run["only"], only)]
    waiting = [entry for entry in waiting if _meant(entry["secrets"], only)]
    overdue = [name for name in overdue if _meant([name], only)]
    return {"runs": runs, "waiting": waiting, "overdue": overdue, "ended": ended}


def _meant(names: Iterable[str], only: Collection[str]) -> bool:
    return not only or any(name in only for name in names)


def _known(rotation: Mapping[str, Any], secrets: Mapping[str, Any]) -> list[str]:
    return [name for name in rotation["secrets"] if name in secrets]


def _open_rotations(
    secrets: Mapping[str, Any], register: Mapping[str, Any], alive: Mapping[str, bool], now: float
) -> tuple[list[_Run], list[dict[str, Any]]]:
    """Runs that finish what was interrupted, and what is left to people."""
    finish: list[_Run] = []
    waiting: list[dict[str, Any]] = []
    ids = {record["open"] for record in register["secrets"].values() if record.get("open")}
    for rotation_id in sorted(ids):
        rotation = register["rotations"][rotation_id]
        names, holder = _known(rotation, secrets), rotation.get("holder")
        playbook = _FINISHED_BY.get(rotation["status"])
        if names and playbook and (holder or playbook == "retire") and not _lives(rotation, holder, alive, now):
            finish.append({"playbook": playbook, "only": names})
        else:
            works = holder and _lives(rotation, holder, alive, now)
            status = "at work" if works else rotation["status"]
            waiting.append({"rotation_id": rotation_id, "secrets": list(rotation["secrets"]), "status": status})
    return finish, waiting


def _lives(
    rotation: Mapping[str, Any], holder: Mapping[str, Any] | None, alive: Mapping[str, bool], now: float
) -> bool:
    """Whether its run may still be at work, as the register's own lease has it."""
    if not holder:
        return False
    seen = alive.get(holder["run_id"])
    return float(rotation.get("lease_until", 0)) > now if seen is None else seen


def _retirable(
    rotation_id: str,
    rotation: Mapping[str, Any],
    records: Mapping[str, Any],
    secrets: Mapping[str, Any],
    now: float,
) -> bool:
    mine = [records.get(name, {}) for name in rotation["secrets"]]
    after = str(rotation.get("retire_after") or "")
    return (
        rotation["status"] == "overlap"
        and bool(after)
        and planning.parse_stamp(after) <= now
        and not rotation.get("waived")
        and bool(_known(rotation, secrets))
        and any(record.get("current") == rotation_id for record in mine)
        and not any(record.get("open") for record in mine)
    )
