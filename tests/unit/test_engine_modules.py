# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's own modules: rotation_host opens and closes, rotation_plan and rotation_gate refuse, rotation_close and
rotation_show say how it stands.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.keyturn.rotation.plugins.action.rotation_gate import _boxes
from ansible_collections.keyturn.rotation.plugins.action.rotation_state import _cause
from ansible_collections.keyturn.rotation.plugins.module_utils import host, registry, sealed
from ansible_collections.keyturn.rotation.plugins.module_utils.errors import KeyturnError
from ansible_collections.keyturn.rotation.plugins.module_utils.evidence.record import check_record
from ansible_collections.keyturn.rotation.plugins.module_utils.session import Session
from ansible_collections.keyturn.rotation.plugins.plugin_utils import account, standing
from ansible_collections.keyturn.rotation.plugins.plugin_utils.action_base import failure_of, silent_hosts
from ansible_collections.keyturn.rotation.plugins.plugin_utils.helping_host import tolerated
from ansible_collections.keyturn.rotation.plugins.plugin_utils.verdict import verdict

from tests.support.controller import Controller
from tests.support.local import LOCAL
from tests.support.play import run_tasks

STAMP = "2026-11-21T10:00:0{}.000Z"
PLAN: dict[str, Any] = {
    "secrets": [{"name": "KEY", "kind": "encryption_key", "strategy": "cutover", "retire_seconds": 60}],
    "phases": ["preflight", "promote", "restart"],
    "kinds": [],
    "hosts": {
        "api1": {"secrets": [], "jobs": [], "services": [{"name": "api"}], "probes": []},
        "db": {"secrets": [], "jobs": [], "services": [], "probes": []},
    },
    "helpers": {},
    "waived": [],
    "digest": "d" * 64,
}
ROTATION: dict[str, Any] = {
    "secrets": ["KEY"],
    "started_at": STAMP.format(0),
    "reason": "why",
    "plan_digest": "d" * 64,
    "entered": ["preflight", "promote"],
    "runs": [{"run_id": "r", "epoch": 1, "user": "ann", "started_at": STAMP.format(0), "interrupted": False}],
}
JOURNAL = [
    {"at": STAMP.format(1), "event": "advance", "phase": "preflight"},
    {"at": STAMP.format(2), "event": "advance", "phase": "promote"},
    {"at": STAMP.format(4), "event": "advance", "phase": "restart"},
]
CLOSED = {"closed": {"api1": {}, "db": {}}}
COUNTED = {
    "job": {"database": "app"},
    "coverage": [
        {"table": "t", "column": "c", "total": 5, "new": 5, "old": 0, "plaintext": 0, "null": 0, "unknown": 0},
    ],
}


def run(mode: str = "rotate", until: str = "", **answers: Any) -> account.Run:
    return account.Run(
        plan=PLAN,
        mode=mode,
        rotation_id="r1",
        rotation=ROTATION,
        register={"rotations": {"r1": ROTATION}},
        answers={**CLOSED, **answers},
        kinds=[("db", "verify", COUNTED)],
        until=until,
        who={"user": "ann"},
    )


def params(tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {"state_dir": str(tmp_path), "session_dir": None, "rotation_id": "r1", "epoch": 1, "libraries": [], **more}


def test_rotation_host_opens_and_closes_a_run(tmp_path: Path) -> None:
    opened = host.run(params(tmp_path, state="opened"), False)
    session = Session(str(tmp_path), str(tmp_path / "host"), "r1", 1)
    assert session.open_box(sealed.seal(b"value", opened["public"], "c"), "c") == b"value"
    assert (tmp_path / "host/session-r1.key").stat().st_mode & 0o777 == 0o600
    assert host.run(params(tmp_path, state="closed"), False)["changed"] is True
    assert not (tmp_path / "host/session-r1.key").exists()
    assert host.run(params(tmp_path, state="closed"), False)["changed"] is False


def test_a_run_that_was_taken_over_cannot_open_again(tmp_path: Path) -> None:
    host.run(params(tmp_path, state="opened", epoch=2), False)
    with pytest.raises(KeyturnError) as raised:
        host.run(params(tmp_path, state="opened", epoch=1), False)
    assert raised.value.code == "fenced"


def test_a_run_that_was_taken_over_leaves_the_keys_of_the_later_one(tmp_path: Path) -> None:
    host.run(params(tmp_path, state="opened", epoch=1), False)
    public = host.run(params(tmp_path, state="opened", epoch=2), False)["public"]
    assert host.run(params(tmp_path, state="closed", epoch=1), False)["changed"] is False
    later = Session(str(tmp_path), str(tmp_path / "host"), "r1", 2)
    assert later.open_box(sealed.seal(b"value", public, "c"), "c") == b"value"
    assert host.run(params(tmp_path, state="closed", epoch=2), False)["changed"] is True


def test_two_rotations_on_one_host_have_keys_of_their_own(tmp_path: Path) -> None:
    first = host.run(params(tmp_path, state="opened"), False)["public"]
    host.run(params(tmp_path, state="opened", rotation_id="r2", epoch=2), False)
    host.run(params(tmp_path, state="closed", rotation_id="r2", epoch=2), False)
    session = Session(str(tmp_path), str(tmp_path / "host"), "r1", 1)
    assert session.open_box(sealed.seal(b"value", first, "c"), "c") == b"value"


def test_what_killed_runs_left_goes_after_a_month(tmp_path: Path) -> None:
    for rotation in ("r2", "r3"):
        host.run(params(tmp_path, state="opened", rotation_id=rotation), False)
    old, kept = tmp_path / "host/session-r2.key", tmp_path / "host/session-r3.key"
    os.utime(old, (time.time() - 31 * 86_400,) * 2)
    host.run(params(tmp_path, state="opened"), False)
    assert not old.exists()
    assert kept.exists()


def test_a_box_for_another_run_does_not_open(tmp_path: Path) -> None:
    first = host.run(params(tmp_path, state="opened"), False)["public"]
    host.run(params(tmp_path, state="opened"), False)
    session = Session(str(tmp_path), str(tmp_path / "host"), "r1", 1)
    with pytest.raises(KeyturnError, match="does not open"):
        session.open_box(sealed.seal(b"v", first, "c"), "c")
    public = host.run(params(tmp_path, state="opened"), False)["public"]
    with pytest.raises(KeyturnError, match="does not open"):
        session.open_box(sealed.seal(b"v", public, "another context"), "c")


def test_rotation_gate_collects_boxes_by_recipient_and_leaves_stale_ones() -> None:
    sessions = {"db": {"public": "now"}}
    said = {
        "api1": {"sealed_for": {"db": "now"}, "secrets": {"KEY": {"boxes": {"db": {"new": "b1"}}}}},
        "lost": {"sealed_for": {"db": "before"}, "secrets": {"KEY": {"boxes": {"db": {"new": "stale"}}}}},
    }
    assert _boxes(said, sessions) == {"db": {"KEY": {"new": "b1"}}}


@pytest.mark.parametrize(
    ("done", "status", "lost"),
    [
        (run(), "overlap", []),
        (run(until="migrate"), "open", []),
        (run(stopped={"db": {"task": "t", "msg": "m"}}), "open", []),
        (run(cause={"db": {"rotation": "r1", "task": "t", "msg": "m"}}), "stuck", []),
        (run(stuck={"db": {"rotation": "r1", "task": "t", "msg": "m"}}), "stuck", []),
        (run(cause={"db": {"rotation": "r0", "task": "t", "msg": "m"}}), "overlap", []),
        (run("retire"), "retired", []),
        (run("retire", cause={"db": {"task": "t", "msg": "m"}}), "retiring", []),
        (run(turn={"db": {}}, is_back={"api1": {"value": "r1"}, "db": {"value": "r1"}}), "rolled_back", []),
        (run(turn={"db": {}}, is_back={"db": {"value": "r1"}}), "stuck", []),
        (run(turn={"db": {}}, is_back={"db": {"value": "r1"}}, closed={"db": {}}), "rollback_pending", ["api1"]),
        (run("rollback", turn={"db": {}}, is_back={"api1": {"value": "r0"}, "db": {"value": "r1"}}), "stuck", []),
    ],
)
def test_rotation_close_names_how_a_run_ended(done: account.Run, status: str, lost: list[str]) -> None:
    assert account.outcome(done) == (status, lost)


@pytest.mark.parametrize(("entered", "status"), [(["preflight", "backup"], "rolled_back"), (["stage"], "stuck")])
def test_before_stage_a_host_that_cannot_even_be_opened_is_as_it_was(entered: list[str], status: str) -> None:
    failed = run(turn={"db": {}}, is_back={"db": {"value": "r1"}}, stuck={"api1": {"task": "Open", "msg": "m"}})
    assert account.outcome(replace(failed, rotation={**ROTATION, "entered": entered})) == (status, [])


def test_the_record_is_one_that_evidence_takes_and_the_summary_says_the_way_back() -> None:
    record = account.evidence_record(run(), "overlap", [], JOURNAL, STAMP.format(5))
    check_record(record)
    assert record["gap_ms"] == 3000
    assert [phase["seconds"] for phase in record["phases"]] == [1.0, 2.0, 1.0]
    text = "\n".join(account.summary_lines(run(), "overlap", [], record, {"path": "/e", "report": "/e/report.html"}))
    for words in ("KEY has turned", "5 rows, 5 new", "2 of 2", "keyturn.rotation.rollback -e keyturn_only=KEY"):
        assert words in text


def test_what_looks_like_a_secret_in_people_s_words_does_not_keep_a_rotation_from_its_end() -> None:
    said = {
        "reason": "Bearer abcdefghijklmnopqrstuvwx was in a log",
        "cause": "db: cannot reach redis://:hunter2@cache",
    }
    ended = replace(run(), rotation={**run().rotation, **said})
    record = account.evidence_record(ended, "rolled_back", [], JOURNAL, STAMP.format(5))
    check_record(record)
    assert record["why"] == "******** was in a log"
    assert "went back: db: cannot reach redis://:********@cache" in record["messages"]


def test_the_end_says_which_copy_of_the_evidence_was_not_made() -> None:
    record = account.evidence_record(run(), "overlap", [], JOURNAL, STAMP.format(5))
    sealed = {"path": "/e", "report": "/e/report.html", "problems": ["The copy in /srv/copy was not made: full"]}
    lines = account.summary_lines(run(), "overlap", [], record, sealed)
    assert "  WARNING     The copy in /srv/copy was not made: full" in lines


def _retired(**pruned: Any) -> dict[str, Any]:
    """The record of a retire of a secret in one dotenv file, which turned a day before."""
    work = {"secrets": [{"name": "KEY", "stores": [{"path": "/srv/.env"}]}], "jobs": [], "services": [], "probes": []}
    rotation = {**ROTATION, "turned_at": "2026-11-20T10:00:00.000Z"}
    ended = replace(
        run("retire", pruned=pruned),
        plan={**PLAN, "hosts": {**PLAN["hosts"], "api1": work}},
        rotation=rotation,
        register={"rotations": {"r1": rotation}},
    )
    record = account.evidence_record(ended, "retired", [], JOURNAL, STAMP.format(5))
    check_record(record)
    return record


def test_the_record_of_a_retire_says_since_when_and_what_still_holds_the_version_before() -> None:
    known = {"complete": True, "foreign": False, "reason": "", "rotation_id": "r1", "files": ["/srv/.env"]}
    mine = {**known, "path": "/b/mine", "time": "2026-11-20T09:59:00+00:00", "expires": "2027-02-18T09:59:00+00:00"}
    later = {**known, "path": "/b/later", "time": "2026-11-21T09:00:00+00:00", "rotation_id": "r2", "expires": ""}
    record = _retired(api1={"backups": [mine, later]})
    assert record["backups"] == [{"host": "api1", "path": "/b/mine", "expires": mine["expires"]}]
    new, old = record["secrets"][0]["versions"]
    assert (new["state"], new["at"]) == ("primary", "2026-11-20T10:00:00.000Z")
    assert (old["state"], old["at"]) == ("retired", STAMP.format(5))
    assert _retired(api1={"backups": []})["backups"] == []


@pytest.mark.parametrize(
    ("status", "fields", "new", "old"),
    [
        ("rolled_back", {"entered": ["preflight", "stage"]}, STAMP.format(5), "2026-08-01T00:00:00.000Z"),
        ("stuck", {"entered": ["preflight", "stage"]}, STAMP.format(5), "2026-08-01T00:00:00.000Z"),
        ("refused", {"entered": ["preflight", "replace"]}, STAMP.format(5), "2026-08-01T00:00:00.000Z"),
        ("rolled_back", {"entered": ["stage", "promote"]}, STAMP.format(5), STAMP.format(5)),
        ("rolled_back", {"turned_at": "2026-11-20T10:00:00.000Z"}, STAMP.format(5), STAMP.format(5)),
        ("stayed", {"turned_at": STAMP.format(0), "was": {"status": "overlap"}}, STAMP.format(0), STAMP.format(0)),
    ],
)
def test_what_never_moved_is_primary_since_it_turned_and_not_since_the_failure(
    status: str, fields: dict[str, Any], new: str, old: str
) -> None:
    rotation = {**ROTATION, **fields}
    known = {"rotations": {"r1": rotation}, "secrets": {"KEY": {"primary_since": "2026-08-01T00:00:00.000Z"}}}
    ended = replace(run("rollback"), rotation=rotation, register=known)
    record = account.evidence_record(ended, status, [], JOURNAL, STAMP.format(5))
    check_record(record)
    assert [version["at"] for version in record["secrets"][0]["versions"]] == [new, old]
    first = {**known, "secrets": {}}
    record = account.evidence_record(replace(ended, register=first), status, [], JOURNAL, STAMP.format(5))
    check_record(record)
    expected = old if old.startswith("2026-11") else None
    assert record["secrets"][0]["versions"][1]["at"] == expected


def test_a_record_does_not_say_that_nothing_holds_the_version_before_where_nobody_knows() -> None:
    assert "backups" not in _retired()
    assert run().answers.get("pruned") is None
    assert account.evidence_record(run(), "overlap", [], JOURNAL, STAMP.format(5))["backups"] == []


def test_the_gap_begins_with_the_first_promote_although_a_run_was_interrupted() -> None:
    turned = [{"at": STAMP.format(0), "event": "finish"}]
    again = [{**entry, "at": f"2026-11-21T10:00:2{number}.000Z"} for number, entry in enumerate(JOURNAL)]
    journal = [*JOURNAL, {"at": STAMP.format(5), "event": "acquire"}, *again]
    record = account.evidence_record(run(), "overlap", [], journal, "2026-11-21T10:00:25.000Z")
    assert record["gap_ms"] == 23_000
    caught_up = [*journal[:3], *turned, *again]
    record = account.evidence_record(run(), "overlap", [], caught_up, "2026-11-21T10:00:25.000Z")
    assert record["gap_ms"] == 4_000, "what turned before is over"


@pytest.mark.parametrize(("status", "said"), [("overlap", True), ("rolled_back", False)])
def test_the_end_says_who_has_lost_a_way_back_by_it(status: str, said: bool) -> None:
    ended = replace(run(), plan={**PLAN, "losing": ["OTHER can no longer"]})
    record = account.evidence_record(ended, status, [], JOURNAL, STAMP.format(5))
    assert ("OTHER can no longer" in record["messages"]) is said


def test_only_hosts_that_are_back_are_counted_where_the_way_back_did_not_finish() -> None:
    stuck = run("rollback", turn={"db": {}}, is_back={"db": {"value": "r1"}, "api1": {"value": "r0"}})
    record = account.evidence_record(stuck, "stuck", [], JOURNAL, STAMP.format(5))
    check_record(record)
    assert record["hosts"]["done"] == ["db"]
    assert "  hosts       1 of 2 are back" in account.summary_lines(stuck, "stuck", [], record, {})


def test_columns_of_several_databases_are_told_apart() -> None:
    counts = dict.fromkeys(account.COUNTS, 0)
    column = {"host": "db", "table": "public.keys", "column": "private", **counts}
    rows = [{**column, "database": name} for name in ("app", "other")]
    hosts = {"hosts": {"done": ["db"], "expected": ["db"], "waived": []}}

    def said(*coverage: dict[str, Any]) -> list[str]:
        lines = account.summary_lines(run(), "overlap", [], {**hosts, "coverage": list(coverage)}, {})
        return [line.split()[1] for line in lines if line.startswith("  data")]

    assert said(*rows) == ["app:", "other:"]
    assert said(rows[0], rows[0]) == ["public.keys.private:"] * 2


STOPPED = {"rotation": "r1", "task": "Wait", "msg": "api is unhealthy."}


@pytest.mark.parametrize(
    ("mode", "cause", "status", "lost", "stuck", "text"),
    [
        (
            "rollback",
            registry.ASKED,
            "stuck",
            [],
            {"db": STOPPED},
            "The way back was asked for and did not finish. db: Wait: api is unhealthy.",
        ),
        (
            "rotate",
            "api1: Promote: no",
            "stuck",
            [],
            {"db": STOPPED, "api1": STOPPED, "other": {**STOPPED, "rotation": "r0"}},
            "The rotation failed and the way back did not finish. api1: Wait: api is unhealthy. (and 1 more, see the "
            "notes). What failed before that: api1: Promote: no",
        ),
        (
            "rotate",
            "",
            "stuck",
            [],
            {},
            "The rotation failed and the way back did not finish. a host was lost",
        ),
        (
            "rotate",
            "api1: Promote: no",
            "rolled_back",
            [],
            {},
            "The rotation failed and everything was brought back. api1: Promote: no",
        ),
        (
            "rotate",
            registry.ASKED,
            "rolled_back",
            [],
            {},
            "The way back was asked for, so everything was brought back and nothing has turned. The same command turns "
            "it",
        ),
        (
            "rollback",
            "api1: Promote: no",
            "rollback_pending",
            ["api1"],
            {},
            "The way back was asked for; api1 could not be brought back and is still to be done.",
        ),
    ],
    ids=["asked", "failed", "unknown", "back", "asked-before", "lost"],
)
def test_the_last_line_says_whether_going_back_was_asked_for_and_what_failed(
    mode: str, cause: str, status: str, lost: list[str], stuck: dict[str, Any], text: str
) -> None:
    ended = replace(run(mode, stuck=stuck), rotation={**ROTATION, "cause": cause})
    assert verdict(ended, status, lost) == text


def test_a_host_on_which_nothing_failed_is_not_said_to_be_lost() -> None:
    """A gate that stops one host stops all of them, and the others know of no task that failed."""
    failed = {"rotation": "r1", "task": "Swap the rows back", "msg": "nothing listens there."}
    unknown = {"rotation": "r1", "task": "unknown", "msg": "a host was lost"}
    stuck = replace(run(stuck={"api1": unknown, "db": failed}), rotation={**ROTATION, "cause": "db: Sweep: no"})
    assert verdict(stuck, "stuck", []) == (
        "The rotation failed and the way back did not finish. db: Swap the rows back: nothing listens there. "
        "What failed before that: db: Sweep: no"
    )
    assert account.stopped_on(stuck) == [("db", failed)]
    assert account.stopped_on(run(stuck={"api1": unknown})) == [("api1", unknown)]
    assert account.stopped_on(run(stuck={"api1": {**failed, "rotation": "r0"}})) == []


@pytest.mark.parametrize(
    ("entered", "from_the_start", "is_behind"),
    [(["stage", "promote"], [], True), (["stage", "promote"], ["api2"], False), (["stage"], [], False)],
    ids=["lost-and-waived", "never-had-it", "untouched"],
)
def test_a_host_that_a_way_back_does_without_is_not_called_back(
    entered: list[str], from_the_start: list[str], is_behind: bool
) -> None:
    waiver = {"reason": "mainboard", "until": "2999-01-01"}
    rotation = {
        **ROTATION,
        "cause": "api2 could not be reached",
        "entered": entered,
        "waived": [{"host": host, **waiver} for host in from_the_start],
    }
    ended = replace(run("rotate"), plan={**PLAN, "waived": [{"host": "api2", **waiver}]}, rotation=rotation)
    record = account.evidence_record(ended, "rolled_back", [], JOURNAL, STAMP.format(6))
    lines = account.summary_lines(ended, "rolled_back", [], record, {})
    assert ("except on api2" in verdict(ended, "rolled_back", [])) == is_behind
    assert (lines[1] == "KEY: everything is back on the version before, except on api2") == is_behind
    assert "  waived      api2" in lines
    assert ("api2 was waived and may hold the new version" in " ".join(record["messages"])) == is_behind


@pytest.mark.parametrize(
    ("cause", "lost", "why"),
    [({"api2": {"task": "Forget", "msg": "KEY is another one."}}, [], "api2: KEY is another one"),
     ({}, ["api2"], "api2 could not be reached")],
    ids=["failed", "lost"],
)  # fmt: skip
def test_the_last_line_of_a_retire_says_why_it_did_not_finish(cause: dict[str, Any], lost: list[str], why: str) -> None:
    text = f"Retire did not finish. {why}. Then run the retire playbook again"
    assert verdict(run("retire", cause=cause), "retiring", lost) == text


@pytest.mark.parametrize(
    ("status", "said", "cause"),
    [
        ("open", {"__rotation_cause": {"rotation": "r1", "task": "Promote", "msg": "no"}}, "db: Promote: no"),
        ("open", {"__rotation_cause": {"rotation": "r0", "task": "Promote", "msg": "no"}}, "a host was lost"),
        ("open", {"__rotation_x": {"unreachable": True}}, "db could not be reached"),
        ("rolling_back", {"__rotation_cause": {"rotation": "r1", "task": "Promote", "msg": "no"}}, ""),
    ],
    ids=["failed", "earlier-rotation", "lost", "asked"],
)
def test_going_back_has_a_cause_only_where_something_failed(status: str, said: dict[str, Any], cause: str) -> None:
    task_vars = {
        "ansible_play_hosts_all": ["db"],
        "hostvars": {"db": said},
        "__rotation_run": {"rotation": {"status": status}},
    }
    assert _cause(task_vars, "r1") == cause


@pytest.mark.parametrize(
    ("sanitize", "status", "made", "words"),
    [
        (False, "overlap", [], "old ciphertext is still in the files of t (dead rows), WAL and its archive"),
        (False, "retired", [], "old ciphertext is still in the files of t (dead rows), WAL and its archive"),
        (True, "overlap", [], "old ciphertext is still in the files of t (dead rows), WAL and its archive"),
        (True, "retired", [{"table": "public.t"}], "the files of public.t hold no old ciphertext any more; WAL"),
        (True, "retired", [], "old ciphertext is still in the files of t (dead rows), WAL and its archive"),
        (True, "rolled_back", [], ""),
    ],
    ids=["turned", "retired", "turned-to-sanitize", "sanitized", "not-sanitized", "back"],
)
def test_evidence_says_what_still_holds_old_ciphertext(
    sanitize: bool, status: str, made: list[dict[str, str]], words: str
) -> None:
    job = {"secret": "KEY", "database": "app", "columns": [{"table": "t", "column": "c"}], "sanitize": sanitize}
    done = replace(
        run("retire" if status == "retired" else "rotate"),
        plan={**PLAN, "hosts": {**PLAN["hosts"], "db": {**PLAN["hosts"]["db"], "jobs": [job]}}},
        kinds=[("db", "retire", {**COUNTED, "sanitized": made})],
    )
    record = account.evidence_record(done, status, [], JOURNAL, STAMP.format(5))
    check_record(record)
    assert (words in " ".join(record["messages"])) if words else record["messages"] == []


@pytest.mark.parametrize(
    ("sanitize", "line"),
    [
        (False, "old ciphertext stays in the files of t (dead rows), WAL and its archive, standbys, base backups"),
        (True, "retire makes t anew, which nobody can use meanwhile; old ciphertext stays in WAL and its archive"),
    ],
)
def test_the_plan_says_what_will_remain(sanitize: bool, line: str) -> None:
    job = {"secret": "KEY", "database": "app", "columns": [{"table": "t", "column": "c"}], "sanitize": sanitize}
    hosts = {"db": {"secrets": [], "jobs": [{**job, "clear": []}], "services": [], "probes": []}}
    planned = replace(run(), plan={**PLAN, "hosts": hosts, "strategy": "cutover"})
    assert f"  remains     {line}" in "\n".join(account.plan_lines(planned, []))


def test_the_plan_names_who_helps_and_who_would_if_it_could_be_reached() -> None:
    helpers = {"api1": [{"database": "app"}, {"database": "app"}], "more": [{"database": "app"}]}
    plan = {**PLAN, "helpers": helpers, "strategy": "cutover"}
    lines = account.plan_lines(replace(run(session={}), plan=plan), [])
    assert [line for line in lines if "helps" in line] == [
        "  helps       api1: app",
        "  helps       more: app, but cannot be reached now",
    ]


def test_the_evidence_says_which_hosts_shared_the_rows() -> None:
    shared = [{"host": "db", "parts": 3, "rows_written": 4000}, {"host": "more", "parts": 1, "rows_written": 7}]
    shared_run = replace(run(), kinds=[("db", "migrate", {**COUNTED, "shared": shared})])
    record = account.evidence_record(shared_run, "overlap", [], JOURNAL, STAMP.format(6))
    assert "app: 4 000 rows by db, 7 rows by more" in record["messages"]


def test_what_goes_wrong_on_a_host_that_helps_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def lost() -> dict[str, Any]:
        raise AnsibleConnectionFailure("ssh says something long")

    def refused() -> dict[str, Any]:
        raise KeyturnError("dsn-failed", "the login is refused", where="database app", hint="Look")

    assert tolerated("more", lambda: {"changed": True}) == {"changed": True}
    assert tolerated("more", lost) == {"skipped": True, "skip_reason": "it cannot be reached"}
    assert tolerated("more", refused)["skipped"] is True
    said = capsys.readouterr().err
    assert "more does not help: it cannot be reached" in said
    assert "the login is refused" in said


def test_a_host_that_refused_or_was_not_reached_is_not_taken_for_one_without_work() -> None:
    results = {"done": {"jobs": []}, "refused": {"failed": True}, "gone": {"unreachable": True}, "left out": None}
    hostvars = {host: {"__rotation_jobs": result} for host, result in results.items()}
    task_vars = {"hostvars": hostvars, "ansible_play_hosts_all": list(hostvars)}
    assert silent_hosts(task_vars, "__rotation_jobs") == ["refused", "gone"]


@pytest.mark.parametrize(
    ("result", "code", "text"),
    [
        ({"msg": "app: no. Look.", "code": "dsn-failed", "module_stdout": ""}, "dsn-failed", "app: no. Look."),
        ({"msg": "Traceback: no JSON", "data": "", "stderr": ""}, "module-lost", "ended without a result. Something"),
        ({"msg": "no JSON", "module_stdout": "", "rc": 137}, "module-lost", "without a result (exit code 137)."),
        ({"msg": "py was not found.", "module_stdout": "", "rc": 127}, "module-failed", "py was not found."),
        ({"msg": "Unsupported parameters"}, "module-failed", "Unsupported parameters"),
    ],
)
def test_a_module_that_was_killed_is_called_that(result: dict[str, Any], code: str, text: str) -> None:
    failure = failure_of({"failed": True, **result})
    assert failure.code == code
    assert text in str(failure)
    assert "JSON" not in str(failure)


def test_an_interrupted_phase_is_told() -> None:
    journal = [*JOURNAL[:2], {"at": STAMP.format(3), "event": "acquire"}, *JOURNAL[2:]]
    phases = account.phases_of(journal, STAMP.format(5), False)
    assert [(phase["name"], phase["result"]) for phase in phases] == [
        ("preflight", "ok"),
        ("promote", "interrupted"),
        ("restart", "ok"),
    ]


def test_rotation_show_tells_what_is_open_and_what_to_do() -> None:
    row = {
        "name": "KEY", "kind": "encryption_key", "due": "fresh", "primary_since": STAMP.format(0), "rotation_id": "r1",
        "status": "overlap", "phase": "", "retire_after": STAMP.format(9), "waived": ["api2"], "lost": [],
    }  # fmt: skip
    text = "\n".join(standing.status_lines({"secrets": [row]}, {}))
    assert "may be retired after" in text
    assert "still to catch up: api2" in text


def test_rotation_show_tells_which_jobs_run() -> None:
    row = {
        "name": "KEY", "kind": "encryption_key", "due": "fresh", "primary_since": STAMP.format(0), "rotation_id": "r1",
        "status": "open", "phase": "migrate", "retire_after": "", "waived": [], "lost": [],
    }  # fmt: skip
    job = {"secret": "KEY", "database": "app", "table": "t", "column": "c", "done": 5, "total": 10, "rate": 2.0}
    jobs = {"db": [{**job, "left_s": 2.5, "paused": False, "silent_s": 0.3}]}
    other = {"other": [{**job, "secret": "OTHER", "silent_s": 0.3}]}
    lines = standing.status_lines({"secrets": [row]}, {**jobs, **other})
    assert lines[-1] == "    app on db: t.c 5 of 10 rows (50 %), 2/s, 2 s left"
    assert "in migrate" in lines[-2]
    silent = [{**jobs["db"][0], "silent_s": 45.0}]
    assert account.job_lines("db", silent)[0].endswith("no word for 45.0 s")


def test_a_run_that_was_stopped_says_where_and_how_to_go_on() -> None:
    stopped = replace(run(stopped={"db": {"task": "t", "msg": "m"}}), rotation={**ROTATION, "phase": "migrate"})
    hosts = {"hosts": {"done": ["db"], "expected": ["db"], "waived": []}}
    lines = account.summary_lines(stopped, "open", [], hosts, {})
    assert "KEY: stopped in migrate as asked" in lines
    after = account.summary_lines(replace(stopped, answers={}, until="stage"), "open", [], hosts, {})
    assert "KEY: stopped after stage as asked" in after
    for said in (lines, after):  # not "the same command": with keyturn_until it would stop there again
        assert said[-2] == "  go on       ansible-playbook keyturn.rotation.rotate -e keyturn_only=KEY"


PLAY = """
- hosts: one
  gather_facts: false
  tasks:
    - keyturn.rotation.rotation_plan: {mode: validate}
      register: validated
    - keyturn.rotation.rotation_plan: {mode: status, state_dir: "{{ keyturn_state_dir }}"}
      register: planned
    - keyturn.rotation.rotation_show: {planned: "{{ planned }}", what: status}
      register: shown
    - keyturn.rotation.rotation_host: {state: opened, state_dir: "{{ keyturn_state_dir }}"}
      register: __rotation_session
    - keyturn.rotation.rotation_gate: {gate: preflight, plan: {hosts: {one: {}, two: {}}}}
      register: gate
      failed_when: false
    - keyturn.rotation.rotation_host: {state: closed, state_dir: "{{ keyturn_state_dir }}"}
      register: closed
    - keyturn.rotation.rotation_close:
        plan: {kinds: []}
        rotation_id: none
        epoch: 1
        state_dir: "{{ keyturn_state_dir }}"
      register: close
      failed_when: false
    - ansible.builtin.set_fact:
        __rotation_planned: "{{ planned }}"
        __rotation_restored: {restored: [/srv/.env], replaced: was, backup: {name: b, files: [/srv/.env]}}
    - keyturn.rotation.rotation_restored:
        plan:
          secrets: [{name: KEY, kind: encryption_key}]
          hosts: {one: {secrets: [{name: KEY, stores: [{path: /srv/.env}]}]}}
          waived: []
        reason: on purpose
        state_dir: "{{ keyturn_state_dir }}"
      register: restored
    - ansible.builtin.copy:
        content: "{{ {'names': validated.names, 'lines': shown.lines, 'gate': gate.msg, 'closed': closed.changed,
                  'close': close.msg, 'restored': restored.path} | to_json }}"
        dest: "{{ out }}"
        mode: "0600"
"""


def test_one_play_calls_each_of_them(tmp_path: Path) -> None:
    catalog = {
        "keyturn_state_host": "one",
        "keyturn_state_dir": str(tmp_path / "state"),
        "out": str(tmp_path / "out.json"),
        "keyturn_databases": {"app": {"hosts": "one", "dsn_file": "/dsn"}},
        "keyturn_secrets": {
            "KEY": {
                "kind": "encryption_key",
                "stores": [{"hosts": "one", "type": "env_file", "path": "/srv/.env"}],
                "data": [{"database": "app", "table": "t", "column": "c", "envelope": "fernet"}],
            }
        },
    }
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(yaml.safe_dump({"all": {"hosts": {"one": {}}, "vars": {**LOCAL, **catalog}}}))
    (tmp_path / "play.yml").write_text(PLAY)
    controller = Controller(tmp_path / "home")
    command = controller.command(inventory, "status")
    command[command.index("keyturn.rotation.status")] = str(tmp_path / "play.yml")
    done = subprocess.run(
        command, env=controller.environment, cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["names"] == ["KEY"]
    assert [line.split() for line in found["lines"] if " KEY " in line] == [
        ["KEY", "encryption_key", "no", "period", "never", "turned", "-", "-", "-", "-"]
    ]
    assert "two: cannot be reached" in found["gate"]
    assert found["closed"] is True
    assert "no rotation none" in found["close"]
    record = json.loads((Path(found["restored"]) / "evidence.json").read_text())
    assert (record["event"], record["why"], record["secrets"][0]["name"]) == ("restored", "on purpose", "KEY")


@pytest.mark.parametrize(
    ("ahead", "timed", "is_refused"), [(90_000, True, True), (90_000, False, False), (9, True, False)]
)
def test_time_alone_ends_no_overlap_while_a_clock_is_off(
    ahead: int, timed: bool, is_refused: bool, tmp_path: Path
) -> None:
    hosts = {host: {"said": 1_800_000_000 + (ahead if host == "one" else 0)} for host in ("one", "three", "two")}
    session = {"clock": "{{ said }}", "public": ""}
    gate = {
        "gate": "found",
        "mode": "retire",
        "timed": timed,
        "plan": {"secrets": [], "hosts": {host: {} for host in hosts}},
    }
    tasks = [
        {"name": "Say it", "ansible.builtin.set_fact": {"__rotation_session": session}},
        {"name": "Ask", "keyturn.rotation.rotation_gate": gate, "run_once": True},
    ]
    ended = run_tasks(tmp_path, hosts, tasks)
    assert (ended.code != 0) == is_refused, ended.output
    refusal = "one: its clock is off by more than 60 s. Set it. Until then nobody knows whether the window is over."
    assert (refusal in ended.output) == is_refused


def test_an_emergency_is_not_held_up_by_a_clock(tmp_path: Path) -> None:
    hosts = {host: {"said": 1_800_000_000 + (90_000 if host == "one" else 0)} for host in ("one", "three", "two")}
    session = {"clock": "{{ said }}", "public": "", "missing": [], "disk_free": 1 << 40}
    plan = {"secrets": [], "origins": {}, "hosts": {host: {"secrets": []} for host in hosts}}
    gate = {"gate": "preflight", "mode": "emergency", "plan": plan, "check_health": False}
    tasks = [
        {"name": "Say it", "ansible.builtin.set_fact": {"__rotation_session": session}},
        {"name": "Ask", "keyturn.rotation.rotation_gate": gate, "run_once": True},
    ]
    ended = run_tasks(tmp_path, hosts, tasks)
    assert ended.code == 0, ended.output
    words = "one: its clock is off by more than 60 s. Set it. This goes on: a compromised key does not wait for that"
    assert words in " ".join(ended.output.split())


def test_a_close_that_cannot_be_run_fails_the_run(tmp_path: Path) -> None:
    """Its own failures are told at the end, others at once."""
    state_dir = tmp_path / "state"
    about = {
        "__rotation_plan": "{{ nobody_knows_this }}",
        "__rotation_complete": True,
        "__rotation_number": "20260101T000000Z-000001",
        "__rotation_epoch": 1,
        "__rotation_register_dir": str(state_dir),
        "__rotation_state_host": "one",
        "__rotation_planned": {"plan": {"hosts": {"one": {}}}},
        "__rotation_event": "",
        "rotation_mode": "rotate",
    }
    run = {"rotation_id": about["__rotation_number"], "epoch": 1, "state_dir": str(state_dir)}
    role = {"name": "keyturn.rotation.rotation", "tasks_from": "close", "rolespec_validate": False}
    close = {"name": "Close", "ansible.builtin.include_role": role, "vars": about}
    block = {
        "name": "Turn",
        "block": [close],
        "module_defaults": {"group/keyturn.rotation.session": {**run, "session_dir": str(tmp_path / "session")}},
    }
    ended = run_tasks(tmp_path, {"one": {}}, [block])
    assert ended.code == 2, ended.output
    assert "FAILED! => " in ended.output
    assert "nobody_knows_this" in ended.output


@pytest.mark.parametrize("playbook", ["rotate", "plan", "rollback", "retire", "emergency"])
def test_arguments_that_are_none_are_refused_once_for_all_hosts(tmp_path: Path, playbook: str) -> None:
    """Playbooks leave the check to the role, since Ansible would do it on every host."""
    hosts = {host: {"keyturn_state_dir": str(tmp_path / host)} for host in ("one", "two")}
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": LOCAL}}))
    ended = Controller(tmp_path / "home").run(inventory, playbook, "-e", '{"rotation_take_over": "perhaps"}')
    assert ended.code == 2, ended.output
    assert "Validation of arguments failed:\nargument 'rotation_take_over'" in ended.output
    assert ended.output.count("FAILED! => ") == 1
    assert not (tmp_path / "one").exists()
    assert not (tmp_path / "two").exists()
