# SPDX-FileCopyrightText: keyturn.rotation contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What time asks for, the table of the status, and the program of the schedule with its units."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.keyturn.rotation.plugins.module_utils.state_host import stamp_of
from ansible_collections.keyturn.rotation.plugins.plugin_utils.agenda import age, agenda
from ansible_collections.keyturn.rotation.plugins.plugin_utils.standing import agenda_lines, notes_of, status_lines

from tests.support.controller import Controller, Ended
from tests.support.modules import ROOT

DAY = 86400
NOW = 1_800_000_000.0
PROGRAM = ROOT / "roles/schedule/files/keyturn_schedule.py"


def ago(days: float) -> str:
    return stamp_of(NOW - days * DAY)


def secret(**fields: Any) -> dict[str, Any]:
    return {"kind": "env_secret", "strategy": "replace", "cryptoperiod": "30d", **fields}


def register(**rotations: dict[str, Any]) -> dict[str, Any]:
    """A register: rotations by id, each with its secrets; ``held`` ones are open."""
    secrets: dict[str, Any] = {}
    for rotation_id, rotation in rotations.items():
        for name in rotation["secrets"]:
            here = {"open": rotation_id} if rotation.pop("held", False) else {"open": None, "current": rotation_id}
            secrets.setdefault(name, {}).update({**here, "primary_since": rotation.get("ended_at")})
    return {"secrets": secrets, "rotations": rotations}


def turned(days: float, *names: str, **fields: Any) -> dict[str, Any]:
    rotation = {"secrets": list(names), "status": "overlap", "ended_at": ago(days), "retire_after": ago(days - 1)}
    return {**rotation, **fields}


def runs(secrets: dict[str, Any], content: dict[str, Any], **options: Any) -> list[tuple[str, str]]:
    found = agenda(secrets, content, options.pop("alive", {}), NOW, 7 * DAY, **options)
    return [(run["playbook"], ",".join(run["only"])) for run in found["runs"]]


# -- what there is to do -------------------------------------------------------------------------------------------


def test_age_and_lateness_follow_the_cryptoperiod() -> None:
    found = age(secret(), {"primary_since": ago(40)}, NOW)
    assert found == {
        "age_s": 40 * DAY, "period_s": 30 * DAY, "next_due": ago(10)[:19] + "Z", "late_s": 10 * DAY, "ahead_s": 0,
    }  # fmt: skip
    assert age(secret(), {}, NOW)["late_s"] == 0


@pytest.mark.parametrize("seconds", [50, 365 * DAY])
def test_what_turned_at_a_time_to_come_is_said_since_nothing_is_due_until_then(seconds: int) -> None:
    record = {"primary_since": ago(-seconds / DAY)}
    row = {"rotation_id": "", **record, **age(secret(), record, NOW)}
    assert (row["age_s"], row["late_s"], row["ahead_s"]) == (0, 0, seconds)
    said = notes_of(row, {})
    assert [f"turned at {record['primary_since']}, which has not come yet" in line for line in said] == (
        [True] if seconds > DAY else []
    )
    assert age({"kind": "x"}, {"primary_since": ago(900)}, NOW)["next_due"] == ""


def test_what_is_due_turns_by_strategy_and_what_is_not_stays() -> None:
    secrets = {
        "A": secret(), "B": secret(), "C": secret(strategy="cutover"), "FRESH": secret(),
        "MINE": secret(auto_rotate=False), "EVER": {"kind": "x", "strategy": "replace"}, "HELD": secret(held=True),
    }  # fmt: skip
    content = register(r1=turned(40, "B", status="retired"), r2=turned(2, "FRESH", status="retired"))
    assert runs(secrets, content) == [("rotate", "A,B"), ("rotate", "C")]


def test_what_would_be_refused_in_the_same_run_turns_in_runs_of_its_own() -> None:
    def key(table: str) -> dict[str, Any]:
        return secret(strategy="cutover", data=[{"database": "app", "table": table, "column": "c"}])

    role = {"type": "postgres", "database": "app", "role": "app"}
    password = secret(strategy="cutover", server=role)
    secrets = {"A": key("t"), "B": key("public.t"), "C": key("u"), "D": secret(strategy="cutover"), "E": password}
    del secrets["B"]
    assert runs(secrets, register()) == [("rotate", "A,C,D"), ("rotate", "E")]
    secrets["E"] = secret(strategy="cutover", server=[{"type": "redis", "address": "cache:6379"}])
    assert runs(secrets, register()) == [("rotate", "A,C,D,E")]
    replaced = {"E": secret(server=role), "F": secret(), "G": {**key("t"), "strategy": "replace"}}
    assert runs(replaced, register()) == [("rotate", "E,F,G")]


def test_keys_of_one_column_turn_one_after_the_other() -> None:
    """They would share its side table, so the next waits until that before is retired."""

    def key(strategy: str = "cutover", table: str = "t") -> dict[str, Any]:
        return secret(strategy=strategy, data=[{"database": "app", "table": table, "column": "c"}], overlap_min="1d")

    secrets = {"A": key(), "B": key(table="public.t")}
    assert runs(secrets, register()) == [("rotate", "A")]
    assert runs(secrets, register(r1=turned(0.5, "A"))) == []
    assert runs(secrets, register(r1=turned(2, "A"))) == [("retire", "A"), ("rotate", "B")]
    assert runs(secrets, register(r1=turned(2, "A", status="retired"))) == [("rotate", "B")]
    assert runs({"A": key("overlap"), "B": key("overlap")}, register(r1=turned(0.5, "A"))) == [("rotate", "B")]


def test_trap_09_what_data_depends_on_is_left_to_people_and_the_table_says_why() -> None:
    held = {"N8N_ENCRYPTION_KEY": secret(), "POSTGRES_PASSWORD": secret(), "TOKEN": secret()}
    assert runs(held, register()) == [("rotate", "TOKEN")]
    derived = {"CHILD": {**secret(held=True), "derive": {"from": "TOKEN"}}}
    assert runs({**held, **derived}, register()) == [], "it would wait in every run"
    freed = {**held, "N8N_ENCRYPTION_KEY": secret(held=False)}
    assert runs(freed, register()) == [("rotate", "N8N_ENCRYPTION_KEY,TOKEN")]
    rows = [row("N8N_ENCRYPTION_KEY", None, held_back="other data is encrypted with it")]
    assert "    held back: other data is encrypted with it" in status_lines({"secrets": rows, "grace_s": 0}, {})


def test_several_rotations_that_may_be_retired_are_retired_one_by_one() -> None:
    secrets = {name: secret() for name in "ABCD"}
    content = register(
        r1=turned(3, "A", "B"),
        r2=turned(2, "C"),
        r3=turned(0.5, "D"),
    )
    assert runs(secrets, content) == [("retire", "A,B"), ("retire", "C")]


def test_what_waits_for_a_host_is_not_retired_and_catches_up_when_it_is_back() -> None:
    content = register(r1=turned(3, "A", waived=[{"host": "api2"}]))
    assert runs({"A": secret()}, content, waived=["api2"]) == []
    assert runs({"A": secret()}, content) == [("rotate", "A")]


@pytest.mark.parametrize(
    ("fields", "playbook"),
    [
        ({"status": "open", "holder": {"run_id": "dead"}}, "rotate"),
        ({"status": "rolling_back", "holder": {"run_id": "dead"}}, "rollback"),
        ({"status": "retiring", "holder": {"run_id": "dead"}}, "retire"),
        ({"status": "retiring", "holder": None}, "retire"),
        ({"status": "open", "holder": {"run_id": "else"}, "lease_until": NOW - 1}, "rotate"),
    ],
)
def test_an_interrupted_run_is_finished(fields: dict[str, Any], playbook: str) -> None:
    content = register(r1=turned(90, "A", held=True, **fields))
    assert runs({"A": secret()}, content, alive={"dead": False}) == [(playbook, "A")]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"status": "open", "holder": None}, "open"),
        ({"status": "open", "holder": {"run_id": "alive"}}, "at work"),
        ({"status": "open", "holder": {"run_id": "else"}, "lease_until": NOW + 1}, "at work"),
        ({"status": "stuck", "holder": None}, "stuck"),
        ({"status": "rollback_pending", "holder": None}, "rollback_pending"),
    ],
)
def test_what_a_person_has_to_decide_is_left_alone_and_told_when_it_is_late(fields: dict[str, Any], said: str) -> None:
    content = register(r1=turned(90, "A", held=True, **fields))
    found = agenda({"A": secret()}, content, {"alive": True}, NOW, 7 * DAY)
    assert (found["runs"], found["overdue"]) == ([], ["A"])
    assert [entry["status"] for entry in found["waiting"]] == [said]
    assert f"  waits     A: rotation r1 is {said}" in agenda_lines(found)


def test_overdue_begins_after_the_grace() -> None:
    content = register(r1=turned(36, "A", status="retired"), r2=turned(38, "B", status="retired"))
    found = agenda({"A": secret(), "B": secret()}, content, {}, NOW, 7 * DAY)
    assert found["overdue"] == ["B"]
    assert found["ended"] == {"A": ago(36), "B": ago(38)}


def test_only_what_is_asked_about_is_named_and_a_rotation_as_a_whole() -> None:
    secrets = {name: secret() for name in "ABCDEK"}
    content = register(
        r1=turned(50, "A", "B"),
        r2=turned(50, "C", held=True, status="open", holder=None),
        r3=turned(50, "D", "E", held=True, status="open", holder={"run_id": "dead"}),
    )
    content["secrets"]["E"]["open"] = "r3"

    def said(*only: str) -> tuple[list[tuple[str, str]], list[str], list[str]]:
        found = agenda(secrets, content, {"dead": False}, NOW, 7 * DAY, (), only)
        waits = [name for entry in found["waiting"] for name in entry["secrets"]]
        return [(run["playbook"], ",".join(run["only"])) for run in found["runs"]], waits, found["overdue"]

    everything = [("rotate", "D,E"), ("retire", "A,B"), ("rotate", "A,B,K")]
    assert said() == (everything, ["C"], ["A", "B", "C", "D", "E"])
    assert said("A") == ([("retire", "A,B"), ("rotate", "A")], [], ["A"])
    assert said("C", "K") == ([("rotate", "K")], ["C"], ["C"])
    assert said("E") == ([("rotate", "D,E")], [], ["E"])


# -- the table -----------------------------------------------------------------------------------------------------


def row(name: str, days: float | None, period: int = 30, **fields: Any) -> dict[str, Any]:
    record = {} if days is None else {"primary_since": ago(days)}
    stands = age(secret(cryptoperiod=f"{period}d"), record, NOW)
    due = "due" if days is None or days >= period else "fresh"
    return {
        "name": name, "kind": "env_secret", "due": due, "primary_since": "", "rotation_id": "",
        "status": "never turned", "phase": "", "retire_after": "", "waived": [], "lost": [],
        **record, **stands, **fields,
    }  # fmt: skip


def test_the_table_has_every_secret_and_the_most_urgent_first() -> None:
    rows = [row("SOON", 29), row("LATER", 2), row("DUE", 31), row("LATE", 50), row("LATEST", 90), row("NEVER", None)]
    lines = status_lines({"secrets": rows, "grace_s": 7 * DAY}, {})
    assert " ".join(lines[2].split()) == "SECRET KIND STATE TURNED AGE NEXT DUE ROTATION LAST EVIDENCE"
    assert [line.split()[0] for line in lines[3:]] == ["LATEST", "LATE", "DUE", "NEVER", "SOON", "LATER"]
    assert "overdue by 60 d" in lines[3]
    assert "90 d of 30 d" in lines[3]
    assert ago(1 - 2)[:10] in lines[7], "the day on which it is due"


# -- the program ---------------------------------------------------------------------------------------------------

_FAKE = """#!{python}
import json, pathlib, sys
here = pathlib.Path({folder!r})
extra = json.loads(sys.argv[sys.argv.index("-e") + 1])
name = next(word for word in sys.argv if word.startswith("keyturn.rotation.")).rpartition(".")[2]
with (here / "calls").open("a") as calls:
    print(json.dumps([name, extra, sys.argv[1:]]), file=calls)
plan = json.loads((here / "plan").read_text())
if name == "due" and plan["due"]:
    said = plan["due"].pop(0)
    (here / "plan").write_text(json.dumps(plan))
    if said is None:
        sys.exit(4)
    pathlib.Path(extra["keyturn_due_to"]).write_text(json.dumps(said))
sys.exit(plan["exit"].get(name + " " + str(extra.get("keyturn_only")), 0))
"""


class Program:
    """The program of the schedule with an ``ansible-playbook`` that says what a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fake = folder / "ansible-playbook"
        self.fake.write_text(_FAKE.format(python=sys.executable, folder=str(folder)))
        self.fake.chmod(0o755)

    def run(self, *due: Any, **codes: int) -> int:
        """One round; the codes by ``playbook_NAMES``."""
        exits = {name.replace("_", " ", 1): code for name, code in codes.items()}
        (self.folder / "plan").write_text(json.dumps({"due": list(due), "exit": exits}))
        options = ["-i", "one.yml", "-i", "two.yml", "--", "--vault-password-file", "/x y"]
        command = [sys.executable, str(PROGRAM), "--command", str(self.fake), *options]
        return subprocess.run(command, check=False, capture_output=True).returncode

    def calls(self) -> list[tuple[str, dict[str, Any]]]:
        """The playbooks that it ran, with what it asked for."""
        lines = [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]
        for _name, _extra, words in lines:
            assert words[:6] == ["-i", "one.yml", "-i", "two.yml", "--vault-password-file", "/x y"]
        return [(name, extra) for name, extra, _words in lines]


def said(*work: tuple[str, str], overdue: tuple[str, ...] = (), **ended: str) -> dict[str, Any]:
    found = [{"playbook": playbook, "only": only.split(",")} for playbook, only in work]
    return {"now": "2026-11-21T10:00:00.000Z", "runs": found, "waiting": [], "overdue": overdue, "ended": ended}


def test_a_round_with_nothing_to_do_asks_once_and_tells_nobody(tmp_path: Path) -> None:
    program = Program(tmp_path)
    assert program.run(said()) == 0
    assert [name for name, _extra in program.calls()] == ["due"]


def test_a_round_does_everything_although_something_fails_and_tells_of_it(tmp_path: Path) -> None:
    program = Program(tmp_path)
    work = said(("retire", "A"), ("rotate", "B,C"), ("rotate", "D"))
    assert program.run(work, said(overdue=("B",)), retire_A=2) == 1
    calls = program.calls()
    assert [name for name, _extra in calls] == ["due", "retire", "rotate", "rotate", "due", "tell", "tell"]
    assert calls[2][1] == {"keyturn_only": "B,C", "keyturn_reason": "scheduled"}
    assert calls[5][1] == {
        "keyturn_event": "failed", "keyturn_only": "A", "keyturn_commands": ["retire A (exit code 2)"]
    }  # fmt: skip
    assert calls[6][1]["keyturn_event"] == "overdue"
    assert calls[6][1]["keyturn_only"] == "B"


def test_a_rotation_that_has_told_of_its_end_is_not_told_twice(tmp_path: Path) -> None:
    program = Program(tmp_path)
    assert program.run(said(("rotate", "A")), said(A="2026-11-21T10:00:05.000Z"), rotate_A=2) == 1
    assert [name for name, _extra in program.calls()] == ["due", "rotate", "due"]


def test_a_failure_is_told_although_the_secret_turned_while_a_clock_was_ahead(tmp_path: Path) -> None:
    program = Program(tmp_path)
    ahead = "2027-11-21T10:00:05.000Z"
    assert program.run(said(("rotate", "A"), A=ahead), said(A=ahead), rotate_A=2) == 1
    assert [name for name, _extra in program.calls()] == ["due", "rotate", "due", "tell"]


def test_a_failure_is_told_although_another_run_of_that_secret_has_come_to_its_end(tmp_path: Path) -> None:
    """First A was retired, which told of itself; then its turning was refused before it began."""
    program = Program(tmp_path)
    first, retired = said(("retire", "A"), ("rotate", "A")), "2026-11-21T10:00:05.000Z"
    between = {**said(A=retired), "now": "2026-11-21T10:00:06.000Z"}
    assert program.run(first, between, between, rotate_A=2) == 1
    calls = program.calls()
    assert [name for name, _extra in calls] == ["due", "retire", "due", "rotate", "due", "tell"]
    assert calls[-1][1]["keyturn_commands"] == ["rotate A (exit code 2)"]
    (tmp_path / "calls").unlink()
    assert program.run(first, between, said(A="2026-11-21T10:00:09.000Z"), rotate_A=2) == 1
    assert [name for name, _extra in program.calls()][-1] == "due", "it has told of itself"
    (tmp_path / "calls").unlink()
    assert program.run(first, None, between, rotate_A=2) == 1
    assert [name for name, _extra in program.calls()][-1] == "due", "nobody knows: it counts from the beginning"


def test_a_schedule_that_sees_nothing_says_so(tmp_path: Path) -> None:
    program = Program(tmp_path)
    assert program.run(None) == 1
    assert program.calls()[-1] == (
        "tell", {"keyturn_event": "failed", "keyturn_only": "", "keyturn_commands": ["see what is due"]}
    )  # fmt: skip
    (tmp_path / "calls").unlink()
    assert program.run(said(("rotate", "A")), None) == 1
    assert program.calls()[-1][1]["keyturn_commands"] == ["see what is due"]
    shutil.rmtree(tmp_path / "calls", ignore_errors=True)
    program.fake.unlink()
    assert program.run() == 1


# -- the units -----------------------------------------------------------------------------------------------------

_SYSTEMCTL = """#!/bin/sh
# systemctl(1) for one timer: what it is asked to change is noted.
cd {folder}
case "$1" in
  show) printf 'LoadState=loaded\\nActiveState=%s\\nSubState=x\\nId=x\\n' "$(cat state)" ;;
  is-enabled) cat enabled; test "$(cat enabled)" = enabled ;;
  start|restart) echo "$@" >> calls; echo active > state ;;
  stop) echo "$@" >> calls; echo inactive > state ;;
  enable) echo "$@" >> calls; echo enabled > enabled ;;
  disable) echo "$@" >> calls; echo disabled > enabled ;;
  daemon-reload) echo "$@" >> calls ;;
esac
"""


class Installed:
    """The role with folders of a test's own, and a ``systemctl`` that notes what it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.units = folder / "units"
        self.units.mkdir()
        (folder / "bin").mkdir()
        for name, text in (("state", "inactive\n"), ("enabled", "disabled\n"), ("calls", "")):
            (folder / name).write_text(text)
        fake = folder / "bin" / "systemctl"
        fake.write_text(_SYSTEMCTL.format(folder=folder))
        fake.chmod(0o755)
        self.controller = Controller(folder / "home")
        self.controller.environment["PATH"] = f"{fake.parent}:{self.controller.environment['PATH']}"

    def run(self, *arguments: str, **variables: Any) -> Ended:
        """Run the role on this machine."""
        variables = {
            "schedule_unit_dir": str(self.units),
            "schedule_user": "root",
            "schedule_directory": str(self.folder),
            "schedule_program": str(self.folder / "lib" / "keyturn_schedule.py"),
            "schedule_environment_file": str(self.folder / "etc" / "schedule.env"),
            "schedule_environment": {"VAULT": 'top "secret" \\ word'},
            **variables,
        }
        role = {"name": "S", "ansible.builtin.include_role": {"name": "keyturn.rotation.schedule"}, "vars": variables}
        play = self.folder / "play.yml"
        play.write_text(json.dumps([{"name": "P", "hosts": "localhost", "gather_facts": False, "tasks": [role]}]))
        program = str(Path(sys.executable).parent / "ansible-playbook")
        local = [
            "-i",
            "localhost,",
            "-c",
            "local",
            "-e",
            f"ansible_python_interpreter={sys.executable}",
            "-vvv",
            "--diff",
        ]
        done = subprocess.run(
            [program, *local, str(play), *arguments],
            env=self.controller.environment, cwd=self.folder, check=False, capture_output=True, text=True,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout + done.stderr)

    def calls(self) -> list[str]:
        """What systemctl was asked to change since the last time."""
        lines = (self.folder / "calls").read_text().splitlines()
        (self.folder / "calls").write_text("")
        return lines


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


def test_the_timer_is_installed_changed_and_removed(installed: Installed) -> None:
    def files() -> list[str]:
        found = [path for path in installed.folder.rglob("*") if path.parent.name in ("units", "lib", "etc")]
        return sorted(path.name for path in found)

    ended = installed.run("--check")
    assert (ended.code, files(), installed.calls()) == (0, [], []), ended.output
    ended = installed.run()
    assert ended.code == 0, ended.output
    assert files() == ["keyturn-schedule.service", "keyturn-schedule.timer", "keyturn_schedule.py", "schedule.env"]
    assert installed.calls() == ["daemon-reload", "enable keyturn-schedule.timer", "start keyturn-schedule.timer"]
    for arguments in (["--check"], []):
        ended = installed.run(*arguments)
        assert "changed=0" in ended.output, ended.output
        assert installed.calls() == []
    ended = installed.run(schedule_on_calendar=["Mon *-*-* 04:00:00", "Thu *-*-* 04:00:00"])
    assert installed.calls() == ["daemon-reload", "restart keyturn-schedule.timer"], ended.output
    ended = installed.run("--check", schedule_state="absent")
    assert (len(files()), installed.calls()) == (4, []), ended.output
    ended = installed.run(schedule_state="absent")
    assert (ended.code, files()) == (0, []), ended.output
    assert installed.calls() == ["disable keyturn-schedule.timer", "stop keyturn-schedule.timer", "daemon-reload"]
    ended = installed.run(schedule_state="absent")
    assert "changed=0" in ended.output, ended.output


def test_values_of_the_environment_are_private_and_shown_nowhere(installed: Installed) -> None:
    ended = installed.run(schedule_enabled=False)
    path = installed.folder / "etc" / "schedule.env"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().splitlines()[-1] == 'VAULT="top \\"secret\\" \\\\ word"'
    assert '"secret\\' not in ended.output.replace("\\\\", "\\")
    for broken in ({"NOT A NAME": "x"}, {"A": "two\nlines"}):
        ended = installed.run(schedule_environment=broken, schedule_enabled=False)
        assert ended.code == 2
        assert "is no name, or its value has several lines" in ended.output


def test_a_user_that_does_not_exist_is_refused(installed: Installed) -> None:
    ended = installed.run(schedule_user="nobody-has-this-name", schedule_enabled=False)
    assert ended.code == 2, ended.output
    assert list(installed.units.iterdir()) == []


def test_systemd_takes_the_units(installed: Installed) -> None:
    """As systemd reads them: no warning, the words of the command as they were given, and hardened."""
    ended = installed.run(
        schedule_enabled=False,
        schedule_command=str(Path(sys.executable).parent / "ansible-playbook"),
        schedule_inventory=["in ventory.yml", "100%.yml"],
        schedule_options=["--vault-password-file", '/etc/"$HOME"'],
        schedule_writable=["/home/x/.ansible", "/srv/with space"],
        schedule_on_calendar=["Mon..Fri *-*-* 02:30:00", "Sat 12:00"],
    )
    assert ended.code == 0, ended.output
    units = [str(path) for path in sorted(installed.units.iterdir())]
    verified = subprocess.run(["systemd-analyze", "verify", *units], check=False, capture_output=True, text=True)
    ours = [line for line in verified.stderr.splitlines() if "keyturn" in line]
    assert (verified.returncode, ours) == (0, []), verified.stderr
    service = (installed.units / "keyturn-schedule.service").read_text()
    assert '--inventory "in ventory.yml" --inventory "100%%.yml"' in service
    assert '-- "--vault-password-file" "/etc/\\"$$HOME\\""\n' in service
    timer = (installed.units / "keyturn-schedule.timer").read_text()
    for line in timer.splitlines():
        if line.startswith("OnCalendar="):
            words = line.partition("=")[2]
            assert (
                subprocess.run(["systemd-analyze", "calendar", words], check=False, capture_output=True).returncode == 0
            )
    exposed = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=40", units[0]],
        check=False, capture_output=True, text=True, env={**os.environ, "SYSTEMD_PAGER": ""},
    )  # fmt: skip
    assert exposed.returncode == 0, exposed.stdout[-2000:] + exposed.stderr
