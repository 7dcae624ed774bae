# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The state host's register: which rotation is open for which secret, who runs it, and how far it is.

One JSON file, replaced whole under a mutex. Transitions are pure functions on its content; time is passed in.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.atomic import private_dir, read_file, write_file
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError

__all__ = [
    "ASKED",
    "FORWARD",
    "SCHEMA_VERSION",
    "Register",
    "acquire",
    "advance",
    "begin_back",
    "catching_up",
    "close",
    "empty",
    "find",
    "finish",
    "has_way_back",
    "in_use",
    "left_out",
    "losing",
    "one_way",
    "open_for",
    "open_rotation",
    "release",
    "stay",
    "turn_back",
    "turned_in",
    "undoable",
]

SCHEMA_VERSION = 1
#: The cause of a way back that a person has asked for.
ASKED = "the way back was asked for"
#: A run that cannot be seen from here is taken for dead when it has said nothing for so many seconds.
LEASE_SECONDS = 120
#: The same while rows are re-encrypted or counted, services restart, or a new key is waited for everywhere.
LONG_LEASE_SECONDS = 900
_LONG_PHASES = (
    *("preflight", "migrate", "reload", "promote", "restart", "verify"),
    *("replace", "refresh", "prove", "watch", "retire"),
)
#: What a run may want that begins a rotation where none is open.
_BEGINNING = ("rotate", "emergency")
#: Statuses of a rotation that still has work to do.
FORWARD = ("open",)
_BACK = ("rolling_back", "rollback_pending", "stuck")
_TURNED = "overlap"
#: A compromised version is being replaced, or has been: there is no way back.
_REPLACING, _REPLACED = "replacing", "replaced"
_RETIRING = "retiring"
#: What a rotation was before somebody asked for the way back, while that has not begun.
_WAS = "was"
#: Statuses of a rotation whose new version was, or is, the primary one.
_WAS_PRIMARY = (_TURNED, _RETIRING, _REPLACED, "retired", "closed", "superseded")


#: What is in the register besides its version.
_FORM = {"epoch": int, "secrets": dict, "rotations": dict}


def empty() -> dict[str, Any]:
    """A register without rotations."""
    return {"schema_version": SCHEMA_VERSION, "epoch": 0, "secrets": {}, "rotations": {}}


class Register:
    """The register of one state host on disk."""

    def __init__(self, state_dir: str) -> None:
        self._dir = state_dir
        self._path = os.path.join(state_dir, "registry.json")

    def read(self) -> dict[str, Any]:
        """Its content; an empty one where there is none yet.

        :raises KeyturnError: ``register-newer`` when a later version of the collection wrote it,
            ``register-damaged`` when it is not what any version writes.
        """
        if not os.path.lexists(self._path):
            return empty()
        try:
            content: dict[str, Any] = json.loads(read_file(self._path))
        except ValueError:
            content = {}
        if not isinstance(content, dict) or not content.get("schema_version"):
            raise self._damaged()
        if content.get("schema_version") != SCHEMA_VERSION:
            raise KeyturnError(
                "register-newer",
                f"is of version {content.get('schema_version')}, this collection knows {SCHEMA_VERSION}",
                where=self._path,
                hint="Use the collection's version that wrote it",
            )
        if not all(isinstance(content.get(key), kind) for key, kind in _FORM.items()):
            raise self._damaged()
        return content

    def _damaged(self) -> KeyturnError:
        return KeyturnError(
            "register-damaged",
            "is damaged and cannot be read, so nothing is known of any rotation",
            where=self._path,
            hint="Put back the newest copy of it. Without one, move it away: rotations are forgotten then, also open "
            f"ones, while each host keeps the values in the folder secrets (here: {self._dir}/secrets)",
        )

    @contextlib.contextmanager
    def changing(self) -> Iterator[dict[str, Any]]:
        """Hold the mutex, give the content, and write it back whole when nothing was raised."""
        private_dir(self._dir)
        handle = os.open(os.path.join(self._dir, "registry.mutex"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            content = self.read()
            before = json.dumps(content, sort_keys=True)
            yield content
            after = json.dumps(content, sort_keys=True, indent=1)
            if json.dumps(content, sort_keys=True) != before:
                write_file(self._path, after.encode() + b"\n", 0o600)
        finally:
            os.close(handle)


def find(content: Mapping[str, Any], rotation_id: str) -> dict[str, Any]:
    """A rotation by its id.

    :raises KeyturnError: ``rotation-unknown``.
    """
    rotation: dict[str, Any] | None = content["rotations"].get(rotation_id)
    if rotation is None:
        raise KeyturnError(
            "rotation-unknown", f"no rotation {rotation_id}", where="state host", hint="Run the status playbook"
        )
    return rotation


def open_for(content: Mapping[str, Any], name: str) -> str | None:
    """The rotation of a secret that has work to do. One of which a retire only asked whether it may begin has none,
    though the lock is still there where that run was killed.
    """
    found = content["secrets"].get(name, {}).get("open")
    status = content["rotations"].get(found, {}).get("status")
    return None if found is None or status == _TURNED else str(found)


def in_use(content: Mapping[str, Any], name: str, now: float) -> str | None:
    """The rotation of a secret that has work to do, or that a retire asks about which may still be alive."""
    found = content["secrets"].get(name, {}).get("open")
    rotation = content["rotations"].get(found, {})
    if rotation.get("status") == _TURNED and (not rotation.get("holder") or rotation.get("lease_until", 0) <= now):
        return None
    return None if found is None else str(found)


def open_rotation(content: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The rotation that is open for any of these secrets, if there is one.

    :raises KeyturnError: ``rotations-several`` when they belong to different ones.
    """
    ids = {found for found in (open_for(content, name) for name in names) if found is not None}
    if len(ids) > 1:
        raise KeyturnError(
            "rotations-several",
            f"these secrets belong to different open rotations ({', '.join(sorted(ids))})",
            where="keyturn_only",
            hint="Name the secrets of one of them",
        )
    return ids.pop() if ids else None


def _describe(rotation_id: str, rotation: Mapping[str, Any]) -> str:
    began = next(iter(rotation.get("runs", ())), rotation.get("who", {}))
    who = f"{began.get('user', 'unknown')} on {began.get('controller', 'unknown')}"
    names = ", ".join(rotation["secrets"])
    return f"rotation {rotation_id} of {names} is open, started by {who} at {rotation['started_at']}"


def _at_work(rotation: Mapping[str, Any], holder: Mapping[str, Any]) -> str:
    """Whose run holds it, where that is not the one that began it."""
    runs = rotation["runs"]
    return f" by {holder['user']} on {holder['controller']} since {runs[-1]['started_at']}" if len(runs) > 1 else ""


def _process(holder: Mapping[str, Any]) -> str:
    """The process of a run of this controller, as its id has it: place, process, start."""
    found = str(holder["run_id"])[len(holder["place"]) :].lstrip(".").partition(".")[0]
    return f" (process {found})" if found.isdigit() else ""


def _finish_first(rotation: Mapping[str, Any]) -> str:
    """What ends an open rotation, as a hint."""
    ways = {"open": "the rotate playbook to go on with it, or rollback", _RETIRING: "the retire playbook"}
    only = f"keyturn_only={','.join(rotation['secrets'])}"
    return f"Finish it first: {ways.get(rotation['status'], 'the rollback playbook')}, with {only}"


def _check_holder(
    rotation_id: str, rotation: Mapping[str, Any], run: Mapping[str, Any], now: float, force: bool
) -> None:
    """Refuse while another run may be alive; a run that is known dead, or silent past its lease, is no obstacle."""
    holder = rotation.get("holder")
    if not holder or holder["run_id"] == run["run_id"] or force:
        return
    alive = run.get("sees_alive", {}).get(holder["run_id"])
    if alive is False:
        return
    left = int(rotation.get("lease_until", 0) - now)
    if alive is None and left <= 0:
        return
    phase = f"{_at_work(rotation, holder)} (phase {rotation.get('phase') or 'none'})"
    raise KeyturnError(
        "rotation-busy",
        f"{_describe(rotation_id, rotation)}, and {'is' if alive else 'may still be'} running{phase}",
        where="state host",
        hint=f"It is running on this controller{_process(holder)}: wait until it ends. If it hangs, end that process, "
        "then run the same command again, or the rollback playbook"
        if alive
        else f"If that run is dead, wait {left} s, or take over with keyturn_take_over=true, or go back with the "
        "rollback playbook and keyturn_take_over=true",
    )


def _lease(rotation: dict[str, Any], now: float) -> None:
    is_long = rotation.get("phase") in _LONG_PHASES
    rotation["lease_until"] = int(now) + (LONG_LEASE_SECONDS if is_long else LEASE_SECONDS)
    if rotation.get("phase") == "watch":
        rotation["lease_until"] += int(rotation.get("watch_s") or 0)


def _next_epoch(content: dict[str, Any]) -> int:
    """Epochs grow over all rotations, so that a later one is always the higher one, whatever ids people choose."""
    content["epoch"] += 1
    return int(content["epoch"])


def _start_run(
    content: dict[str, Any], rotation: dict[str, Any], run: Mapping[str, Any], stamp: str, now: float
) -> None:
    if rotation.get("holder"):
        rotation["runs"][-1]["interrupted"] = True
    rotation["epoch"] = _next_epoch(content)
    rotation["holder"] = {key: run[key] for key in ("run_id", "user", "controller", "place")}
    rotation["runs"].append(
        {
            "run_id": run["run_id"],
            "epoch": rotation["epoch"],
            "user": run["user"],
            "controller": run["controller"],
            "started_at": stamp,
            "interrupted": False,
        }
    )
    _lease(rotation, now)


def acquire(
    content: dict[str, Any],
    *,
    mode: str,
    names: Sequence[str],
    new_id: str,
    run: Mapping[str, Any],
    stamp: str,
    now: float,
    details: Mapping[str, Any],
    rotation_id: str | None = None,
    take_over: bool = False,
    gone: Collection[str] = (),
) -> tuple[str, dict[str, Any]]:
    """Open, resume or reopen a rotation for this run and return its id and record.

    :param mode: ``rotate`` (resume what is open, else begin), ``rollback`` or ``retire`` (reopen what has turned), or
        ``emergency`` (resume an emergency, else begin one in the place of whatever is open).
    :param names: the secrets, sorted.
    :param new_id: the id of the rotation that begins here, where one begins.
    :param run: ``run_id``, ``user``, ``controller``, ``place`` and ``sees_alive`` (run_id to bool, where this
        controller can tell).
    :param stamp: the present time as text (UTC), ``now`` the same in seconds.
    :param details: ``reason``, ``plan_digest``, ``kinds`` of a rotation that begins; ``data`` (by secret and database,
        how many columns) of any that the catalog knows.
    :param gone: data that is gone for good, each as ``<secret>/<database>``.
    :raises KeyturnError: ``rotation-busy``, ``rotation-other``, ``rotation-closed``, ``nothing-to-undo``,
        ``forward-only``, ``data-gone``.
    """
    one_way(content, names, mode)
    _let_go(content, names, run, now, take_over)
    took = _seize(content, names, run, now, take_over) if mode == "emergency" else {}
    found, catches_up = open_rotation(content, names), False
    if rotation_id and found and found != rotation_id:
        raise KeyturnError(
            "rotation-other",
            f"{_describe(found, content['rotations'][found])}, not {rotation_id}",
            where="state host",
            hint="Leave keyturn_rotation_id away to go on with it, or go back with the rollback playbook",
        )
    if found is None and rotation_id in content["rotations"] and mode in _BEGINNING:
        raise KeyturnError(
            "rotation-closed",
            f"rotation {rotation_id} is {content['rotations'][rotation_id]['status']}",
            where="state host",
            hint="Leave keyturn_rotation_id away to begin a new one",
        )
    if found is None and mode not in _BEGINNING:
        found = _reopen(content, names, rotation_id, mode)
    elif found is None and rotation_id is None and mode == "rotate":
        found = _catch_up(content, names, details)
        catches_up = found is not None  # rows are not looked at
    if found is None:
        found = rotation_id or new_id
        content["rotations"][found] = {
            "secrets": sorted(names),
            "status": _REPLACING if mode == "emergency" else "open",
            "epoch": 0,
            "phase": "",
            "entered": [],
            "started_at": stamp,
            "restarted": [],
            "runs": [],
            **({"took": took} if took else {}),
            **details,
        }
        for name in names:
            content["secrets"].setdefault(name, {})["open"] = found
    rotation = content["rotations"][found]
    outside = sorted(set(names) - set(rotation["secrets"]))
    if outside:
        raise KeyturnError(
            "rotation-other",
            f"{_describe(found, rotation)}; {', '.join(outside)} {'is' if len(outside) == 1 else 'are'} not part of it",
            where="keyturn_only",
            hint=_finish_first(rotation),
        )
    if mode == "retire" and rotation["status"] not in (_TURNED, _RETIRING):
        raise KeyturnError(
            "rotation-other",
            f"{_describe(found, rotation)}, and what it began from is still needed",
            where="state host",
            hint=_finish_first(rotation),
        )
    if rotation["status"] == _RETIRING and mode != "retire":
        raise KeyturnError(
            "retire-unfinished",
            f"rotation {found} is being retired: what going back needs may be gone",
            where="state host",
            hint="Run the retire playbook again",
        )
    _check_holder(found, rotation, run, now, take_over)
    if not catches_up and mode != "emergency":
        _check_data(found, rotation, names, details, gone)
    _start_run(content, rotation, run, stamp, now)
    if mode != "rollback":
        rotation.pop(_WAS, None)  # who resumes a way back does not ask first
    elif rotation["status"] not in _BACK:
        rotation[_WAS] = {key: rotation.get(key) for key in ("status", "restarted", "cause")}
        rotation["status"] = "rolling_back"
    return found, rotation


def _check_data(
    found: str, rotation: Mapping[str, Any], names: Sequence[str], details: Mapping[str, Any], gone: Collection[str]
) -> None:
    """Refuse to go on without data that the rotation began with: its rows would stay under a key that is forgotten."""
    for name, database, began, left in _fewer(rotation, names, details["data"]) if "data" in details else ():
        if f"{name}/{database}" not in gone:
            raise KeyturnError(
                "data-gone",
                f"columns in {database}: the catalog names {left}, and rotation {found} began with {began}",
                where=f"keyturn_secrets.{name}.data",
                hint="Put them back, or their rows stay behind. Where they are gone for good: "
                f"-e keyturn_confirm={name}/{database}",
            )


def _fewer(
    rotation: Mapping[str, Any], names: Sequence[str], data: Mapping[str, Mapping[str, int]]
) -> Iterator[tuple[str, str, int, int]]:
    """Secret, database, how many columns the rotation has there and how many are left, where these are fewer."""
    for name, databases in rotation.get("data", {}).items():
        for database, began in sorted(databases.items()) if name in names else ():
            left = data.get(name, {}).get(database, 0)
            if left < began:
                yield name, database, began, left


def left_out(content: Mapping[str, Any], names: Sequence[str], data: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Columns that turned last time and are not among these, a line for each database.

    :param data: by secret and database, how many columns turn now.
    """
    lines = []
    for name in names:
        last = content["rotations"].get(content["secrets"].get(name, {}).get("current"), {})
        lines += [
            f"{name}: {began} columns in {database} turned the last time, and {left} do now. Rows of the others stay "
            "under the present key, which retire forgets"
            for _name, database, began, left in _fewer(last, [name], data)
        ]
    return lines


def one_way(content: Mapping[str, Any], names: Sequence[str], mode: str) -> None:
    """Refuse what would lead back to a version that is not trusted any more, or go on beside its replacement.

    :raises KeyturnError: ``forward-only``.
    """
    for name in names:
        found = open_for(content, name) or content["secrets"].get(name, {}).get("current")
        status = content["rotations"].get(found, {}).get("status")
        if status == _REPLACING and mode not in ("emergency", "restore", "prune"):
            raise KeyturnError(
                "forward-only",
                f"rotation {found} replaces a compromised version of {name} and goes forward only",
                where="state host",
                hint=f"Finish it: the emergency playbook with keyturn_only={name} keyturn_confirm={name}",
            )
        if status == _REPLACED and mode == "rollback":
            raise KeyturnError(
                "forward-only",
                f"rotation {found} has replaced a compromised version of {name}: nothing brings that one back",
                where="state host",
                hint="To leave the present version too, rotate once more",
            )
        if status == _REPLACED and mode == "retire":
            raise KeyturnError(
                "nothing-to-retire",
                f"rotation {found} has replaced a compromised version of {name} and disabled it already",
                where="state host",
                hint="Run the status playbook to see what each secret allows",
            )


def _let_go(content: dict[str, Any], names: Sequence[str], run: Mapping[str, Any], now: float, force: bool) -> None:
    """Free what a retire that was killed still holds although it had only asked whether it may begin.

    It is fenced, for it may only have been slow: what it would write at its end is from before this run.
    """
    for name in names:
        found = content["secrets"].get(name, {}).get("open")
        rotation = content["rotations"].get(found, {})
        if found is not None and rotation.get("status") == _TURNED:
            _check_holder(found, rotation, run, now, force)
            rotation.update(epoch=_next_epoch(content), holder=None, lease_until=0)
            for each in rotation["secrets"]:
                content["secrets"][each]["open"] = None


def _seize(
    content: dict[str, Any], names: Sequence[str], run: Mapping[str, Any], now: float, force: bool
) -> dict[str, dict[str, Any]]:
    """Take these secrets out of whatever is open for them: an emergency waits for nothing but a run that lives.

    What the other rotation has made is not used, since nobody knows who has seen it. Its run is fenced.

    :returns: by secret the rotation, its status before, and its epoch now, for :func:`_give_back`.
    """
    took: dict[str, dict[str, Any]] = {}
    for name in names:
        found = open_for(content, name)
        if found is None or content["rotations"][found]["status"] == _REPLACING:
            continue
        rotation = content["rotations"][found]
        _check_holder(found, rotation, run, now, force)
        rotation.update(epoch=_next_epoch(content), holder=None, lease_until=0)
        took[name] = {"rotation": found, "status": rotation["status"], "epoch": rotation["epoch"]}
        content["secrets"][name]["open"] = None
        rotation.setdefault("seized", []).append(name)
        rotation["secrets"] = [each for each in rotation["secrets"] if each != name] or rotation["secrets"]
        if not any(content["secrets"].get(each, {}).get("open") == found for each in rotation["secrets"]):
            rotation["status"] = "superseded"
    return took


def _give_back(content: dict[str, Any], rotation: dict[str, Any]) -> None:
    """Let what an emergency took that has replaced nothing be open again, unless a run went on without it."""
    for name, before in rotation.pop("took", {}).items():
        other = content["rotations"][before["rotation"]]
        if other["epoch"] != before["epoch"]:
            continue
        other["status"] = before["status"]
        other["secrets"] = sorted({*other["secrets"], name})
        other["seized"].remove(name)
        content["secrets"][name]["open"] = before["rotation"]


def _reopen(content: dict[str, Any], names: Sequence[str], rotation_id: str | None, mode: str) -> str:
    """The rotation that these secrets turned in last, open again."""
    ids = {rotation_id or content["secrets"].get(name, {}).get("current") for name in names}
    found = ids.pop() if len(ids) == 1 else None
    rotation = content["rotations"].get(found)
    if found is None or rotation is None or rotation["status"] != _TURNED:
        state, hint = _over(content, names, found, mode)
        raise KeyturnError(
            "nothing-to-undo" if mode == "rollback" else "nothing-to-retire",
            f"{', '.join(names)}: {state}",
            where="state host",
            hint=hint or "Run the status playbook to see what each secret allows",
        )
    for name in rotation["secrets"]:
        content["secrets"][name]["open"] = found
    return found


def _over(content: Mapping[str, Any], names: Sequence[str], found: str | None, mode: str) -> tuple[str, str]:
    """Why there is nothing to reopen for these secrets, and what can be done, where that can be said."""
    rotation = content["rotations"].get(found)
    if rotation is None:
        last: dict[str, list[str]] = {}
        for name in names:
            last.setdefault(content["secrets"].get(name, {}).get("current") or "", []).append(name)
        if len(last) < 2:
            return "never turned, or brought back already", ""
        parts = [f"{', '.join(each)} in {one}" if one else f"{', '.join(each)} in none" for one, each in last.items()]
        only = next(",".join(each) for one, each in last.items() if one)
        return (
            f"they turned last in different rotations ({'; '.join(parts)})",
            f"Name those of one: keyturn_only={only}",
        )
    state = f"rotation {found} is {rotation['status']}"
    if rotation["status"] != "superseded":
        return state, ""
    later = [f"{name} turned again in {one}" for name, one in sorted(rotation.get("followed", {}).items())]
    why = f"{state}: {', '.join(later) or 'a later one followed it'}"
    again = f"the rotate playbook with keyturn_only={','.join(names)}"
    if mode == "rollback":
        return why, f"The version before cannot be brought back any more. To leave the present one: {again}"
    return why, f"What it kept is removed with the next version: {again}, then the retire playbook"


def _parted(
    content: Mapping[str, Any], names: Iterable[str], rotation_id: str = ""
) -> list[tuple[str, list[str], list[str], bool]]:
    """What a turn of these secrets takes out of the rotations in which they turned last, where those have a way back.

    A part of a rotation may go back by itself unless it is tied to what turns again. Of a rotation that does not know
    what is tied in it nothing may.

    :param rotation_id: the rotation that turns them.
    :returns: each rotation with what turns again, what is left, and whether that still may go back or be retired.
    """
    turning = set(names)
    parts = []
    for found in sorted(
        {content["secrets"].get(name, {}).get("current") or "" for name in turning} - {"", rotation_id}
    ):
        rotation = content["rotations"].get(found, {})
        if rotation.get("status") != _TURNED:
            continue
        left = [name for name in rotation["secrets"] if name not in turning]
        tied = rotation.get("tied")
        alone = tied is not None and all((one in left) == (other in left) for one, other in tied)
        parts.append((found, [name for name in rotation["secrets"] if name in turning], left, alone))
    return parts


def losing(content: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Which other secrets lose their way back when these turn, a line for each rotation."""
    return [
        f"{', '.join(left)} can no longer be brought back to the version before: "
        f"{'it' if len(left) == 1 else 'they'} turned together with {', '.join(again)} in rotation {found}"
        for found, again, left, alone in _parted(content, names)
        if left and not alone
    ]


def _follow(content: dict[str, Any], rotation_id: str) -> None:
    """Take what has turned out of the rotations before: what is left there keeps its way back where it may."""
    for found, again, left, alone in _parted(content, content["rotations"][rotation_id]["secrets"], rotation_id):
        earlier = content["rotations"][found]
        earlier["followed"] = {**earlier.get("followed", {}), **dict.fromkeys(again, rotation_id)}
        if left and alone:
            earlier["secrets"] = left
        else:
            earlier["status"] = "superseded"


def turned_in(rotation: Mapping[str, Any]) -> list[str]:
    """All secrets that turned in a rotation, those too that have turned again since and left it."""
    return sorted({*rotation["secrets"], *rotation.get("followed", ())})


def catching_up(content: Mapping[str, Any], name: str, waived: Iterable[str]) -> str | None:
    """The rotation in which this secret turned without hosts that are waived no longer, if there is one."""
    current = content["secrets"].get(name, {}).get("current")
    rotation = content["rotations"].get(current, {})
    behind = {entry["host"] for entry in rotation.get("waived", ())} - set(waived)
    return str(current) if behind and rotation["status"] == _TURNED else None


def _catch_up(content: dict[str, Any], names: Sequence[str], details: Mapping[str, Any]) -> str | None:
    """Reopen a rotation for hosts that have come back; they are brought to where the others are."""
    waived = [entry["host"] for entry in details.get("waived", ())]
    ids = {catching_up(content, name, waived) for name in names}
    found = ids.pop() if len(ids) == 1 else None
    if found is not None:
        content["rotations"][found].update(status="open", waived=list(details.get("waived", ())))
        for name in content["rotations"][found]["secrets"]:
            content["secrets"][name]["open"] = found
    return found


def _mine(content: Mapping[str, Any], rotation_id: str, epoch: int) -> dict[str, Any]:
    rotation = find(content, rotation_id)
    if rotation["epoch"] != epoch:
        raise KeyturnError(
            "fenced",
            f"rotation {rotation_id} was taken over by a later run",
            where="state host",
            hint="Nothing was changed by this run. Follow the run that took over",
        )
    return rotation


def advance(
    content: dict[str, Any], rotation_id: str, epoch: int, phase: str, now: float, **facts: Any
) -> dict[str, Any]:
    """Enter a phase (recorded before its work begins) and keep facts a later run needs.

    With ``retire`` the way back ends: until then a retire has only asked whether it may begin.

    :raises KeyturnError: ``fenced``.
    """
    rotation = _mine(content, rotation_id, epoch)
    rotation["phase"] = phase
    if phase == "retire":
        rotation["status"] = _RETIRING
    if phase not in rotation["entered"]:
        rotation["entered"].append(phase)
    for key, value in facts.items():
        if value is not None:
            rotation[key] = value
    _lease(rotation, now)
    return rotation


def turn_back(content: dict[str, Any], rotation_id: str, epoch: int, now: float, cause: str = "") -> dict[str, Any]:
    """Change direction; the epoch grows, so that what this run left behind going forward is refused.

    :param cause: what failed; empty where this run was to go back from its start.
    :raises KeyturnError: ``fenced``.
    """
    rotation = _mine(content, rotation_id, epoch)
    rotation["epoch"] = _next_epoch(content)
    rotation["status"] = "rolling_back"
    rotation["restarted"] = []
    rotation["cause"] = cause or rotation.get("cause") or ASKED
    _lease(rotation, now)
    return rotation


def begin_back(content: dict[str, Any], rotation_id: str, epoch: int, now: float) -> dict[str, Any]:
    """From here on the way back changes things, and has to be gone to its end.

    :raises KeyturnError: ``fenced``.
    """
    rotation = _mine(content, rotation_id, epoch)
    rotation.pop(_WAS, None)
    _lease(rotation, now)
    return rotation


def stay(content: dict[str, Any], rotation_id: str, epoch: int) -> dict[str, Any]:
    """End a way back that has only asked whether it may begin: all is as it was before somebody asked for it.

    :raises KeyturnError: ``fenced``.
    """
    rotation = release(content, rotation_id, epoch)
    rotation.update(rotation.pop(_WAS))
    if rotation["cause"] is None:
        del rotation["cause"]
    if rotation["status"] == _TURNED:
        for name in rotation["secrets"]:
            content["secrets"][name]["open"] = None
    return rotation


def release(content: dict[str, Any], rotation_id: str, epoch: int) -> dict[str, Any]:
    """Stop here, still open: the next run goes on without waiting.

    :raises KeyturnError: ``fenced``.
    """
    rotation = _mine(content, rotation_id, epoch)
    rotation["holder"] = None
    rotation["lease_until"] = 0
    return rotation


def finish(
    content: dict[str, Any], rotation_id: str, epoch: int, status: str, stamp: str, **facts: Any
) -> dict[str, Any]:
    """End this run with a status.

    ``overlap`` (turned), ``retired``, ``replaced`` and ``rolled_back`` free the lock; ``rollback_pending``, ``stuck``,
    ``retiring`` and ``replacing`` keep it. With ``rolled_back`` an emergency that was refused gives back what it took.
    What has turned leaves the rotation in which it turned before.

    :raises KeyturnError: ``fenced``.
    """
    rotation = release(content, rotation_id, epoch)
    rotation["status"] = status
    rotation["ended_at"] = stamp
    rotation.update({key: value for key, value in facts.items() if value is not None})
    if status in ("rollback_pending", "stuck", _RETIRING, _REPLACING):
        return rotation
    if status in (_TURNED, _REPLACED):
        _follow(content, rotation_id)
    for name in rotation["secrets"]:
        secret = content["secrets"][name]
        secret["open"] = None
        if status in (_TURNED, _REPLACED):
            rotation.setdefault("turned_at", stamp)
            if secret.get("current") != rotation_id:
                secret["current"] = rotation_id
                secret["primary_since"] = stamp
        elif status == "rolled_back" and secret.get("current") == rotation_id:
            secret["current"] = None
            _since_before(content, name)
    if status == "rolled_back":
        _give_back(content, rotation)
    return rotation


def _since_before(content: dict[str, Any], name: str) -> None:
    """Since when the version is primary that a way back has brought back; unknown for one from before all rotations."""
    secret = content["secrets"][name]
    secret.pop("primary_since", None)
    turned = [
        rotation["turned_at"]
        for rotation in content["rotations"].values()
        if (
            name in rotation.get("followed", ()) or (name in rotation["secrets"] and rotation["status"] in _WAS_PRIMARY)
        )
        and rotation.get("turned_at")
    ]
    if turned:
        secret["primary_since"] = max(turned)


def has_way_back(content: Mapping[str, Any], name: str) -> bool:
    """Whether a secret has turned and what it turned from is kept."""
    current = content["secrets"].get(name, {}).get("current")
    return bool(content["rotations"].get(current, {}).get("status") == _TURNED)


def undoable(content: Mapping[str, Any]) -> list[str]:
    """The rotations that still have a way back, or are not over: what they need must stay."""
    over = ("retired", "closed", "rolled_back", "superseded", _REPLACED)
    return sorted(name for name, rotation in content["rotations"].items() if rotation["status"] not in over)


def close(content: dict[str, Any], rotation_id: str, stamp: str, held: Sequence[str]) -> dict[str, Any]:
    """Note which backups still hold the version that a rotation retired; it is closed when there is none.

    :raises KeyturnError: ``rotation-unknown``; ``rotation-open`` for one that is not over.
    """
    rotation = find(content, rotation_id)
    if rotation["status"] not in ("retired", "superseded", "closed"):
        raise KeyturnError(
            "rotation-open",
            f"rotation {rotation_id} is {rotation['status']}",
            where="state host",
            hint="Retire it first",
        )
    rotation["held"] = list(held)
    if not held and rotation["status"] != "closed":
        rotation.update(status="closed", closed_at=stamp)
    return rotation
