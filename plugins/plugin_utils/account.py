# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run amounts to: how it ended, the evidence record, and the lines that a person reads. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.keyturn.rotation.plugins.module_utils.closing import held_by
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.material import mask_texts
from ansible_collections.keyturn.rotation.plugins.module_utils.plan import parse_stamp
from ansible_collections.keyturn.rotation.plugins.module_utils.steps import is_quiesced
from ansible_collections.keyturn.rotation.plugins.module_utils.window import measured_by, overlap_window
from ansible_collections.keyturn.rotation.plugins.plugin_utils import (
    emergencies,
    keysets,
    logins,
    plan_table,
    remains,
    signing,
)
from ansible_collections.keyturn.rotation.plugins.plugin_utils.controller import on_record
from ansible_collections.keyturn.rotation.plugins.plugin_utils.figures import duration, have_turned, progress, thousands

__all__ = [
    "COUNTS",
    "NO_BACKUP",
    "STATUSES",
    "Answers",
    "Run",
    "backup_lines",
    "coverage_rows",
    "evidence_record",
    "held_lines",
    "job_lines",
    "left_behind",
    "outcome",
    "phases_of",
    "plan_lines",
    "stopped_on",
    "summary_lines",
]

#: What the phases cost besides the rows.
_OVERHEAD_SECONDS = 15
#: A job that runs says something about once a second.
_SILENT_SECONDS = 30
#: Tables that one line names.
_SHOWN_TABLES = 3
NO_BACKUP = "no backup was made, as keyturn_skip_backup asked: there is no copy of the files as they were"
#: How a run may leave its rotation.
STATUSES = (
    "overlap",
    "open",
    "kept",
    "retired",
    "retiring",
    "replaced",
    "replacing",
    "refused",
    "rolled_back",
    "rollback_pending",
    "stuck",
    "stayed",
)
#: Those of them in which a host is not back.
_NOT_BACK = ("rollback_pending", "stuck", "stayed")
COUNTS = ("total", "new", "old", "plaintext", "null", "unknown")
#: Answers by registered name, then by host.
Answers = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Run:
    """All that is known at the end of a run.

    :param plan: the plan.
    :param mode: ``rotate``, ``rollback``, ``retire`` or ``emergency``.
    :param rotation_id: the rotation.
    :param rotation: its record in the register.
    :param answers: what hosts registered, by name without its leading ``__rotation_``.
    :param kinds: what the kinds registered: host, step (``preflight`` …) and each result.
    :param until: the phase after which the run was asked to stop, empty otherwise.
    :param who: who runs this.
    :param register: all of the register, where the record needs it: at the end of a run.
    """

    plan: Mapping[str, Any]
    mode: str
    rotation_id: str
    rotation: Mapping[str, Any]
    answers: Answers
    kinds: Sequence[tuple[str, str, Mapping[str, Any]]] = ()
    until: str = ""
    who: Mapping[str, Any] = field(default_factory=dict)
    register: Mapping[str, Any] = field(default_factory=dict)

    def hosts_with(self, name: str) -> list[str]:
        """Hosts that registered this."""
        return sorted(self.answers.get(name, {}))


def outcome(run: Run) -> tuple[str, list[str]]:
    """The status that the rotation has now, and the hosts that were lost.

    One of ``overlap`` (turned), ``open`` (stopped after a phase), ``retired``, ``retiring`` (did not finish), ``kept``
    (a retire that was refused before it removed anything), ``replaced``, ``replacing`` (an emergency that did not
    finish), ``refused`` (one that has replaced nothing), ``rolled_back``, ``rollback_pending``, ``stuck``, ``stayed``
    (a way back that was refused before it changed anything).
    """
    expected = set(run.plan["hosts"])
    lost = sorted(expected - set(run.answers.get("closed", {})))
    back = run.mode == "rollback" or bool(run.answers.get("turn"))
    if not back:
        failed = bool(lost or run.answers.get("cause"))
        if run.mode == "retire":
            unfinished = "kept" if run.rotation.get("status") == "overlap" else "retiring"
            return (unfinished if failed else "retired"), lost
        if run.mode == "emergency":
            unfinished = "replacing" if "replace" in run.rotation.get("entered", ()) else "refused"
            return (unfinished if failed else "replaced"), lost
        if _turning_round_failed(run):
            return "stuck", []
        if run.until or run.answers.get("stopped"):
            return "open", lost
        return "overlap", lost
    if run.mode == "rollback" and run.rotation.get("was"):
        return "stayed", lost
    returned = _back_on(run)
    entered = set(run.rotation.get("entered", ()))
    touched = {"promote", "reload"} & entered
    missing = expected - returned
    if entered <= {"preflight", "backup"}:  # nothing was changed anywhere: a host that can do nothing is as it was
        return "rolled_back", lost
    if not missing or (not touched and not (missing - set(lost))):
        return "rolled_back", lost
    if lost and touched:
        return "rollback_pending", sorted(missing if missing <= set(lost) else lost)
    return "stuck", []


def _back_on(run: Run) -> set[str]:
    """The hosts that went all the way back."""
    return {host for host, said in run.answers.get("is_back", {}).items() if said.get("value") == run.rotation_id}


def _done(run: Run, status: str, lost: Sequence[str]) -> list[str]:
    """The hosts that are where the run has brought the rotation, or was to bring it back."""
    done = set(run.plan["hosts"]) - set(lost)
    return sorted(done & _back_on(run) if status in _NOT_BACK else done)


def left_behind(run: Run) -> list[str]:
    """Hosts that a way back was told to do without, and that this rotation had taken along."""
    known = {entry["host"] for entry in run.rotation.get("waived", ())}
    is_touched = {"promote", "reload"} & set(run.rotation.get("entered", ()))
    return sorted(entry["host"] for entry in run.plan["waived"] if is_touched and entry["host"] not in known)


def _turning_round_failed(run: Run) -> bool:
    """Whether something failed in this rotation and the register could not even be told that it goes back."""
    answers = (run.answers.get(name, {}) for name in ("cause", "stuck"))
    return any(said.get("rotation") == run.rotation_id for found in answers for said in found.values())


def stopped_on(run: Run) -> list[tuple[str, Mapping[str, Any]]]:
    """Where the way back of this rotation stopped, by host.

    What stops one of them ends it on the others too, which cannot say why.
    """
    stuck = sorted(run.answers.get("stuck", {}).items())
    found = [(host, said) for host, said in stuck if said.get("rotation", run.rotation_id) == run.rotation_id]
    return [(host, said) for host, said in found if said.get("task") != "unknown"] or found


def phases_of(journal: Iterable[Mapping[str, Any]], ended: str, failed: bool) -> list[dict[str, Any]]:
    """Phases with their times from the journal; one that was entered again after an interruption is listed again."""
    phases: list[dict[str, Any]] = []
    for entry in journal:
        event = entry.get("event")
        if event not in ("advance", "turn_back", "stay", "acquire", "release", "finish"):
            continue
        if phases and phases[-1]["ended_at"] is None:
            phases[-1]["ended_at"] = entry["at"]
            phases[-1]["seconds"] = _seconds(phases[-1]["started_at"], entry["at"])
            phases[-1]["result"] = {"acquire": "interrupted", "turn_back": "failed"}.get(str(event), "ok")
        if event in ("advance", "turn_back"):
            name = entry.get("phase") or "rollback"
            phases.append({"name": name, "started_at": entry["at"], "ended_at": None, "seconds": None, "result": "ok"})
    if phases and phases[-1]["ended_at"] is None:
        phases[-1].update(
            ended_at=ended, seconds=_seconds(phases[-1]["started_at"], ended), result="failed" if failed else "ok"
        )
    return phases


def _seconds(start: str, end: str) -> float:
    def whole(stamp: str) -> float:
        return parse_stamp(stamp) + (int(stamp[20:23]) / 1000 if len(stamp) > 20 else 0)

    return round(max(0.0, whole(end) - whole(start)), 3)


def coverage_rows(run: Run, steps: Sequence[str] = ("verify", "preflight")) -> list[dict[str, Any]]:
    """Coverage per column from the latest step that counted it."""
    for step in steps:
        rows = [
            {
                "host": host,
                "database": (result.get("job") or result.get("documents") or {}).get("database"),
                "table": row["table"],
                "column": row["column"],
                **{count: int(row[count]) for count in COUNTS},
            }
            for host, kind_step, result in run.kinds
            if kind_step == step
            for row in result.get("coverage", ())
        ]
        if rows:
            return rows
    return []


def _place(row: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """A column, with its database where the rotation concerns several."""
    databases = {each.get("database") for part in ("coverage", "cleared") for each in record.get(part, ())}
    within = f"{row['database']}: " if len(databases) > 1 and row.get("database") else ""
    return f"{within}{row['table']}.{row['column']}"


def _cleared(run: Run) -> list[dict[str, Any]]:
    return [
        {
            "host": host,
            "database": (result.get("job") or {}).get("database"),
            "table": row["table"],
            "column": row["column"],
            "rows": int(row["rows"]),
        }
        for host, step, result in run.kinds
        if step == "verify"
        for row in result.get("cleared", ())
    ]


_STATES = {
    "overlap": ("primary", "previous"),
    "retired": ("primary", "retired"),
    "retiring": ("primary", "previous"),
    "kept": ("primary", "previous"),
    **emergencies.STATES,
    "refused": ("dropped", "primary"),
    "rolled_back": ("dropped", "primary"),
    "rollback_pending": ("staged", "primary"),
    "stuck": ("staged", "primary"),
    "stayed": ("primary", "previous"),
}


#: The event of the evidence where it is not the status.
_EVENTS = {
    "overlap": "rotated",
    "retiring": "failed",
    "kept": "failed",
    "replacing": "failed",
    "refused": "failed",
    "stayed": "failed",
}


def _gap_ms(plan: Mapping[str, Any], phases: Sequence[Mapping[str, Any]]) -> int | None:
    """From the first start of promote to the last end of restart, an upper bound of what a one-key reader noticed.

    A run that was interrupted enters its phases again, and services have waited since the first of them.
    """
    if logins.no_gap(plan) or keysets.no_gap(plan):
        return 0
    times = {name: [phase for phase in phases if phase["name"] == name] for name in ("promote", "restart")}
    if not all(times.values()) or times["restart"][-1]["ended_at"] is None:
        return None
    return round(1000 * _seconds(times["promote"][0]["started_at"], times["restart"][-1]["ended_at"]))


def _since_turned(journal: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """What came after the last end of a run that had one: hosts that catch up have a gap of their own."""
    ends = [number for number, entry in enumerate(journal) if entry.get("event") == "finish"]
    return journal[ends[-1] + 1 :] if ends else journal


def evidence_record(
    run: Run, status: str, lost: Sequence[str], journal: Sequence[Mapping[str, Any]], now: str
) -> dict[str, Any]:
    """The record that is sealed: who, when, why, what, and how far it is proven.

    People's own words and messages of others are in it. What looks like a secret in them is masked: it would be refused
    by the seal, and a rotation without evidence can neither end nor go back.
    """
    rotation = run.rotation
    event = _EVENTS.get(status, status)
    failed = event in ("stuck", "rollback_pending", "failed")
    phases = phases_of(journal, now, failed)
    was_open = status == "stayed" and rotation["was"]["status"] != "overlap"
    new_state, old_state = _STATES.get("" if was_open else status, ("staged", "primary"))
    if status == "replacing" and emergencies.has_turned(rotation):
        new_state = "primary"
    health = {
        when: {
            f"{host}/{name}": service["status"]
            for host, said in run.answers.get(source, {}).items()
            for name, service in said.get("services", {}).items()
        }
        for when, source in (("before", "baseline"), ("after", "health"))
    }
    worse = [entry for said in run.answers.get("health", {}).values() for entry in said.get("worse", ())]
    record: dict[str, Any] = {
        "schema_version": 1,
        "rotation_id": run.rotation_id,
        "event": event,
        "secrets": [
            {
                "name": secret["name"],
                "kind": secret["kind"],
                "strategy": secret["strategy"],
                "versions": [
                    {"version": "new", "state": new_state, "at": _since(run, status, new_state, now)},
                    {
                        "version": "old",
                        "state": old_state,
                        "at": _since_before(run, secret["name"])
                        if old_state == "primary" and not _has_moved(rotation, status)
                        else _since(run, status, old_state, now),
                    },
                ],
            }
            for secret in run.plan["secrets"]
        ],
        "who": on_record(run.who),
        "when": {"started_at": rotation["started_at"], "ended_at": now},
        "why": rotation.get("reason") or "no reason given",
        "plan_digest": rotation.get("plan_digest"),
        "runs": [
            {key: entry[key] for key in ("run_id", "epoch", "user", "started_at", "interrupted")}
            for entry in rotation.get("runs", ())
        ],
        "phases": phases,
        "hosts": {
            "expected": sorted(run.plan["hosts"]),
            "done": _done(run, status, lost),
            "waived": list(run.plan["waived"]),
            "lost": list(lost),
        },
        "coverage": coverage_rows(run),
        "cleared": _cleared(run),
        "probes": _probes(run),
        **keysets.told(run.kinds),
        **signing.told(run.kinds, run.mode == "emergency"),
        "health": {**health, "worse": worse},
        "gap_ms": _gap_ms(run.plan, phases_of(_since_turned(journal), now, failed)) if status == "overlap" else None,
        **_still_holding(run, now),
        **({"exposed": emergencies.exposed(run)} if status in emergencies.STATES else {}),
        "software": _software(run),
        "messages": [
            *_messages(run, rotation, status),
            *(str(entry["text"]) for entry in journal if entry.get("event") == "note"),
        ],
    }
    masked: dict[str, Any] = mask_texts(record)
    return masked


def _since(run: Run, status: str, state: str, now: str) -> str:
    """When a version came into its state: where the rotation turned in an earlier run, then."""
    turned_before = (run.mode == "retire" or status == "stayed") and state in ("primary", "previous")
    return str(run.rotation.get("turned_at") or now) if turned_before else now


def _has_moved(rotation: Mapping[str, Any], status: str) -> bool:
    """Whether the version before may have been primary no more, so that it is so again since now."""
    return status != "refused" and bool(rotation.get("turned_at") or "promote" in rotation.get("entered", ()))


def _since_before(run: Run, name: str) -> str | None:
    """Since when the version is primary that nothing has moved; None where that was before all rotations."""
    since = run.register.get("secrets", {}).get(name, {}).get("primary_since")
    return str(since) if since else None


def _still_holding(run: Run, now: str) -> dict[str, Any]:
    """The backups that hold the version before; nothing where a run does not know them."""
    if run.mode == "retire":
        told = {host: said["backups"] for host, said in run.answers.get("pruned", {}).items() if "backups" in said}
        held = held_by(run.register, run.rotation_id, now, run.plan["hosts"], told)
        if held is None:
            return {}
        return {"backups": [_backup(host, backup) for host, backup in held]}
    made = sorted(run.answers.get("backup", {}).items())
    return {"backups": [_backup(host, said["backup"]) for host, said in made if said.get("backup")]}


def _backup(host: str, backup: Mapping[str, Any]) -> dict[str, Any]:
    return {"host": host, "path": backup["path"], "expires": backup.get("expires") or None}


def _probes(run: Run) -> list[dict[str, Any]]:
    rows = []
    answers = [
        entry for name in ("probes", "refusals", "watched") for entry in sorted(run.answers.get(name, {}).items())
    ]
    for host, said in answers:
        for probe in said.get("probes", ()):
            version = probe.get("version")
            rows.append(
                {
                    "name": probe["name"],
                    "type": probe["type"],
                    "version": version if version in ("new", "old") else "new",
                    "expected": "refused" if probe.get("refused") else "accepted",
                    "result": probe["result"],
                    "host": host,
                }
            )
    return rows + keysets.probe_rows(run.kinds) + logins.login_rows(run.kinds)


def _software(run: Run) -> dict[str, str]:
    versions = {
        f"python on {host}": said["python"]
        for host, said in run.answers.get("session", {}).items()
        if said.get("python")
    }
    for host, _step, result in run.kinds:
        if result.get("server_version"):
            versions[f"postgresql for {host}"] = str(result["server_version"])
    return {**versions, **run.who.get("software", {})}


def _shared(result: Mapping[str, Any]) -> str:
    """Which hosts have re-encrypted a database together."""
    parts = [f"{thousands(entry['rows_written'])} rows by {entry['host']}" for entry in result["shared"]]
    return f"{result['job']['database']}: {', '.join(parts)}"


def _messages(run: Run, rotation: Mapping[str, Any], status: str) -> list[str]:
    found = [NO_BACKUP] if rotation.get("skip_backup") else []
    remaining = remains.after(run.plan, status, [result for _host, step, result in run.kinds if step == "retire"])
    if remaining:
        found.append(remaining)
    found += [_shared(result) for _host, step, result in run.kinds if step == "migrate" and result.get("shared")]
    found += [
        f"a copy of the new version lies on {host}, encrypted: {', '.join(said['paths'])}"
        for host, said in sorted(run.answers.get("escrow", {}).items())
    ]
    found += logins.restart_notes(run.kinds) + keysets.waited(run.plan) if status == "overlap" else []
    found += [f"overlap window of {text}" for text in _windows(run)] if status == "overlap" else []
    found += signing.notes(run.kinds) + emergencies.notes(run, status)
    found += [f"held back: {entry['name']}, since {entry['reason']}" for entry in run.plan.get("held", ())]
    if status in ("overlap", "replaced"):
        found += run.plan.get("losing", ())
    if status == "overlap":
        found += [f"{text} of before: the catalog does not name it, so it did not follow" for text in _copies(run)]
    if status == "rolled_back":
        found += [
            f"{host} was waived and may hold the new version: keep its services stopped. When it is back, put the "
            f"version before into its stores (secrets/NAME/{run.rotation_id}/old in its state folder), then start them"
            for host in left_behind(run)
        ]
    if rotation.get("cause") and run.mode != "rollback":
        found.append(f"went back: {rotation['cause']}")
    for host, said in stopped_on(run):
        found.append(f"{host}: the way back stopped at {said.get('task')}: {said.get('msg')}")
    if run.mode == "retire":
        found += [
            f"a copy of another version of {name} lies on {host}, encrypted: {name}/{other}"
            for host, said in sorted(run.answers.get("escrow_left", {}).items())
            for name, others in sorted(said.get("left", {}).items())
            for other in others
            if other != run.rotation_id
        ]
        found += [
            f"{host}: {said['task']}: {said['msg']}" for host, said in sorted(run.answers.get("cause", {}).items())
        ]
    found += [
        f"the run of {entry['user']} at {entry['started_at']} was interrupted"
        for entry in rotation.get("runs", ())
        if entry["interrupted"]
    ]
    return found


# -- for people --------------------------------------------------------------------------------------------------


def summary_lines(
    run: Run, status: str, lost: Sequence[str], record: Mapping[str, Any], evidence: Mapping[str, Any]
) -> list[str]:
    """The end of a run in a few lines: what was turned, how far it is proven, where the evidence is, the way back."""
    turned = [secret["name"] for secret in run.plan["secrets"]]
    names = ", ".join(turned)
    after = f"in {run.rotation.get('phase')}" if run.answers.get("stopped") else f"after {run.until}"
    heads = {
        "overlap": f"{names} {have_turned(turned)}",
        "open": f"{names}: stopped {after} as asked",
        "retired": f"{names}: the previous version is retired",
        "retiring": f"{names}: retire did not finish; run it again",
        "kept": f"{names}: the previous version was not retired, and nothing was removed",
        "replaced": f"{names}: the compromised version is replaced and disabled",
        "replacing": f"{names}: the emergency is not over; run the same command again",
        "refused": f"{names}: the emergency was refused; nothing was replaced",
        "rolled_back": f"{names}: everything is back on the version before{_except(left_behind(run))}",
        "rollback_pending": f"{names}: rolled back, except on {', '.join(lost)}",
        "stuck": f"{names}: the way back did not finish",
        "stayed": f"{names}: the way back was refused; nothing was changed",
    }
    lines = ["", heads[status], f"  rotation    {run.rotation_id}"]
    if run.rotation.get("skip_backup"):
        lines.append(f"  WARNING     {NO_BACKUP}")
    lines += [
        f"  data        {_place(row, record)}: {thousands(row['total'])} rows, {thousands(row['new'])} new, "
        f"{thousands(row['old'])} old, {thousands(row['plaintext'])} plaintext, {thousands(row['null'])} null, "
        f"{thousands(row['unknown'])} unknown"
        for row in record.get("coverage", ())
    ]
    lines += [
        f"  cleared     {_place(row, record)}: {thousands(row['rows'])} rows" for row in record.get("cleared", ())
    ]
    lines += logins.server_lines(run.kinds)
    lines += keysets.lines(run.kinds)
    hosts = record["hosts"]
    back = " are back" if status in _NOT_BACK else ""
    lines.append(f"  hosts       {len(hosts['done'])} of {len(hosts['expected'])}{back}")
    if hosts["waived"]:
        again = "" if status == "rolled_back" else "; run again when back"
        lines.append(f"  waived      {', '.join(entry['host'] for entry in hosts['waived'])}{again}")
    if record.get("gap_ms") is not None:
        lines.append(f"  gap         at most {record['gap_ms']} ms (promote to last restart)")
    if record.get("phases"):
        began = run.rotation["runs"][-1]["started_at"]
        lines.append(f"  time        {duration(_seconds(began, record['when']['ended_at']))}")
    lines += [f"  note        {_wrap(text)}" for text in record.get("messages", ())]
    if evidence.get("path"):
        lines += [f"  evidence    {evidence['path']}", f"  report      {evidence['report']}"]
    lines += [f"  WARNING     {_wrap(text)}" for text in evidence.get("problems", ())]
    lines += _what_next(status, lost, names.replace(", ", ","))
    return lines


def _except(hosts: Sequence[str]) -> str:
    return f", except on {', '.join(hosts)}" if hosts else ""


def _wrap(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def _what_next(status: str, lost: Sequence[str], only: str) -> list[str]:
    back = f"ansible-playbook keyturn.rotation.rollback -e keyturn_only={only}"
    if status in ("overlap", "kept"):
        return [f"  way back    {back}"]
    if status == "replaced":
        return ["  way back    none"]
    if status in ("replacing", "refused"):
        again = f"ansible-playbook keyturn.rotation.emergency -e keyturn_only={only} -e keyturn_confirm={only}"
        if status == "refused":
            return [
                "  holds       the compromised version is in use as before",
                f"  do          mend it, then: {again}",
            ]
        return ["  holds       nothing was brought back, and nothing will be", f"  do          {again}"]
    if status == "rollback_pending":
        return [f"  do          bring {', '.join(lost)} back, then run: {back}"]
    if status == "stuck":
        return [
            "  holds       both versions are kept on the hosts; nothing was thrown away",
            f"  do          mend what the notes say, then run: {back}",
        ]
    if status == "stayed":
        return [f"  do          mend what the notes say, then run: {back}"]
    if status == "open":
        return [
            f"  go on       ansible-playbook keyturn.rotation.rotate -e keyturn_only={only}",
            f"  way back    {back}",
        ]
    return []


def plan_lines(run: Run, overview: Iterable[Mapping[str, Any]]) -> list[str]:
    """The plan as a table: what, where, how many rows, how long, what users will notice."""
    plan = run.plan
    lines = ["", "Plan"]
    if plan.get("skip_backup"):
        lines.append("  WARNING     no backup will be made, as keyturn_skip_backup asks")
    if plan["secrets"]:
        lines += plan_table.plan_table(plan, overview)
    lines += [f"  notice      {secret['notice']}" for secret in plan["secrets"] if secret.get("notice")]
    for host, work in plan["hosts"].items():
        files = {store["path"] for entry in work["secrets"] for store in entry["stores"]}
        parts = [f"write {path}" for path in sorted(files)]
        parts += [
            f"{'reload' if service.get('reloads') else 'restart'} {service['name']}" for service in work["services"]
        ]
        parts += [f"{column['table']}.{column['column']}" for job in work["jobs"] for column in job["columns"]]
        parts += logins.planned(work)
        parts += signing.planned(work)
        lines.append(f"  host        {host}: {', '.join(parts) or 'keeps the state'}")
    for host, jobs in plan["helpers"].items():
        names = ", ".join(sorted({job["database"] for job in jobs}))
        is_lost = host not in plan["hosts"] and host not in run.answers.get("session", {})
        lines.append(f"  helps       {host}: {names}" + (", but cannot be reached now" if is_lost else ""))
    lines += [f"  waived      {entry['host']} until {entry['until']}: {entry['reason']}" for entry in plan["waived"]]
    lines += held_lines(plan.get("held", ()))
    lines += [f"  warning     {text}" for text in plan.get("losing", ())]
    lines += [f"  warning     {text}, and the catalog does not name it" for text in _copies(run)]
    if plan.get("emergency"):
        lines += emergencies.announced(run)
        lines.append(f"  phases      {' → '.join(plan['phases'])}")
    else:
        lines += [f"  overlap     {text}" for text in _windows(run)]
        lines += _expected(run) if plan["secrets"] else []
    lines.append(f"  digest      {plan['digest']}")
    return lines


def _windows(run: Run) -> list[str]:
    """The overlap window of each secret that has one, with its parts and where they come from."""
    measured = measured_by(run.answers.get("jwks", {}))
    lines = []
    for secret in run.plan["secrets"]:
        planned = secret.get("window")
        if planned is None:
            continue
        name = secret["name"]
        try:
            window = overlap_window(planned["figures"], measured.get(name, {}), planned["floor"])
        except KeyturnError as error:
            lines.append(f"{name}: {error.message}")
            continue
        parts = [f"{duration(part.seconds)} {part.name} ({part.source})" for part in window.parts]
        floor = f", at least {duration(window.floor)} overlap_min" if window.floor else ""
        lines.append(f"{name}: {' + '.join(parts)}{floor} = {duration(window.seconds)}")
    return lines


def _copies(run: Run) -> list[str]:
    """Places that hold a value and will not follow it."""
    return [
        f"{copy['path']} line {copy['line']}{' ' + copy['variable'] if copy['variable'] else ''} on {host} "
        f"holds {copy['secret']} ({copy['form']})"
        for host, said in sorted(run.answers.get("found", {}).items())
        for copy in said.get("copies", ())
    ]


def held_lines(held: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is not turned, why, and what to write or run."""
    lines: list[str] = []
    for entry in held:
        lines.append(f"  held back   {entry['name']}: {entry['reason']}")
        lines += [f"              {line}" for line in entry["lines"]]
    return lines


def _not_searched(host: str, result: Mapping[str, Any]) -> list[str]:
    """One line on the tables that a search could not look at."""
    tables = [f"{row['table']} ({row['reason']})" for row in result.get("unreadable", ())]
    if not tables:
        return []
    more = f", and {len(tables) - _SHOWN_TABLES} more" if len(tables) > _SHOWN_TABLES else ""
    return [
        f"  warning     {result['job']['database']} on {host}: not searched for columns without a name in the catalog: "
        f"{', '.join(tables[:_SHOWN_TABLES])}{more}"
    ]


def _expected(run: Run) -> list[str]:
    """What the counts of preflight promise: rows, slow requests, duration."""
    seconds, wait = float(_OVERHEAD_SECONDS), 0.0
    is_swapped = run.plan["strategy"] == "cutover"
    lines = []
    for host, step, result in run.kinds:
        if step != "preflight":
            continue
        for row in result.get("coverage", ()):
            shown = {count: thousands(int(row[count])) for count in COUNTS}
            change = thousands(row["old"] + row["plaintext"])
            lines.append(
                f"  rows        {row['table']}.{row['column']} on {host}: {shown['total']} rows, "
                f"{change} to re-encrypt ({shown['plaintext']} plaintext, {shown['null']} null"
                + (f", {thousands(row['skipped'])} not meant)" if row.get("skipped") else ")")
            )
        lines += [
            f"  warning     {row['table']}.{row['column']} on {host}{' ' + row['path'] if row['path'] else ''}: "
            f"{row['opened']} of {row['sampled']} samples open as {row['envelope']} under the {row['key']} key, "
            "and the catalog does not name it"
            for row in result.get("found", ())
        ]
        lines += _not_searched(host, result)
        estimates = result.get("estimates", {})
        seconds += float(estimates.get("seconds") or 0)
        choice = result.get("choice")
        if choice and is_swapped:
            lines.append(
                f"  cut-over    {result['job']['database']} on {host}: by {choice['cut_over']}; {choice['why']}"
            )
            lines += [f"              not by columns: {refusal}" for refusal in choice["refusals"]]
        if not choice or choice["cut_over"] == "rows":
            wait += float(estimates.get("writer_wait_ms") or 0)
    hosts = run.plan["hosts"].values()
    for row in (row for work in hosts for job in work["jobs"] for row in job["clear"]):
        lines.append(f"  clear       {row['table']}.{row['column']}: one slow request per row until it is filled again")
    remaining = remains.expected(run.plan)
    if remaining:
        lines.append(f"  remains     {remaining}")
    stopped = any(is_quiesced(run.plan, service) for work in hosts for service in work["services"])
    how = "services are stopped for the swap and started after it" if stopped else "services run on"
    lasts = f"{wait:.0f} ms" if wait else "some milliseconds"
    swap = f"; the swap takes {lasts}" if is_swapped else ""
    lines.append(f"  expected    about {duration(seconds)}; {how}{swap}")
    lines.append(f"  phases      {' → '.join(run.plan['phases'])}")
    return lines


def job_lines(host: str, jobs: Iterable[Mapping[str, Any]]) -> list[str]:
    """One line for each re-encryption that runs on a host."""
    return [
        f"    {job['database']} on {host}: {progress(job)}"
        + (f", no word for {duration(job['silent_s'])}" if job["silent_s"] > _SILENT_SECONDS else "")
        for job in jobs
    ]


def backup_lines(answers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What each backup holds and whether it is as it was made, the newest first.

    :param answers: by host, ``backups`` as ``secret_backup`` lists them.
    """
    sums = {"ok": "checksums ok", "wrong": "NOT as it was made", "none": "no checksums"}
    lines = ["", "Backups"]
    for host, said in sorted(answers.items()):
        lines.append(f"  {host}" + ("" if said["backups"] else ": none"))
        for backup in reversed(said["backups"]):
            facts = [backup["time"], sums[backup["checksums"]]]
            facts += [f"encrypted with {backup['encryption']}"] if backup["encryption"] else []
            facts += [backup["reason"]] if backup["reason"] else []
            facts += ["made by another program"] if backup["foreign"] else []
            facts += [] if backup["complete"] else ["cannot be restored"]
            lines.append(f"    {backup['name']}: {', '.join(facts)}")
            for title, words in (
                ("rotation", [backup["rotation_id"]]),
                ("secrets", backup["secrets"]),
                ("services", backup["services"]),
                ("files", backup["files"]),
            ):
                if any(words):
                    lines.append(f"      {title:<9} {', '.join(words)}")
    return lines
